"""Sessions in PostgreSQL, read in one transaction that sees one moment (chapter 08 §3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from waD.transfer.baileys.presets import Preset
from waD.transfer.baileys.source import BaileysItems
from waD.transfer.baileys.sql import cursor_query, read_sql, suitable_preset
from waD.transfer.sources.errors import SourceRefused
from waD.transfer.sources.postgres import connected, refusing

if TYPE_CHECKING:
    import psycopg

_COLUMNS: Final = """
    SELECT attname::text FROM pg_attribute
    WHERE attrelid = to_regclass(?) AND attnum > 0 AND NOT attisdropped
"""


def read_postgres(
    url: str, preset: Preset | None = None, *, stopped: bool = False, session: str | None = None
) -> BaileysItems:
    """Read one session from a PostgreSQL database, twice, to see that nothing writes to it.

    Args:
        url: connection text of libpq; a password belongs in a passfile.
        preset: where it keeps its sessions; None: found out by the tables there are.
        stopped: somebody says that the old program does not run; without that nothing is read.
        session: which one, when there are several.

    Raises:
        SourceRefused: it was not read, or changed meanwhile.
    """
    if not stopped:
        raise SourceRefused(
            "source_running", "stop the program that uses the database, then say so with --i-stopped-it"
        )
    with connected(url) as connection:
        first = _read(connection, preset, session)
        second = _read(connection, preset, session)
    if (first.creds, first.items) != (second.creds, second.items):
        raise SourceRefused(
            "source_changed", "the session changed while it was read: stop what uses it, try again"
        )
    return second


def _read(connection: psycopg.Connection[Any], preset: Preset | None, session: str | None) -> BaileysItems:
    import psycopg

    def query(text: str, parameters: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        # One cursor each, since the results of two may be read in turn.
        with connection.cursor() as cursor:
            run = cursor_query(cursor, placeholder="%s", failure=psycopg.Error)
            yield from run(text, parameters)

    def columns(table: str) -> frozenset[str]:
        return frozenset(str(name) for (name,) in query(_COLUMNS, (table,)))

    with refusing(), connection.transaction():
        return read_sql(query, suitable_preset(columns, preset), session=session)
