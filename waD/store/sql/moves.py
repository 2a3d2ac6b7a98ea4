"""The two ends of a move between stores: what is noted, and who may start (chapter 08 §6.4, §7.4)."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from waD.store.engine import ArriveMove, GiveUpMove, OwnMove, ReserveMove, StageMove
from waD.store.errors import LeaseLost, SessionLeased
from waD.store.model import DisconnectRecord, SessionRow
from waD.store.moves import BOTH, PREFIX, MoveUnderWay, note_key, under_way
from waD.store.sql import rows
from waD.store.sql.database import Database, Ms

TALLIES: Final = frozenset({"messages_received", "messages_sent", "decrypt_failures", "retry_requests"})
"""Columns of a session that only count, and go along with it."""
KEPT: Final = (
    "held", "last_disconnect", "last_connected_at", "last_message_at", "reconnect_count", *sorted(TALLIES),
)  # fmt: skip
"""Columns of a session's row that go along."""
_BEFORE: Final = ("desired_state", "current_status", *KEPT)
_OWNED: Final = "UPDATE wa_sessions SET updated_at=updated_at WHERE id=? AND lease_token=? RETURNING id"
"""Unlike a look it keeps others off the row: what is noted decides who may start."""
_NOTE: Final = "SELECT v FROM wa_settings WHERE k=?"
_NOTES: Final = "SELECT k, v FROM wa_settings WHERE substr(k, 1, ?)=?"
_PUT_NOTE: Final = "INSERT INTO wa_settings (k, v) VALUES (?,?) ON CONFLICT (k) DO UPDATE SET v=excluded.v"
_DROP_NOTE: Final = "DELETE FROM wa_settings WHERE k=?"
_NEWEST_EVENT: Final = "SELECT max(at) FROM wa_events WHERE session_id=?"
_LAST_OUTGOING: Final = "SELECT coalesce(max(seq), 0) FROM wa_outbox WHERE session_id=?"
_FREE: Final = "lease_token=lease_token+1, lease_holder=NULL, lease_expires_at=NULL"

Note = dict[str, Any]


def stage(db: Database, job: StageMove) -> int:
    """Note how far a move has come, for whoever owns the session.

    Raises:
        LeaseLost: the token is not the current one.
    """
    _require(db, job.session_id, job.token)
    _change(db, job.session_id, job.changes)
    put_note(db, job.note)
    return 1


def refuse_moving(db: Database, row: SessionRow) -> None:
    """A session that is on its way is not brought back under its name.

    Raises:
        SessionLeased: it is.
    """
    for side in BOTH:
        key = note_key(side, row.id)
        note = read_note(db, key)
        move = None if note is None else under_way(key, note)
        if move is not None and (move.into or move.given_up):
            text = f"session {row.name!r}: {move.hint(row.name)}"
            raise SessionLeased(text, row.lease_holder or "a move", row.lease_expires_at or 0)


def reserve(db: Database, job: ReserveMove, before: SessionRow | None, row: SessionRow) -> None:
    """Retire the session that a move goes into, and note what it was before.

    What an earlier attempt has noted of how far it has come stays: rows of events have no names, and must not come
    twice.

    Args:
        db: in a transaction.
        job: what is wanted.
        before: the session of that name before, None when there was none.
        row: as it is now, owned by the move.

    Raises:
        SessionLeased: somebody has paired it meanwhile.
    """
    key = note_key("arriving", row.id)
    found = read_note(db, key)
    ours = found if found is not None and found["session"] == job.session else None
    resumed = ours is not None and not ours.get("aborted")
    if not resumed and row.me_pn is not None:
        raise SessionLeased(f"session {row.name!r} was paired meanwhile", row.lease_holder or "", 0)
    way = {"since": _newest_event(db, row.id), "events": None}
    if ours is not None:
        way = {"since": ours["since"], "events": ours["events"]}
    first = _first(db, before, row)
    if resumed and ours is not None:
        first |= {name: ours[name] for name in first if name in ours}
    put_note(db, (key, {"store": job.store, "session": job.session, "state": None, **way, **first}))
    _change(db, row.id, {"desired_state": "retired"})


def _first(db: Database, before: SessionRow | None, row: SessionRow) -> Note:
    """What giving up goes back to."""
    was = row if before is None else before
    columns = {name: msgspec.to_builtins(getattr(was, name)) for name in _BEFORE}
    if before is None:
        columns["desired_state"] = "retired"
    (last,) = db.execute(_LAST_OUTGOING, (row.id,)).fetchone()
    return {"before": columns, "epoch": row.auth_epoch, "outbox": last}


def _newest_event(db: Database, session_id: str) -> int:
    """When; a session that comes back has the events of its first stay already."""
    (newest,) = db.execute(_NEWEST_EVENT, (session_id,)).fetchone()
    return -1 if newest is None else int(newest)


