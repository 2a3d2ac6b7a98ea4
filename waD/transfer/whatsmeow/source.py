"""What the queries need of a database, and what a database must be to be read (chapter 08 §4.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from waD.e2ee.limits import MAX_FOREIGN_RECORD_SIZE
from waD.transfer.sources.errors import SourceRefused
from waD.transfer.sources.rows import Row

NEWEST_VERSION: Final = 15
NEWEST_COMPAT: Final = 8
"""A newer schema that says it is compatible with this one is read; any other is refused."""
MAX_ROWS: Final = 1_000_000
"""Rows of one table: an account that talks to a hundred thousand devices stays far below."""
MAX_TOTAL_SIZE: Final = 1 << 30
"""Bytes of all that is read for one device."""
MAX_RECORD: Final = MAX_FOREIGN_RECORD_SIZE
MAX_VALUE: Final = 4096
"""Bytes or characters of everything that is not a record."""


class Source(Protocol):
    """One consistent view of a database, whatever its kind."""

    @property
    def connected(self) -> int:
        """How many other clients are connected; 0 where nobody can tell."""
        ...

    @property
    def place(self) -> str:
        """SQL for where a row is: rows that were written later are mostly behind."""
        ...

    def size(self, column: str) -> str:
        """SQL for the bytes of a value, text or not; `length` of SQLite stops at the first zero of a text."""
        ...

    def columns(self, table: str) -> frozenset[str]:
        """Names of the columns of a table; empty when there is no such table."""
        ...

    def rows(self, query: str, parameters: Sequence[str | int] = ()) -> Iterator[Row]:
        """Run one query with `?` placeholders; raises SourceRefused when the database fails."""
        ...


def schema_version(source: Source) -> int:
    """Check that this is a whatsmeow database this program understands.

    Returns:
        The version of its schema; 0 when it does not say.

    Raises:
        SourceRefused: `not_whatsmeow` or `schema_too_new`.
    """
    if "jid" not in source.columns("whatsmeow_device"):
        raise SourceRefused(
            "not_whatsmeow",
            "the database has no table whatsmeow_device; name the one that the old program keeps its keys in",
        )
    known = source.columns("whatsmeow_version")
    if "version" not in known:
        return 0
    compat = "compat" if "compat" in known else "version"
    found = next(source.rows(f"SELECT version, {compat} FROM whatsmeow_version LIMIT 1"), (0, 0))  # noqa: S608
    version, oldest = (value if isinstance(value, int) else 0 for value in found)
    if version > NEWEST_VERSION and oldest > NEWEST_COMPAT:
        raise SourceRefused(
            "schema_too_new",
            f"its schema has version {version} (compatible with {oldest}); this program reads up to version "
            f"{NEWEST_VERSION}, or newer ones compatible with {NEWEST_COMPAT}: update waD",
        )
    return version
