"""What all conversions share: reading hostile JSON, checking states, the filler of closed chains."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Generic, Literal, TypeAlias, TypeVar

from msgspec.structs import replace

from waD.e2ee import curve, skipped
from waD.e2ee.groups import SenderKeyRecord, SenderKeyState
from waD.e2ee.kdf import hmac_sha256
from waD.e2ee.limits import (
    MAX_ARCHIVED_SESSIONS,
    MAX_COUNTER,
    MAX_FOREIGN_RECORD_SIZE,
    MAX_SENDER_KEY_STATES,
    MAX_SKIPPED_KEYS,
    MAX_UINT32,
)
from waD.e2ee.ratchet import message_keys
from waD.e2ee.record import ReceiverChain, SenderChain, SessionRecord, SessionState, trim_chains

CLOSED_CHAIN_LABEL: Final = b"waD closed chain"
MAX_NESTING: Final = 3
"""How often a JSON text may be encoded inside a JSON string: some stores do it twice."""
SEED_LENGTH: Final = 32
TRIPLE_LENGTH: Final = 80
IV_LENGTH: Final = 16
_FAULTS_NAMED: Final = 3
_OPENINGS: Final = ("{", "[", '"')
_URL_SAFE: Final = str.maketrans("-_", "+/")

T = TypeVar("T")
JsonObject: TypeAlias = dict[str, object]
ConversionCode: TypeAlias = Literal["item_unreadable", "session_invalid", "sender_key_invalid"]


class ConversionError(Exception):
    """A foreign record cannot be used; `code` is stable, the text holds no key material."""

    def __init__(self, code: ConversionCode, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code: ConversionCode = code
        self.detail = detail


class ValueRefusedError(ValueError):
    """A value inside a foreign record has the wrong form; the text names the place, never the value."""


@dataclass(frozen=True, slots=True)
class Imported(Generic[T]):
    """A converted record, and what was left out or repaired on the way."""

    record: T
    warnings: tuple[str, ...] = field(default=())


def load_json(value: object) -> object:
    """Parse JSON text, also when it was encoded several times; anything but text is returned as it is.

    Raises ConversionError(item_unreadable).
    """
    for _ in range(MAX_NESTING + 1):
        if not isinstance(value, str | bytes):
            return value
        if len(value) > MAX_FOREIGN_RECORD_SIZE:
            raise ConversionError("item_unreadable", f"a record of {len(value)} bytes")
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ConversionError("item_unreadable", "not valid JSON") from None
    raise ConversionError("item_unreadable", "JSON inside JSON inside JSON")


def unnest(value: object) -> object:
    """Decode a string that holds an encoded object, array or string, at most three times (chapter 08 §2.2).

    A string that holds anything else is the value itself: user parts of addresses look like numbers.
    """
    for _ in range(MAX_NESTING):
        if not isinstance(value, str) or value[:1] not in _OPENINGS or len(value) > MAX_FOREIGN_RECORD_SIZE:
            break
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            break
    return value


def decode_bytes(value: object, what: str) -> bytes | None:
    """Read bytes in any spelling a Baileys store has used (chapter 08 §2.2); None stays None.

    Raises ValueRefusedError.
    """
    for _ in range(MAX_NESTING):
        value = unnest(value)
        if isinstance(value, dict) and (value.get("type") == "Buffer" or value.get("buffer") is True):
            value = value.get("data", value.get("value", []))
        elif isinstance(value, dict) and "$binary" in value:
            inner = value["$binary"]
            value = inner.get("base64") if isinstance(inner, dict) else inner
        else:
            break
    if value is None:
        return None
    if isinstance(value, str):
        return _base64(value, what)
    if isinstance(value, dict) and all(str(index) in value for index in range(len(value))):
        value = [value[str(index)] for index in range(len(value))]
    if isinstance(value, list):
        return _octets(value, what)
    raise ValueRefusedError(f"{what} is not a byte string")


def read_bytes(value: object, length: int, what: str) -> bytes:
    """Read exactly `length` bytes; raises ValueRefusedError."""
    data = decode_bytes(value, what)
    if data is None or len(data) != length:
        raise ValueRefusedError(f"{what} does not have {length} bytes")
    return data


def read_public(value: object, what: str) -> bytes:
    """Read a public key of 33 bytes with its type, or of 32 without; returns 32 bytes."""
    return public_key(decode_bytes(value, what), what)


def public_key(data: bytes | None, what: str) -> bytes:
    """Strip the type byte of a public key; raises ValueRefusedError."""
    if data is not None and len(data) == curve.SERIALIZED_KEY_LENGTH and data[0] == curve.KEY_TYPE:
        return data[1:]
    if data is not None and len(data) == curve.KEY_LENGTH:
        return data
    raise ValueRefusedError(f"{what} is not a public key")


def read_int(value: object, what: str, *, least: int = 0, most: int = MAX_UINT32) -> int:
    """Read an integer in a range; raises ValueRefusedError."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueRefusedError(f"{what} is not a number from {least} to {most}")
    return value


