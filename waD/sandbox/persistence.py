"""The journal on disk: one SQLite file, written in batches by a worker thread."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

import trio

from waD.sandbox.errors import SandboxError

FILE: Final = "sandbox.db"
FORMAT: Final = 1
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS item (
    kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (kind, key)
) WITHOUT ROWID
"""


class SqliteJournal:
    """Collects changes and writes them in transactions.

    The file is in WAL mode without fsync: it survives the death of the process at any instant, and a power cut
    with the loss of the last moments.

    Raises:
        SandboxError: the directory or file cannot be used, or another sandbox has it.
    """

    enabled = True

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._database = sqlite3.connect(
                self.path, isolation_level=None, check_same_thread=False, timeout=1
            )
            self._prepare()
        except (OSError, sqlite3.Error) as error:
            raise SandboxError(f"cannot use the state file {self.path}: {error}", 500) from error
        self._pending: dict[tuple[str, str], bytes | None] = {}
        self._lock = trio.Lock()

    def put(self, kind: str, key: str, value: bytes) -> None:
        """Insert or replace a row with the next flush."""
        self._pending[(kind, key)] = value

    def delete(self, kind: str, key: str) -> None:
        """Remove a row with the next flush."""
        self._pending[(kind, key)] = None

    def rows(self, kind: str) -> list[tuple[str, bytes]]:
        """All rows of one kind, by key."""
        found = self._database.execute("SELECT key, value FROM item WHERE kind = ? ORDER BY key", (kind,))
        return [(str(key), bytes(value)) for key, value in found]

    async def flush(self) -> None:
        """Write everything that is pending now; returns when it is in the file."""
        async with self._lock:
            if self._pending:
                batch, self._pending = self._pending, {}
                await trio.to_thread.run_sync(self._write, batch)

    def close(self) -> None:
        """Write what is pending and close the file."""
        if self._pending:
            batch, self._pending = self._pending, {}
            self._write(batch)
        self._database.close()

    def _prepare(self) -> None:
        self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = OFF")
        version = self._database.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, FORMAT):
            raise SandboxError(f"{self.path} has format {version}; this program knows {FORMAT}", 500)
        self._database.execute(_SCHEMA)
        self._database.execute(f"PRAGMA user_version = {FORMAT}")

    def _write(self, batch: dict[tuple[str, str], bytes | None]) -> None:
        puts = [(kind, key, value) for (kind, key), value in batch.items() if value is not None]
        deletes = [name for name, value in batch.items() if value is None]
        self._database.execute("BEGIN IMMEDIATE")
        self._database.executemany("INSERT OR REPLACE INTO item VALUES (?, ?, ?)", puts)
        self._database.executemany("DELETE FROM item WHERE kind = ? AND key = ?", deletes)
        self._database.execute("COMMIT")
