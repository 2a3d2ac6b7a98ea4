"""Opening the database file: lock, permissions, pragmas, migrations (chapter 08 §6.3)."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from waD.store import checksum
from waD.store.canonical import as_it_is, canonicalise
from waD.store.codec import Upgrade
from waD.store.errors import (
    StorageUnavailable,
    StoreDamaged,
    StoreError,
    StoreForbidden,
    StoreLocked,
    StoreTooNew,
)
from waD.store.migrations import Migration, steps_of

BUSY_TIMEOUT_S: Final = 5.0
NEW: Final = ".new"
"""Ending of a database that is being made."""
APPLICATION_ID: Final = 0x57614400
MAX_HOLDER: Final = 400
_DAMAGE: Final = ("malformed", "not a database", "corrupt")
_LASTING: Final = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}
)


def migrations() -> list[Migration]:
    """All steps, in order."""
    return steps_of("waD.store.sqlite")


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours, naming the file."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(path, error) from error


def translate(path: Path, error: sqlite3.Error) -> StoreError:
    """The store's word for an error of SQLite."""
    text = str(error)
    if any(word in text for word in _DAMAGE):
        return StoreDamaged(
            f"{path} is damaged ({text}): stop the daemon, keep a copy of the file, and restore a backup"
        )
    return StorageUnavailable(
        f"{path} cannot be used ({text}): check free space and permissions of its directory"
    )


def refusal(path: Path, error: OSError, what: str) -> StoreError:
    """The store's word for an error of the system.

    Args:
        path: the file or directory.
        error: of the system.
        what: what could not be done, such as "opened".
    """
    text = f"{path} cannot be {what}: {error.strerror}"
    if error.errno in _LASTING:
        user = os.getuid()
        return StoreForbidden(f"{text}; user {user} must own it and be allowed to read and write it")
    return StorageUnavailable(f"{text}; check the disk under it")


class FileLock:
    """One process per database file: a lock on a file beside it, whose text says who holds it."""

    def __init__(self, database: Path) -> None:
        self.path = database.with_name(database.name + ".lock")
        self._database = database
        self._fd = -1

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            StoreLocked: another process has it; the message names the process.
            StoreForbidden, StorageUnavailable: the lock file cannot be written.
        """
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise refusal(self.path, error, "opened") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(fd, MAX_HOLDER, 0).decode("utf-8", "replace").strip() or "an unknown process"
            os.close(fd)
            raise StoreLocked(
                f"{self._database} is in use by {holder}: stop that process, or use another state directory",
                holder,
            ) from None
        text = f"pid {os.getpid()} on {socket.gethostname()}\n".encode()
        os.ftruncate(fd, 0)
        os.pwrite(fd, text, 0)
        self._fd = fd

    def release(self) -> None:
        """Give the lock back; the file stays, since removing it would race with the next holder."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def prepare_directory(path: Path) -> None:
    """Make the directory of a database, closed to everybody else."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise refusal(path.parent, error, "made") from None


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def connect(path: Path, *, readonly: bool = False) -> sqlite3.Connection:
    """Open a connection with the durability this program relies on."""
    connection = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    # A damaged byte must come out as damage of one document, not as a failure of the whole statement.
    connection.text_factory = _text
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        # Pages that SQLite writes before the commit, for want of cache, and that a savepoint then takes back, spoil the
        # checksums of what follows in the log (seen with 3.40): after a crash that commit would be missing.
        connection.execute("PRAGMA cache_spill=OFF")
        if readonly:
            connection.execute("PRAGMA query_only=ON")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def open_database(path: Path, upgrade: Upgrade = as_it_is) -> sqlite3.Connection:
    """Open, check and migrate; the caller holds the file lock.

    Raises:
        StoreDamaged: not a database of this program, or its pages are broken.
        StoreTooNew: migrated by a newer program.
        StoreForbidden, StorageUnavailable: anything the system refuses.
    """
    fresh = _make_sure(path)
    with translated(path):
        if fresh:
            _make(path, upgrade)
        else:
            _inspect(path)
        connection = connect(path)
        try:
            _migrate(connection, upgrade)
        except BaseException:
            connection.close()
            raise
        return connection


def _make_sure(path: Path) -> bool:
    """Look whether there is a file that can be written; says whether there is none."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError as error:
        raise refusal(path, error, "opened") from None
    size = os.fstat(fd).st_size
    os.close(fd)
    if size == 0:
        raise StoreDamaged(f"{path} is empty: restore it from a backup, or remove it to begin with a new one")
    return False


