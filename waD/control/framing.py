"""Bytes to lines, with a limit. Sans-IO."""

from __future__ import annotations

from enum import Enum
from typing import Final

from waD.control.types import MAX_LINE


class TooLong(Enum):
    """Stands for a line beyond the limit; its bytes are dropped as they come."""

    TOO_LONG = "too long"


TOO_LONG: Final = TooLong.TOO_LONG


class LineBuffer:
    r"""Collects bytes until there is a line.

    Lines end with `\n` or `\r\n`; the end is not part of the line, and blank lines are nothing. A line of more
    than `limit` bytes comes out as TOO_LONG, once and at once; reading goes on behind its end.
    """

    __slots__ = ("_buffer", "_limit", "_scanned", "_skipping")

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._scanned = 0
        self._skipping = False

    def feed(self, data: bytes) -> None:
        """Add what was received."""
        self._buffer += data

    def next(self) -> bytes | TooLong | None:
        """Return the next line, None when more bytes are needed."""
        while (end := self._buffer.find(b"\n", self._scanned)) >= 0:
            line, skipped = self._take(end), self._skipping
            self._skipping = False
            if skipped or not line.strip():
                continue
            return line if len(line) <= self._limit else TOO_LONG
        return self._unfinished()

    def rest(self) -> bytes | TooLong | None:
        """Return what stands behind the last newline when the input ends, None if that is nothing."""
        line, skipped = self._take(len(self._buffer)), self._skipping
        if skipped or not line.strip():
            return None
        return line if len(line) <= self._limit else TOO_LONG

    def _take(self, end: int) -> bytes:
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._scanned = 0
        return line.removesuffix(b"\r")

    def _unfinished(self) -> TooLong | None:
        """Note how far was looked, and drop what is too long already."""
        if self._skipping:
            self._buffer.clear()
        self._scanned = len(self._buffer)
        if self._scanned <= self._limit + 1:  # a carriage return may still be in it
            return None
        self._buffer.clear()
        self._scanned = 0
        self._skipping = True
        return TOO_LONG
