"""libsignal-node session records and Baileys sender keys (chapter 08 §2.5, §2.6, §5).

Their counters name the last generated key, ours the next one. Bytes are base64 in JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec.structs import replace

from waD.e2ee import curve, skipped
from waD.e2ee.groups import SenderKeyRecord, SenderKeyState
from waD.e2ee.interop.common import (
    SEED_LENGTH,
    ConversionError,
    Imported,
    JsonObject,
    ValueRefusedError,
    check_state,
    decode_bytes,
    encode_base64,
    encode_public,
    limited_state,
    load_json,
    previous_counter,
    read_bytes,
    read_int,
    read_list,
    read_object,
    read_public,
    receiver_chain,
    sender_chain,
    sender_key_record,
    sender_key_state,
    session_record,
)
from waD.e2ee.limits import MAX_COUNTER, MAX_PREKEY_ID, MAX_UINT32
from waD.e2ee.record import PendingPreKey, ReceiverChain, SessionRecord, SessionState
from waD.e2ee.x3dh import LocalIdentity

OWN_BASE_KEY: Final = 1
THEIR_BASE_KEY: Final = 2
SENDING_CHAIN: Final = 1
RECEIVING_CHAIN: Final = 2
OPEN: Final = -1
_MAX_TIME: Final = (1 << 53) - 1


@dataclass(frozen=True, slots=True, repr=False)
class ExportedSession:
    """A libsignal-node record as JSON objects; `omitted_keys` skipped keys had no seed and were left out."""

    value: JsonObject
    omitted_keys: int

    def __repr__(self) -> str:
        return f"ExportedSession(omitted_keys={self.omitted_keys})"


def import_session(
    value: object, local: LocalIdentity, now_ms: int = 0, *, prune: bool = True
) -> Imported[SessionRecord]:
    """Convert a record, given as JSON text or parsed; `local` fills in what the format leaves out.

    `now_ms` becomes the time of skipped keys; `prune` drops closed chains without skipped keys. Raises
    ConversionError.
    """
    record = load_json(value)
    sessions = record.get("_sessions") if isinstance(record, dict) else None
    if not isinstance(record, dict) or not isinstance(sessions, dict):
        raise ConversionError("item_unreadable", "not a libsignal-node session record")
    warnings: list[str] = []
    states = []
    for name, entry in sessions.items():
        try:
            state = _import_state(name, entry, record.get("registrationId", 0), local, now_ms)
            states.append(limited_state(state, warnings, prune=prune))
        except (ValueRefusedError, curve.CurveError) as error:
            warnings.append(f"session_invalid: {error}")
    states.sort(key=lambda state: state.used_ms, reverse=True)
    opened = [state for state in states if state.closed_ms is None]
    current = opened[0] if opened else None
    if len(opened) > 1:
        warnings.append(f"{len(opened)} open sessions: all but the last used one archived")
    archived = [
        state if state.closed_ms is not None else replace(state, closed_ms=state.used_ms)
        for state in states
        if state is not current
    ]
    return session_record(current, archived, warnings, now_ms)


def export_session(record: SessionRecord) -> ExportedSession:
    """Convert to the JSON objects of a record; sessions that must not send are written as closed."""
    states = list(record.states())
    entries: JsonObject = {}
    omitted = 0
    for index, state in enumerate(states):
        is_open = state is record.current and not state.stale
        # One base key names one session: of two the newer stands first.
        entries.setdefault(
            encode_public(state.base_key), _export_state(state, len(states) - index, is_open=is_open)
        )
        omitted += sum(len(chain.triples) // skipped.TRIPLE_ENTRY for chain in state.receivers)
    return ExportedSession({"_sessions": entries, "version": "v1"}, omitted)


def import_sender_key(value: object, now_ms: int = 0, *, prune: bool = True) -> Imported[SenderKeyRecord]:
    """Convert the sender-key file of any Baileys version; the newest state is last there.

    `prune` drops the skipped keys of our own states. Raises ConversionError.
    """
    warnings: list[str] = []
    states = []
    for entry in reversed(_sender_key_entries(value)):
        try:
            states.append(_import_sender_key_state(entry, now_ms))
        except (ValueRefusedError, curve.CurveError) as error:
            warnings.append(f"sender_key_invalid: {error}")
    return sender_key_record(states, warnings, prune=prune)


def export_sender_key(record: SenderKeyRecord) -> str:
    """Return the file text; its inner byte strings are the ones every Baileys version reads."""
    entries = [_export_sender_key_state(state) for state in reversed(record.states)]
    return msgspec.json.encode(_buffer(msgspec.json.encode(entries))).decode()


def _import_state(
    name: str, value: object, registration_id: object, local: LocalIdentity, now_ms: int
) -> SessionState:
    entry = read_object(value, "session")
    ratchet = read_object(entry.get("currentRatchet"), "current ratchet")
    info = read_object(entry.get("indexInfo"), "index info")
    base_key = read_public(info.get("baseKey"), "base key")
    if read_public(name, "name of the session") != base_key:
        raise ValueRefusedError("the session's name is not its base key")
    ours = read_object(ratchet.get("ephemeralKeyPair"), "ratchet key pair")
    public = read_public(ours.get("pubKey"), "ratchet key")
    sending, receivers = _import_chains(entry, ratchet, public, now_ms)
    closed = read_int(info.get("closed", OPEN), "closed", least=OPEN, most=_MAX_TIME)
    own_base = read_int(info.get("baseKeyType"), "base key type", least=1, most=2) == OWN_BASE_KEY
    state = SessionState(
        local_identity=local.identity.public,
        remote_identity=read_public(info.get("remoteIdentityKey"), "remote identity"),
        local_registration_id=local.registration_id,
        remote_registration_id=read_int(entry.get("registrationId", registration_id), "registration id"),
        root_key=read_bytes(ratchet.get("rootKey"), curve.KEY_LENGTH, "root key"),
        previous_counter=previous_counter(ratchet.get("previousCounter", 0)),
        sender=sender_chain(
            public,
            read_bytes(ours.get("privKey"), curve.KEY_LENGTH, "private ratchet key"),
            _next(sending),
            read_bytes(sending.get("key"), curve.KEY_LENGTH, "sending chain key"),
        ),
        receivers=receivers,
        pending=_import_pending(entry.get("pendingPreKey")),
        base_key=base_key,
        own_base=own_base,
        created_ms=read_int(info.get("created", 0), "created", most=_MAX_TIME),
        used_ms=read_int(info.get("used", 0), "used", most=_MAX_TIME),
        closed_ms=None if closed == OPEN else closed,
    )
    check_state(state)
    return state


def _import_chains(
    entry: JsonObject, ratchet: JsonObject, public: bytes, now_ms: int
) -> tuple[JsonObject, tuple[ReceiverChain, ...]]:
    """Return the chain key object of the sending chain, and the receiving chains, newest last."""
    newest = read_public(ratchet.get("lastRemoteEphemeralKey"), "last remote ratchet key")
    sending: list[JsonObject] = []
    receivers = []
    for name, value in read_object(entry.get("_chains"), "chains").items():
        chain = read_object(value, "chain")
        key = read_public(name, "name of a chain")
        chain_key = read_object(chain.get("chainKey"), "chain key")
        if read_int(chain.get("chainType"), "chain type", least=1, most=2) == RECEIVING_CHAIN:
            receivers.append(_import_receiver(key, chain, chain_key, now_ms))
        elif key == public:
            sending.append(chain_key)
        else:
            raise ValueRefusedError("a sending chain of another ratchet key")
    if len(sending) != 1:
        raise ValueRefusedError("the session does not have one sending chain")
    if receivers and all(chain.ratchet != newest for chain in receivers):
        raise ValueRefusedError("the newest receiving chain is missing")
    receivers.sort(key=lambda chain: chain.ratchet == newest)
    return sending[0], tuple(receivers)


def _import_receiver(ratchet: bytes, chain: JsonObject, chain_key: JsonObject, now_ms: int) -> ReceiverChain:
    key = decode_bytes(chain_key.get("key"), "receiving chain key")
    if key is not None and len(key) != curve.KEY_LENGTH:
        raise ValueRefusedError("a receiving chain key of the wrong length")
    stored = read_object(chain.get("messageKeys", {}), "message keys")
    keys = [
        (_counter_name(name), read_bytes(seed, SEED_LENGTH, "message key")) for name, seed in stored.items()
    ]
    return receiver_chain(ratchet, _next(chain_key), key, keys, now_ms)


def _import_pending(value: object) -> PendingPreKey | None:
    if value is None:
        return None
    pending = read_object(value, "pending prekey")
    prekey_id = pending.get("preKeyId")
    return PendingPreKey(
        None if not prekey_id else read_int(prekey_id, "prekey id", most=MAX_PREKEY_ID),
        read_int(pending.get("signedKeyId"), "signed prekey id", most=MAX_PREKEY_ID),
        read_public(pending.get("baseKey"), "pending base key"),
    )


def _next(chain_key: JsonObject) -> int:
    return read_int(chain_key.get("counter"), "chain counter", least=-1, most=MAX_COUNTER) + 1


def _counter_name(name: str) -> int:
    if not name.isascii() or not name.isdigit() or len(name) > len(str(MAX_UINT32)):
        raise ValueRefusedError("a message key without a counter")
    return read_int(int(name), "message key counter", most=MAX_COUNTER)


def _export_state(state: SessionState, rank: int, *, is_open: bool) -> JsonObject:
    # A chain that never received is that of the peer's signed prekey, which the format leaves out.
    received = [chain for chain in state.receivers if chain.next]
    newest = state.receivers[-1].ratchet if state.receivers else state.base_key
    chains = {encode_public(chain.ratchet): _export_receiver(chain) for chain in received}
    sender = state.sender
    chains[encode_public(sender.public)] = {
        "chainKey": {"counter": sender.next - 1, "key": encode_base64(sender.key)},
        "chainType": SENDING_CHAIN,
        "messageKeys": {},
    }
    own_base = state.pending is not None if state.own_base is None else state.own_base
    entry: JsonObject = {
        "registrationId": state.remote_registration_id,
        "currentRatchet": {
            "ephemeralKeyPair": {
                "pubKey": encode_public(sender.public),
                "privKey": encode_base64(sender.private),
            },
            "lastRemoteEphemeralKey": encode_public(newest),
            "previousCounter": state.previous_counter,
            "rootKey": encode_base64(state.root_key),
        },
        "indexInfo": {
            "baseKey": encode_public(state.base_key),
            "baseKeyType": OWN_BASE_KEY if own_base else THEIR_BASE_KEY,
            "closed": OPEN if is_open else state.closed_ms or 1 + rank,
            "used": state.used_ms or rank,
            "created": state.created_ms,
            "remoteIdentityKey": encode_public(state.remote_identity),
        },
        "_chains": chains,
    }
    if state.pending is not None:
        pending: JsonObject = {
            "signedKeyId": state.pending.signed_prekey_id,
            "baseKey": encode_public(state.pending.base_key),
        }
        if state.pending.prekey_id is not None:
            pending["preKeyId"] = state.pending.prekey_id
        entry["pendingPreKey"] = pending
    return entry


def _export_receiver(chain: ReceiverChain) -> JsonObject:
    chain_key: JsonObject = {"counter": chain.next - 1}
    if chain.key is not None:
        chain_key["key"] = encode_base64(chain.key)
    seeds = skipped.unpack(chain.seeds, skipped.SEED_ENTRY)
    return {
        "chainKey": chain_key,
        "chainType": RECEIVING_CHAIN,
        "messageKeys": {str(counter): encode_base64(seed) for counter, _, seed in seeds},
    }


def _sender_key_entries(value: object) -> list[object]:
    """Unwrap text, buffers of text and text in text down to the list of states."""
    loaded = load_json(value)
    try:
        if isinstance(loaded, dict):
            loaded = load_json(decode_bytes(loaded, "sender key"))
        return read_list(loaded, "sender-key record")
    except ValueRefusedError as error:
        raise ConversionError("item_unreadable", str(error)) from None


def _import_sender_key_state(value: object, now_ms: int) -> SenderKeyState:
    entry = read_object(value, "sender key")
    chain = read_object(entry.get("senderChainKey"), "sender chain key")
    signing = read_object(entry.get("senderSigningKey"), "signing key")
    keys = [
        read_object(key, "sender message key") for key in read_list(entry.get("senderMessageKeys"), "keys")
    ]
    return sender_key_state(
        read_int(entry.get("senderKeyId", 0) or 0, "sender-key id"),
        read_int(chain.get("iteration", 0) or 0, "iteration"),
        read_bytes(chain.get("seed"), SEED_LENGTH, "sender chain key"),
        read_public(signing.get("public"), "signing key"),
        decode_bytes(signing.get("private"), "private signing key"),
        [
            (
                read_int(key.get("iteration", 0) or 0, "iteration of a key"),
                read_bytes(key.get("seed"), SEED_LENGTH, "sender message key"),
            )
            for key in keys
        ],
        now_ms,
    )


def _export_sender_key_state(state: SenderKeyState) -> JsonObject:
    signing: JsonObject = {"public": _buffer(curve.serialize_key(state.public))}
    if state.private is not None:
        signing["private"] = _buffer(state.private)
    seeds = skipped.unpack(state.seeds, skipped.SEED_ENTRY)
    return {
        "senderKeyId": state.key_id,
        "senderChainKey": {"iteration": state.iteration, "seed": _buffer(state.chain_key)},
        "senderSigningKey": signing,
        "senderMessageKeys": [{"iteration": counter, "seed": _buffer(seed)} for counter, _, seed in seeds],
    }


def _buffer(data: bytes) -> JsonObject:
    """What BufferJSON writes; the encoder makes base64 of bytes."""
    return {"type": "Buffer", "data": data}
