"""Making an old auth state fit to be used again (chapter 08 §7.5; chapter 03 §8.7): pure.

What happened since on its conversations is not in it, so nothing that it would send with is used again: sessions go
or become receive-only until their next key exchange, own sender keys go, one-time prekeys are never offered again, ids
that may be taken are left out. Only the archive of a planned move goes on as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import msgspec

from waD.e2ee.address import AddressError, SignalAddress
from waD.e2ee.errors import SignalError
from waD.e2ee.limits import MAX_PREKEY_ID
from waD.e2ee.record import SessionRecord
from waD.e2ee.session import mark_stale
from waD.link.credentials import MAX_SIGNED_PREKEYS, Credentials, SignedPreKey
from waD.link.prekeys import OneTimePreKey, PreKeyRecordError
from waD.messaging import kinds
from waD.store.canonical import canonical
from waD.store.model import OutboxRow
from waD.transfer.collections import without_broken
from waD.transfer.state import AuthState, Report

Mode: TypeAlias = Literal["drop", "receive-only"]
"""What becomes of pairwise sessions."""
ItemKey: TypeAlias = tuple[str, str]

DAY_MS: Final = 86_400_000
PREKEY_ID_GAP: Final = 10_000
SIGNED_PREKEY_ID_GAP: Final = 16
"""Ids that may have been used since are left out (chapter 08 §7.5)."""

_EXPIRED: Final = frozenset({kinds.DEVICES})
"""Kinds that are fetched anew."""
_FORGOTTEN: Final = frozenset(
    {kinds.RETRY, kinds.SENDER_KEY_MEMORY, kinds.RESTORE_POINT, kinds.APP_STATE_REQUEST}
)
"""Kinds that are of no use to another state than the one that wrote them (chapter 08 §1.2)."""
_FACTS: Final = frozenset({kinds.IDENTITY, kinds.IDENTITY_CHANGE, kinds.NUMBER_ALIAS})
"""Kinds of which the state in place knows better."""


@dataclass(slots=True)
class Revival:
    """A state made fit to be used again.

    Attributes:
        creds: credentials.
        items: everything else by kind and key.
        receive_only: pairwise sessions that still decrypt.
        dropped: pairwise sessions that are gone.
        peers: accounts whose sessions are among the two.
        sender_keys: own ones that were dropped.
        stale_prekeys: one-time prekeys that are never uploaded again.
        damaged: items that could not be read and were dropped.
        exact: the state goes on as it was.
    """

    creds: Credentials
    items: dict[ItemKey, bytes]
    receive_only: int = 0
    dropped: int = 0
    peers: int = 0
    sender_keys: int = 0
    stale_prekeys: int = 0
    damaged: int = 0
    exact: bool = False

    def __repr__(self) -> str:
        return f"Revival({len(self.items)} items, exact={self.exact})"


def continued(state: AuthState) -> Revival:
    """The state of a planned move, which nobody has used since: it goes on exactly (chapter 08 §7.4)."""
    return Revival(state.creds, dict(state.items), exact=True)


def revive(
    state: AuthState,
    now_ms: int,
    random: Callable[[int], bytes],
    mode: Mode = "drop",
    *,
    backup_ms: int | None = None,
    local: AuthState | None = None,
    report: Report | None = None,
) -> Revival:
    """Apply the rules of a disaster restore.

    Args:
        state: the old state; unreadable items of it are dropped and counted.
        now_ms: Unix milliseconds.
        random: source of a new signed prekey.
        mode: `receive-only` keeps sessions for what is on its way to them.
        backup_ms: when the state was saved; notes the restore, so that stale prekeys end one day.
        local: the state in place, of the same identity or of none: what it knows of others is kept.
        report: takes conflicts between the two.
    """
    revival = Revival(state.creds, {})
    for (kind, key), value in state.items.items():
        try:
            kept = _revived(kind, key, value, revival, mode)
        except (SignalError, PreKeyRecordError, ValueError):
            revival.damaged += 1
        else:
            if kept is not None:
                revival.items[kind, key] = kept
    for name in without_broken(revival.items):
        if report is not None:
            report.warn(
                "app_state_hash_mismatch",
                f"{kinds.APP_STATE_VERSION}/{name}",
                "the collection is fetched anew",
            )
    revival.peers = len(peers_of(state))
    own = local.creds if local is not None and local.creds.identity == state.creds.identity else None
    if local is not None:
        _merge(revival, local, report or Report(), same=own is not None)
    revival.creds = _renumbered(state.creds, own, now_ms, random)
    if backup_ms is not None:
        revival.items[kinds.RESTORE_POINT, "last"] = canonical({"at": now_ms, "backup": backup_ms})
    return revival


def _revived(kind: str, key: str, value: bytes, revival: Revival, mode: Mode) -> bytes | None:
    if kind in _EXPIRED or kind in _FORGOTTEN:
        return None
    if kind == kinds.SESSION:
        return _session(value, revival, mode)
    if kind == kinds.PREKEY:
        prekey = _stale(key, value)
        revival.stale_prekeys += 1
        return prekey
    if kind == kinds.SENDER_KEY and is_own(key, revival.creds):
        revival.sender_keys += 1
        return None
    return value


def _session(value: bytes, revival: Revival, mode: Mode) -> bytes | None:
    if mode == "drop":
        revival.dropped += 1
        return None
    kept = mark_stale(SessionRecord.parse(value)).serialize()
    revival.receive_only += 1
    return kept


def _stale(key: str, value: bytes) -> bytes:
    prekey = OneTimePreKey.parse(int(key), value)
    return OneTimePreKey(prekey.id, prekey.key, "stale").serialize()


def is_own(sender_key: str, creds: Credentials) -> bool:
    """Whether a sender key is this device's; the author's address is behind the group's."""
    try:
        author = SignalAddress.parse(sender_key.rpartition("|")[2])
    except AddressError:
        return False
    own = {(jid.user, jid.device) for jid in (creds.me_pn, creds.me_lid) if jid is not None}
    return (author.user, author.device) in own


