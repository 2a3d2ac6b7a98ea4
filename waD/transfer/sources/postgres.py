"""Connecting to a PostgreSQL database of another program, to read only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from waD.transfer.sources.errors import SourceRefused
from waD.transfer.sources.rows import Row

if TYPE_CHECKING:
    import psycopg

_CONNECT_TIMEOUT_S: Final = 10


@contextmanager
def connected(url: str) -> Iterator[psycopg.Connection[Row]]:
    """A connection whose transactions see one moment and write nothing.

    Args:
        url: connection text of libpq; a password belongs in a passfile.

    Raises:
        SourceRefused: there is none.
    """
    try:
        import psycopg  # most installations never read a PostgreSQL database
    except ImportError:
        raise SourceRefused("driver_missing", "reading PostgreSQL needs the package psycopg") from None
    try:
        connection = psycopg.connect(url, connect_timeout=_CONNECT_TIMEOUT_S)
    except psycopg.OperationalError as error:
        raise SourceRefused("source_unreachable", str(error).strip().splitlines()[0]) from None
    except psycopg.Error:  # libpq quotes what it cannot read, and that may hold a password
        raise SourceRefused("source_unreachable", "the URL of the database cannot be read") from None
    try:
        with refusing():
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
        yield connection
    finally:
        connection.close()


@contextmanager
def refusing() -> Iterator[None]:
    """Tell errors of the driver as refusals, without values."""
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        raise SourceRefused(
            "source_damaged", f"PostgreSQL refused to go on ({type(error).__name__}, {error.sqlstate})"
        ) from None
