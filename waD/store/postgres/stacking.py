"""Statements for one row made statements for many: what stands in parentheses behind VALUES is repeated."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

from waD.store.sql.heads import MOVE_HEAD
from waD.store.sql.writing import TALLY, TALLY_COLUMNS

MOST: Final = 64
"""Rows of one statement. Each power of two up to this is a statement of its own, which the server prepares."""
MOST_BYTES: Final = 4 << 20
"""Text and bytes of one statement, if it has several rows: it is in memory whole, here and at the server."""
_ROW: Final = re.compile(r"VALUES (\((?:[^()]|\([^()]*\))*\))")
_MANY: Final = {
    MOVE_HEAD: (
        "UPDATE wa_auth_snapshots h SET version=v.version, item_count=v.count, checksum=v.checksum, written_at=v.at "
        "FROM (VALUES (CAST(? AS bigint), CAST(? AS bigint), CAST(? AS bytea), CAST(? AS timestamptz), "
        "CAST(? AS uuid))) v (version, count, checksum, at, session) WHERE h.session_id=v.session"
    ),
    TALLY: (
        f"UPDATE wa_sessions s SET {', '.join(f'{name}=s.{name}+v.{name}' for name in TALLY_COLUMNS)} "
        f"FROM (VALUES ({'CAST(? AS bigint), ' * len(TALLY_COLUMNS)}CAST(? AS uuid))) "
        f"v ({', '.join(TALLY_COLUMNS)}, session) WHERE s.id=v.session"
    ),
}
"""The form for many rows of shared statements that have no VALUES; parameters stay in their order."""


@lru_cache(maxsize=256)
def many(sql: str) -> str | None:
    """The form of a statement whose row can be repeated; None when it has none."""
    form = _MANY.get(sql, sql)
    found = _ROW.search(form)
    return form if found is not None and found[1].count("?") == form.count("?") else None


@lru_cache(maxsize=1024)
def stacked(form: str, count: int) -> str:
    """A form of `many` for so many rows."""
    return _ROW.sub(lambda found: "VALUES " + ",".join([found[1]] * count), form, count=1)


def portions(rows: Sequence[Sequence[Any]]) -> Iterator[Sequence[Sequence[Any]]]:
    """Rows in as few parts as there are statements for."""
    start = 0
    while left := len(rows) - start:
        size = min(MOST, 1 << (left.bit_length() - 1))
        while size > 1 and _bytes(rows[start : start + size]) > MOST_BYTES:
            size //= 2
        yield rows[start : start + size]
        start += size


def _bytes(rows: Sequence[Sequence[Any]]) -> int:
    return sum(len(value) for row in rows for value in row if isinstance(value, str | bytes))
