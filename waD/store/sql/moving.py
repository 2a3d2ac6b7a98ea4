"""Rows of a session on their way from one store to another (chapter 08 §6.4, §7.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from waD.store.engine import CopyRows, Page
from waD.store.errors import LeaseLost
from waD.store.model import SecretRow
from waD.store.sql import message_secrets
from waD.store.sql.database import Database, Ms, document
from waD.store.sql.heads import as_stored, encoded
from waD.store.sql.moves import put_note
from waD.store.sql.writing import open_cipher
from waD.store.vault import Cipher, Vault

_OWNED: Final = (
    "UPDATE wa_sessions SET updated_at=updated_at WHERE id=? AND lease_token=? "
    "RETURNING auth_epoch, dek_wrapped, dek_kek_id, name"
)
_OWNER: Final = "SELECT auth_epoch, dek_wrapped, dek_kek_id FROM wa_sessions WHERE id=?"


class _Table(NamedTuple):
    """A table whose rows go along. `columns`: what kind of value each one has.

    `purpose` is what a column of the kind `secret` is bound to, from the row.
    """

    key: tuple[str, ...]
    columns: dict[str, str]
    conflict: str = " ON CONFLICT DO NOTHING"
    purpose: Callable[[dict[str, Any]], str] = lambda row: f"retry:{row['message_id']}"


_OUTBOX: Final = {
    "client_ref": "", "chat": "", "message_id": "", "payload": "payload", "stanza": "blob", "state": "",
    "attempts": "", "not_before": "time", "expires_at": "time", "last_error": "", "created_at": "time",
    "written_at": "time", "sent_at": "time",
}  # fmt: skip
_LATER: Final = (
    "payload",
    "stanza",
    "state",
    "attempts",
    "not_before",
    "last_error",
    "written_at",
    "sent_at",
)

TABLES: Final[dict[str, _Table]] = {
    "whatsapp_messages": _Table(
        ("seq",),
        {
            "chat": "", "sender": "", "message_id": "", "wire_chat": "", "wire_sender": "", "from_me": "bool",
            "ts": "time", "kind": "", "body": "", "content": "json", "raw": "blob", "status": "", "source": "",
            "edited_at": "time", "revoked_at": "time", "inserted_at": "time",
        },
    ),
    "wa_events": _Table(("id",), {"kind": "", "payload": "json", "at": "time"}, ""),
    # A session that comes back finds its own rows, which are behind: what was sent meanwhile must not go again.
    "wa_outbox": _Table(
        ("seq",),
        _OUTBOX,
        " ON CONFLICT (session_id, message_id) DO UPDATE SET "
        + ", ".join(f"{name}=excluded.{name}" for name in _LATER),
    ),
    "wa_retry_buffer": _Table(
        ("chat", "message_id"), {"chat": "", "message_id": "", "plaintext": "secret", "created_at": "time"}
    ),
    "wa_inbound_buffer": _Table(
        ("cipher_sha",),
        {"cipher_sha": "blob", "chat": "", "sender": "", "message_id": "", "inserted_at": "time"},
    ),
    message_secrets.TABLE: _Table(
        ("chat", "sender", "message_id"),
        {
            "chat": "", "sender": "", "message_id": "", "wire_sender": "", "secret": "secret", "message_ts": "time",
            "expires_at": "time",
        },
        message_secrets.NEWER_WINS,
        lambda row: message_secrets.purpose(row["message_id"], row["wire_sender"]),
    ),
}  # fmt: skip
"""In the order in which they are copied."""


def read_rows(
    db: Database, table: str, session_id: str, after: tuple[Any, ...] | None, limit: int, vault: Vault | None
) -> Page:
    """A page of a session's rows, decrypted.

    Raises:
        KekUnavailable: they are encrypted with a key that is not here.
        StoreDamaged: one of them is not what was encrypted.
    """
    spec = TABLES[table]
    key = ", ".join(spec.key)
    where = "" if after is None else f" AND ({key}) > ({', '.join('?' * len(after))})"
    query = f"SELECT {key}, {', '.join(spec.columns)} FROM {table} WHERE session_id=?{where} ORDER BY {key} LIMIT ?"
    found = db.execute(query, (session_id, *(after or ()), limit)).fetchall()
    if not found:
        return Page([], None, False)
    epoch, wrapped, kek_id = db.execute(_OWNER, (session_id,)).fetchone()
    cipher = open_cipher(vault, session_id, epoch, wrapped, kek_id)
    size = len(spec.key)
    opened = [_open(spec, row[size:], cipher) for row in found]
    last = tuple(bytes(part) if isinstance(part, memoryview) else part for part in found[-1][:size])
    return Page(opened, last, len(found) == limit)


def _open(spec: _Table, values: Sequence[Any], cipher: Cipher | None) -> tuple[Any, ...]:
    row = dict(zip(spec.columns, values, strict=True))
    for name, kind in spec.columns.items():
        value = row[name]
        if value is None:
            continue
        if kind in ("blob", "secret"):
            row[name] = bytes(value)
        elif kind in ("json", "payload"):
            row[name] = encoded(value) if isinstance(value, str) else bytes(value)
        elif kind == "bool":
            row[name] = bool(value)
        if cipher is not None and kind == "payload":
            row[name] = cipher.open("outbox", row["message_id"], 0, as_stored(value))
        elif cipher is not None and kind == "secret":
            row[name] = cipher.open_blob(spec.purpose(row), row[name])
    return tuple(row.values())


def _closed(spec: _Table, values: Sequence[Any], cipher: Cipher | None) -> tuple[Any, ...]:
    row = dict(zip(spec.columns, values, strict=True))
    for name, kind in spec.columns.items():
        value = row[name]
        if value is None:
            continue
        if cipher is not None and kind == "payload":
            value = cipher.close("outbox", row["message_id"], 0, value)
        elif cipher is not None and kind == "secret":
            value = cipher.close_blob(spec.purpose(row), value)
        if kind in ("json", "payload"):
            value = document(value)
        elif kind == "time":
            value = Ms(value)
        row[name] = value
    return tuple(row.values())


def secret_values(row: SecretRow) -> tuple[Any, ...]:
    """A secret of a message as a row to copy."""
    return tuple(getattr(row, name) for name in TABLES[message_secrets.TABLE].columns)


def copy_rows(db: Database, job: CopyRows, vault: Vault | None) -> int:
    """Write a page for whoever owns the session; returns how many rows it had.

    Raises:
        LeaseLost: the token is not the current one.
    """
    spec = TABLES[job.table]
    found = db.execute(_OWNED, (job.session_id, job.token)).fetchone()
    if found is None:
        raise LeaseLost(f"session {job.session_id} has another owner now; nothing more is copied into it")
    epoch, wrapped, kek_id, name = found
    cipher = open_cipher(vault, job.session_id, epoch, wrapped, kek_id)
    more, extra = (", session", (name,)) if job.table == "wa_events" else ("", ())
    size = 1 + len(extra) + len(spec.columns)
    statement = (
        f"INSERT INTO {job.table} (session_id{more}, {', '.join(spec.columns)}) VALUES ({', '.join('?' * size)})"
        f"{spec.conflict}"
    )
    if job.rows:
        db.executemany(statement, [(job.session_id, *extra, *_closed(spec, row, cipher)) for row in job.rows])
    put_note(db, job.note)
    return len(job.rows)
