"""Checks of prekeys, sessions, identities and sender keys (chapter 08 §5.4 items 1, 5 to 8, and the self-test)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Final, NoReturn

from waD.e2ee import adv, curve, groups, ratchet, skipped
from waD.e2ee.address import AddressError, SignalAddress
from waD.e2ee.curve import KeyPair
from waD.e2ee.errors import SignalError
from waD.e2ee.groups import SenderKeyRecord
from waD.e2ee.limits import MAX_COUNTER, MAX_PREKEY_ID, MAX_SKIPPED_KEYS
from waD.e2ee.messages import parse_signal_message
from waD.e2ee.record import ReceiverChain, SenderChain, SessionRecord, SessionState
from waD.link.credentials import Credentials
from waD.link.prekeys import OneTimePreKey, PreKeyRecordError
from waD.messaging import kinds
from waD.messaging.values import ValueDamaged, decode_identity
from waD.transfer.state import AuthState, Report
from waD.transfer.verify_creds import fits
from waD.wire.errors import JIDError
from waD.wire.jid import JID

PROBE: Final = b"waD self-test"
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,7}", re.ASCII)


def check(state: AuthState, report: Report, *, deep: bool) -> None:
    """Report on everything that Signal needs; `deep` checks keys and tries every open session as well."""
    _check_prekeys(state, report, deep=deep)
    identities = _identities(state, report)
    _check_primary(state.creds, identities, report)
    for key, document in state.of(kinds.SESSION).items():
        _check_session(state.creds, key, document, identities.get(key), report, deep=deep)
    for key, document in state.of(kinds.SENDER_KEY).items():
        _check_sender_key(key, document, report, deep=deep)


# -------------------------------------------------------------------------------------------------------- prekeys


def _check_prekeys(state: AuthState, report: Report, *, deep: bool) -> None:
    read = [
        prekey
        for key, document in state.of(kinds.PREKEY).items()
        if (prekey := _prekey(key, document, report, deep=deep)) is not None
    ]
    ahead = [prekey.id for prekey in read if _is_ahead(prekey.id, state.creds.next_prekey_id)]
    if ahead:
        report.error(
            "prekey_counter_behind",
            f"{kinds.PREKEY}/{min(ahead)}",
            f"{len(ahead)} prekeys have ids that would be given out again",
        )
    _check_flags(read, state.creds.next_prekey_id, report)


def _prekey(key: str, document: bytes, report: Report, *, deep: bool) -> OneTimePreKey | None:
    item = f"{kinds.PREKEY}/{key[:32]}"
    try:
        if _NUMBER.fullmatch(key) is None:
            raise PreKeyRecordError("its id is no number")
        prekey = OneTimePreKey.parse(int(key), document)
    except PreKeyRecordError as error:
        report.error("item_unreadable", item, str(error))
        return None
    if deep and not fits(prekey.key):
        report.error("pre_key_mismatch", item, "the public key is not that of the private one")
    return prekey


def _is_ahead(number: int, next_id: int) -> bool:
    """Whether an id is still to come; ids go round, so the nearer half of the circle lies ahead."""
    return (number - next_id) % MAX_PREKEY_ID < MAX_PREKEY_ID // 2


def _check_flags(read: Iterable[OneTimePreKey], next_id: int, report: Report) -> None:
    """Keys go up in the order of their ids, so none that waits is older than one that went (§5.4 item 8)."""
    age = {prekey.id: (next_id - prekey.id) % MAX_PREKEY_ID for prekey in read}
    waiting = [age[prekey.id] for prekey in read if prekey.state == "new"]
    gone = [age[prekey.id] for prekey in read if prekey.state == "uploaded"]
    if waiting and gone and max(waiting) > min(gone):
        report.warn(
            "prekey_flags_mixed", kinds.PREKEY, "a prekey waits for upload that is older than an uploaded one"
        )


# ------------------------------------------------------------------------------------------------------- sessions


def _identities(state: AuthState, report: Report) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for key, document in state.of(kinds.IDENTITY).items():
        try:
            SignalAddress.parse(key)
            found[key] = decode_identity(document)
        except (AddressError, ValueDamaged) as error:
            report.error("item_unreadable", f"{kinds.IDENTITY}/{key[:80]}", str(error))
    return found


def _check_primary(creds: Credentials, identities: dict[str, bytes], report: Report) -> None:
    """The identity of the own phone is the key that signed this device (§5.4 item 5)."""
    key = _account_key(creds)
    if key is None:
        return
    for me, domain in ((creds.me_lid, 1), (creds.me_pn, 0)):
        if me is None:
            continue
        address = SignalAddress(me.user, domain, 0).text
        if identities.get(address, key) != key:
            report.warn(
                "primary_identity_mismatch",
                f"{kinds.IDENTITY}/{address}",
                "not the key that signed this device",
            )


def _account_key(creds: Credentials) -> bytes | None:
    try:
        return None if creds.account is None else adv.parse_signed_identity(creds.account).accountSignatureKey
    except adv.AdvError:
        return None  # told with the credentials


def _check_session(
    creds: Credentials, key: str, document: bytes, identity: bytes | None, report: Report, *, deep: bool
) -> None:
    item = f"{kinds.SESSION}/{key[:80]}"
    try:
        SignalAddress.parse(key)
        record = SessionRecord.parse(document)
    except (AddressError, SignalError) as error:
        report.error("item_unreadable", item, str(error))
        return
    for place, state in enumerate(record.states()):
        try:
            _check_state(state, deep=deep)
        except _Unfit as fault:
            which = "the open session" if state is record.current else f"archived session {place}"
            report.error("session_invalid", item, f"{which}: {fault}")
    if record.current is not None:
        _check_current(creds, record.current, identity, item, report, deep=deep)


class _Unfit(Exception):  # noqa: N818 - what is the case
    """A state has a part that no library writes."""


def _unfit(detail: str) -> NoReturn:
    raise _Unfit(detail)


def _check_state(state: SessionState, *, deep: bool) -> None:
    if deep and not fits(KeyPair(curve.clamp(state.sender.private), state.sender.public)):
        _unfit("the ratchet key is not that of its private half")
    if state.pending is not None and (state.pending.base_key != state.base_key or state.own_base is False):
        _unfit("it offers a base key that is not its own")
    if state.sender.next > MAX_COUNTER + 1 or state.previous_counter > MAX_COUNTER + 1:
        _unfit("a counter beyond the last one")
    ratchets = [chain.ratchet for chain in state.receivers]
    if len(set(ratchets)) != len(ratchets):
        _unfit("two receiving chains of one ratchet key")
    for chain in state.receivers:
        _check_chain(chain)


def _check_chain(chain: ReceiverChain) -> None:
    seeds = [counter for counter, _, _ in skipped.unpack(chain.seeds, skipped.SEED_ENTRY)]
    triples = [counter for counter, _, _ in skipped.unpack(chain.triples, skipped.TRIPLE_ENTRY)]
    _check_skipped(seeds, chain.next)
    _check_skipped(triples, chain.next)
    if set(seeds) & set(triples):
        _unfit("two skipped keys of one counter")


def _check_skipped(counters: list[int], below: int) -> None:
    """Skipped keys are found by halving: they must be in order."""
    if any(later <= earlier for earlier, later in pairwise(counters)):
        _unfit("skipped keys out of order")
    if len(counters) > MAX_SKIPPED_KEYS or (counters and counters[-1] >= below):
        _unfit("skipped keys beyond the chain, or too many")


def _check_current(
    creds: Credentials,
    current: SessionState,
    identity: bytes | None,
    item: str,
    report: Report,
    *,
    deep: bool,
) -> None:
    if current.local_identity != creds.identity.public:
        report.warn("session_foreign", item, "it was made with another identity of ours, so it sends nothing")
    elif current.local_registration_id != creds.registration_id:
        report.warn("session_registration", item, "it was made under another registration id of ours")
    if identity is not None and identity != current.remote_identity:
        report.warn(
            "identity_mismatch", item, "the peer's identity has changed since: the session is to be archived"
        )
    if current.sender.next > MAX_COUNTER:
        report.warn("session_exhausted", item, "its sending chain has used its last counter")
    elif deep and not current.stale and not decrypts_itself(current):
        report.error("session_self_test", item, "a message encrypted on a copy of it cannot be decrypted")


def decrypts_itself(state: SessionState) -> bool:
    """Encrypt on a copy of a state, and decrypt as the peer would; the state stays as it is."""
    sender = state.sender
    peer = SessionState(
        state.remote_identity,
        state.local_identity,
        state.remote_registration_id,
        state.local_registration_id,
        state.root_key,
        0,
        SenderChain(sender.public, sender.private, 0, sender.key),
        (ReceiverChain(sender.public, sender.next, sender.key),),
        None,
        state.base_key,
        None,
    )
    try:
        _, letter = ratchet.encrypt(state, PROBE, 0)
        _, read = ratchet.decrypt(peer, parse_signal_message(letter), _draws_nothing, 0)
    except SignalError:
        return False
    return read == PROBE


def _draws_nothing() -> KeyPair:
    raise SignalError("bad_mac", "the message is not of the chain it was made on")


# ---------------------------------------------------------------------------------------------------- sender keys


def _check_sender_key(key: str, document: bytes, report: Report, *, deep: bool) -> None:
    item = f"{kinds.SENDER_KEY}/{key[:160]}"
    try:
        group, _, author = key.rpartition("|")
        JID.parse(group)
        SignalAddress.parse(author)
        record = SenderKeyRecord.parse(document)
    except (AddressError, JIDError, SignalError) as error:
        report.error("item_unreadable", item, str(error))
        return
    for state in record.states:
        try:
            _check_skipped(
                [number for number, _, _ in skipped.unpack(state.seeds, skipped.SEED_ENTRY)], state.iteration
            )
            if state.iteration > MAX_COUNTER + 1:
                _unfit("an iteration beyond the last one")
            if deep and state.private is not None:
                _check_own(state)
        except _Unfit as fault:
            report.error("sender_key_invalid", item, str(fault))


def _check_own(state: groups.SenderKeyState) -> None:
    assert state.private is not None
    if not fits(KeyPair(curve.clamp(state.private), state.public)):
        _unfit("the signing key is not that of its private half")
