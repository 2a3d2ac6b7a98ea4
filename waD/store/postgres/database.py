"""A connection as the shared statements want it: statements whose results nobody waits for travel together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, zip_longest
from typing import Any, Final

import psycopg
from psycopg import RawCursor

from waD.store.errors import SessionUnknown
from waD.store.postgres.adapters import numbered
from waD.store.postgres.faults import RefusedError, meaning
from waD.store.postgres.link import Link
from waD.store.postgres.stacking import many, portions, stacked

PIPELINES: Final = psycopg.Pipeline.is_supported()
SAVEPOINT: Final = "SAVEPOINT job"
_APPEND: Final = "INSERT INTO wa_events "
_UNPREPARED: Final = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE")


class _Statement:
    """A statement that was sent or will be. Asking for its result sends it, and all before it.

    Attributes:
        db: sends it.
        rows: parameters; those of several rows give no result.
    """

    __slots__ = ("_result", "db", "many", "rows", "sql")

    def __init__(self, db: PostgresDatabase, sql: str, rows: Sequence[Sequence[Any]], many: bool) -> None:
        self.db = db
        self.sql = sql
        self.rows = rows
        self.many = many
        self._result: RawCursor[tuple[Any, ...]] | _Share | None = None

    def send(self, link: Link) -> None:
        """Run it, or in a pipeline put it on its way."""
        if self.many:
            RawCursor(link).executemany(numbered(self.sql), self.rows)
        else:
            self._result = _run(link, self.sql, self.rows[0])

    def take(self, result: _Share) -> None:
        """It was sent together with others."""
        self._result = result

    def arrived(self) -> None:
        """The results are there."""

    def _done(self) -> RawCursor[tuple[Any, ...]] | _Share:
        if self._result is None:
            self.db.settle()
        assert self._result is not None
        return self._result

    @property
    def rowcount(self) -> int:
        """Rows that were changed."""
        return self._done().rowcount

    @property
    def status(self) -> str | None:
        """How the server calls what it did."""
        result = self._done()
        return result.statusmessage if isinstance(result, RawCursor) else None

    def fetchone(self) -> Any:
        """The next row."""
        return self._done().fetchone()

    def fetchall(self) -> list[Any]:
        """All rows."""
        return self._done().fetchall()


class _Share:
    """One session's rows of what a stack gave."""

    __slots__ = ("_rows",)

    def __init__(self) -> None:
        self._rows: list[tuple[Any, ...]] = []

    def add(self, row: tuple[Any, ...]) -> None:
        """One more."""
        self._rows.append(row)

    @property
    def rowcount(self) -> int:
        """Rows that were given back; a stack does not know who changed how many."""
        return len(self._rows)

    def fetchone(self) -> Any:
        """The next row."""
        return self._rows.pop(0) if self._rows else None

    def fetchall(self) -> list[Any]:
        """All rows."""
        rows, self._rows = self._rows, []
        return rows


class _Stack:
    """Statements of one text as one with many rows. The session is the first parameter, and the first column given."""

    __slots__ = ("_cursors", "_form", "_parts")

    def __init__(self, form: str, parts: Sequence[_Statement]) -> None:
        self._form = form
        self._parts = parts
        self._cursors: list[RawCursor[tuple[Any, ...]]] = []

    def send(self, link: Link) -> None:
        """Put it on its way."""
        rows = [row for part in self._parts for row in part.rows]
        for portion in portions(rows):
            form = stacked(self._form, len(portion))
            self._cursors.append(_run(link, form, [*chain.from_iterable(portion)]))

    def arrived(self) -> None:
        """Give each statement the rows of its session."""
        shares = {part.rows[0][0]: _Share() for part in self._parts}
        for part in self._parts:
            part.take(shares[part.rows[0][0]])
        for cursor in self._cursors:
            for row in cursor.fetchall() if cursor.description else ():
                if row[0] in shares:
                    shares[row[0]].add(row)


def _run(link: Link, sql: str, params: Sequence[Any]) -> RawCursor[tuple[Any, ...]]:
    cursor = RawCursor(link)
    cursor.format = psycopg.pq.Format.BINARY
    cursor.execute(numbered(sql), params, prepare=False if sql.startswith(_UNPREPARED) else None)
    return cursor


