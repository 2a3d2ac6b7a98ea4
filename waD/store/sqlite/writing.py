"""Applying units to the database: each in a savepoint, many in one transaction (chapter 08 §6.4)."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from waD.store.errors import LeaseLost
from waD.store.model import UNDECRYPTABLE, EventRow
from waD.store.sqlite import rows
from waD.store.unit import (
    Announce,
    ChangeMessage,
    ChangeOutbox,
    Committed,
    Enqueue,
    Journal,
    KeepPlaintext,
    MovePerson,
    PutMessage,
    RaiseStatus,
    Step,
    Unit,
)

_PUT_ITEM: Final = (
    "INSERT INTO wa_auth_items (session_id, type, id, version, value) VALUES (?,?,?,?,?) "
    "ON CONFLICT (session_id, type, id) DO UPDATE SET version=excluded.version, value=excluded.value"
)
_DELETE_ITEM: Final = "DELETE FROM wa_auth_items WHERE session_id=? AND type=? AND id=?"
_PUT_CREDS: Final = (
    "INSERT INTO wa_auth_snapshots (session_id, epoch, snapshot, creds_version) VALUES (?,?,?,?) "
    "ON CONFLICT (session_id) DO UPDATE SET epoch=excluded.epoch, snapshot=excluded.snapshot, "
    "creds_version=excluded.creds_version"
)
_PUT_MESSAGE: Final = (
    "INSERT INTO whatsapp_messages (session_id, chat, sender, message_id, wire_chat, wire_sender, from_me, ts, "
    "kind, body, content, raw, status, source, inserted_at) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) "
    "ON CONFLICT (session_id, chat, sender, message_id) DO UPDATE SET kind=excluded.kind, body=excluded.body, "
    f"content=excluded.content, raw=excluded.raw WHERE whatsapp_messages.kind='{UNDECRYPTABLE}'"
)
_PUT_OUTBOX: Final = (
    "INSERT INTO wa_outbox (session_id, client_ref, chat, message_id, payload, stanza, state, attempts, not_before, "
    "expires_at, created_at) VALUES (?,?,?,?,?,?,?,?,?,?,?)"
)
_PUT_PLAINTEXT: Final = (
    "INSERT INTO wa_retry_buffer (session_id, chat, message_id, plaintext, created_at) VALUES (?,?,?,?,?) "
    "ON CONFLICT DO UPDATE SET plaintext=excluded.plaintext"
)
_PUT_JOURNAL: Final = (
    "INSERT OR IGNORE INTO wa_inbound_buffer (session_id, cipher_sha, chat, sender, message_id, inserted_at) "
    "VALUES (?,?,?,?,?,?)"
)
_PUT_EVENT: Final = "INSERT INTO wa_events (session_id, session, kind, payload, at) VALUES (?,?,?,?,?)"
_RAISE_STATUS: Final = (
    "UPDATE whatsapp_messages SET status=? "
    "WHERE session_id=? AND message_id=? AND chat=? AND from_me=1 AND status<?"
)

_TAKEN: Final = "SELECT count(*) FROM wa_outbox WHERE session_id=? AND message_id=? AND state<>'sent'"
_NEW: Final = frozenset({"live", "offline"})
"""Sources of messages that arrived as such, not as somebody's history."""

MOVED_MESSAGES: Final = 2_000
"""Messages of a person that are re-keyed with one unit, newest first; readers ask for both addresses anyway."""
_MOVES: Final = (
    "UPDATE OR IGNORE wa_outbox SET chat=?1 WHERE session_id=?3 AND chat=?2",
    "UPDATE OR IGNORE wa_retry_buffer SET chat=?1 WHERE session_id=?3 AND chat=?2",
    (
        "UPDATE OR IGNORE wa_inbound_buffer SET chat=iif(chat=?2, ?1, chat), sender=iif(sender=?2, ?1, sender) "
        "WHERE session_id=?3 AND (chat=?2 OR sender=?2)"
    ),
    (
        "UPDATE OR IGNORE whatsapp_messages SET chat=?1, sender=iif(sender=?2, ?1, sender) WHERE seq IN (SELECT seq "
        f"FROM whatsapp_messages WHERE session_id=?3 AND chat=?2 ORDER BY seq DESC LIMIT {MOVED_MESSAGES})"
    ),
)


def put_event(
    db: sqlite3.Connection,
    session: tuple[str | None, str | None],
    event_type: str,
    data: dict[str, Any],
    now_ms: int,
) -> EventRow:
    """Append to the log; `session` is (id, name)."""
    cursor = db.execute(_PUT_EVENT, (*session, event_type, rows.json_text(data), now_ms)).lastrowid
    assert cursor is not None
    return EventRow(
        cursor=cursor, time=now_ms, connection_id=session[0], session=session[1], type=event_type, data=data
    )