def read_object(value: object, what: str) -> JsonObject:
    """Read a JSON object; raises ValueRefusedError."""
    if not isinstance(value, dict):
        raise ValueRefusedError(f"{what} is not an object")
    return value


def read_list(value: object, what: str) -> list[object]:
    """Read a JSON array, null counting as empty; raises ValueRefusedError."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueRefusedError(f"{what} is not a list")
    return value


def previous_counter(value: object) -> int:
    """Read a previous counter; the -1 and 4294967295 that two libraries write for "none" become 0."""
    counter = read_int(value, "previous counter", least=-1)
    return 0 if counter in (-1, MAX_UINT32) else counter


def encode_base64(data: bytes) -> str:
    """Return base64 with padding."""
    return base64.b64encode(data).decode("ascii")


def encode_public(public: bytes) -> str:
    """Return the 33-byte form of a public key in base64."""
    return encode_base64(curve.serialize_key(public))


def sender_chain(public: bytes, private: bytes, next_counter: int, key: bytes) -> SenderChain:
    """Build a sending chain; raises ValueRefusedError when the two halves are not a pair."""
    made = curve.KeyPair.from_private(private)
    if made.public != public:
        raise ValueRefusedError("the ratchet key pair does not match")
    return SenderChain(made.public, made.private, next_counter, key)


def receiver_chain(
    ratchet: bytes, next_counter: int, key: bytes | None, keys: Iterable[tuple[int, bytes]], now_ms: int
) -> ReceiverChain:
    """Build a receiving chain; `keys` are (counter, 32-byte seed or 80-byte triple).

    Raises ValueRefusedError on skipped keys that repeat or lie ahead of the chain.
    """
    entries = list(keys)
    counters = [counter for counter, _ in entries]
    if len(set(counters)) != len(counters) or any(counter >= next_counter for counter in counters):
        raise ValueRefusedError("skipped keys that repeat or lie ahead of their chain")
    seeds = [(counter, now_ms, data) for counter, data in entries if len(data) == SEED_LENGTH]
    triples = [(counter, now_ms, data) for counter, data in entries if len(data) == TRIPLE_LENGTH]
    return ReceiverChain(ratchet, next_counter, key, skipped.pack(seeds), skipped.pack(triples))


def skipped_triples(chain: ReceiverChain) -> list[tuple[int, bytes]]:
    """Return all skipped keys of a chain as (counter, cipher key ‖ MAC key ‖ IV), ascending."""
    keys = [
        (counter, b"".join(message_keys(seed)))
        for counter, _, seed in skipped.unpack(chain.seeds, skipped.SEED_ENTRY)
    ]
    keys += [(counter, triple) for counter, _, triple in skipped.unpack(chain.triples, skipped.TRIPLE_ENTRY)]
    return sorted(keys)


def closed_chain_filler(root_key: bytes, ratchet: bytes) -> bytes:
    """Return a chain key for formats that demand one on a closed chain; nobody else can compute it."""
    return hmac_sha256(root_key, CLOSED_CHAIN_LABEL + curve.serialize_key(ratchet))


def exported_chain_key(state: SessionState, chain: ReceiverChain) -> bytes:
    """Return the chain key, or the filler of a closed chain."""
    return closed_chain_filler(state.root_key, chain.ratchet) if chain.key is None else chain.key


def imported_chain_key(root_key: bytes, ratchet: bytes, key: bytes) -> bytes | None:
    """Recognise the filler of a closed chain."""
    return None if key == closed_chain_filler(root_key, ratchet) else key


def check_state(state: SessionState) -> None:
    """Check what no single field shows; raises ValueRefusedError (chapter 08 §5.1)."""
    if state.sender.next > MAX_COUNTER + 1 or any(chain.next > MAX_COUNTER + 1 for chain in state.receivers):
        raise ValueRefusedError("a counter is beyond the last one")
    ratchets = [chain.ratchet for chain in state.receivers]
    if len(set(ratchets)) != len(ratchets):
        raise ValueRefusedError("two receiving chains have one ratchet key")
    if state.pending is not None and (state.pending.base_key != state.base_key or state.own_base is False):
        raise ValueRefusedError("the pending prekey does not belong to the session")


def limited_state(state: SessionState, warnings: list[str], *, prune: bool) -> SessionState:
    """Apply the limits of records to an imported state, telling what goes."""
    chains = state.receivers
    if prune:
        chains = tuple(chain for chain in chains if chain.key is not None or chain.skipped_count)
    chains = trim_chains(chains)
    lost = state.skipped_count - sum(chain.skipped_count for chain in chains)
    if lost:
        warnings.append(f"{lost} skipped keys beyond the limit of {MAX_SKIPPED_KEYS} dropped")
    return replace(state, receivers=chains)


def session_record(
    current: SessionState | None, archived: list[SessionState], warnings: list[str], now_ms: int
) -> Imported[SessionRecord]:
    """Put imported states together; raises ConversionError(session_invalid) when there is none."""
    if current is None and not archived:
        raise ConversionError("session_invalid", _reason(warnings) or "a record without sessions")
    if len(archived) > MAX_ARCHIVED_SESSIONS:
        warnings.append(f"{len(archived) - MAX_ARCHIVED_SESSIONS} of the oldest sessions dropped")
    kept = tuple(archived[:MAX_ARCHIVED_SESSIONS])
    states = (*(() if current is None else (current,)), *kept)
    has_skipped = any(state.skipped_count for state in states)
    return Imported(SessionRecord(current, kept, now_ms if has_skipped else 0), tuple(warnings))


def sender_key_state(
    key_id: int,
    iteration: int,
    chain_key: bytes,
    public: bytes,
    private: bytes | None,
    seeds: Iterable[tuple[int, bytes]],
    now_ms: int,
) -> SenderKeyState:
    """Build an imported sender key; an empty or all-zero private key counts as none.

    Raises ValueRefusedError on halves that are not a pair, and on impossible skipped keys.
    """
    if iteration > MAX_COUNTER + 1:
        raise ValueRefusedError("the iteration is beyond the last one")
    private = signing_key(public, private)
    entries = [(counter, now_ms, seed) for counter, seed in seeds]
    if any(counter >= iteration for counter, _, _ in entries):
        raise ValueRefusedError("skipped keys that lie ahead of their chain")
    packed = skipped.pack(entries)
    surplus = len(packed) // skipped.SEED_ENTRY - MAX_SKIPPED_KEYS
    packed = skipped.drop_lowest(packed, skipped.SEED_ENTRY, max(surplus, 0))
    return SenderKeyState(key_id, iteration, chain_key, public, private, packed)


def signing_key(public: bytes, private: bytes | None) -> bytes | None:
    """The private signing key; an empty or all-zero one is none.

    Raises ValueRefusedError on halves that are not a pair.
    """
    if private is None or not any(private):
        return None
    made = curve.KeyPair.from_private(read_exact(private, curve.KEY_LENGTH, "private signing key"))
    if made.public != public:
        raise ValueRefusedError("the signing key pair does not match")
    return made.private


def sender_key_record(
    states: list[SenderKeyState], warnings: list[str], *, prune: bool
) -> Imported[SenderKeyRecord]:
    """Put imported sender keys together, newest first; raises ConversionError(sender_key_invalid) for none.

    `prune` drops the skipped keys of our own states: nobody else has sent under them.
    """
    if not states:
        raise ConversionError("sender_key_invalid", _reason(warnings) or "a record without sender keys")
    if prune:
        states = [replace(state, seeds=b"") if state.private is not None else state for state in states]
    return Imported(SenderKeyRecord(tuple(states[:MAX_SENDER_KEY_STATES])), tuple(warnings))


def read_exact(data: bytes, length: int, what: str) -> bytes:
    """Return `data` when it has `length` bytes; raises ValueRefusedError otherwise."""
    if len(data) != length:
        raise ValueRefusedError(f"{what} does not have {length} bytes")
    return data


def _reason(warnings: list[str]) -> str:
    """Name the first faults; a broken record may have any number."""
    return "; ".join(warnings[:_FAULTS_NAMED])


def _base64(text: str, what: str) -> bytes:
    plain = text.translate(_URL_SAFE).rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueRefusedError(f"{what} is not base64") from None


def _octets(values: list[object], what: str) -> bytes:
    try:
        return bytes(read_int(value, what, most=255) for value in values)
    except ValueRefusedError:
        raise ValueRefusedError(f"{what} is not a list of bytes") from None
