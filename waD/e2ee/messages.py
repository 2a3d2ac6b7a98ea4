"""The four Signal messages as bytes (chapter 03 §3.4, §6.2).

Written by hand because the encoding must be canonical: one peer checks MACs and signatures over a
re-encoding, so fields ascend, varints are minimal and zeros are written. Reading is strict: bytes that no
honest peer writes raise SignalError with the code `malformed` before any state is touched. MACs and
signatures are checked over the bytes as received.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from waD.e2ee.curve import KEY_LENGTH, KEY_TYPE, SERIALIZED_KEY_LENGTH, SIGNATURE_LENGTH
from waD.e2ee.errors import malformed
from waD.e2ee.limits import MAX_COUNTER, MAX_MESSAGE_SIZE, MAX_PREKEY_ID, MAX_UINT32, MAX_WIRE_FIELDS

VERSION: Final = 0x33
"""First byte of every message: version 3 in both halves. No other value works with all peers."""
MAC_LENGTH: Final = 8
BLOCK: Final = 16
CHAIN_KEY_LENGTH: Final = 32
MIN_SENDER_KEY_MESSAGE: Final = 66

_VERSION_BYTE: Final = bytes((VERSION,))
_VARINT: Final = 0
_FIXED64: Final = 1
_LENGTH: Final = 2
_FIXED32: Final = 5
_MAX_VARINT_BYTES: Final = 10

Fields: TypeAlias = dict[int, int | bytes]


class SignalMessage(msgspec.Struct, frozen=True, gc=False):
    """A pairwise message. `ratchet_key` has 32 bytes; `body` is what the 8-byte `mac` covers."""

    ratchet_key: bytes
    counter: int
    previous_counter: int
    ciphertext: bytes
    body: bytes
    mac: bytes


class PreKeyMessage(msgspec.Struct, frozen=True, gc=False):
    """A pairwise message that may start a session. Keys have 32 bytes; only `message` is authentic."""

    registration_id: int
    prekey_id: int | None
    signed_prekey_id: int
    base_key: bytes
    identity: bytes
    message: SignalMessage


class SenderKeyMessage(msgspec.Struct, frozen=True, gc=False):
    """A group message; the 64-byte `signature` covers `body`."""

    key_id: int
    iteration: int
    ciphertext: bytes
    body: bytes
    signature: bytes


class SenderKeyDistribution(msgspec.Struct, frozen=True, gc=False):
    """What members need to read a sender: `iteration` of the next message, chain key and signing key (32)."""

    key_id: int
    iteration: int
    chain_key: bytes
    signing_key: bytes

    def __repr__(self) -> str:
        return f"SenderKeyDistribution(key_id={self.key_id}, iteration={self.iteration})"

    def __rich_repr__(self) -> list[tuple[str, int]]:
        return [("key_id", self.key_id), ("iteration", self.iteration)]


def encode_signal_body(ratchet_key: bytes, counter: int, previous_counter: int, ciphertext: bytes) -> bytes:
    """Return version byte and protobuf: what the MAC covers, without the MAC."""
    return b"".join(
        (
            b"\x33\x0a\x21\x05",
            ratchet_key,
            b"\x10",
            varint(counter),
            b"\x18",
            varint(previous_counter),
            b"\x22",
            varint(len(ciphertext)),
            ciphertext,
        )
    )


def encode_prekey_message(
    registration_id: int,
    prekey_id: int | None,
    signed_prekey_id: int,
    base_key: bytes,
    identity: bytes,
    message: bytes,
) -> bytes:
    """Wrap a complete signal message; `prekey_id` None leaves the field out."""
    return b"".join(
        (
            _VERSION_BYTE if prekey_id is None else b"\x33\x08" + varint(prekey_id),
            b"\x12\x21\x05",
            base_key,
            b"\x1a\x21\x05",
            identity,
            b"\x22",
            varint(len(message)),
            message,
            b"\x28",
            varint(registration_id),
            b"\x30",
            varint(signed_prekey_id),
        )
    )


def encode_sender_key_body(key_id: int, iteration: int, ciphertext: bytes) -> bytes:
    """Return version byte and protobuf of a group message: what the signature covers."""
    return b"".join(
        (
            b"\x33\x08",
            varint(key_id),
            b"\x10",
            varint(iteration),
            b"\x1a",
            varint(len(ciphertext)),
            ciphertext,
        )
    )


def encode_distribution(key_id: int, iteration: int, chain_key: bytes, signing_key: bytes) -> bytes:
    """Return a sender-key distribution message; keys have 32 bytes."""
    return b"".join(
        (
            b"\x33\x08",
            varint(key_id),
            b"\x10",
            varint(iteration),
            b"\x1a\x20",
            chain_key,
            b"\x22\x21\x05",
            signing_key,
        )
    )


def parse_signal_message(data: bytes) -> SignalMessage:
    """Read a `msg`; raises SignalError(malformed)."""
    _check_frame(data, MAC_LENGTH + 1, "signal message")
    body = data[:-MAC_LENGTH]
    fields = _read_fields(body, "signal message")
    return SignalMessage(
        _key(fields.get(1), "ratchet key"),
        _counter(fields.get(2), "counter"),
        _number(fields.get(3, 0), MAX_UINT32, "previous counter"),
        _ciphertext(fields.get(4)),
        body,
        data[-MAC_LENGTH:],
    )


def parse_prekey_message(data: bytes) -> PreKeyMessage:
    """Read a `pkmsg` with the message inside; prekey id 0 counts as none. Raises SignalError(malformed)."""
    _check_frame(data, 2, "prekey message")
    fields = _read_fields(data, "prekey message")
    inner = fields.get(4)
    if not isinstance(inner, bytes):
        raise malformed("a prekey message without an inner message")
    return PreKeyMessage(
        _number(fields.get(5, 0), MAX_UINT32, "registration id"),
        _number(fields.get(1, 0), MAX_PREKEY_ID, "prekey id") or None,
        _number(fields.get(6), MAX_PREKEY_ID, "signed prekey id"),
        _key(fields.get(2), "base key"),
        _key(fields.get(3), "identity key"),
        parse_signal_message(inner),
    )


def parse_sender_key_message(data: bytes) -> SenderKeyMessage:
    """Read a `skmsg`; raises SignalError(malformed)."""
    _check_frame(data, MIN_SENDER_KEY_MESSAGE, "sender-key message")
    body = data[:-SIGNATURE_LENGTH]
    fields = _read_fields(body, "sender-key message")
    return SenderKeyMessage(
        _number(fields.get(1), MAX_UINT32, "sender-key id"),
        _counter(fields.get(2), "iteration"),
        _ciphertext(fields.get(3)),
        body,
        data[-SIGNATURE_LENGTH:],
    )


def parse_distribution(data: bytes) -> SenderKeyDistribution:
    """Read a sender-key distribution message; raises SignalError(malformed)."""
    _check_frame(data, 2, "sender-key distribution")
    fields = _read_fields(data, "sender-key distribution")
    chain_key = fields.get(3)
    if not isinstance(chain_key, bytes) or len(chain_key) != CHAIN_KEY_LENGTH:
        raise malformed(f"a sender-key distribution needs a chain key of {CHAIN_KEY_LENGTH} bytes")
    return SenderKeyDistribution(
        _number(fields.get(1), MAX_UINT32, "sender-key id"),
        _counter(fields.get(2), "iteration"),
        chain_key,
        _key(fields.get(4), "signing key"),
    )


def varint(value: int) -> bytes:
    """Encode a non-negative integer as a minimal protobuf varint."""
    if value < 0x80:
        return _SMALL_VARINTS[value]
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_SMALL_VARINTS: Final = tuple(bytes((value,)) for value in range(0x80))


def _check_frame(data: bytes, least: int, what: str) -> None:
    if not least <= len(data) <= MAX_MESSAGE_SIZE:
        raise malformed(f"a {what} of {len(data)} bytes")
    if data[0] != VERSION:
        raise malformed(f"a {what} of version 0x{data[0]:02x}")


def _read_fields(data: bytes, what: str) -> Fields:
    """Collect the protobuf fields after the version byte; a field number may occur once."""
    fields: Fields = {}
    position, end = 1, len(data)
    while position < end:
        tag, position = _read_varint(data, position)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == _VARINT:
            value, position = _read_varint(data, position)
            content: int | bytes = value
        elif wire_type == _LENGTH:
            size, start = _read_varint(data, position)
            position = start + size
            content = data[start:position]
        elif wire_type in (_FIXED32, _FIXED64):
            start, position = position, position + (4 if wire_type == _FIXED32 else 8)
            content = data[start:position]
        else:
            raise malformed(f"wire type {wire_type} in a {what}")
        if position > end:
            raise malformed(f"a {what} that ends inside a field")
        if number == 0 or number in fields or len(fields) == MAX_WIRE_FIELDS:
            raise malformed(f"a {what} with an impossible, repeated or superfluous field")
        fields[number] = content
    return fields


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the value and the position after it."""
    try:
        byte = data[position]
        if byte < 0x80:
            return byte, position + 1
        value, shift = byte & 0x7F, 7
        for index in range(position + 1, position + _MAX_VARINT_BYTES):
            byte = data[index]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, index + 1
            shift += 7
    except IndexError:
        raise malformed("a message that ends inside a number") from None
    raise malformed("a number of more than 64 bits")


def _key(field: int | bytes | None, what: str) -> bytes:
    if not isinstance(field, bytes) or len(field) != SERIALIZED_KEY_LENGTH or field[0] != KEY_TYPE:
        raise malformed(f"the {what} is not a key of {KEY_LENGTH} bytes with its type")
    return field[1:]


def _counter(field: int | bytes | None, what: str) -> int:
    return _number(field, MAX_COUNTER, what)


def _number(field: int | bytes | None, most: int, what: str) -> int:
    if not isinstance(field, int) or field > most:
        raise malformed(f"the {what} is missing or not a number up to {most}")
    return field


def _ciphertext(field: int | bytes | None) -> bytes:
    if not isinstance(field, bytes) or not field or len(field) % BLOCK:
        raise malformed(f"the ciphertext is not a positive multiple of {BLOCK} bytes")
    return field