def arrive(db: Database, job: ArriveMove, now_ms: int) -> None:
    """Let a destination go with what has arrived there, and note that it may have run since.

    Raises:
        LeaseLost: the token is not the current one, or something else has arrived.
    """
    note = staged_note(db, job)
    if note["session"] != job.source or note["state"] != [*job.state]:
        raise LeaseLost(f"what has arrived in session {job.session_id} is not what was given up")
    db.execute(
        f"UPDATE wa_sessions SET desired_state='down', current_status='stopped', updated_at=?, {_FREE} WHERE id=?",
        (Ms(now_ms), job.session_id),
    )
    put_note(db, (note_key("arriving", job.session_id), None))
    arrived = {"store": note["store"], "session": job.source, "state": note["state"]}
    put_note(db, (note_key("arrived", job.session_id), arrived))


def leave_unowned(db: Database, row: SessionRow, note: Note, now_ms: int) -> None:
    """Free a destination that was reserved, once its state is cleared: from now on nothing arrives there.

    Messages and events that were copied stay. Messages to be sent do not: they are the source's, and would go twice.
    """
    db.execute("DELETE FROM wa_auth_sealed WHERE session_id=? AND epoch>?", (row.id, note["epoch"]))
    db.execute("DELETE FROM wa_outbox WHERE session_id=? AND seq>?", (row.id, note["outbox"]))
    db.execute(
        "UPDATE wa_outbox SET state='held', stanza=NULL WHERE session_id=? AND state IN ('queued','sending')",
        (row.id,),
    )
    for table in ("wa_retry_buffer", "wa_inbound_buffer"):
        db.execute(f"DELETE FROM {table} WHERE session_id=?", (row.id,))
    before = dict(note["before"])
    before["last_disconnect"] = msgspec.convert(before["last_disconnect"], DisconnectRecord | None)
    _change(db, row.id, before | {"me_pn": None, "me_lid": None})
    db.execute(f"UPDATE wa_sessions SET updated_at=?, {_FREE} WHERE id=?", (Ms(now_ms), row.id))
    put_note(db, (note_key("arriving", row.id), note | {"aborted": True}))


def require_note(db: Database, job: OwnMove) -> None:
    """Whoever asks has the row, so that what is noted stays.

    Raises:
        LeaseLost: it is not what was seen before.
    """
    key, seen = job.note
    if read_note(db, key) != seen:
        raise LeaseLost(f"another process has gone on with the move of session {job.session_id}: try again")


def staged_note(db: Database, job: ArriveMove | GiveUpMove) -> Note:
    """The note of a move that is under way into a session that the job owns.

    Raises:
        LeaseLost: the token is not the current one, or there is no such move.
    """
    _require(db, job.session_id, job.token)
    note = read_note(db, note_key("arriving", job.session_id))
    if note is None or note.get("aborted"):
        raise LeaseLost(f"no move into session {job.session_id} is under way any more")
    return note


def depart(db: Database, row: SessionRow, left: Note | None, now_ms: int) -> None:
    """Retire a session whose state the caller has cleared, and let it go; `left` says for whom."""
    db.execute(
        f"UPDATE wa_sessions SET desired_state='retired', current_status='stopped', updated_at=?, {_FREE} WHERE id=?",
        (Ms(now_ms), row.id),
    )
    for side in BOTH:
        put_note(db, (note_key(side, row.id), None))
    if left is not None:
        put_note(db, (note_key("departed", row.id), left))


def _require(db: Database, session_id: str, token: int) -> None:
    if db.execute(_OWNED, (session_id, token)).fetchone() is None:
        raise LeaseLost(f"session {session_id} has another owner now; the move of it has ended")


def _change(db: Database, session_id: str, changes: Any) -> None:
    if not changes:
        return
    own = {name: value for name, value in changes.items() if name not in TALLIES}
    columns = rows.session_changes(own) | {name: changes[name] for name in changes.keys() & TALLIES}
    names = ", ".join(f"{name}=?" for name in columns)
    db.execute(f"UPDATE wa_sessions SET {names} WHERE id=?", (*columns.values(), session_id))


def put_note(db: Database, note: tuple[str, Note | None] | None) -> None:
    """Write a note of a move, or remove it."""
    if note is None:
        return
    key, value = note
    if value is None:
        db.execute(_DROP_NOTE, (key,))
    else:
        db.execute(_PUT_NOTE, (key, msgspec.json.encode(value).decode()))


def read_note(db: Database, key: str) -> Note | None:
    """A note of a move; None when there is none."""
    found = db.execute(_NOTE, (key,)).fetchone()
    return None if found is None else msgspec.json.decode(found[0], type=Note)


def all_under_way(db: Database) -> dict[str, MoveUnderWay]:
    """The moves that have not ended, by the id of their session here."""
    found = db.execute(_NOTES, (len(PREFIX), PREFIX)).fetchall()
    moves = (under_way(key, msgspec.json.decode(value, type=Note)) for key, value in found)
    return {move.session_id: move for move in moves if move is not None}
