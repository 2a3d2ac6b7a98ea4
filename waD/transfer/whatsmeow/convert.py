"""From the rows of a whatsmeow device to an auth state (chapter 08 §4.4)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from waD.messaging import kinds
from waD.messaging.records import sender_key_name
from waD.messaging.values import encode_identity
from waD.transfer.sources.files import beginning
from waD.transfer.sources.merging import check_identities, drop_useless_own_keys, file_under_lids
from waD.transfer.sources.signal import SignalItems
from waD.transfer.sources.sql_statements import is_sql
from waD.transfer.sources.sqlite import open_sqlite
from waD.transfer.state import AuthState, Report
from waD.transfer.whatsmeow.account_items import (
    Items,
    import_app_state_keys,
    import_app_state_versions,
    import_lid_map,
    import_secrets,
    import_tokens,
    lid_map_items,
)
from waD.transfer.whatsmeow.credentials import import_credentials
from waD.transfer.whatsmeow.dumps import open_dump
from waD.transfer.whatsmeow.postgres import open_postgres
from waD.transfer.whatsmeow.rows import LEFT, DeviceRows, choose_device, list_devices, read_device
from waD.transfer.whatsmeow.signal_items import import_signal_items, next_prekey_id
from waD.transfer.whatsmeow.source import Source

_URL_SCHEMES: Final = ("postgres://", "postgresql://")
_START: Final = 4096
"""Bytes of a file that tell what it is."""


def convert(rows: DeviceRows, now_ms: int) -> tuple[AuthState | None, Report]:
    """Convert and check what was read of one device.

    Args:
        rows: from `read_device`.
        now_ms: current Unix time in ms; stands for the times that the format has not.

    Returns:
        The state, and what was found; no state when the report has an error.
    """
    report = Report()
    _tell_circumstances(rows, report)
    creds = import_credentials(rows, report, now_ms)
    if creds is None:
        return None, report
    signal = import_signal_items(rows, creds, report, now_ms)
    lid_of = import_lid_map(rows, creds, report)
    file_under_lids(signal, lid_of)
    check_identities(signal, creds, report, now_ms)
    drop_useless_own_keys(signal, creds, report)
    items = _signal_documents(signal) | lid_map_items(lid_of)
    key_id = import_app_state_keys(rows, items, report)
    import_app_state_versions(rows, items, report)
    import_tokens(rows, lid_of, items, report)
    creds = creds.change(
        next_prekey_id=next_prekey_id(rows),
        server_has_prekeys=any(key.state == "uploaded" for key in signal.prekeys.values()),
        app_state_key_id=key_id,
    )
    return AuthState(creds, items, import_secrets(rows, lid_of, report, now_ms)), report


@contextmanager
def open_source(location: str, *, stopped: bool, now_ms: int) -> Iterator[Source]:
    """Open a database by the path of an SQLite file or an SQL dump, or by a PostgreSQL URL.

    Raises:
        SourceRefused: on entry, while reading or on leaving.
    """
    if location.startswith(_URL_SCHEMES):
        with open_postgres(location, stopped=stopped) as source:
            yield source
    elif is_sql(beginning(Path(location), _START, other="not_sqlite")):
        with open_dump(Path(location)) as source:
            yield source
    else:
        with open_sqlite(Path(location), stopped=stopped, now_ms=now_ms) as source:
            yield source


def import_device(
    location: str,
    *,
    stopped: bool,
    now_ms: int,
    jid: str | None = None,
    keys: str | None = None,
    all_mappings: bool = False,
) -> tuple[AuthState | None, Report]:
    """Read and convert one device.

    Args:
        location: path of an SQLite file or an SQL dump, or URL of a PostgreSQL database.
        stopped: somebody says that the old program does not run.
        now_ms: current Unix time in ms.
        jid: which device, when there are several.
        keys: GOWA's second database, which holds the keys.
        all_mappings: take LIDs of people too that occur nowhere in the device's rows.

    Raises:
        SourceRefused: nothing was read.
    """
    with ExitStack() as stack:
        source = stack.enter_context(open_source(location, stopped=stopped, now_ms=now_ms))
        second = stack.enter_context(open_source(keys, stopped=stopped, now_ms=now_ms)) if keys else None
        device = choose_device(list_devices(source), jid)
        rows = read_device(source, device, keys=second, all_mappings=all_mappings)
    return convert(rows, now_ms)


def _signal_documents(signal: SignalItems) -> Items:
    items: Items = {(kinds.PREKEY, str(key.id)): key.serialize() for key in signal.prekeys.values()}
    for address, key in signal.identities.items():
        items[kinds.IDENTITY, address.text] = encode_identity(key)
    for address, record in signal.sessions.items():
        items[kinds.SESSION, address.text] = record.serialize()
    for (group, author), sender_key in signal.sender_keys.items():
        items[kinds.SENDER_KEY, sender_key_name(group, author)] = sender_key.serialize()
    return items


def _tell_circumstances(rows: DeviceRows, report: Report) -> None:
    if rows.schema_newer:
        report.warn("schema_newer", f"version {rows.version}", "read as far as this program knows it")
    if rows.connected:
        report.warn("source_in_use", "", f"{rows.connected} other connections to the database")
    for table, count in rows.left.items():
        if count:
            report.warn("not_taken", table, f"{count} rows: {LEFT[table]}")
