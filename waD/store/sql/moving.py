"""Rows of a session on their way from one store to another, and the two ends of such a move (chapter 08 §6.4, §7.4).

A move is known to both stores by a note in their settings. In the source it says that the state was given up, which
version, and for whom; in the destination where it comes from, and how far it has come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from waD.store.engine import CopyRows, Depart, Page, StageMove
from waD.store.errors import LeaseLost
from waD.store.model import SecretRow, SessionRow
from waD.store.sql import message_secrets, rows
from waD.store.sql.database import Database, Ms, document
from waD.store.sql.heads import as_stored, encoded
from waD.store.sql.writing import open_cipher
from waD.store.vault import Cipher, Vault

_OWNED: Final = (
    "SELECT auth_epoch, dek_wrapped, dek_kek_id, name FROM wa_sessions WHERE id=? AND lease_token=?"
)
_OWNER: Final = "SELECT auth_epoch, dek_wrapped, dek_kek_id FROM wa_sessions WHERE id=?"
TALLIES: Final = frozenset({"messages_received", "messages_sent", "decrypt_failures", "retry_requests"})
"""Columns of a session that only count, and go along with it."""
_NOTE: Final = "SELECT v FROM wa_settings WHERE k=?"
_PUT_NOTE: Final = "INSERT INTO wa_settings (k, v) VALUES (?,?) ON CONFLICT (k) DO UPDATE SET v=excluded.v"
_DROP_NOTE: Final = "DELETE FROM wa_settings WHERE k=?"


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


def stage(db: Database, job: StageMove) -> int:
    """Note how far a move has come, for whoever owns the session.

    Raises:
        LeaseLost: the token is not the current one.
    """
    if db.execute(_OWNED, (job.session_id, job.token)).fetchone() is None:
        raise LeaseLost(f"session {job.session_id} has another owner now; the move into it has ended")
    if job.changes:
        own = {name: value for name, value in job.changes.items() if name not in TALLIES}
        columns = rows.session_changes(own) | {
            name: job.changes[name] for name in job.changes.keys() & TALLIES
        }
        names = ", ".join(f"{name}=?" for name in columns)
        db.execute(f"UPDATE wa_sessions SET {names} WHERE id=?", (*columns.values(), job.session_id))
    put_note(db, job.note)
    return 1


def depart(db: Database, row: SessionRow, job: Depart, now_ms: int) -> None:
    """Note that a state was given up, and retire its session; the state itself is cleared by the caller."""
    db.execute(
        "UPDATE wa_sessions SET desired_state='retired', current_status='stopped', updated_at=? WHERE id=?",
        (Ms(now_ms), row.id),
    )
    put_note(db, job.note)


def put_note(db: Database, note: tuple[str, dict[str, Any] | None] | None) -> None:
    """Write a note of a move, or remove it."""
    if note is None:
        return
    key, value = note
    if value is None:
        db.execute(_DROP_NOTE, (key,))
    else:
        db.execute(_PUT_NOTE, (key, msgspec.json.encode(value).decode()))


def read_note(db: Database, key: str) -> dict[str, Any] | None:
    """A note of a move; None when there is none."""
    found = db.execute(_NOTE, (key,)).fetchone()
    return None if found is None else msgspec.json.decode(found[0], type=dict[str, Any])
