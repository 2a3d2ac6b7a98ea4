"""whatsmeow databases in PostgreSQL (chapter 08 §4.4).

Whether anything was written while it was read is judged by the rows themselves: their places and the transactions
that wrote them. Counters of the server lag behind, and count our own commits and those of others' tables too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from waD.transfer.sources.errors import SourceRefused
from waD.transfer.sources.postgres import connected, refusing
from waD.transfer.sources.rows import QUIET_MS, Row

if TYPE_CHECKING:
    import psycopg

_ROWS_AT_A_TIME: Final = 2000
_WATCHED: Final = (
    "whatsmeow_device",
    "whatsmeow_identity_keys",
    "whatsmeow_pre_keys",
    "whatsmeow_sessions",
    "whatsmeow_sender_keys",
)
_OTHERS: Final = """
    SELECT count(*), count(*) FILTER (WHERE state <> 'idle' OR state_change > clock_timestamp() - ? * interval '1 ms')
    FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


class PostgresSource:
    """An open connection, inside one REPEATABLE READ READ ONLY transaction."""

    place: Final = "ctid"

    def __init__(self, connection: psycopg.Connection[Row]) -> None:
        self._connection = connection
        self._cursors = 0
        self.connected = 0

    def size(self, column: str) -> str:
        """SQL for the bytes of a value."""
        return f"octet_length({column})"

    def columns(self, table: str) -> frozenset[str]:
        """Names of the columns of the table that the search path finds."""
        query = (
            "SELECT attname::text FROM pg_attribute "
            "WHERE attrelid = to_regclass(?) AND attnum > 0 AND NOT attisdropped"
        )
        return frozenset(str(name) for (name,) in self.rows(query, (table,)))

    def rows(self, query: str, parameters: Sequence[str | int] = ()) -> Iterator[Row]:
        """Run one query, fetching as the caller goes on; raises SourceRefused."""
        self._cursors += 1
        with refusing(), self._connection.cursor(name=f"waD_import_{self._cursors}") as cursor:
            cursor.itersize = _ROWS_AT_A_TIME
            cursor.execute(query.replace("?", "%s").encode(), list(parameters))
            yield from cursor


@contextmanager
def open_postgres(url: str, *, stopped: bool) -> Iterator[PostgresSource]:
    """Connect to read, and find at the end that nobody changed the keys meanwhile.

    Args:
        url: connection text of libpq; a password belongs in a passfile or in PGPASSFILE.
        stopped: somebody says that the old program does not run.

    Raises:
        SourceRefused: on entry or while reading, and on leaving with `source_changed`.
    """
    if not stopped:
        raise SourceRefused(
            "source_running", "stop the program that uses the database, then say so with --i-stopped-it"
        )
    with connected(url) as connection:
        source = PostgresSource(connection)
        with connection.transaction():
            source.connected = _check_others(source)
            before = _fingerprint(source)
            yield source
        with connection.transaction():
            if _fingerprint(source) != before:
                raise SourceRefused(
                    "source_changed", "the database changed while it was read: stop what uses it, try again"
                )


def _check_others(source: PostgresSource) -> int:
    """How many others are connected; refused when one did anything lately that we may see."""
    connected, active = next(source.rows(_OTHERS, (QUIET_MS,)))
    if active:
        raise SourceRefused(
            "source_running",
            f"{active} other connections used the database less than {QUIET_MS // 1000} s ago: stop what uses it "
            "and wait a minute",
        )
    return connected if isinstance(connected, int) else 0


def _fingerprint(source: PostgresSource) -> list[Row]:
    """Count and sum of the places and writers of all rows that hold keys."""
    found = []
    for table in _WATCHED:
        if not source.columns(table):
            continue
        query = f"SELECT count(*), sum(hashtext(ctid::text || ' ' || xmin::text)) FROM {table}"  # noqa: S608
        found += [*source.rows(query)]
    return found
