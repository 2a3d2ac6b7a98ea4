"""SQL tables, over one interface for all drivers; nothing is written (chapter 08 §3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

from waD.transfer.baileys.presets import PRESETS, Preset, Table
from waD.transfer.baileys.rows import MAX_CHOICES, Row, read_rows
from waD.transfer.baileys.source import BaileysItems
from waD.transfer.sources.errors import SourceRefused
from waD.transfer.sources.sql_dump import open_sql_dump
from waD.transfer.sources.sql_statements import TableName
from waD.transfer.sources.sqlite import SqliteSource, open_sqlite

ROWS_AT_A_TIME: Final = 500

Query: TypeAlias = Callable[[str, Sequence[str]], Iterator[tuple[Any, ...]]]
"""Runs one query with `?` placeholders; raises SourceRefused."""
Columns: TypeAlias = Callable[[str], frozenset[str]]


class Cursor(Protocol):
    """What is needed of a cursor of any driver after PEP 249."""

    def execute(self, query: Any, parameters: Any = ..., /) -> Any:
        """Run a query."""
        ...

    def fetchmany(self, size: int = ..., /) -> Sequence[Any]:
        """The next rows, none at the end."""
        ...


def cursor_query(cursor: Cursor, *, placeholder: str = "?", failure: type[Exception] = Exception) -> Query:
    """Make queries with an open cursor.

    Args:
        cursor: of a transaction that only reads and sees one moment.
        placeholder: how the driver spells a parameter.
        failure: what the driver raises.
    """

    def run(query: str, parameters: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        try:
            cursor.execute(query.replace("?", placeholder), tuple(parameters))
            while rows := cursor.fetchmany(ROWS_AT_A_TIME):
                yield from (tuple(row) for row in rows)
        except failure as error:
            if isinstance(error, SourceRefused):
                raise
            raise SourceRefused(
                "source_damaged", f"the database refused to go on: {type(error).__name__}"
            ) from None

    return run


def read_sql(query: Query, preset: Preset, *, session: str | None = None) -> BaileysItems:
    """Read one session.

    Args:
        query: how to ask the database.
        preset: where it keeps its sessions; made by hand for tables of other names.
        session: which one, when there are several.

    Raises:
        SourceRefused: no such session, several to choose from, or what the database says.
    """
    session = session if session is not None else _only_session(query, preset.tables[0])
    rows = (row for table in preset.tables for row in _rows(query, table, session))
    return read_rows(rows, session=session, keeps_deleted=preset.keeps_deleted)


def suitable_preset(columns: Columns, preset: Preset | None) -> Preset:
    """Check that a database has the tables of a preset, or find the one whose tables it has.

    Args:
        columns: names of a table's columns by its quoted name, none when there is no such table.
        preset: what somebody says that it is.

    Raises:
        SourceRefused: `table_missing`.
    """
    if preset is not None:
        for table in preset.tables:
            _check_columns(table, columns(quoted_table(table)))
        return preset
    fitting = [one for one in PRESETS.values() if _fits(one, columns)]
    if not fitting:
        raise SourceRefused(
            "table_missing",
            f"no table of a program that is known ({', '.join(sorted(PRESETS))}): name the table",
        )
    # Several may fit where one is part of another; the one that reads most is the right one.
    return max(fitting, key=lambda one: sum(len(table.columns) for table in one.tables))


def _fits(preset: Preset, columns: Columns) -> bool:
    try:
        suitable_preset(columns, preset)
    except SourceRefused:
        return False
    return True


def read_sqlite(
    path: Path,
    preset: Preset | None = None,
    *,
    now_ms: int,
    stopped: bool = False,
    session: str | None = None,
) -> BaileysItems:
    """Read one session from an SQLite file, in one transaction; see `read_sql`.

    Args:
        path: the file; it is opened to read only, or copied when that is not possible.
        preset: where it keeps its sessions; None: found out by the tables there are.
        now_ms: current Unix time in ms.
        stopped: somebody says that the old program does not run; without that nothing is read.
        session: which one, when there are several.

    Raises:
        SourceRefused: it was not read, or changed meanwhile.
    """
    with open_sqlite(path, stopped=stopped, now_ms=now_ms) as source:
        return _read_opened(source, preset, session)


def read_sql_dump(path: Path, preset: Preset | None = None, *, session: str | None = None) -> BaileysItems:
    """Read one session from a dump of statements, of any database; nothing of it is run.

    Args:
        path: the dump.
        preset: where it keeps its sessions; None: found out by the tables there are.
        session: which one, when there are several.

    Raises:
        SourceRefused: it was not read.
    """
    presets = PRESETS.values() if preset is None else (preset,)
    places = {tuple(table.name.lower().rpartition(".")[::2]) for one in presets for table in one.tables}

    def wanted(table: TableName) -> bool:
        name, schemas = table.name.lower(), f".{table.schema.lower()}"
        return any(
            name == place and (not schema or schemas.endswith(f".{schema}")) for schema, place in places
        )

    if preset is not None:  # the dump was read for that one schema, and what is read knows none
        tables = tuple(replace(table, name=table.name.rpartition(".")[2]) for table in preset.tables)
        preset = replace(preset, tables=tables)
    with open_sql_dump(path, wanted) as source:
        return _read_opened(source, preset, session)


def _read_opened(source: SqliteSource, preset: Preset | None, session: str | None) -> BaileysItems:
    found = suitable_preset(lambda table: source.columns(_plain(table)), preset)
    return read_sql(lambda text, parameters: source.rows(text, parameters), found, session=session)


def _rows(query: Query, table: Table, session: str | None) -> Iterator[Row]:
    columns = ", ".join(f"t.{_quoted(column)}" for column in table.columns)
    text = f"SELECT {columns} FROM {quoted_table(table)} AS t"  # noqa: S608 - quoted names; SQL binds no names
    parameters: tuple[str, ...] = ()
    if table.session is not None and session is not None:
        text += f" WHERE {_session(table)} = ?"
        parameters = (session,)
    for values in query(text, parameters):
        yield table.row(dict(zip(table.columns, values, strict=True)))


def _only_session(query: Query, table: Table) -> str | None:
    """The session, when the table has a column for it and there is one; None when the names tell."""
    if table.session is None:
        return None
    text = (
        f"SELECT DISTINCT {_session(table)} FROM {quoted_table(table)} AS t "  # noqa: S608
        f"WHERE t.{_quoted(table.value)} IS NOT NULL LIMIT {MAX_CHOICES + 1}"
    )
    found = sorted(str(name) for (name,) in query(text, ()) if name is not None)
    if len(found) > 1:
        raise SourceRefused(
            "session_several",
            f"several sessions in the table {table.name}: name one",
            tuple(found[:MAX_CHOICES]),
        )
    if not found:
        raise SourceRefused("not_baileys", f"the table {table.name} holds no session")
    return found[0]


def _check_columns(table: Table, known: frozenset[str]) -> None:
    if not known:
        raise SourceRefused("table_missing", f"the database has no table {table.name}")
    missing = [column for column in table.columns if column.lower() not in {name.lower() for name in known}]
    if missing:
        raise SourceRefused("table_missing", f"the table {table.name} has no column {', '.join(missing)}")


def _session(table: Table) -> str:
    return f"CAST(t.{_quoted(table.session or '')} AS TEXT)"


def quoted_table(table: Table) -> str:
    """The name of a table as SQL takes it, with its schema."""
    return ".".join(_quoted(part) for part in table.name.split("."))


def _plain(quoted: str) -> str:
    """The name of a table as SQLite's catalogue has it, which does not tell capitals."""
    return quoted.rpartition('."')[2].removeprefix('"')[:-1].replace('""', '"').lower()


def _quoted(name: str) -> str:
    if not name or "\0" in name or "?" in name or "%" in name:
        raise SourceRefused("table_missing", "a table or column of an impossible name")
    return '"' + name.replace('"', '""') + '"'
