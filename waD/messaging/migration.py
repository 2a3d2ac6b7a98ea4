"""The own phone's list of phone numbers and LIDs (chapter 04 §8.4)."""

from __future__ import annotations

from typing import Final

MAX_MAPPINGS: Final = 100_000
MAX_PAYLOAD: Final = 8 * 1024 * 1024
"""Bytes of a list; a mapping takes about 20."""

_MAPPINGS: Final = 1
_NUMBER, _ASSIGNED, _LATEST = 1, 2, 3
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES: Final = 10


class MappingError(ValueError):
    """The payload is no list of mappings."""


def parse_mappings(payload: bytes) -> list[tuple[int, int]]:
    """Read (phone number, LID) pairs: the latest LID, else the assigned one; pairs with a zero are left out.

    Raises:
        MappingError: the bytes are no protobuf, or too many.
    """
    if len(payload) > MAX_PAYLOAD:
        raise MappingError(f"a list of {len(payload)} bytes")
    found: list[tuple[int, int]] = []
    for number, value in _fields(payload):
        if number != _MAPPINGS or not isinstance(value, bytes):
            continue
        fields = dict(_fields(value))
        pn, lid = fields.get(_NUMBER), fields.get(_LATEST) or fields.get(_ASSIGNED)
        if isinstance(pn, int) and isinstance(lid, int) and pn and lid:
            found.append((pn, lid))
        if len(found) > MAX_MAPPINGS:
            raise MappingError(f"more than {MAX_MAPPINGS} mappings")
    return found


def _fields(data: bytes) -> list[tuple[int, int | bytes]]:
    """Field numbers and values of a protobuf; fixed-size values are skipped."""
    found: list[tuple[int, int | bytes]] = []
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        kind = tag & 7
        if kind == _VARINT:
            value, position = _varint(data, position)
            found.append((tag >> 3, value))
            continue
        if kind == _BYTES:
            length, position = _varint(data, position)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise MappingError("an unknown wire type")
        end = position + length
        if end > len(data):
            raise MappingError("the bytes end within a field")
        if kind == _BYTES:
            found.append((tag >> 3, data[position:end]))
        position = end
    return found


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(_MAX_VARINT_BYTES):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
    raise MappingError("a number without end")
