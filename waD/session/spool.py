"""Files that go over the control socket in parts: archives on their way out, uploads on their way in.

They have no name on the disk, so nothing of them is left when the process ends, and they are forgotten after a while.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

import trio

LIFE_S: Final = 600.0
"""A file that nobody asks for so long is forgotten."""
ABANDONED_S: Final = 86_400.0
"""No archive takes so long to be written."""
MAX_FILES: Final = 16
MAX_SIZE: Final = 8 << 30
PRIVATE: Final = 0o700


class SpoolFull(Exception):  # noqa: N818 - what is the case
    """There are too many files, or one is too large."""


class NoSuchFile(Exception):  # noqa: N818 - what is the case
    """There is no file of that id, or no more."""


@dataclass(slots=True)
class Spooled:
    """One file.

    Attributes:
        file: open for reading and writing; it has no name.
        size: bytes.
        last_used: on trio's clock.
        about: what its owner wants to know later.
        lock: one part at a time.
    """

    file: BinaryIO
    size: int
    last_used: float
    about: dict[str, Any] = field(default_factory=dict)
    lock: trio.Lock = field(default_factory=trio.Lock)


class Spool:
    """Keeps the files of one daemon.

    Args:
        directory: where they are, for as long as they have a name; it is made when it is needed.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[str, Spooled] = {}
        self._swept = False

    def prepare(self) -> Path:
        """Make sure of the directory; blocking. Returns it. Raises OSError."""
        self._directory.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        if not self._swept:
            self._swept = True
            self._sweep()
        return self._directory

    def _sweep(self) -> None:
        """Remove what a process that was killed has left; another one may be making a younger one."""
        for path in self._directory.glob("backup-*.part"):
            with suppress(OSError):  # its own process has just finished it
                if time.time() - path.stat().st_mtime > ABANDONED_S:
                    path.unlink()

    def adopt(self, path: Path, size: int, **about: Any) -> str:
        """Take a finished file, which loses its name; blocking but quick. Returns its id.

        Raises:
            OSError: from the file.
        """
        file = path.open("rb")
        path.unlink()
        return self._keep(Spooled(file, size, trio.current_time(), about))

    async def append(self, file_id: str | None, data: bytes) -> tuple[str, int]:
        """Add to a file, or begin one; returns its id and size.

        Raises:
            SpoolFull, NoSuchFile, OSError: nothing was added.
        """
        if file_id is None:
            self.make_room()
            file = await trio.to_thread.run_sync(self._fresh)
            file_id = self._keep(Spooled(file, 0, trio.current_time()))
        spooled = self.get(file_id)
        async with spooled.lock:
            if spooled.size + len(data) > MAX_SIZE:
                raise SpoolFull(f"a file of more than {MAX_SIZE >> 30} GiB is not taken")
            await trio.to_thread.run_sync(os.pwrite, spooled.file.fileno(), data, spooled.size)
            spooled.size += len(data)
        return file_id, spooled.size

    async def part(self, file_id: str, offset: int, length: int) -> tuple[bytes, bool]:
        """Bytes from a position on, and whether they are the last.

        Raises:
            NoSuchFile: there is none of that id.
            OSError: from the file.
        """
        spooled = self.get(file_id)
        data = await trio.to_thread.run_sync(os.pread, spooled.file.fileno(), length, offset)
        return data, offset + len(data) >= spooled.size

    def get(self, file_id: str) -> Spooled:
        """One file; raises NoSuchFile."""
        self._forget_old()
        spooled = self._files.get(file_id)
        if spooled is None:
            raise NoSuchFile(f"there is no such file any more; it is kept for {LIFE_S / 60:.0f} minutes")
        spooled.last_used = trio.current_time()
        return spooled

    def discard(self, file_id: str) -> None:
        """Forget one; an unknown one is fine."""
        spooled = self._files.pop(file_id, None)
        if spooled is not None:
            spooled.file.close()

    def close(self) -> None:
        """Forget all."""
        for file_id in [*self._files]:
            self.discard(file_id)

    def _fresh(self) -> BinaryIO:
        return tempfile.TemporaryFile(dir=self.prepare())

    def _keep(self, spooled: Spooled) -> str:
        file_id = secrets.token_hex(16)
        self._files[file_id] = spooled
        return file_id

    def make_room(self) -> None:
        """Raises SpoolFull when there are too many files."""
        self._forget_old()
        if len(self._files) >= MAX_FILES:
            raise SpoolFull(f"{MAX_FILES} archives are on their way already; try again in a few minutes")

    def _forget_old(self) -> None:
        now = trio.current_time()
        for file_id in [name for name, one in self._files.items() if now - one.last_used > LIFE_S]:
            self.discard(file_id)
