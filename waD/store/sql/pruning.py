"""Removing what is past its time, a bounded number of rows in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from waD.store.engine import Prune, Purge, Purged
from waD.store.model import MESSAGES_PURGED, SessionRow
from waD.store.sql import message_secrets
from waD.store.sql.database import Database, Ms
from waD.store.sql.heads import marks
from waD.store.sql.writing import put_event

PRUNE_ROWS: Final = 5000
"""Rows of one kind that one prune removes."""
RETRY_BUFFER_MS: Final = 7 * 86_400_000
JOURNAL_MS: Final = 14 * 86_400_000
_LASTING: Final = (
    "(kind NOT IN ('auth:backup','auth:verified') OR EXISTS (SELECT 1 FROM wa_events AS later WHERE "
    "later.session_id=wa_events.session_id AND later.kind=wa_events.kind AND later.id>wa_events.id))"
)
"""When a session was last backed up and verified is asked for as long as it lives."""
_FINISHED: Final = "state IN ('sent','failed','expired','cancelled')"


def prune(db: Database, job: Prune) -> int:
    """Remove events, finished rows of the outbox, buffers and secrets of messages; returns how many rows went."""
    went = _delete(db, "wa_events", "id", f"at<? AND {_LASTING}", Ms(job.now_ms - job.event_age_ms))
    went += _prune_crowded(db, job.events_per_session)
    went += _delete(
        db, "wa_outbox", "seq", f"created_at<? AND {_FINISHED}", Ms(job.now_ms - job.outbox_age_ms)
    )
    for table, column, age in (
        ("wa_retry_buffer", "created_at", RETRY_BUFFER_MS),
        ("wa_inbound_buffer", "inserted_at", JOURNAL_MS),
    ):
        went += db.execute(f"DELETE FROM {table} WHERE {column}<?", (Ms(job.now_ms - age),)).rowcount
    return went + message_secrets.prune(db, job.now_ms, PRUNE_ROWS)


def _prune_crowded(db: Database, most: int) -> int:
    went = 0
    for (session_id,) in db.execute("SELECT id FROM wa_sessions").fetchall():
        bound = db.execute(
            "SELECT id FROM wa_events WHERE session_id=? ORDER BY id DESC LIMIT 1 OFFSET ?",
            (session_id, most),
        ).fetchone()
        if bound is not None:
            went += _delete(
                db, "wa_events", "id", f"id<=? AND session_id=? AND {_LASTING}", bound[0], session_id
            )
    return went


def _delete(db: Database, table: str, key: str, condition: str, *values: Any) -> int:
    chosen = f"SELECT {key} FROM {table} WHERE {condition} ORDER BY {key} LIMIT {PRUNE_ROWS}"
    if table == "wa_events":
        top = db.execute(f"SELECT max({key}) FROM ({chosen}) AS chosen", values).fetchone()[0]
        if top is not None:
            db.execute(
                "INSERT INTO wa_settings (k, v) VALUES ('pruned_to', ?) ON CONFLICT (k) DO UPDATE SET v=excluded.v "
                "WHERE CAST(excluded.v AS BIGINT) > CAST(wa_settings.v AS BIGINT)",
                (str(top),),
            )
    return db.execute(f"DELETE FROM {table} WHERE {key} IN ({chosen})", values).rowcount


def which_messages(
    session_id: str, chats: Sequence[str] | None, before_ms: int | None
) -> tuple[str, list[Any]]:
    """The condition of a purge, and its values."""
    where, values = "session_id=?", [session_id]  # type: tuple[str, list[Any]]
    if chats is not None:
        where, values = f"{where} AND chat IN ({marks(chats)})", [*values, *chats]
    if before_ms is not None:
        where, values = f"{where} AND ts<?", [*values, Ms(before_ms)]
    return where, values


def purge(db: Database, row: SessionRow, job: Purge, now_ms: int) -> Purged:
    """Delete history; the only place that may, and only inside of this one transaction (chapter 08 §6.2)."""
    where, values = which_messages(job.session_id, job.chats, job.before_ms)
    chosen = f"SELECT seq FROM whatsapp_messages WHERE {where} ORDER BY seq LIMIT ?"
    db.execute(db.allow_purge)
    went = db.execute(f"DELETE FROM whatsapp_messages WHERE seq IN ({chosen})", (*values, job.limit)).rowcount
    db.execute(db.forbid_purge)
    if not went:
        return Purged(0, [], 0)
    data = {
        "count": went,
        "chats": None if job.chats is None else list(job.chats),
        "before": job.before_ms,
        "actor": job.actor,
    }
    return Purged(0, [put_event(db, (row.id, row.name), MESSAGES_PURGED, data, now_ms)], went)
