"""Bytes of an RDB file in turn: lengths and strings in every form they are written in, and the checksum over them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from waD.transfer.sources.crc64 import Crc64
from waD.transfer.sources.errors import SourceRefused
from waD.transfer.sources.packed import PackedError, lzf

_NUMBER_WIDTHS: Final = {0: 1, 1: 2, 2: 4}
_LZF: Final = 3
_LENGTH_32: Final = 0x80
_LENGTH_64: Final = 0x81
_MAX_COMPRESSED: Final = 1 << 26
"""Bytes of a compressed string that is expanded: one that is larger expands to more than anything wanted."""


class Input:
    """Takes bytes from pieces of any size, and counts them.

    Every method raises SourceRefused, `source_damaged` with the offset, when there are no more.
    """

    def __init__(self, pieces: Iterable[bytes], *, counted: bool = True) -> None:
        self._pieces = iter(pieces)
        self._buffer = b""
        self._at = 0
        self._before = 0
        self._counted = 0
        self._crc = Crc64() if counted else None

    @property
    def offset(self) -> int:
        """Bytes taken so far."""
        return self._before + self._at

    def octet(self) -> int:
        """The next byte."""
        if self._at == len(self._buffer) and not self._fill():
            raise self._short()
        self._at += 1
        return self._buffer[self._at - 1]

    def take(self, size: int) -> bytes:
        """The next bytes; the caller has limited their number."""
        if self._at + size <= len(self._buffer):
            self._at += size
            return self._buffer[self._at - size : self._at]
        found = bytearray()
        while size > 0:
            if self._at == len(self._buffer) and not self._fill():
                raise self._short()
            part = self._buffer[self._at : self._at + size]
            self._at += len(part)
            size -= len(part)
            found += part
        return bytes(found)

    def skip(self, size: int) -> None:
        """Pass over bytes."""
        while size > len(self._buffer) - self._at:
            size -= len(self._buffer) - self._at
            self._at = len(self._buffer)
            if not self._fill():
                raise self._short()
        self._at += size

    def length(self) -> int:
        """A count or a length, below 2**64."""
        size, special = self._head()
        if special:
            raise self._damaged("a string where a length should be")
        return size

    def string(self, limit: int) -> bytes | None:
        """A string in any form, numbers as their digits; None when it is longer than the limit, and passed over."""
        size, special = self._head()
        if not special:
            if size <= limit:
                return self.take(size)
            self.skip(size)
            return None
        if size in _NUMBER_WIDTHS:
            number = int.from_bytes(self.take(_NUMBER_WIDTHS[size]), "little", signed=True)
            return b"%d" % number
        compressed, expanded = self._compressed_sizes(size)
        if expanded > limit or compressed > min(expanded + 64, _MAX_COMPRESSED):
            self.skip(compressed)
            return None
        start = self.offset
        try:
            return lzf(self.take(compressed), expanded)
        except PackedError as error:
            raise SourceRefused("source_damaged", f"byte {start + error.at}: {error}") from None

    def skip_string(self) -> None:
        """Pass over a string without expanding it."""
        size, special = self._head()
        if special:
            size = _NUMBER_WIDTHS[size] if size in _NUMBER_WIDTHS else self._compressed_sizes(size)[0]
        self.skip(size)

    def checksum(self) -> int | None:
        """CRC-64 of all bytes taken so far; None if they are not counted."""
        self._count()
        return None if self._crc is None else self._crc.value

    def expect_end(self) -> None:
        """Nothing may follow."""
        if self._at < len(self._buffer) or self._fill():
            raise self._damaged("more bytes behind the end of the dump")

    def _compressed_sizes(self, form: int) -> tuple[int, int]:
        if form != _LZF:
            raise self._damaged("a string of no known form")
        return self.length(), self.length()

    def _head(self) -> tuple[int, bool]:
        """A length, or the number of a special form."""
        first = self.octet()
        kind = first >> 6
        if kind == 0:
            return first, False
        if kind == 1:
            return (first & 63) << 8 | self.octet(), False
        if kind == 3:
            return first & 63, True
        if first == _LENGTH_32:
            return int.from_bytes(self.take(4), "big"), False
        if first == _LENGTH_64:
            return int.from_bytes(self.take(8), "big"), False
        raise self._damaged("a length of no known form")

    def _fill(self) -> bool:
        """Get the next piece once the last is used up."""
        self._count()
        self._before += self._at
        self._buffer, self._at, self._counted = b"", 0, 0
        for piece in self._pieces:
            if piece:
                self._buffer = piece
                return True
        return False

    def _count(self) -> None:
        if self._crc is not None:
            self._crc.update(self._buffer[self._counted : self._at])
            self._counted = self._at

    def _damaged(self, reason: str) -> SourceRefused:
        return SourceRefused("source_damaged", f"byte {self.offset}: {reason}")

    def _short(self) -> SourceRefused:
        return self._damaged("the file ends here, in the middle: it was cut short, or is still being written")
