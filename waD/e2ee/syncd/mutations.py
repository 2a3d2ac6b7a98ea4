"""One entry of a collection as it travels: sealed value, index MAC, value MAC (chapter 05 §4.6)."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from google.protobuf.message import DecodeError

from waD.e2ee.errors import SignalError
from waD.e2ee.kdf import hmac_sha256
from waD.e2ee.messages import BLOCK
from waD.e2ee.ratchet import aes_cbc_decrypt, aes_cbc_encrypt
from waD.e2ee.syncd.errors import MissingKeys, SyncdError
from waD.e2ee.syncd.keys import MutationKeys
from waD.e2ee.syncd.limits import MAX_INDEX_PARTS, MAX_INDEX_SIZE
from waD.proto.appstate_pb2 import SyncActionData, SyncActionEnvelope, SyncActionValue
from waD.proto.e2e_pb2 import SyncdMutation, SyncdRecord

IV_LENGTH: Final = 16
MAC_LENGTH: Final = 32
MIN_VALUE: Final = IV_LENGTH + BLOCK + MAC_LENGTH


class Operation(IntEnum):
    """What a mutation does with its index."""

    SET = 0
    REMOVE = 1


_OPERATION_BYTES: Final = {Operation.SET: b"\x01", Operation.REMOVE: b"\x02"}


@dataclass(frozen=True, slots=True)
class Mutation:
    """A mutation whose MACs are right.

    Attributes:
        index_mac: 32 bytes, the name of the entry under its key.
        value_mac: 32 bytes, what the entry adds to the hash of its collection.
        index: the JSON text as it was written, UTF-8 or not.
        parts: the strings of the index; None when it is no array of strings, or one beyond our limits.
        version: of the action, which says how to read the value.
        value: None when it cannot be read; the entry counts in the hash all the same.
    """

    operation: Operation
    index_mac: bytes
    value_mac: bytes
    key_id: bytes
    index: bytes = field(repr=False)
    parts: tuple[str, ...] | None = field(repr=False)
    version: int
    value: SyncActionValue | None = field(repr=False)


def index_json(parts: Sequence[str]) -> bytes:
    """An index the way JavaScript writes it; ValueError for text that is not Unicode (lone surrogates)."""
    return json.dumps(list(parts), ensure_ascii=False, separators=(",", ":")).encode()


def index_mac(keys: MutationKeys, index: bytes) -> bytes:
    """The 32 bytes that stand for an index where only the server looks."""
    return hmac_sha256(keys.index, index)


def encode(
    key_id: bytes,
    keys: MutationKeys,
    operation: Operation,
    index: bytes,
    value: SyncActionValue,
    version: int,
    iv: bytes,
) -> SyncdMutation:
    """Seal one mutation under a key.

    Args:
        key_id: name of the key that `keys` were derived from.
        keys: the derived keys.
        operation: SET, or REMOVE (which carries a value too).
        index: the JSON text, see index_json.
        value: with its timestamp in ms.
        version: of the action.
        iv: 16 fresh random bytes.
    """
    if len(iv) != IV_LENGTH:
        raise ValueError(f"an IV has {IV_LENGTH} bytes, not {len(iv)}")
    data = SyncActionData(index=index, value=value, padding=b"", version=version)
    ciphertext = iv + aes_cbc_encrypt(keys.value_encryption, iv, data.SerializeToString())
    mutation = SyncdMutation(operation=SyncdMutation.SyncdOperation.ValueType(operation))
    record = mutation.record
    record.index.blob = index_mac(keys, index)
    record.value.blob = ciphertext + _value_mac(keys, operation, key_id, ciphertext)
    record.keyId.id = key_id
    return mutation


def value_mac_of(record: SyncdRecord) -> bytes:
    """The last 32 bytes of a record's value: its MAC, unchecked."""
    return record.value.blob[-MAC_LENGTH:]