def peers_of(state: AuthState) -> set[str]:
    """Accounts with a pairwise session, without the own one; a person by number and by LID is one."""
    lids = state.of(kinds.LID_OF_PN)
    own = {jid.user for jid in (state.creds.me_pn, state.creds.me_lid) if jid is not None}
    found: set[str] = set()
    for key in state.of(kinds.SESSION):
        try:
            user = SignalAddress.parse(key).user
        except AddressError:
            user = key
        if user not in own:
            found.add(lids[user].decode("utf-8", "replace").strip('"') if user in lids else user)
    return found


# --------------------------------------------------------------------------------------------------- credentials


def _renumbered(
    creds: Credentials, local: Credentials | None, now_ms: int, random: Callable[[int], bytes]
) -> Credentials:
    """Ids that may be in use go unused, and the next login uploads a full lot and rotates the signed prekey."""
    signed = _signed_prekeys(creds, local)
    highest = max(key.id for key in signed)
    return creds.change(
        signed_prekeys=signed,
        last_rotation_ms=0,
        rotation_candidate=SignedPreKey.make(
            _later(highest, SIGNED_PREKEY_ID_GAP), creds.identity, random, now_ms
        ),
        next_prekey_id=_later(_furthest(creds, local), PREKEY_ID_GAP),
        server_has_prekeys=False,
        routing_info=None,
    )


def _signed_prekeys(creds: Credentials, local: Credentials | None) -> tuple[SignedPreKey, ...]:
    """The current one, made due for rotation, and what else may be known to the server.

    A candidate may have reached the server, so that messages made with it may come. The state in place comes first:
    its keys are the newer ones.
    """
    listed: list[SignedPreKey] = []
    for each in (local, creds):
        if each is not None:
            staged = () if each.rotation_candidate is None else (each.rotation_candidate,)
            listed += [each.signed_prekey, *staged, *each.signed_prekeys[1:]]
    by_key: dict[bytes, SignedPreKey] = {}
    for key in listed:
        by_key.setdefault(key.key.public, key)
    first, *others = by_key.values()
    return (msgspec.structs.replace(first, created_ms=0), *others)[:MAX_SIGNED_PREKEYS]


