"""How Redis packs short collections and long strings: ziplist, listpack, zipmap, LZF.

Facts of the formats: Redis' own ziplist.c, listpack.c, zipmap.c and LibLZF, seen in files that servers of the versions
6.2 to 8.2 wrote; ziplists in those of 6.2 alone, and zipmaps in none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_END: Final = 0xFF
_SHORT: Final = 254
"""Lengths from here on are in four bytes that follow."""


class PackedError(ValueError):
    """The bytes are not of the form; the text says what is wrong, `at` where.

    Attributes:
        at: offset in the packed bytes.
    """

    def __init__(self, at: int, reason: str) -> None:
        super().__init__(reason)
        self.at = at


def lzf(data: bytes, size: int) -> bytes:
    """Expand what LZF compressed.

    Args:
        data: compressed.
        size: bytes that come of it; no more are made.

    Raises:
        PackedError: anything else comes of it.
    """
    out = bytearray()
    at, end = 0, len(data)
    while at < end:
        control = data[at]
        at += 1
        if control < 32:
            out += data[at : at + control + 1]
            at += control + 1
        else:
            length = control >> 5
            if length == 7:
                length += _octet(data, at)
                at += 1
            start = len(out) - ((control & 31) << 8) - _octet(data, at) - 1
            at += 1
            if start < 0:
                raise PackedError(at, "a reference to before the beginning")
            _repeat(out, start, length + 2)
        if len(out) > size or at > end:
            raise PackedError(min(at, end), "compressed text of another length than it should have")
    if len(out) != size:
        raise PackedError(end, "compressed text of another length than it should have")
    return bytes(out)


def listpack(data: bytes) -> Iterator[bytes]:
    """The elements, numbers as their digits; raises PackedError."""
    _check_size(data, 6)
    at = 6
    while (first := _octet(data, at)) != _END:
        head, length, number = _listpack_entry(data, at, first)
        element = _cut(data, at + head, length)
        yield element if number is None else b"%d" % number
        at += head + length
        at += _backlen(head + length)
    _check_end(data, at)


def ziplist(data: bytes) -> Iterator[bytes]:
    """The elements, numbers as their digits; raises PackedError."""
    _check_size(data, 10)
    at = 10
    while (first := _octet(data, at)) != _END:
        at += 1 if first < _SHORT else 5
        kind = _octet(data, at)
        if kind >> 6 == 3:
            length, number = _ziplist_number(data, at, kind)
            yield b"%d" % number
            at += 1 + length
            continue
        if kind >> 6 == 0:
            head, length = 1, kind
        elif kind >> 6 == 1:
            head, length = 2, (kind & 63) << 8 | _octet(data, at + 1)
        else:
            head, length = 5, int.from_bytes(_cut(data, at + 1, 4), "big")
        yield _cut(data, at + head, length)
        at += head + length
    _check_end(data, at)


def zipmap(data: bytes) -> Iterator[bytes]:
    """Names and values in turn; raises PackedError."""
    at = 1
    while (first := _octet(data, at)) != _END:
        for spare in (0, 1):
            first = _octet(data, at)
            length = first if first < _SHORT else int.from_bytes(_cut(data, at + 1, 4), "little")
            at += 1 if first < _SHORT else 5
            free = _octet(data, at) if spare else 0
            yield _cut(data, at + spare, length)
            at += spare + length + free
    _check_end(data, at)


def _listpack_entry(data: bytes, at: int, first: int) -> tuple[int, int, int | None]:
    """Bytes of the head, bytes of what follows, and the number if it is one."""
    if first < 0x80:
        return 1, 0, first
    if first < 0xC0:
        return 1, first & 63, None
    if first < 0xE0:
        value = (first & 31) << 8 | _octet(data, at + 1)
        return 2, 0, value - (1 << 13 if value >> 12 else 0)
    if first < 0xF0:
        return 2, (first & 15) << 8 | _octet(data, at + 1), None
    if first == 0xF0:
        return 5, int.from_bytes(_cut(data, at + 1, 4), "little"), None
    width = {0xF1: 2, 0xF2: 3, 0xF3: 4, 0xF4: 8}.get(first)
    if width is None:
        raise PackedError(at, "an element of no known form")
    return 1, width, int.from_bytes(_cut(data, at + 1, width), "little", signed=True)


def _backlen(size: int) -> int:
    """Bytes of the length that stands behind each element, for reading backwards."""
    return 1 + sum(size >= limit for limit in (128, 16383, 2097151, 268435455))


def _ziplist_number(data: bytes, at: int, kind: int) -> tuple[int, int]:
    width = {0xC0: 2, 0xD0: 4, 0xE0: 8, 0xF0: 3, 0xFE: 1}.get(kind)
    if width is not None:
        return width, int.from_bytes(_cut(data, at + 1, width), "little", signed=True)
    if 0xF1 <= kind <= 0xFD:
        return 0, (kind & 15) - 1
    raise PackedError(at, "an element of no known form")


def _repeat(out: bytearray, start: int, length: int) -> None:
    """Append what begins at `start`, which may run into what is appended."""
    distance = len(out) - start
    piece = out[start : start + length]
    if distance < length:
        piece = (piece * (length // distance + 1))[:length]
    out += piece


def _check_size(data: bytes, head: int) -> None:
    if len(data) <= head or int.from_bytes(data[:4], "little") != len(data):
        raise PackedError(0, "a packed list of another length than it says")


def _check_end(data: bytes, at: int) -> None:
    if at != len(data) - 1:
        raise PackedError(at, "bytes behind the end of a packed list")


def _octet(data: bytes, at: int) -> int:
    if at >= len(data):
        raise PackedError(len(data), "packed bytes that are cut short")
    return data[at]


def _cut(data: bytes, at: int, length: int) -> bytes:
    if at + length > len(data):
        raise PackedError(len(data), "packed bytes that are cut short")
    return data[at : at + length]