def decode(keys: Mapping[bytes, MutationKeys], mutation: SyncdMutation | SyncdRecord) -> Mutation:
    """Check and open one mutation, or one record of a snapshot, which is a SET (chapter 05 §4.9 rows 10 to 13).

    Raises:
        MissingKeys: its key is not in `keys`.
        SyncdError: malformed, value-mac or index-mac.
    """
    expect_complete(mutation)
    operation, record = _unwrapped(mutation)
    key_id = record.keyId.id
    if key_id not in keys:
        raise MissingKeys([key_id])
    derived = keys[key_id]
    ciphertext, value_mac = record.value.blob[:-MAC_LENGTH], value_mac_of(record)
    if not hmac.compare_digest(_value_mac(derived, operation, key_id, ciphertext), value_mac):
        raise SyncdError("value-mac", f"the value of entry {_name(record)} has a wrong MAC")
    envelope = _open(derived, ciphertext, record)
    if not hmac.compare_digest(index_mac(derived, envelope.index), record.index.blob):
        raise SyncdError("index-mac", f"entry {_name(record)} is filed under another index than it names")
    if operation is Operation.SET and not envelope.HasField("value"):
        raise SyncdError("malformed", f"entry {_name(record)} is set to nothing")
    value = _value(envelope)
    if operation is Operation.SET and value is not None and not value.HasField("timestamp"):
        raise SyncdError("malformed", f"entry {_name(record)} is set at no time")
    index, blob = envelope.index, record.index.blob
    return Mutation(operation, blob, value_mac, key_id, index, index_parts(index), envelope.version, value)


def index_parts(index: bytes) -> tuple[str, ...] | None:
    """The strings of an index; None when it is anything but an array of strings within our limits."""
    if len(index) > MAX_INDEX_SIZE:
        return None
    try:
        parts = json.loads(index.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(parts, list) or not 0 < len(parts) <= MAX_INDEX_PARTS:
        return None
    return tuple(parts) if all(isinstance(part, str) for part in parts) else None


def expect_complete(mutation: SyncdMutation | SyncdRecord) -> None:
    """Raises SyncdError(malformed) when an entry lacks what every one has (chapter 05 §4.9 rows 4 and 10)."""
    _, record = _unwrapped(mutation)
    if not record.index.blob or not record.keyId.id:
        raise SyncdError("malformed", "an entry without index or key id")
    if len(record.value.blob) < MIN_VALUE:
        raise SyncdError("malformed", f"the value of entry {_name(record)} is shorter than its seal")


def _unwrapped(mutation: SyncdMutation | SyncdRecord) -> tuple[Operation, SyncdRecord]:
    if isinstance(mutation, SyncdRecord):
        return Operation.SET, mutation
    if not mutation.HasField("operation"):  # an operation of a newer kind is as good as none
        raise SyncdError("malformed", f"entry {_name(mutation.record)} has no known operation")
    return Operation(mutation.operation), mutation.record


def _open(keys: MutationKeys, ciphertext: bytes, record: SyncdRecord) -> SyncActionEnvelope:
    iv, body = ciphertext[:IV_LENGTH], ciphertext[IV_LENGTH:]
    if len(body) % BLOCK:
        raise SyncdError("malformed", f"the value of entry {_name(record)} is not made of whole blocks")
    try:
        envelope = SyncActionEnvelope.FromString(aes_cbc_decrypt(keys.value_encryption, iv, body))
    except (SignalError, DecodeError):
        raise SyncdError("malformed", f"the value of entry {_name(record)} cannot be read") from None
    return envelope


def _value(envelope: SyncActionEnvelope) -> SyncActionValue | None:
    try:
        return SyncActionValue.FromString(envelope.value)
    except DecodeError:
        return None


def _value_mac(keys: MutationKeys, operation: Operation, key_id: bytes, ciphertext: bytes) -> bytes:
    associated = _OPERATION_BYTES[operation] + key_id
    length = len(associated).to_bytes(8, "big")
    return hmac.digest(keys.value_mac, associated + ciphertext + length, "sha512")[:MAC_LENGTH]


def _name(record: SyncdRecord) -> str:
    """How an error names an entry: what the server sees of it, shortened."""
    return record.index.blob[:8].hex() or "without index"
