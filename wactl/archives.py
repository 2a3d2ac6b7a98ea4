"""Archives between the daemon and files: fetched in parts and stored durably, or handed over in parts."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO, Final

from wactl.client import COMMAND_S, Client
from wactl.failure import Failure
from waD.control import types as t

SUFFIX: Final = ".age"
_CHUNK: Final = 1 << 18


class Sink:
    """A file in the making; it has the name that was meant for it only when all of it is on the disk.

    Args:
        directory: where.
        name: of the file; None to take the one that the daemon proposes.

    Raises:
        Failure: no file can be made there.
    """

    def __init__(self, directory: Path, name: str | None = None) -> None:
        self._directory = directory
        self._name = name
        try:
            fd, self._temporary = tempfile.mkstemp(prefix=".wadbackup-", suffix=".part", dir=directory)
        except OSError as error:
            raise unwritable(directory, error) from None
        self.file: IO[bytes] = os.fdopen(fd, "wb")

    def keep(self, proposed: str) -> Path:
        """Give the file its name, durably; one that is there is never replaced. Raises Failure."""
        target = self._directory / (self._name or Path(proposed).name)
        try:
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()
            if target.exists():
                raise Failure("refused", f"{target} is there already; it stays as it is", t.EXIT_REFUSED)
            Path(self._temporary).rename(target)
            _sync(self._directory)
        except OSError as error:
            raise unwritable(target, error) from None
        return target

    def drop(self) -> None:
        """Leave nothing behind, unless it was kept."""
        with suppress(OSError):
            self.file.close()
        Path(self._temporary).unlink(missing_ok=True)


@contextmanager
def sink(directory: Path, name: str | None = None) -> Iterator[Sink]:
    """A file in the making, gone at the end unless it was kept; raises Failure."""
    made = Sink(directory, name)
    try:
        yield made
    finally:
        made.drop()


def fetch(client: Client, made: t.BackupResult, out: IO[bytes]) -> None:
    """Copy an archive from the daemon.

    Raises:
        Failure: it cannot be written, or what came is not what was made.
    """
    digest, offset = hashlib.sha256(), 0
    while True:
        asked = t.FetchParams(id=made.id, offset=offset)
        part = client.ask("auth.fetch", t.Part, asked, timeout=COMMAND_S)
        try:
            out.write(part.data)
        except OSError as error:
            raise unwritable("the backup", error) from None
        digest.update(part.data)
        offset += len(part.data)
        if part.end:
            break
        if not part.data:
            raise Failure("protocol", "the daemon sends no more of the backup", t.EXIT_REFUSED)
    if digest.hexdigest() != made.sha256 or offset != made.size:
        raise Failure("damaged", "what was received is not what the daemon made", t.EXIT_DAMAGED)


def upload(client: Client, source: BinaryIO | IO[bytes]) -> str | None:
    """Hand an archive over; returns its id, None if there was nothing. Raises Failure."""
    file_id: str | None = None
    while data := source.read(_CHUNK):
        asked = t.UploadParams(id=file_id, data=data)
        file_id = client.ask("auth.upload", t.UploadResult, asked, timeout=COMMAND_S).id
    return file_id


def unwritable(what: object, error: OSError) -> Failure:
    """A file cannot be written."""
    return Failure("output", f"cannot write {what}: {error.strerror or error}", t.EXIT_REFUSED)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex; raises Failure."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Failure("refused", f"cannot read {path}: {error.strerror}", t.EXIT_REFUSED) from None


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove(directory: Path, names: list[str]) -> None:
    """Remove files of a directory, durably; raises Failure."""
    try:
        for name in names:
            (directory / name).unlink(missing_ok=True)
        if names:
            _sync(directory)
    except OSError as error:
        raise Failure("output", f"cannot remove old backups: {error.strerror}", t.EXIT_REFUSED) from None