class UnitWriter:
    """Writes one session's unit inside an open transaction."""

    def __init__(self, db: sqlite3.Connection, session_id: str, token: int, now_ms: int) -> None:
        self._db = db
        self._id = session_id
        self._token = token
        self._now = now_ms
        self._name = ""
        self._events: list[EventRow] = []
        self._tallies: Counter[str] = Counter()

    def write(self, unit: Unit) -> Committed:
        """Apply everything.

        Raises:
            LeaseLost: the token is not the current one.
        """
        version, epoch = self._fence(unit)
        self._write_items(unit, version)
        if unit.creds is not None:
            self._db.execute(_PUT_CREDS, (self._id, epoch, unit.creds, version))
        for step in unit.steps:
            _WRITERS[type(step)](self, step)
        self._write_tallies()
        return Committed(version, self._events)

    def _fence(self, unit: Unit) -> tuple[int, int]:
        columns = rows.session_changes(unit.session)
        more = "".join(f", {name}=?" for name in columns)
        found = self._db.execute(
            f"UPDATE wa_sessions SET auth_version=auth_version+1, updated_at=?{more} "
            "WHERE id=? AND lease_token=? RETURNING auth_version, auth_epoch, name",
            (self._now, *columns.values(), self._id, self._token),
        ).fetchone()
        if found is None:
            raise LeaseLost(f"session {self._id} has another owner now; this one must not write any more")
        version, epoch, self._name = found
        return version, epoch

    def _write_items(self, unit: Unit, version: int) -> None:
        puts = [
            (self._id, kind, key, version, value if isinstance(value, bytes) else value.serialize())
            for (kind, key), value in unit.items.items()
            if value is not None
        ]
        deletes = [(self._id, kind, key) for (kind, key), value in unit.items.items() if value is None]
        if puts:
            self._db.executemany(_PUT_ITEM, puts)
        if deletes:
            self._db.executemany(_DELETE_ITEM, deletes)

    def _write_tallies(self) -> None:
        if self._tallies:
            columns = ", ".join(f"{name}={name}+?" for name in self._tallies)
            self._db.execute(
                f"UPDATE wa_sessions SET {columns} WHERE id=?", (*self._tallies.values(), self._id)
            )

    def put_message(self, step: PutMessage) -> None:
        """Insert, or resolve an undecryptable one."""
        m = step.row
        content = None if m.content is None else rows.json_text(m.content)
        done = self._db.execute(
            _PUT_MESSAGE,
            (self._id, m.chat, m.sender, m.message_id, m.wire_chat, m.wire_sender, int(m.from_me), m.ts, m.kind,
             m.body, content, m.raw, m.status, m.source, self._now),
        )  # fmt: skip
        if done.rowcount and not m.from_me and m.source in _NEW:
            self._tallies["decrypt_failures" if m.kind == UNDECRYPTABLE else "messages_received"] += 1

    def change_message(self, step: ChangeMessage) -> None:
        """Change columns of a message."""
        columns, values = rows.assignments("message", step.changes, rows.MESSAGE_CHANGES)
        self._db.execute(
            f"UPDATE whatsapp_messages SET {columns} "
            "WHERE session_id=? AND chat=? AND sender=? AND message_id=?",
            (*values, self._id, step.chat, step.sender, step.message_id),
        )

    def raise_status(self, step: RaiseStatus) -> None:
        """Never lowers."""
        self._db.execute(_RAISE_STATUS, (step.status, self._id, step.message_id, step.chat, step.status))

    def enqueue(self, step: Enqueue) -> None:
        """Add to the outbox."""
        o = step.row
        self._db.execute(
            _PUT_OUTBOX,
            (self._id, o.client_ref, o.chat, o.message_id, rows.json_text(o.payload), o.stanza, o.state, o.attempts,
             o.not_before, o.expires_at, o.created_at or self._now),
        )  # fmt: skip

    def change_outbox(self, step: ChangeOutbox) -> None:
        """Change columns of an outbox row."""
        columns, values = rows.assignments("message on its way", step.changes, rows.OUTBOX_CHANGES)
        if step.changes.get("state") == "sent":
            (found,) = self._db.execute(_TAKEN, (self._id, step.message_id)).fetchone()
            self._tallies["messages_sent"] += found
        self._db.execute(
            f"UPDATE wa_outbox SET {columns} WHERE session_id=? AND message_id=?",
            (*values, self._id, step.message_id),
        )

    def keep_plaintext(self, step: KeepPlaintext) -> None:
        """For retries."""
        self._db.execute(_PUT_PLAINTEXT, (self._id, step.chat, step.message_id, step.plaintext, self._now))

    def journal(self, step: Journal) -> None:
        """For duplicates."""
        self._db.execute(
            _PUT_JOURNAL, (self._id, step.cipher_sha, step.chat, step.sender, step.message_id, self._now)
        )

    def move_person(self, step: MovePerson) -> None:
        """Re-key rows."""
        for statement in _MOVES:
            self._db.execute(statement, (step.new, step.old, self._id))

    def announce(self, step: Announce) -> None:
        """Append an event."""
        self._events.append(put_event(self._db, (self._id, self._name), step.type, step.data, self._now))


_WRITERS: Final[dict[type[Step], Callable[[UnitWriter, Any], None]]] = {
    PutMessage: UnitWriter.put_message,
    ChangeMessage: UnitWriter.change_message,
    RaiseStatus: UnitWriter.raise_status,
    Enqueue: UnitWriter.enqueue,
    ChangeOutbox: UnitWriter.change_outbox,
    KeepPlaintext: UnitWriter.keep_plaintext,
    Journal: UnitWriter.journal,
    MovePerson: UnitWriter.move_person,
    Announce: UnitWriter.announce,
}
