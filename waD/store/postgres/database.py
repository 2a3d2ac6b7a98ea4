"""A connection as the shared statements want it: statements whose results nobody waits for travel together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import psycopg
from psycopg import RawCursor

from waD.store.errors import SessionUnknown
from waD.store.postgres.adapters import numbered
from waD.store.postgres.faults import RefusedError, meaning
from waD.store.postgres.link import Link

PIPELINES: Final = psycopg.Pipeline.is_supported()
SAVEPOINT: Final = "SAVEPOINT job"
_UNPREPARED: Final = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE")


class _Statement:
    """A statement that was sent or will be. Asking for its result sends it, and all before it."""

    __slots__ = ("_cursor", "_db", "_params", "many", "sql")

    def __init__(self, db: PostgresDatabase, sql: str, params: Any, many: bool) -> None:
        self._db = db
        self.sql = sql
        self._params = params
        self.many = many
        self._cursor: RawCursor[tuple[Any, ...]] | None = None

    def send(self, link: Link) -> None:
        """Run it, or in a pipeline put it on its way."""
        cursor = RawCursor(link)
        cursor.format = psycopg.pq.Format.BINARY
        if self.many:
            cursor.executemany(numbered(self.sql), self._params)
        else:
            prepare = False if self.sql.startswith(_UNPREPARED) else None
            cursor.execute(numbered(self.sql), self._params, prepare=prepare)
        self._cursor = cursor

    def _done(self) -> RawCursor[tuple[Any, ...]]:
        if self._cursor is None:
            self._db.settle()
        assert self._cursor is not None
        return self._cursor

    @property
    def rowcount(self) -> int:
        """Rows that were changed."""
        return self._done().rowcount

    @property
    def statusmessage(self) -> str | None:
        """How the server calls what it did."""
        return self._done().statusmessage

    def fetchone(self) -> Any:
        """The next row."""
        return self._done().fetchone()

    def fetchall(self) -> list[Any]:
        """All rows."""
        return self._done().fetchall()


class PostgresDatabase:
    """Statements of one transaction, or a single one."""

    __slots__ = ("_link", "_waiting")

    now = "clock_timestamp()"
    later = "clock_timestamp() + {} * interval '1 millisecond'"
    allow_purge = "SET LOCAL wad.allow_history_delete = 'purge'"
    forbid_purge = "SET LOCAL wad.allow_history_delete = ''"
    seal_kek = "document->>'kek'"

    def __init__(self, link: Link) -> None:
        self._link = link
        self._waiting: list[_Statement] = []

    def execute(self, sql: str, params: Sequence[Any] = (), /) -> _Statement:
        """Run one statement, at the latest when its result is asked for."""
        statement = _Statement(self, sql, params, many=False)
        self._waiting.append(statement)
        return statement

    def executemany(self, sql: str, params: Iterable[Sequence[Any]], /) -> None:
        """Run one statement for many rows."""
        self._waiting.append(_Statement(self, sql, params, many=True))

    def promise(self, sql: str, params: Sequence[Any] = (), /) -> Callable[[], Any]:
        """Run one statement, whose first row is asked for later."""
        return self.execute(sql, params).fetchone

    def settle(self) -> None:
        """Send everything, and wait for the results.

        Raises:
            RefusedError, SessionUnknown: the database does not take what one of them wants to write.
            psycopg.Error: any other failure.
        """
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        try:
            self._together(waiting[:-1])
            waiting[-1].send(self._link)
            if waiting[-1].many:
                self._link.execute(b"SELECT 1")
        except psycopg.Error as error:
            raise _sorted(error) from error

    def _together(self, statements: Sequence[_Statement]) -> None:
        """Never the last one: psycopg ends a pipeline in a way that stops the server's watch over idle transactions.

        A process that stands still would then hold its locks for ever. An ordinary statement starts the watch again.
        """
        pipeline: AbstractContextManager[object] = (
            self._link.pipeline() if len(statements) > 1 and PIPELINES else nullcontext()
        )
        with pipeline:
            for statement in statements:
                statement.send(self._link)

    def discard(self) -> None:
        """Do not send what was to follow the last savepoint: it is undone anyway."""
        names = [statement.sql for statement in self._waiting]
        del self._waiting[names.index(SAVEPOINT) + 1 if SAVEPOINT in names else 0 :]


def _sorted(error: psycopg.Error) -> Exception:
    if meaning(error) != "refused":
        return error
    if isinstance(error, psycopg.errors.InvalidTextRepresentation) and "uuid" in str(error):
        return SessionUnknown("no session has such an id")  # ids of sessions are all that has this type
    return RefusedError((error.diag.message_primary or str(error)).strip())
