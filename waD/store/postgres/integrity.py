"""Whether a database is sound, as far as a client can see: every row that matters is read."""

from __future__ import annotations

from typing import Final

import psycopg

from waD.store.postgres.link import Link

_TABLES: Final = (
    "wa_sessions", "wa_auth_snapshots", "wa_auth_items", "wa_auth_keys", "wa_auth_sealed", "wa_outbox",
    "wa_retry_buffer", "wa_inbound_buffer", "wa_events", "whatsapp_messages",
)  # fmt: skip
_QUICK: Final = _TABLES[:3]
_FAILED_PAGES: Final = (
    "SELECT coalesce(checksum_failures, 0) FROM pg_stat_database WHERE datname = current_database()"
)
_INVALID: Final = (
    "SELECT i.relname FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid "
    "WHERE NOT x.indisvalid AND t.relname = ANY($1::text[])"
)
_ORPHANS: Final = (
    "SELECT count(*) FROM wa_auth_items i LEFT JOIN wa_sessions s ON s.id = i.session_id WHERE s.id IS NULL"
)


def complaints(link: Link, quick: bool) -> list[str]:
    """What is wrong; `quick` leaves out history, events and buffers.

    Raises:
        psycopg.Error: the server cannot be asked.
    """
    found = [line for table in (_QUICK if quick else _TABLES) if (line := _unreadable(link, table))]
    (failed,) = link.execute(_FAILED_PAGES.encode()).fetchone() or (0,)
    if failed:
        found.append(f"the server has counted {failed} pages with a wrong checksum in this database")
    found += [f"index {row[0]} is not valid" for row in link.execute(_INVALID, (list(_TABLES),)).fetchall()]
    (orphans,) = link.execute(_ORPHANS.encode()).fetchone() or (0,)
    if orphans:
        found.append(f"{orphans} items of auth states belong to no session")
    return found


def _unreadable(link: Link, table: str) -> str | None:
    """Reads every row whole, also what is stored apart from it."""
    try:
        link.execute(f"SELECT sum(length(t::text)) FROM {table} t".encode())
    except (
        psycopg.errors.DataCorrupted,
        psycopg.errors.IndexCorrupted,
        psycopg.errors.UndefinedTable,
    ) as error:
        return f"{table}: {(error.diag.message_primary or str(error)).strip()}"
    return None
