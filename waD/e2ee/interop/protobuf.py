"""libsignal's RecordStructure and SenderKeyRecordStructure (chapter 08 §5.1, §5.2)."""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from waD.e2ee import curve, skipped
from waD.e2ee.groups import SenderKeyRecord, SenderKeyState
from waD.e2ee.interop.common import (
    IV_LENGTH,
    SEED_LENGTH,
    ConversionError,
    Imported,
    ValueRefusedError,
    check_state,
    exported_chain_key,
    imported_chain_key,
    limited_state,
    previous_counter,
    public_key,
    read_exact,
    read_int,
    receiver_chain,
    sender_chain,
    sender_key_record,
    sender_key_state,
    session_record,
    skipped_triples,
)
from waD.e2ee.limits import MAX_COUNTER, MAX_FOREIGN_RECORD_SIZE, MAX_PREKEY_ID
from waD.e2ee.record import PendingPreKey, ReceiverChain, SessionRecord, SessionState
from waD.proto import signal_pb2

SESSION_VERSION: Final = 3
_SEED_FIELD: Final = 5
"""Field of a message key in which newer libsignal keeps the seed instead of the triple."""


def import_session(data: bytes, now_ms: int = 0, *, prune: bool = True) -> Imported[SessionRecord]:
    """Convert a serialised record; the format has no times, `now_ms` stands for them.

    `prune` drops closed chains without skipped keys. Raises ConversionError.
    """
    record = signal_pb2.RecordStructure()
    _parse(record, data)
    warnings: list[str] = []

    def convert(structure: signal_pb2.SessionStructure, *, closed: bool) -> SessionState | None:
        try:
            return limited_state(_import_state(structure, now_ms, closed=closed), warnings, prune=prune)
        except (ValueRefusedError, curve.CurveError) as error:
            warnings.append(f"session_invalid: {error}")
            return None

    current = convert(record.currentSession, closed=False) if record.HasField("currentSession") else None
    archived = [convert(structure, closed=True) for structure in record.previousSessions]
    return session_record(current, [state for state in archived if state is not None], warnings, now_ms)


def export_session(record: SessionRecord) -> bytes:
    """Return the serialised record; a session that must not send stands among the previous ones."""
    structure = signal_pb2.RecordStructure()
    for state in record.states():
        target = (
            structure.currentSession
            if state is record.current and not state.stale
            else structure.previousSessions.add()
        )
        _export_state(state, target)
    return structure.SerializeToString()


def import_sender_key(data: bytes, now_ms: int = 0, *, prune: bool = True) -> Imported[SenderKeyRecord]:
    """Convert a serialised record; `prune` drops the skipped keys of our own states.

    Raises ConversionError.
    """
    record = signal_pb2.SenderKeyRecordStructure()
    _parse(record, data)
    warnings: list[str] = []
    states = []
    for structure in record.senderKeyStates:
        try:
            states.append(_import_sender_key_state(structure, now_ms))
        except (ValueRefusedError, curve.CurveError) as error:
            warnings.append(f"sender_key_invalid: {error}")
    return sender_key_record(states, warnings, prune=prune)


def export_sender_key(record: SenderKeyRecord) -> bytes:
    """Return the serialised sender-key record."""
    structure = signal_pb2.SenderKeyRecordStructure()
    for state in record.states:
        _export_sender_key_state(state, structure.senderKeyStates.add())
    return structure.SerializeToString()


def _parse(record: signal_pb2.RecordStructure | signal_pb2.SenderKeyRecordStructure, data: bytes) -> None:
    if len(data) > MAX_FOREIGN_RECORD_SIZE:
        raise ConversionError("item_unreadable", f"a record of {len(data)} bytes")
    try:
        record.ParseFromString(data)
    except DecodeError:
        raise ConversionError("item_unreadable", f"not a {record.DESCRIPTOR.name}") from None


def _import_state(structure: signal_pb2.SessionStructure, now_ms: int, *, closed: bool) -> SessionState:
    if structure.sessionVersion != SESSION_VERSION:
        raise ValueRefusedError("another session version than 3")
    if structure.HasField("pendingKeyExchange"):
        raise ValueRefusedError("a pending key exchange")
    root_key = read_exact(structure.rootKey, curve.KEY_LENGTH, "root key")
    chain = structure.senderChain
    pending = _import_pending(structure.pendingPreKey) if structure.HasField("pendingPreKey") else None
    state = SessionState(
        local_identity=public_key(structure.localIdentityPublic, "local identity"),
        remote_identity=public_key(structure.remoteIdentityPublic, "remote identity"),
        local_registration_id=structure.localRegistrationId,
        remote_registration_id=structure.remoteRegistrationId,
        root_key=root_key,
        previous_counter=previous_counter(structure.previousCounter),
        sender=sender_chain(
            public_key(chain.senderRatchetKey, "ratchet key"),
            read_exact(chain.senderRatchetKeyPrivate, curve.KEY_LENGTH, "private ratchet key"),
            read_int(chain.chainKey.index, "sending index", most=MAX_COUNTER + 1),
            read_exact(chain.chainKey.key, curve.KEY_LENGTH, "sending chain key"),
        ),
        receivers=tuple(_import_receiver(chain, root_key, now_ms) for chain in structure.receiverChains),
        pending=pending,
        base_key=public_key(structure.aliceBaseKey, "base key"),
        own_base=True if pending is not None else None,
        created_ms=now_ms,
        used_ms=now_ms,
        closed_ms=now_ms if closed else None,
    )
    check_state(state)
    return state


