"""Pairwise sessions: what to do with a record, a bundle or a message (chapter 03 §2 to §4).

Pure functions over immutable records: each returns the new record or raises SignalError and changes nothing.
`now_ms` is Unix time in milliseconds; 0 leaves times as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from waD.e2ee import curve, ratchet, skipped, x3dh
from waD.e2ee.errors import SignalError, malformed
from waD.e2ee.limits import MAX_ARCHIVED_SESSIONS
from waD.e2ee.messages import (
    PreKeyMessage,
    SignalMessage,
    encode_prekey_message,
    parse_prekey_message,
    parse_signal_message,
)
from waD.e2ee.record import SessionRecord, SessionState, expire_skipped
from waD.e2ee.x3dh import LocalIdentity as LocalIdentity
from waD.e2ee.x3dh import PreKeyBundle as PreKeyBundle

MessageKind: TypeAlias = Literal["msg", "pkmsg"]
FindKey: TypeAlias = Callable[[int], curve.KeyPair | None]
"""Looks a prekey up by its id, without side effects."""

_EMPTY = SessionRecord(None)
_ERROR_RANK = {"duplicate": 0, "bad_mac": 1}


class Encrypted(Struct, frozen=True):
    """An advanced record and the bytes for one `<enc type=kind>`."""

    record: SessionRecord
    kind: MessageKind
    data: bytes

    def __repr__(self) -> str:
        return f"Encrypted(kind={self.kind}, {len(self.data)} bytes)"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("kind", self.kind), ("bytes", len(self.data))]


class Decrypted(Struct, frozen=True):
    """A decrypted message and everything to be committed with it.

    `consumed_prekey`: the one-time prekey to delete. `identity`: the 32-byte identity key of the session that
    decrypted. `established`: a new session was made; `promoted`: an archived one became current again.
    """

    record: SessionRecord
    plaintext: bytes
    consumed_prekey: int | None
    identity: bytes
    established: bool
    promoted: bool

    def __repr__(self) -> str:
        return (
            f"Decrypted({len(self.plaintext)} bytes, consumed_prekey={self.consumed_prekey}, "
            f"identity={curve.fingerprint(self.identity)}, established={self.established}, "
            f"promoted={self.promoted})"
        )

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("bytes", len(self.plaintext)), ("identity", curve.fingerprint(self.identity))]


def process_bundle(
    record: SessionRecord | None,
    local: LocalIdentity,
    bundle: PreKeyBundle,
    base: curve.KeyPair,
    ratchet_pair: curve.KeyPair,
    now_ms: int = 0,
    *,
    pinned: bytes | None = None,
) -> SessionRecord:
    """Start a session from a bundle; a current one is archived.

    `base` and `ratchet_pair` are fresh, drawn in this order. `pinned`: the only identity the operator trusts.
    Raises SignalError with `malformed`, `untrusted_identity` or `invalid_signature`.
    """
    _check_pin(bundle.identity, pinned)
    x3dh.check_bundle(bundle)
    state = x3dh.initiate(local, bundle, base, ratchet_pair, now_ms)
    return _with_new_current(record or _EMPTY, state, now_ms)


def encrypt(record: SessionRecord, local: LocalIdentity, plaintext: bytes, now_ms: int = 0) -> Encrypted:
    """Encrypt on the current session.

    Raises SignalError(no_session) when there is none that may send: none at all, one restored from a backup,
    or one made with another identity of ours. Raises SignalError(exhausted) at the end of a chain.
    """
    state = record.current
    if state is None or state.stale or state.local_identity != local.identity.public:
        raise SignalError("no_session", "no session to send on")
    advanced, data = ratchet.encrypt(state, plaintext, now_ms)
    after = _with_current(record, advanced, now_ms)
    pending = state.pending
    if pending is None:
        return Encrypted(after, "msg", data)
    wrapped = encode_prekey_message(
        local.registration_id,
        pending.prekey_id,
        pending.signed_prekey_id,
        pending.base_key,
        state.local_identity,
        data,
    )
    return Encrypted(after, "pkmsg", wrapped)


def decrypt(
    record: SessionRecord | None,
    local: LocalIdentity,
    kind: str,
    data: bytes,
    find_prekey: FindKey,
    find_signed_prekey: FindKey,
    draw: Callable[[], curve.KeyPair],
    now_ms: int = 0,
    *,
    pinned: bytes | None = None,
) -> Decrypted:
    """Decrypt one `<enc>` of type `msg` or `pkmsg` (chapter 03 §2.3, §3.3).

    `draw` returns a fresh ratchet key pair; it is called at most once. Raises SignalError with any pairwise
    code of chapter 03 §3.5.
    """
    if kind == "msg":
        return _decrypt_message(record, local, parse_signal_message(data), draw, now_ms, pinned)
    if kind == "pkmsg":
        message = parse_prekey_message(data)
        _check_pin(message.identity, pinned)
        known = _find_offered(record, local, message)
        if known is not None:
            return _decrypt_known(record or _EMPTY, known, message, draw, now_ms)
        return _decrypt_new(record, local, message, find_prekey, find_signed_prekey, draw, now_ms)
    raise malformed(f"unknown message kind {kind[:16]!r}")


def archive_current(record: SessionRecord, now_ms: int = 0) -> SessionRecord:
    """Move the current session to the archive: the next send needs a bundle, late messages still decrypt."""
    if record.current is None:
        return record
    return SessionRecord(None, _archived_with(record, now_ms), record.oldest_skipped_ms)


def mark_stale(record: SessionRecord) -> SessionRecord:
    """Make a restored record receive-only (chapter 08 §7.5): a session sends again after its next DH step."""
    current = None if record.current is None else replace(record.current, stale=True)
    archived = tuple(replace(state, stale=True) for state in record.archived)
    return SessionRecord(current, archived, record.oldest_skipped_ms)


def merge(lid_record: SessionRecord | None, pn_record: SessionRecord | None) -> SessionRecord | None:
    """Join the records of one device under its two addresses (chapter 03 §4.1).

    The LID's current session stays current; all others follow, newest use first. Of two copies of one session
    the one used last is kept.
    """
    if lid_record is None or pn_record is None:
        return lid_record or pn_record
    current = lid_record.current or pn_record.current
    others = [state for state in (*pn_record.states(), *lid_record.archived) if state is not current]
    ranked = sorted(others, key=lambda state: state.used_ms, reverse=True)
    unique = {} if current is None else {_identity_of(current): current}
    for state in ranked:
        kept = unique.setdefault(_identity_of(state), state)
        if kept is current and state.used_ms > kept.used_ms:
            current = unique[_identity_of(state)] = replace(state, closed_ms=None)
    archived = tuple(_archived(state, state.used_ms) for state in unique.values() if state is not current)
    times = [time for time in (lid_record.oldest_skipped_ms, pn_record.oldest_skipped_ms) if time]
    return SessionRecord(current, archived[:MAX_ARCHIVED_SESSIONS], min(times, default=0))


def drop_dead(record: SessionRecord, local_identity: bytes) -> SessionRecord | None:
    """Drop sessions that were made with another identity key of ours; None when nothing is left."""
    alive = [state for state in record.states() if state.local_identity == local_identity]
    if not alive:
        return None
    current = alive.pop(0) if alive[0] is record.current else None
    return SessionRecord(current, tuple(alive), record.oldest_skipped_ms)


def _decrypt_message(
    record: SessionRecord | None,
    local: LocalIdentity,
    message: SignalMessage,
    draw: Callable[[], curve.KeyPair],
    now_ms: int,
    pinned: bytes | None,
) -> Decrypted:
    best: SignalError | None = None
    for state in () if record is None else record.states():
        if state.local_identity != local.identity.public:
            continue
        try:
            _check_pin(state.remote_identity, pinned)
            after, plaintext = ratchet.decrypt(state, message, draw, now_ms)
        except SignalError as error:
            best = _more_telling(best, error)
            continue
        assert record is not None
        return _decrypted(record, state, after, plaintext, now_ms)
    raise best or SignalError("no_session", "no session with this device", counter=message.counter)


def _find_offered(
    record: SessionRecord | None, local: LocalIdentity, message: PreKeyMessage
) -> SessionState | None:
    """Find the session an earlier message of the same flight made."""
    for state in () if record is None else record.states():
        if (
            state.base_key == message.base_key
            and state.own_base is not True
            and state.local_identity == local.identity.public
        ):
            return state
    return None


def _decrypt_known(
    record: SessionRecord,
    state: SessionState,
    message: PreKeyMessage,
    draw: Callable[[], curve.KeyPair],
    now_ms: int,
) -> Decrypted:
    if message.identity != state.remote_identity:
        raise malformed("a prekey message that claims another identity than its session has")
    after, plaintext = ratchet.decrypt(state, message.message, draw, now_ms)
    return _decrypted(record, state, after, plaintext, now_ms)


def _decrypt_new(
    record: SessionRecord | None,
    local: LocalIdentity,
    message: PreKeyMessage,
    find_prekey: FindKey,
    find_signed_prekey: FindKey,
    draw: Callable[[], curve.KeyPair],
    now_ms: int,
) -> Decrypted:
    signed_prekey = find_signed_prekey(message.signed_prekey_id)
    if signed_prekey is None:
        raise SignalError(
            "invalid_signed_prekey_id",
            f"no signed prekey {message.signed_prekey_id}",
            key_id=message.signed_prekey_id,
        )
    prekey = None
    if message.prekey_id is not None:
        prekey = find_prekey(message.prekey_id)
        if prekey is None:
            raise SignalError(
                "invalid_prekey_id", f"no one-time prekey {message.prekey_id}", key_id=message.prekey_id
            )
    offered = x3dh.respond(local, message, signed_prekey, prekey, now_ms)
    after, plaintext = ratchet.decrypt(offered, message.message, draw, now_ms)
    return Decrypted(
        _with_new_current(record or _EMPTY, after, now_ms),
        plaintext,
        message.prekey_id,
        after.remote_identity,
        established=True,
        promoted=False,
    )


def _decrypted(
    record: SessionRecord, before: SessionState, after: SessionState, plaintext: bytes, now_ms: int
) -> Decrypted:
    """Put the state that decrypted back, promoting it when it was archived.

    An archived session with another identity than the current session stays archived: it belongs to an
    installation that has been replaced, and nothing may be sent to it (chapter 03 §7.1).
    """
    current = record.current
    promoted = False
    if before is current:
        updated = _with_current(record, after, now_ms)
    elif current is not None and current.remote_identity != after.remote_identity:
        archived = tuple(after if state is before else state for state in record.archived)
        updated = _finished(SessionRecord(current, archived, record.oldest_skipped_ms), after, now_ms)
    else:
        others = tuple(state for state in record.archived if state is not before)
        rest = SessionRecord(current, others, record.oldest_skipped_ms)
        updated = _with_new_current(rest, replace(after, closed_ms=None), now_ms)
        promoted = True
    return Decrypted(updated, plaintext, None, after.remote_identity, established=False, promoted=promoted)


def _with_current(record: SessionRecord, state: SessionState, now_ms: int) -> SessionRecord:
    return _finished(SessionRecord(state, record.archived, record.oldest_skipped_ms), state, now_ms)


def _with_new_current(record: SessionRecord, state: SessionState, now_ms: int) -> SessionRecord:
    archived = record.archived if record.current is None else _archived_with(record, now_ms)
    return _finished(SessionRecord(state, archived, record.oldest_skipped_ms), state, now_ms)


def _finished(record: SessionRecord, touched: SessionState, now_ms: int) -> SessionRecord:
    """Keep the skipped-key clock of a record about to be written."""
    if not now_ms:
        return record
    if record.oldest_skipped_ms:
        return expire_skipped(record, now_ms)
    if any(chain.seeds for chain in touched.receivers):
        return SessionRecord(record.current, record.archived, skipped.stamp(now_ms))
    return record


def _archived_with(record: SessionRecord, now_ms: int) -> tuple[SessionState, ...]:
    assert record.current is not None
    return (_archived(record.current, now_ms), *record.archived)[:MAX_ARCHIVED_SESSIONS]


def _archived(state: SessionState, now_ms: int) -> SessionState:
    closed = state.closed_ms if state.closed_ms is not None else now_ms
    return replace(state, pending=None, closed_ms=closed)


def _identity_of(state: SessionState) -> tuple[bytes, bytes]:
    return state.base_key, state.remote_identity


def _more_telling(best: SignalError | None, error: SignalError) -> SignalError:
    if best is None or _ERROR_RANK.get(error.code, 2) < _ERROR_RANK.get(best.code, 2):
        return error
    return best


def _check_pin(identity: bytes, pinned: bytes | None) -> None:
    if pinned is not None and identity != pinned:
        raise SignalError(
            "untrusted_identity",
            f"identity {curve.fingerprint(identity)} is not the pinned {curve.fingerprint(pinned)}",
        )
