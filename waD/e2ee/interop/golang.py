"""The JSON records of libsignal-go, as whatsmeow keeps them (chapter 08 §4.2, §4.3).

Skipped pairwise keys are derived triples there, without a seed; sender keys have both.
"""

from __future__ import annotations

import json

from waD.e2ee import curve, skipped
from waD.e2ee.groups import SenderKeyRecord, SenderKeyState
from waD.e2ee.groups import message_keys as group_keys
from waD.e2ee.interop.common import (
    IV_LENGTH,
    SEED_LENGTH,
    ConversionError,
    Imported,
    JsonObject,
    ValueRefusedError,
    check_state,
    decode_bytes,
    encode_base64,
    encode_public,
    exported_chain_key,
    imported_chain_key,
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
    skipped_triples,
)
from waD.e2ee.limits import MAX_COUNTER, MAX_PREKEY_ID
from waD.e2ee.record import PendingPreKey, ReceiverChain, SessionRecord, SessionState

SESSION_VERSION = 3


def import_session(value: object, now_ms: int = 0, *, prune: bool = True) -> Imported[SessionRecord]:
    """Convert a record, given as JSON text or parsed; the format has no times, `now_ms` stands for them.

    `prune` drops closed chains without skipped keys. Raises ConversionError.
    """
    record = load_json(value)
    if not isinstance(record, dict) or "SessionState" not in record:
        raise ConversionError("item_unreadable", "not a libsignal-go session record")
    warnings: list[str] = []

    def convert(entry: object, *, closed: bool) -> SessionState | None:
        try:
            return limited_state(_import_state(entry, now_ms, closed=closed), warnings, prune=prune)
        except (ValueRefusedError, curve.CurveError) as error:
            warnings.append(f"session_invalid: {error}")
            return None

    entry = record["SessionState"]
    current = None if entry is None else convert(entry, closed=False)
    previous = record.get("PreviousStates")
    archived = [convert(entry, closed=True) for entry in (previous if isinstance(previous, list) else [])]
    return session_record(current, [state for state in archived if state is not None], warnings, now_ms)


def export_session(record: SessionRecord) -> str:
    """Return the JSON text; a session that must not send stands among the previous states."""
    current = record.current
    archived = list(record.archived)
    if current is not None and current.stale:
        archived.insert(0, current)
        current = None
    return _dump(
        {
            "SessionState": None if current is None else _export_state(current),
            "PreviousStates": [_export_state(state) for state in archived],
        }
    )


def import_sender_key(value: object, now_ms: int = 0, *, prune: bool = True) -> Imported[SenderKeyRecord]:
    """Convert a sender-key record; `prune` drops the skipped keys of our own states.

    Raises ConversionError.
    """
    record = load_json(value)
    entries = record.get("SenderKeyStates") if isinstance(record, dict) else None
    if not isinstance(entries, list):
        raise ConversionError("item_unreadable", "not a libsignal-go sender-key record")
    warnings: list[str] = []
    states = []
    for entry in entries:
        try:
            states.append(_import_sender_key_state(entry, now_ms))
        except (ValueRefusedError, curve.CurveError) as error:
            warnings.append(f"sender_key_invalid: {error}")
    return sender_key_record(states, warnings, prune=prune)


def export_sender_key(record: SenderKeyRecord) -> str:
    """Return the JSON text of a sender-key record."""
    return _dump({"SenderKeyStates": [_export_sender_key_state(state) for state in record.states]})


def _import_state(value: object, now_ms: int, *, closed: bool) -> SessionState:
    entry = read_object(value, "session")
    if read_int(entry.get("SessionVersion"), "session version") != SESSION_VERSION:
        raise ValueRefusedError("another session version than 3")
    if entry.get("PendingKeyExchange") is not None:
        raise ValueRefusedError("a pending key exchange")
    root_key = read_bytes(entry.get("RootKey"), curve.KEY_LENGTH, "root key")
    chain = read_object(entry.get("SenderChain"), "sending chain")
    chain_key = read_object(chain.get("ChainKey"), "sending chain key")
    pending = _import_pending(entry.get("PendingPreKey"))
    state = SessionState(
        local_identity=read_public(entry.get("LocalIdentityPublic"), "local identity"),
        remote_identity=read_public(entry.get("RemoteIdentityPublic"), "remote identity"),
        local_registration_id=read_int(entry.get("LocalRegistrationID"), "local registration id"),
        remote_registration_id=read_int(entry.get("RemoteRegistrationID"), "remote registration id"),
        root_key=root_key,
        previous_counter=previous_counter(entry.get("PreviousCounter")),
        sender=sender_chain(
            read_public(chain.get("SenderRatchetKeyPublic"), "ratchet key"),
            read_bytes(chain.get("SenderRatchetKeyPrivate"), curve.KEY_LENGTH, "private ratchet key"),
            read_int(chain_key.get("Index"), "sending index", most=MAX_COUNTER + 1),
            read_bytes(chain_key.get("Key"), curve.KEY_LENGTH, "sending chain key"),
        ),
        receivers=tuple(
            _import_receiver(value, root_key, now_ms)
            for value in read_list(entry.get("ReceiverChains"), "receiving chains")
        ),
        pending=pending,
        base_key=read_public(entry.get("SenderBaseKey"), "base key"),
        own_base=True if pending is not None else None,
        created_ms=now_ms,
        used_ms=now_ms,
        closed_ms=now_ms if closed else None,
    )
    check_state(state)
    return state