def _import_receiver(chain: signal_pb2.SessionStructure.Chain, root_key: bytes, now_ms: int) -> ReceiverChain:
    ratchet = public_key(chain.senderRatchetKey, "remote ratchet key")
    key = read_exact(chain.chainKey.key, curve.KEY_LENGTH, "receiving chain key")
    return receiver_chain(
        ratchet,
        read_int(chain.chainKey.index, "receiving index", most=MAX_COUNTER + 1),
        imported_chain_key(root_key, ratchet, key),
        [(key.index, _import_message_key(key)) for key in chain.messageKeys],
        now_ms,
    )


def _import_message_key(key: signal_pb2.SessionStructure.Chain.MessageKey) -> bytes:
    unknown_fields = UnknownFieldSet(key)
    for unknown in map(unknown_fields.__getitem__, range(len(unknown_fields))):
        if unknown.field_number == _SEED_FIELD and isinstance(unknown.data, bytes):
            return read_exact(unknown.data, SEED_LENGTH, "message seed")
    return (
        read_exact(key.cipherKey, curve.KEY_LENGTH, "cipher key")
        + read_exact(key.macKey, curve.KEY_LENGTH, "MAC key")
        + read_exact(key.iv, IV_LENGTH, "IV")
    )


def _import_pending(pending: signal_pb2.SessionStructure.PendingPreKey) -> PendingPreKey:
    if pending.HasField("kyberPreKeyId") or pending.HasField("kyberCiphertext"):
        raise ValueRefusedError("a post-quantum prekey")
    return PendingPreKey(
        read_int(pending.preKeyId, "prekey id", most=MAX_PREKEY_ID) or None,
        read_int(pending.signedPreKeyId, "signed prekey id", most=MAX_PREKEY_ID),
        public_key(pending.baseKey, "pending base key"),
    )


def _export_state(state: SessionState, target: signal_pb2.SessionStructure) -> None:
    target.sessionVersion = SESSION_VERSION
    target.localIdentityPublic = curve.serialize_key(state.local_identity)
    target.remoteIdentityPublic = curve.serialize_key(state.remote_identity)
    target.rootKey = state.root_key
    target.previousCounter = state.previous_counter
    target.senderChain.senderRatchetKey = curve.serialize_key(state.sender.public)
    target.senderChain.senderRatchetKeyPrivate = state.sender.private
    target.senderChain.chainKey.index = state.sender.next
    target.senderChain.chainKey.key = state.sender.key
    for chain in state.receivers:
        _export_receiver(state, chain, target.receiverChains.add())
    if state.pending is not None:
        if state.pending.prekey_id is not None:
            target.pendingPreKey.preKeyId = state.pending.prekey_id
        target.pendingPreKey.signedPreKeyId = state.pending.signed_prekey_id
        target.pendingPreKey.baseKey = curve.serialize_key(state.pending.base_key)
    target.remoteRegistrationId = state.remote_registration_id
    target.localRegistrationId = state.local_registration_id
    target.aliceBaseKey = curve.serialize_key(state.base_key)


def _export_receiver(
    state: SessionState, chain: ReceiverChain, target: signal_pb2.SessionStructure.Chain
) -> None:
    target.senderRatchetKey = curve.serialize_key(chain.ratchet)
    target.chainKey.index = chain.next
    target.chainKey.key = exported_chain_key(state, chain)
    for counter, triple in skipped_triples(chain):
        target.messageKeys.add(index=counter, cipherKey=triple[:32], macKey=triple[32:64], iv=triple[64:])


def _import_sender_key_state(structure: signal_pb2.SenderKeyStateStructure, now_ms: int) -> SenderKeyState:
    signing = structure.senderSigningKey
    return sender_key_state(
        structure.senderKeyId,
        structure.senderChainKey.iteration,
        read_exact(structure.senderChainKey.seed, SEED_LENGTH, "sender chain key"),
        public_key(signing.public, "signing key"),
        signing.private if signing.HasField("private") else None,
        [
            (key.iteration, read_exact(key.seed, SEED_LENGTH, "sender message key"))
            for key in structure.senderMessageKeys
        ],
        now_ms,
    )


def _export_sender_key_state(state: SenderKeyState, target: signal_pb2.SenderKeyStateStructure) -> None:
    target.senderKeyId = state.key_id
    target.senderChainKey.iteration = state.iteration
    target.senderChainKey.seed = state.chain_key
    target.senderSigningKey.public = curve.serialize_key(state.public)
    if state.private is not None:
        target.senderSigningKey.private = state.private
    for counter, _, seed in skipped.unpack(state.seeds, skipped.SEED_ENTRY):
        target.senderMessageKeys.add(iteration=counter, seed=seed)
