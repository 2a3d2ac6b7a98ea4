"""Files that are watched while an archive passes through them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import BinaryIO, Final

from waD.transfer import archive
from waD.transfer.archive import ArchiveError

MAX_SEALED: Final = archive.MAX_TOTAL + (archive.MAX_TOTAL >> 10)
"""Encryption adds a tag to every 64 KiB, and a header."""
_CHUNK: Final = 64 * 1024
_HEAD: Final = 256


class HashingReader:
    """The reading side of a file, with a hash over what was read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._ahead = b""
        self._size = 0

    def head(self) -> bytes:
        """The beginning, which is read again afterwards."""
        self._ahead = self._file.read(_HEAD)
        return self._ahead

    def read(self, size: int = _CHUNK, /) -> bytes:
        """Up to so many bytes; empty at the end."""
        if self._ahead:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
        else:
            data = self._file.read(size)
        self._digest.update(data)
        self._size += len(data)
        if self._size > MAX_SEALED:
            raise ArchiveError("archive_too_large", f"more than {MAX_SEALED} bytes")
        return data

    def hexdigest(self) -> str:
        """Of the whole file, once all was read."""
        while self.read():
            pass
        return self._digest.hexdigest()


class LimitedWriter:
    """The writing side of a file that takes no more than so many bytes."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._write: Callable[[bytes], int] = file.write
        self._left = limit
        self.flush = file.flush

    def write(self, data: bytes, /) -> int:
        """Write, or raise ArchiveError."""
        self._left -= len(data)
        if self._left < 0:
            raise ArchiveError("archive_too_large", f"more than {archive.MAX_TOTAL} bytes unpacked")
        return self._write(data)