def _import_receiver(value: object, root_key: bytes, now_ms: int) -> ReceiverChain:
    chain = read_object(value, "receiving chain")
    ratchet = read_public(chain.get("SenderRatchetKeyPublic"), "remote ratchet key")
    chain_key = read_object(chain.get("ChainKey"), "receiving chain key")
    key = read_bytes(chain_key.get("Key"), curve.KEY_LENGTH, "receiving chain key")
    keys = [_import_message_key(value) for value in read_list(chain.get("MessageKeys"), "message keys")]
    return receiver_chain(
        ratchet,
        read_int(chain_key.get("Index"), "receiving index", most=MAX_COUNTER + 1),
        imported_chain_key(root_key, ratchet, key),
        keys,
        now_ms,
    )


def _import_message_key(value: object) -> tuple[int, bytes]:
    key = read_object(value, "message key")
    return (
        read_int(key.get("Index"), "message key index", most=MAX_COUNTER),
        read_bytes(key.get("CipherKey"), curve.KEY_LENGTH, "cipher key")
        + read_bytes(key.get("MacKey"), curve.KEY_LENGTH, "MAC key")
        + read_bytes(key.get("IV"), IV_LENGTH, "IV"),
    )


def _import_pending(value: object) -> PendingPreKey | None:
    if value is None:
        return None
    pending = read_object(value, "pending prekey")
    optional = read_object(pending.get("PreKeyID"), "prekey id")
    prekey_id = read_int(optional.get("Value"), "prekey id", most=MAX_PREKEY_ID)
    return PendingPreKey(
        None if optional.get("IsEmpty") is True or prekey_id == 0 else prekey_id,
        read_int(pending.get("SignedPreKeyID"), "signed prekey id", most=MAX_PREKEY_ID),
        read_public(pending.get("BaseKey"), "pending base key"),
    )


def _export_state(state: SessionState) -> JsonObject:
    sender = state.sender
    pending = state.pending
    return {
        "LocalIdentityPublic": encode_public(state.local_identity),
        "LocalRegistrationID": state.local_registration_id,
        "NeedsRefresh": False,
        "PendingKeyExchange": None,
        "PendingPreKey": None if pending is None else _export_pending(pending),
        "PreviousCounter": state.previous_counter,
        "ReceiverChains": [_export_receiver(state, chain) for chain in state.receivers],
        "RemoteIdentityPublic": encode_public(state.remote_identity),
        "RemoteRegistrationID": state.remote_registration_id,
        "RootKey": encode_base64(state.root_key),
        "SenderBaseKey": encode_public(state.base_key),
        "SenderChain": {
            "SenderRatchetKeyPublic": encode_public(sender.public),
            "SenderRatchetKeyPrivate": encode_base64(sender.private),
            "ChainKey": {"Key": encode_base64(sender.key), "Index": sender.next},
            "MessageKeys": [],
        },
        "SessionVersion": SESSION_VERSION,
    }


def _export_receiver(state: SessionState, chain: ReceiverChain) -> JsonObject:
    return {
        "SenderRatchetKeyPublic": encode_public(chain.ratchet),
        "SenderRatchetKeyPrivate": None,
        "ChainKey": {"Key": encode_base64(exported_chain_key(state, chain)), "Index": chain.next},
        "MessageKeys": [
            {
                "CipherKey": encode_base64(triple[:32]),
                "MacKey": encode_base64(triple[32:64]),
                "IV": encode_base64(triple[64:]),
                "Index": counter,
            }
            for counter, triple in skipped_triples(chain)
        ],
    }


def _export_pending(pending: PendingPreKey) -> JsonObject:
    return {
        "PreKeyID": {"Value": pending.prekey_id or 0, "IsEmpty": pending.prekey_id is None},
        "SignedPreKeyID": pending.signed_prekey_id,
        "BaseKey": encode_public(pending.base_key),
    }


def _import_sender_key_state(value: object, now_ms: int) -> SenderKeyState:
    entry = read_object(value, "sender key")
    chain = read_object(entry.get("SenderChainKey"), "sender chain key")
    keys = [read_object(key, "sender message key") for key in read_list(entry.get("Keys"), "keys")]
    return sender_key_state(
        read_int(entry.get("KeyID"), "sender-key id"),
        read_int(chain.get("Iteration"), "iteration"),
        read_bytes(chain.get("ChainKey"), SEED_LENGTH, "sender chain key"),
        read_public(entry.get("SigningKeyPublic"), "signing key"),
        decode_bytes(entry.get("SigningKeyPrivate"), "private signing key"),
        [
            (
                read_int(key.get("Iteration"), "iteration of a key", most=MAX_COUNTER),
                read_bytes(key.get("Seed"), SEED_LENGTH, "sender message key"),
            )
            for key in keys
        ],
        now_ms,
    )


def _export_sender_key_state(state: SenderKeyState) -> JsonObject:
    return {
        "Keys": [
            _export_sender_message_key(counter, seed)
            for counter, _, seed in skipped.unpack(state.seeds, skipped.SEED_ENTRY)
        ],
        "KeyID": state.key_id,
        "SenderChainKey": {"Iteration": state.iteration, "ChainKey": encode_base64(state.chain_key)},
        "SigningKeyPrivate": None if state.private is None else encode_base64(state.private),
        "SigningKeyPublic": encode_public(state.public),
    }


def _export_sender_message_key(counter: int, seed: bytes) -> JsonObject:
    iv, cipher_key = group_keys(seed)
    return {
        "Iteration": counter,
        "IV": encode_base64(iv),
        "CipherKey": encode_base64(cipher_key),
        "Seed": encode_base64(seed),
    }


def _dump(value: JsonObject) -> str:
    return json.dumps(value, separators=(",", ":"))