class PostgresDatabase:
    """Statements of one transaction, or a single one.

    Args:
        link: the connection.
        pipeline: that it is in; without one, each statement waits for the answer of the one before.

    Attributes:
        stacks: whether a statement for several rows is sent as one; it fails as one, then.
        appends: whether one of the statements appends events.
    """

    __slots__ = ("_link", "_pipeline", "_waiting", "appends", "stacks")

    now = "clock_timestamp()"
    later = "clock_timestamp() + {} * interval '1 millisecond'"
    allow_purge = "SET LOCAL wad.allow_history_delete = 'purge'"
    forbid_purge = "SET LOCAL wad.allow_history_delete = ''"
    seal_kek = "document->>'kek'"

    def __init__(self, link: Link, pipeline: psycopg.Pipeline | None = None) -> None:
        self._link = link
        self._pipeline = pipeline
        self.stacks = self.appends = False
        self._waiting: list[_Statement | _Stack] = []

    def execute(self, sql: str, params: Sequence[Any] = (), /) -> _Statement:
        """Run one statement, at the latest when its result is asked for."""
        statement = self._statement(sql, (params,), many=False)
        self._waiting.append(statement)
        return statement

    def executemany(self, sql: str, params: Iterable[Sequence[Any]], /) -> _Statement:
        """Run one statement for many rows."""
        statement = self._statement(sql, [*params], many=True)
        self._waiting += self._stacked([statement])
        return statement

    def _statement(self, sql: str, rows: Sequence[Sequence[Any]], *, many: bool) -> _Statement:
        self.appends = self.appends or sql.startswith(_APPEND)
        return _Statement(self, sql, rows, many=many)

    def promise(self, sql: str, params: Sequence[Any] = (), /) -> Callable[[], Any]:
        """Run one statement, whose first row is asked for later."""
        return self.execute(sql, params).fetchone

    def strand(self) -> PostgresDatabase:
        """For the statements of one session, which are sent when it is braided with others, or has to know a result."""
        return PostgresDatabase(self._link, self._pipeline)

    def braid(self, strands: Sequence[PostgresDatabase]) -> None:
        """Run the statements of several sessions, which do not touch each other's rows.

        Those of one session keep their order. Of those that have the same place in it, equal ones are run as one.
        """
        for turn in zip_longest(*(strand._take() for strand in strands)):
            alike: dict[str, list[_Statement]] = {}
            for statement in turn:
                if statement is not None:
                    statement.db = self
                    alike.setdefault(statement.sql, []).append(statement)
            for same in alike.values():
                self._waiting += self._stacked(same)
        self.appends = self.appends or any(strand.appends for strand in strands)

    def _take(self) -> list[Any]:
        waiting, self._waiting = self._waiting, []
        return waiting

    def _stacked(self, same: Sequence[_Statement]) -> Sequence[_Statement | _Stack]:
        form = many(same[0].sql) if self.stacks else None
        return same if form is None else [_Stack(form, same)]

    def settle(self) -> None:
        """Send everything, and wait for the results.

        Raises:
            RefusedError, SessionUnknown: the database does not take what one of them wants to write.
            psycopg.Error: any other failure.
        """
        waiting = self._take()
        if not waiting:
            return
        try:
            for one in waiting:
                one.send(self._link)
            if self._pipeline is not None:
                self._pipeline.sync()
        except psycopg.Error as error:
            self._calm()
            if meaning(error) == "refused":
                raise refusal(error) from error
            raise
        for one in waiting:
            one.arrived()

    def finish(self, sql: str) -> Callable[[], str | None]:
        """Put everything on its way with one more statement behind it; whoever ends the pipeline waits for it.

        Returns what then says how the server calls what it did.
        """
        last = self.execute(sql)
        for one in self._take():
            one.send(self._link)
        return lambda: last.status

    def _calm(self) -> None:
        """A pipeline in which something failed takes nothing until it was synchronised."""
        while self._pipeline is not None and not self._link.closed:
            try:
                self._pipeline.sync()
            except psycopg.errors.PipelineAborted:
                continue  # of a statement behind the one that failed
            except psycopg.Error:
                pass
            return

    def discard(self) -> None:
        """Do not send what was to follow the last savepoint: it is undone anyway."""
        names = [one.sql if isinstance(one, _Statement) else "" for one in self._waiting]
        del self._waiting[names.index(SAVEPOINT) + 1 if SAVEPOINT in names else 0 :]


def refusal(error: psycopg.Error) -> Exception:
    """What an error says that means `refused`."""
    if isinstance(error, psycopg.errors.InvalidTextRepresentation) and "uuid" in str(error):
        return SessionUnknown("no session has such an id")  # ids of sessions are all that has this type
    return RefusedError((error.diag.message_primary or str(error)).strip())


@contextmanager
def pipelined(link: Link) -> Iterator[psycopg.Pipeline | None]:
    """A connection in a pipeline for the life of the block; None where the client library has none."""
    if not PIPELINES:
        yield None
        return
    with link.pipeline() as pipeline:
        yield pipeline
