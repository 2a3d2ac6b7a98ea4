"""Files of the media host on disk: written beside, hashed while writing, renamed when they are what they claim."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Final

import trio

PIECE: Final = 256 * 1024
_PART: Final = ".part"


class TooLargeError(Exception):
    """A body is longer than allowed."""


class WrongHashError(Exception):
    """A body is not what its name says."""


class MediaFiles:
    """A directory with one file for each hash.

    Args:
        directory: made when it is needed, for this user alone.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._numbers = itertools.count(1)

    def path(self, digest: bytes) -> Path:
        """Where a file is kept."""
        return self._directory / digest.hex()

    def sweep(self, wanted: set[bytes]) -> None:
        """Remove what a killed process left and nobody knows of."""
        names = {digest.hex() for digest in wanted}
        if self._directory.is_dir():
            for path in self._directory.iterdir():
                if path.name not in names:
                    path.unlink()

    async def write(self, body: AsyncIterator[bytes], digest: bytes, limit: int) -> int:
        """Keep a body whose SHA-256 is known; returns its size.

        Raises:
            TooLargeError, WrongHashError: nothing was kept.
            OSError: likewise.
        """
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = self._directory / f"{next(self._numbers)}{_PART}"
        hashed, size = hashlib.sha256(), 0
        try:
            async with await trio.open_file(part, "wb", opener=_private) as file:
                async for piece in body:
                    size += len(piece)
                    if size > limit:
                        raise TooLargeError
                    hashed.update(piece)
                    await file.write(piece)
            if hashed.digest() != digest:
                raise WrongHashError
            part.replace(self.path(digest))
        finally:
            part.unlink(missing_ok=True)
        return size

    async def read(self, digest: bytes, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """Bytes of a file; OSError when it is not there."""
        async with await trio.open_file(self.path(digest), "rb") as file:
            await file.seek(start)
            while start < end:
                piece = await file.read(min(PIECE, end - start))
                if not piece:
                    return
                start += len(piece)
                yield piece

    async def whole(self, digest: bytes) -> bytes:
        """All of a file; OSError when it is not there."""
        return await trio.Path(self.path(digest)).read_bytes()

    def remove(self, digest: bytes) -> None:
        """Remove a file if it is there."""
        self.path(digest).unlink(missing_ok=True)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
