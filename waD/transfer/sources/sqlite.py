"""SQLite files of other programs, read and never written (chapter 08 §4.4).

A file in WAL mode, or one with an unfinished journal, is read from a private copy: SQLite cannot open it without
writing beside it, not even with `mode=ro`. With `immutable=1` it could, and would miss the newest commits.
"""

from __future__ import annotations

import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final, TypeAlias

from waD.transfer.sources.errors import SourceRefused
from waD.transfer.sources.rows import QUIET_MS, Row

MAGIC: Final = b"SQLite format 3\x00"
_WRITE_VERSION: Final = 18
"""Where the header says that the file is in WAL mode, by a 2."""
_SIDECARS: Final = ("-wal", "-journal")
_NS_PER_MS: Final = 1_000_000

Fingerprint: TypeAlias = tuple[tuple[int, int, int] | None, ...]


class SqliteSource:
    """An open file, inside one read transaction."""

    connected: Final = 0
    place: Final = "rowid"

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def size(self, column: str) -> str:
        """SQL for the bytes of a value."""
        return f"length(CAST({column} AS BLOB))"

    def columns(self, table: str) -> frozenset[str]:
        """Names of the columns of a real table; a view counts as none, since it could compute anything."""
        real = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND lower(name) = ?"
        if next(self.rows(real, (table,)), None) is None:
            return frozenset()
        return frozenset(
            str(name) for (name,) in self.rows("SELECT name FROM pragma_table_info(?)", (table,))
        )

    def rows(self, query: str, parameters: Sequence[str | int] = ()) -> Iterator[Row]:
        """Run one query; raises SourceRefused."""
        with _refusing():
            yield from self._connection.execute(query, tuple(parameters))


@contextmanager
def open_sqlite(path: Path, *, stopped: bool, now_ms: int) -> Iterator[SqliteSource]:
    """Open a file to read, and find at the end that nobody changed it meanwhile.

    Args:
        path: the database; a `-wal` or `-journal` file beside it belongs to it.
        stopped: somebody says that the old program does not run.
        now_ms: current Unix time in ms.

    Raises:
        SourceRefused: on entry or while reading, and on leaving with `source_changed`.
    """
    if not stopped:
        raise SourceRefused(
            "source_running", f"stop the program that uses {path}, then say so with --i-stopped-it"
        )
    before = _fingerprint(path)
    header = _header(path)
    _check_quiet(path, before, now_ms)
    with ExitStack() as stack:
        beside = any(found is not None and found[1] for found in before[1:])
        if beside or header[_WRITE_VERSION] != 1:
            path_read = _copy(path, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="waD-"))))
            mode = "rw"
        else:
            path_read, mode = path, "ro"
        with _refusing():
            uri = f"{path_read.absolute().as_uri()}?mode={mode}"
            connection = stack.enter_context(closing(sqlite3.connect(uri, uri=True, timeout=0)))
            prepare(connection)
        yield SqliteSource(connection)
    if _fingerprint(path) != before:
        raise SourceRefused(
            "source_changed", f"{path} changed while it was read: stop what uses it, try again"
        )


def table_names(path: Path, known: Collection[str]) -> frozenset[str]:
    """The tables of a file, whoever uses it; nothing is made or changed beside it.

    Args:
        path: the database.
        known: if one of these is in the file itself, what lies beside it is not looked at: a copy may be large.

    Raises:
        SourceRefused: it cannot be read.
    """
    files = _fingerprint(path)
    _header(path)
    if not any(found is not None and found[1] for found in files[1:]):
        return _table_names(path, "mode=ro&immutable=1")
    try:
        names = _table_names(path, "mode=ro&immutable=1")
    except SourceRefused:  # it is being written, perhaps
        names = frozenset()
    if not names.isdisjoint(known):
        return names
    with tempfile.TemporaryDirectory(prefix="waD-") as directory:
        return _table_names(_copy(path, Path(directory)), "mode=rw")


def _table_names(path: Path, options: str) -> frozenset[str]:
    with (
        _refusing(),
        closing(sqlite3.connect(f"{path.absolute().as_uri()}?{options}", uri=True)) as connection,
    ):
        prepare(connection)
        query = "SELECT name FROM sqlite_master WHERE type = 'table'"
        return frozenset(str(name) for (name,) in connection.execute(query))


def prepare(connection: sqlite3.Connection) -> None:
    """Let a connection see one moment, write nothing and run nothing of the file's own."""
    connection.isolation_level = None
    connection.text_factory = _text
    for pragma in ("trusted_schema = OFF", "query_only = ON", "cell_size_check = ON"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _copy(path: Path, directory: Path) -> Path:
    """The database and what belongs to it, in a directory that only this user can enter."""
    copy = directory / "copy.db"
    for suffix in ("", *_SIDECARS):
        original = path.with_name(path.name + suffix)
        try:
            shutil.copyfile(original, directory / f"copy.db{suffix}")
        except FileNotFoundError:
            continue
        except OSError as error:
            raise SourceRefused("source_unreachable", f"cannot copy {original}: {error.strerror}") from None
    return copy


def _header(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except OSError as error:
        raise SourceRefused("source_unreachable", f"cannot read {path}: {error.strerror}") from None
    if len(header) < 100 or not header.startswith(MAGIC):
        raise SourceRefused("not_sqlite", f"{path} is not an SQLite database")
    return header


def _fingerprint(path: Path) -> Fingerprint:
    """(inode, size, time of change in ns) of the database and of each file beside it that exists."""
    found: list[tuple[int, int, int] | None] = []
    for suffix in ("", *_SIDECARS):
        try:
            status = path.with_name(path.name + suffix).stat()
        except FileNotFoundError:
            found.append(None)
            continue
        except OSError as error:
            raise SourceRefused("source_unreachable", f"cannot look at {path}: {error.strerror}") from None
        if not stat.S_ISREG(status.st_mode):
            raise SourceRefused("not_sqlite", f"{path}{suffix} is not a regular file")
        found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    if found[0] is None:
        raise SourceRefused("source_missing", f"there is no file {path}")
    return tuple(found)


def _check_quiet(path: Path, files: Fingerprint, now_ms: int) -> None:
    newest = max(found[2] for found in files if found is not None)
    if now_ms - newest // _NS_PER_MS < QUIET_MS:
        raise SourceRefused(
            "source_running",
            f"{path} or its -wal changed less than {QUIET_MS // 1000} s ago: stop what uses it and wait a minute",
        )


@contextmanager
def _refusing() -> Iterator[None]:
    """Tell errors of SQLite in this module's words; its texts quote no values."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise SourceRefused("source_busy", "another program has locked the database: stop it") from None
        raise SourceRefused("source_damaged", f"SQLite says: {error}") from None
    except sqlite3.Error as error:
        raise SourceRefused("source_damaged", f"SQLite says: {error}") from None
