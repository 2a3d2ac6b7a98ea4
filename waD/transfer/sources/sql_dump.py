"""SQL dumps as databases that can be asked: their rows in a private SQLite database, and nothing of the dump is run.

Only tables that are wanted are kept. The database has no name: SQLite makes a file of it that is unlinked at once, so
that neither memory nor a key that is left behind limits what can be read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Final, TypeAlias

from waD.transfer.sources.errors import SourceRefused
from waD.transfer.sources.files import chunks, open_file
from waD.transfer.sources.sql_statements import Created, Inserted, TableName, Wanted, read_statements
from waD.transfer.sources.sql_values import Literal, bytea
from waD.transfer.sources.sqlite import SqliteSource, prepare

MAX_KEPT: Final = 1 << 32
"""Bytes of all rows that are kept."""
_ROW: Final = 64
"""Bytes that a row takes besides its values."""
_AT_A_TIME: Final = 500

_INTEGERS: Final = frozenset(
    {
        "bigint",
        "bigserial",
        "int",
        "int2",
        "int4",
        "int8",
        "integer",
        "mediumint",
        "serial",
        "smallint",
        "tinyint",
    }
)
_TRUTH: Final = {"t": 1, "true": 1, "f": 0, "false": 0}

Types: TypeAlias = Mapping[tuple[str, str], str]
"""Type by table and column, all in small letters."""


@contextmanager
def open_sql_dump(path: Path, wanted: Wanted, types: Types | None = None) -> Iterator[SqliteSource]:
    """Read the tables that are wanted, and let them be asked.

    Args:
        path: the dump, of PostgreSQL, MySQL, MariaDB or SQLite.
        wanted: which tables are kept.
        types: of columns, where the dump holds rows alone.

    Raises:
        SourceRefused: on entry.
    """
    with closing(sqlite3.connect("")) as connection:
        connection.isolation_level = None
        try:
            with open_file(path) as file:
                _Loader(connection, types or {}).load(read_statements(chunks(file), wanted))
        except sqlite3.Error as error:
            raise SourceRefused(
                "source_too_large",
                f"{path}: its rows cannot be kept until they are read ({error}): SQLITE_TMPDIR names another place",
            ) from None
        except SourceRefused as error:
            if error.code in ("source_damaged", "dump_unsupported"):
                raise SourceRefused(error.code, f"{path}: {error.detail}") from None
            raise
        prepare(connection)
        yield SqliteSource(connection)


class _Loader:
    """Puts rows into tables of the same names."""

    def __init__(self, connection: sqlite3.Connection, types: Types) -> None:
        self._connection = connection
        self._types = types
        self._created: dict[TableName, tuple[tuple[str, str], ...]] = {}
        self._filled: dict[str, TableName] = {}
        self._columns: dict[TableName, tuple[tuple[str, str], ...]] = {}
        self._size = 0

    def load(self, found: Iterable[Created | Inserted]) -> None:
        """Take everything; raises SourceRefused."""
        for pragma in ("journal_mode = OFF", "synchronous = OFF"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.execute("BEGIN")
        for _, group in groupby(found, lambda one: isinstance(one, Created) or (one.table, one.columns)):
            self._take(group)
        for table in self._created:
            if table.name.lower() not in self._filled:
                self._make(table, self._created[table], 0)
        self._connection.execute("COMMIT")

    def _take(self, group: Iterable[Created | Inserted]) -> None:
        """Declarations, or rows of one form."""
        rows: list[list[Literal]] = []
        query, kinds = "", [""]
        for one in group:
            if isinstance(one, Created):
                self._created[one.table] = one.columns
                continue
            if not query:
                query, kinds = self._insertion(one)
            rows.append(self._row(one, kinds))
            if len(rows) == _AT_A_TIME:
                self._connection.executemany(query, rows)
                rows = []
        if rows:
            self._connection.executemany(query, rows)

    def _insertion(self, row: Inserted) -> tuple[str, list[str]]:
        """The statement of ours for rows of one form, and the types of their columns."""
        table, key = row.table, row.table.name.lower()
        other = self._filled.setdefault(key, table)
        if other != table:
            raise SourceRefused(
                "dump_unsupported",
                f"byte {row.at}: {other} and {table} have rows both: name one with --table and its columns, or make "
                "a dump of one alone",
            )
        if table not in self._columns:
            self._make(table, self._created.get(table) or self._undeclared(row), row.at)
        types = {name.lower(): kind for name, kind in self._columns[table]}
        names = [name for name, _ in self._columns[table]] if row.columns is None else row.columns
        missing = [name for name in names if name.lower() not in types]
        if missing:
            raise self._damaged(row.at, f"{table} has no column {missing[0]}")
        marks, columns = ", ".join("?" * len(names)), ", ".join(map(_quoted, names))
        query = f"INSERT INTO {_quoted(table.name)} ({columns}) VALUES ({marks})"  # noqa: S608 - quoted names
        return query, [types[name.lower()] for name in names]

    def _undeclared(self, row: Inserted) -> tuple[tuple[str, str], ...]:
        if row.columns is None:
            raise SourceRefused(
                "dump_unsupported",
                f"byte {row.at}: the columns of {row.table} are named nowhere: make the dump with the definitions of "
                "the tables, or with the names of the columns in each INSERT",
            )
        table = row.table.name.lower()
        return tuple((name, self._types.get((table, name.lower()), "")) for name in row.columns)

    def _make(self, table: TableName, columns: tuple[tuple[str, str], ...], at: int) -> None:
        definitions = ", ".join(
            f"{_quoted(name)}{' INTEGER' if kind in _INTEGERS else ''}" for name, kind in columns
        )
        try:
            self._connection.execute(f"CREATE TABLE {_quoted(table.name)} ({definitions})")
        except (sqlite3.Error, ValueError):
            raise self._damaged(at, f"{table} cannot be a table with such columns") from None
        self._columns[table] = columns

    def _row(self, row: Inserted, kinds: list[str]) -> list[Literal]:
        if len(kinds) != len(row.values):
            raise self._damaged(
                row.at, f"a row of {len(row.values)} values for {len(kinds)} columns of {row.table}"
            )
        values = [
            _bindable(_printed(value, kind) if row.printed else value)
            for value, kind in zip(row.values, kinds, strict=True)
        ]
        self._size += _ROW + sum(len(value) for value in values if isinstance(value, str | bytes))
        if self._size > MAX_KEPT:
            raise SourceRefused("source_too_large", f"the rows have more than {MAX_KEPT >> 20} MiB")
        return values

    def _damaged(self, at: int, reason: str) -> SourceRefused:
        return SourceRefused("source_damaged", f"byte {at}: {reason}")


def _printed(value: Literal, kind: str) -> Literal:
    if not isinstance(value, str):
        return value
    if kind == "bytea" or (not kind and value.startswith("\\x")):
        return bytea(value)
    return _TRUTH.get(value, value) if kind in ("boolean", "bool") else value


def _bindable(value: Literal) -> Literal:
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        return str(value)
    return value


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