def _furthest(creds: Credentials, local: Credentials | None) -> int:
    """The counter that has come further; ids go round, so the nearer way round tells."""
    if local is None:
        return creds.next_prekey_id
    ahead = (local.next_prekey_id - creds.next_prekey_id) % MAX_PREKEY_ID
    return local.next_prekey_id if ahead < MAX_PREKEY_ID // 2 else creds.next_prekey_id


def _later(number: int, gap: int) -> int:
    return (number + gap - 1) % MAX_PREKEY_ID + 1


def columns(creds: Credentials) -> dict[str, str | None]:
    """What the session's row repeats of the credentials."""
    return {
        "me_pn": None if creds.me_pn is None else str(creds.me_pn),
        "me_lid": None if creds.me_lid is None else str(creds.me_lid),
        "push_name": creds.push_name or None,
        "business_name": creds.business_name or None,
        "platform": creds.platform or None,
    }


# ---------------------------------------------------------------------------------------- with the state in place


def _merge(revival: Revival, local: AuthState, report: Report, *, same: bool) -> None:
    """Keep what the state in place knows: it has seen more. `same`: it is of the same identity key."""
    for (kind, key), value in local.items.items():
        held = revival.items.get((kind, key))
        if kind in _FACTS:
            if kind == kinds.IDENTITY and held not in (None, value):
                report.warn("identity_conflict", f"{kind}/{key}", "the one that is in place is kept")
            revival.items[kind, key] = value
        elif kind == kinds.TRUSTED_CONTACT and (held is None or _time_of(value) >= _time_of(held)):
            revival.items[kind, key] = value
        elif kind == kinds.PREKEY and same:
            _add_prekey(revival, key, value)
    _merge_lids(revival, local, report)


def _add_prekey(revival: Revival, key: str, value: bytes) -> None:
    """Prekeys that were made since the backup may be on the server."""
    try:
        stale = _stale(key, value)
    except (PreKeyRecordError, ValueError):
        return
    revival.stale_prekeys += (kinds.PREKEY, key) not in revival.items
    revival.items[kinds.PREKEY, key] = stale


def _merge_lids(revival: Revival, local: AuthState, report: Report) -> None:
    """Pairs of the state in place replace those that have one of their halves."""
    lids, pns = local.of(kinds.LID_OF_PN), local.of(kinds.PN_OF_LID)
    taken = {kinds.LID_OF_PN: set(lids.values()), kinds.PN_OF_LID: {canonical(pn) for pn in lids}}
    known = {kinds.LID_OF_PN: lids, kinds.PN_OF_LID: pns}
    for kind, key in [*revival.items]:
        if kind not in known:
            continue
        other, ours = revival.items[kind, key], known[kind].get(key)
        if kind == kinds.LID_OF_PN and ours not in (None, other):
            report.warn("lid_map_conflict", f"{kind}/{key}", "the pair that is in place is kept")
        if ours is None and other in taken[kind]:
            del revival.items[kind, key]
    for kind, pairs in known.items():
        revival.items.update({(kind, key): other for key, other in pairs.items()})


def _time_of(token: bytes) -> int:
    try:
        time = msgspec.json.decode(token).get("ts")
    except (msgspec.DecodeError, ValueError, AttributeError, RecursionError):
        return -1
    return time if isinstance(time, int) else -1


def held(row: OutboxRow) -> OutboxRow:
    """A row of the outbox as it is restored: what may have been sent waits for the operator."""
    if row.state not in ("queued", "sending"):
        return row
    return msgspec.structs.replace(row, state="held", stanza=None)
