"""Sealed copies of an auth state: making, listing, reading, restoring and dropping them (chapter 08 §6.7, §6.8)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import sqlite3
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from waD.store.engine import ResetAuth, RestoreAuth, Restored
from waD.store.errors import LeaseLost, StoreDamaged
from waD.store.model import Sealed, SealInfo, SessionRow
from waD.store.sqlite import rows
from waD.store.sqlite.writing import put_event

FORMAT: Final = "wad-seal/1"
CHANGED_AT: Final = (
    "SELECT max(coalesce((SELECT max(version) FROM wa_auth_items WHERE session_id=?1), 0), "
    "coalesce((SELECT creds_version FROM wa_auth_snapshots WHERE session_id=?1), 0))"
)
LAST_SEAL: Final = (
    "SELECT version FROM wa_auth_sealed WHERE session_id=? AND epoch=? ORDER BY version DESC LIMIT 1"
)
LIST: Final = (
    "SELECT epoch, version, reason, sealed_at, item_count FROM wa_auth_sealed WHERE session_id=? "
    "ORDER BY epoch DESC, version DESC"
)
READ: Final = "SELECT document, checksum FROM wa_auth_sealed WHERE session_id=? AND epoch=? AND version=?"
DROP: Final = "DELETE FROM wa_auth_sealed WHERE session_id=? AND epoch=? AND version=?"
_HOLD_OUTBOX: Final = (
    "UPDATE wa_outbox SET state='held', stanza=NULL WHERE session_id=? AND state IN ('queued','sending')"
)
_HEAD: Final = (
    "INSERT OR REPLACE INTO wa_auth_snapshots (session_id, epoch, snapshot, creds_version) "
    "SELECT id, auth_epoch, ?, auth_version FROM wa_sessions WHERE id=?"
)

FindRow = Callable[[str], SessionRow]


class _Document(msgspec.Struct):
    """What a seal holds; binary values in base64."""

    format: str
    session: str
    epoch: int
    version: int
    creds: str | None
    items: list[tuple[str, str, str]]


_decode: Final = msgspec.json.Decoder(_Document).decode


def unchanged(db: sqlite3.Connection, row: SessionRow) -> bool:
    """Whether the newest seal of this epoch holds the same keys; commits that touch no key do not count."""
    last = db.execute(LAST_SEAL, (row.id, row.auth_epoch)).fetchone()
    return last is not None and db.execute(CHANGED_AT, (row.id,)).fetchone()[0] <= last[0]


def put_seal(db: sqlite3.Connection, row: SessionRow, reason: str, now_ms: int) -> int:
    """Seal the state as it is; returns its version."""
    creds = db.execute("SELECT snapshot FROM wa_auth_snapshots WHERE session_id=?", (row.id,)).fetchone()
    items = db.execute(
        "SELECT type, id, value FROM wa_auth_items WHERE session_id=? ORDER BY type, id", (row.id,)
    ).fetchall()
    document = rows.encode_json(
        {
            "format": FORMAT,
            "session": row.id,
            "epoch": row.auth_epoch,
            "version": row.auth_version,
            "creds": _text(creds[0]) if creds else None,
            "items": [[kind, key, _text(value)] for kind, key, value in items],
        }
    )
    db.execute(
        "INSERT OR REPLACE INTO wa_auth_sealed VALUES (?,?,?,?,?,?,?,?)",
        (row.id, row.auth_epoch, row.auth_version, reason, document, len(items),
         hashlib.sha256(document).digest(), now_ms),
    )  # fmt: skip
    return row.auth_version


def reset(db: sqlite3.Connection, row: SessionRow, job: ResetAuth, now_ms: int) -> int:
    """Seal, then begin a new epoch with other credentials; returns the version that was sealed.

    Raises:
        LeaseLost: the token is not the current one.
    """
    sealed = put_seal(db, row, "pre_reset", now_ms)
    _begin_epoch(db, job.session_id, job.token, {"me_pn": None, "me_lid": None}, now_ms)
    for table in ("wa_auth_items", "wa_retry_buffer", "wa_inbound_buffer"):
        db.execute(f"DELETE FROM {table} WHERE session_id=?", (job.session_id,))
    db.execute(_HOLD_OUTBOX, (job.session_id,))
    db.execute(_HEAD, (job.creds, job.session_id))
    return sealed


def restore(db: sqlite3.Connection, row: SessionRow, job: RestoreAuth, now_ms: int) -> Restored:
    """Seal, then begin a new epoch with another auth state (chapter 08 §7.5).

    Raises:
        LeaseLost: the token is not the current one.
    """
    sealed = put_seal(db, row, "pre_restore", now_ms)
    version = _begin_epoch(db, job.session_id, job.token, job.changes, now_ms)
    db.execute("DELETE FROM wa_auth_items WHERE session_id=?", (job.session_id,))
    db.executemany(
        "INSERT INTO wa_auth_items (session_id, type, id, version, value) VALUES (?,?,?,?,?)",
        [(job.session_id, kind, key, version, value) for (kind, key), value in job.items.items()],
    )
    held = db.execute(_HOLD_OUTBOX, (job.session_id,)).rowcount
    db.execute(_HEAD, (job.creds, job.session_id))
    data = {**job.event_data, "sealedVersion": sealed}
    event = put_event(db, (row.id, row.name), job.event_type, data, now_ms)
    return Restored(version, [event], sealed, held)


def _begin_epoch(
    db: sqlite3.Connection, session_id: str, token: int, changes: Mapping[str, Any], now_ms: int
) -> int:
    columns = rows.session_changes(changes)
    more = "".join(f", {name}=?" for name in columns)
    found = db.execute(
        f"UPDATE wa_sessions SET auth_epoch=auth_epoch+1, auth_version=auth_version+1, updated_at=?{more} "
        "WHERE id=? AND lease_token=? RETURNING auth_version",
        (now_ms, *columns.values(), session_id, token),
    ).fetchone()
    if found is None:
        raise LeaseLost(f"session {session_id} has another owner now; its auth state was left as it is")
    version: int = found[0]
    return version


def info(row: tuple[Any, ...]) -> SealInfo:
    """From `LIST`."""
    epoch, version, reason, sealed_at, item_count = row
    return SealInfo(epoch=epoch, version=version, reason=reason, sealed_at=sealed_at, item_count=item_count)


def open_seal(document: bytes, checksum: bytes, which: str) -> Sealed:
    """Read a seal.

    Args:
        document: as stored.
        checksum: its SHA-256, as stored.
        which: names it in the error.

    Raises:
        StoreDamaged: it is not what was sealed, or of an unknown format.
    """
    if hashlib.sha256(document).digest() != checksum:
        raise StoreDamaged(f"{which} does not match its checksum: use an older one, or a backup")
    try:
        found = _decode(document)
        if found.format != FORMAT:
            raise StoreDamaged(
                f"{which} has the unknown format {found.format[:32]!r}: a newer program made it"
            )
        items = {(kind, key): _data(value) for kind, key, value in found.items}
        creds = None if found.creds is None else _data(found.creds)
    except (msgspec.DecodeError, binascii.Error, ValueError):
        raise StoreDamaged(f"{which} cannot be read: use an older one, or a backup") from None
    return Sealed(epoch=found.epoch, version=found.version, creds=creds, items=items)


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _data(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