def _make(path: Path, upgrade: Upgrade) -> None:
    """Make a new database under another name, so that one that is not finished is never taken for a damaged one."""
    new = path.with_name(path.name + NEW)
    for leftover in (new, *(new.with_name(new.name + tail) for tail in ("-wal", "-shm", "-journal"))):
        leftover.unlink(missing_ok=True)
    try:
        os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        connection = connect(new)
        try:
            _migrate(connection, upgrade)
        finally:
            connection.close()
        os.rename(new, path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise refusal(path, error, "made") from None


def _inspect(path: Path) -> None:
    """Look at a database before anything is written to it: it may be somebody else's."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_S)
    try:
        _check(connection, path)
        _check_version(connection, path)
    finally:
        connection.close()


def _check(connection: sqlite3.Connection, path: Path) -> None:
    found = connection.execute("PRAGMA application_id").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if found != APPLICATION_ID and tables:
        raise StoreDamaged(f"{path} is a database of another program: name another file")
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise StoreDamaged(f"{path} is damaged ({verdict}): keep a copy of the file, and restore a backup")


def _applied(connection: sqlite3.Connection) -> dict[int, bytes]:
    """Checksums of the steps that were applied, by version."""
    there = connection.execute("SELECT 1 FROM sqlite_schema WHERE name='wa_schema_migrations'").fetchone()
    if there is None:
        return {}
    return dict(connection.execute("SELECT version, checksum FROM wa_schema_migrations").fetchall())


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    applied, steps = _applied(connection), migrations()
    newest = max(applied, default=0)
    if newest > steps[-1].version:
        raise StoreTooNew(
            f"{path} has schema version {newest}, and this program knows {steps[-1].version}: "
            "install the newer program again, or restore a backup made before it ran"
        )
    for step in steps:
        if applied.get(step.version, step.checksum) != step.checksum:
            raise StoreDamaged(
                f"{path} was made by another build: its schema step {step.version} differs from ours; "
                "install that build again, or name another file"
            )


def _migrate(connection: sqlite3.Connection, upgrade: Upgrade) -> None:
    _teach(connection, upgrade)
    connection.execute(
        "CREATE TABLE IF NOT EXISTS wa_schema_migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL, "
        "checksum BLOB NOT NULL, applied_at INTEGER NOT NULL) STRICT"
    )
    applied = _applied(connection)
    for step in migrations():
        if step.version not in applied:
            _apply(connection, step)
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")


class _Total:
    """Sum of checksums, as an aggregate of SQL."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def step(self, part: bytes) -> None:
        self._parts.append(part)

    def finalize(self) -> bytes:
        return checksum.total(self._parts)


def _teach(connection: sqlite3.Connection, upgrade: Upgrade) -> None:
    """Functions that the migrations call."""

    def upgraded(kind: str, key: str, value: bytes) -> str:
        return upgrade(kind, key, bytes(value)).decode()

    def creds(value: bytes) -> str:
        """Damaged credentials stay as they are: their session says so, and the others go on."""
        try:
            return canonicalise(value).decode()
        except (msgspec.DecodeError, ValueError):
            return bytes(value).decode("utf-8", "replace")

    def check(kind: str, key: str, version: int, document: str) -> bytes:
        return checksum.item_checksum(kind, key, version, document.encode())

    def add(one: bytes, other: bytes | None) -> bytes:
        return checksum.changed(one, None, other)

    connection.create_function("wad_upgrade", 3, upgraded, deterministic=True)
    connection.create_function("wad_creds", 1, creds, deterministic=True)
    connection.create_function("wad_checksum", 4, check, deterministic=True)
    connection.create_function("wad_sum", 2, add, deterministic=True)
    connection.create_aggregate("wad_total", 1, _Total)  # type: ignore[arg-type]


def _apply(connection: sqlite3.Connection, step: Migration) -> None:
    record = (
        "INSERT INTO wa_schema_migrations VALUES "
        f"({step.version}, '{step.name}', x'{step.checksum.hex()}', "
        "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER));"
    )
    try:
        connection.executescript(f"BEGIN IMMEDIATE;\n{step.script}\n{record}\nCOMMIT;")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
