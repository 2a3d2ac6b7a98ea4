"""The engine on SQLite: one connection that writes, one that reads."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from waD.store.canonical import as_it_is
from waD.store.codec import Codec, Upgrade
from waD.store.engine import Job, Outcome
from waD.store.phases import Phase
from waD.store.sql.database import Database
from waD.store.sql.jobs import Jobs
from waD.store.sql.reading import Reads, View
from waD.store.sqlite.database import (
    FileLock,
    connect,
    open_database,
    prepare_directory,
    translate,
    translated,
)
from waD.store.vault import Vault

T = TypeVar("T")

_REFUSED: Final = (sqlite3.IntegrityError, sqlite3.InterfaceError)


def wall_clock_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


class SqliteDatabase:
    """A connection as the shared statements want it."""

    __slots__ = ("connection", "execute", "executemany")

    now = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"
    later = now + " + {}"
    allow_purge = "INSERT INTO wa_settings (k, v) VALUES ('allow_history_delete', 'purge')"
    forbid_purge = "DELETE FROM wa_settings WHERE k='allow_history_delete'"
    seal_kek = "CASE WHEN json_valid(document) THEN json_extract(document, '$.kek') END"

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.execute: Callable[..., sqlite3.Cursor] = connection.execute
        self.executemany: Callable[[str, Iterable[Sequence[Any]]], object] = connection.executemany

    def promise(self, sql: str, params: Sequence[Any] = ()) -> Callable[[], Any]:
        """Asked for at once: a statement with rows left would be in the way of the commit."""
        row = self.execute(sql, params).fetchone()
        return lambda: row

    def settle(self) -> None:
        """Nothing is put off."""

    def discard(self) -> None:
        """Nothing is put off."""


class SqliteEngine(Reads):
    """A database file. The constructor opens, checks and migrates it.

    Args:
        path: of the file.
        now_ms: the time that rows get.
        codec: of legacy rows; None where none are kept.
        vault: the operator's keys; None for a database in the clear.
        upgrade: turns items that an earlier version stored into today's documents.
        new_phase: of sessions that are made here.

    Raises:
        StoreLocked, StoreDamaged, StoreTooNew, StorageUnavailable: the file cannot be used; nothing was changed.
    """

    shared = False
    listening = False
    concurrent_reads = 1

    def __init__(
        self,
        path: Path,
        now_ms: Callable[[], int] = wall_clock_ms,
        *,
        codec: Codec | None = None,
        vault: Vault | None = None,
        upgrade: Upgrade = as_it_is,
        new_phase: Phase = "cut_over",
    ) -> None:
        self.path = path
        self.name = f"sqlite:{path}"
        self._reading = threading.Lock()
        self._jobs = Jobs(_REFUSED, (sqlite3.Error,), now_ms, codec, vault, upgrade, new_phase)
        super().__init__(codec, vault, self._jobs.sealing, str(path))
        prepare_directory(path)
        self._lock = FileLock(path)
        self._lock.acquire()
        try:
            self._db = open_database(path, upgrade)
            with translated(path):
                self._reader = connect(path, readonly=True)
        except BaseException:
            self._lock.release()
            raise
        self._writes = SqliteDatabase(self._db)
        self._reads = SqliteDatabase(self._reader)

    def hurry(self) -> None:
        """A file answers at once, or not at all."""

    def close(self) -> None:
        """Close both connections and give the lock back."""
        with self._reading:
            self._reader.close()
        self._db.close()
        self._lock.release()

    def listen(self, heard: Callable[[], None]) -> None:
        """Nobody else writes to the file."""

    def write(self, jobs: Sequence[Job]) -> list[Outcome]:
        """One transaction; each job in its savepoint."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            outcomes = self._jobs.run(self._writes, jobs)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            failure = translate(self.path, error)
            return [failure] * len(jobs)
        except BaseException:
            self._roll_back()
            raise
        return outcomes

    def _roll_back(self) -> None:
        self._jobs.forget()
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def look(self, query: Callable[[Database], T]) -> T:
        """Run a query in one view of the database."""
        with self._reading, translated(self.path):
            self._reader.execute("BEGIN")
            try:
                return query(self._reads)
            finally:
                self._reader.execute("COMMIT")

    def _read(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._reading, translated(self.path):
            return self._reader.execute(query, values).fetchall()

    @contextmanager
    def view(self) -> Iterator[View]:
        """The database as it is at this moment, for as long as the block lasts; everybody else goes on."""
        with translated(self.path):
            connection = connect(self.path, readonly=True)
            try:
                connection.execute("BEGIN")
                db = SqliteDatabase(connection)
                yield View(db, self._codec, self._vault, self._seals, self._name)
            finally:
                connection.close()

    def free_bytes(self) -> int | None:
        """On the disk of the file."""
        return shutil.disk_usage(self.path.parent).free

    def weaknesses(self) -> list[str]:
        """None: `open_database` sets what is needed, on each connection."""
        return []

    def integrity(self, quick: bool) -> list[str]:
        """On a connection of its own, which takes its time."""
        with translated(self.path):
            checker = connect(self.path, readonly=True)
            try:
                found = checker.execute(f"PRAGMA {'quick_check' if quick else 'integrity_check'}").fetchall()
            finally:
                checker.close()
        return [row[0] for row in found if row[0] != "ok"]
