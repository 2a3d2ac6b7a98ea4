"""whatsmeow databases as SQL dumps: of SQLite's shell, or of pg_dump (chapter 08 §4)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from waD.transfer.sources.sql_dump import open_sql_dump
from waD.transfer.sources.sql_statements import TableName
from waD.transfer.sources.sqlite import SqliteSource

_PREFIX: Final = "whatsmeow_"
_TYPES: Final = {
    (f"{_PREFIX}{table}", column): kind
    for table, columns in (
        ("version", {"version": "integer", "compat": "integer"}),
        (
            "device",
            {"registration_id": "bigint", "signed_pre_key_id": "integer", "lid_migration_ts": "bigint"},
        ),
        ("pre_keys", {"key_id": "integer", "uploaded": "boolean"}),
        ("app_state_sync_keys", {"timestamp": "bigint"}),
        ("app_state_version", {"version": "bigint"}),
        ("app_state_mutation_macs", {"version": "bigint"}),
        ("privacy_tokens", {"timestamp": "bigint", "sender_timestamp": "bigint"}),
        ("chat_settings", {"muted_until": "bigint", "pinned": "boolean", "archived": "boolean"}),
        ("event_buffer", {"server_timestamp": "bigint", "insert_timestamp": "bigint"}),
        ("retry_buffer", {"timestamp": "bigint"}),
    )
    for column, kind in columns.items()
}
"""Numbers, which COPY writes as text: for dumps of rows alone, without the definitions of the tables (§4.1)."""


@contextmanager
def open_dump(path: Path) -> Iterator[SqliteSource]:
    """The tables of whatsmeow in a dump; raises SourceRefused."""
    with open_sql_dump(path, _wanted, _TYPES) as source:
        yield source


def _wanted(table: TableName) -> bool:
    return table.name.lower().startswith(_PREFIX)
