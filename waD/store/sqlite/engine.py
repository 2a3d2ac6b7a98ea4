"""The engine on SQLite: one connection that writes, one that reads."""

from __future__ import annotations

import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from waD.store.engine import (
    AppendEvent,
    Attach,
    CommitUnit,
    CreateSession,
    DropSeals,
    Job,
    Outcome,
    Prune,
    ResetAuth,
    RestoreAuth,
    Restored,
    Seal,
    UpdateSession,
)
from waD.store.errors import SessionUnknown, StorageUnavailable, StoreDamaged, StoreError
from waD.store.model import EventRow, MessageRow, OutboxRow, Sealed, SealInfo, SessionRow
from waD.store.sqlite import rows, sealing
from waD.store.sqlite.database import (
    FileLock,
    connect,
    open_database,
    prepare_directory,
    translate,
    translated,
)
from waD.store.sqlite.writing import UnitWriter, put_event
from waD.store.unit import Committed

PRUNE_ROWS: Final = 5000
"""Rows of one kind that one prune removes: bounded work in one transaction."""
RETRY_BUFFER_MS: Final = 7 * 86_400_000
JOURNAL_MS: Final = 14 * 86_400_000
_SESSIONS: Final = f"SELECT {', '.join(rows.SESSION_COLUMNS)} FROM wa_sessions "
_MESSAGES: Final = f"SELECT {', '.join(rows.MESSAGE_COLUMNS)} FROM whatsapp_messages "
_OUTBOX: Final = f"SELECT {', '.join(rows.OUTBOX_COLUMNS)} FROM wa_outbox "


def wall_clock_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


class SqliteEngine:
    """A database file. The constructor opens, checks and migrates it.

    Raises:
        StoreLocked, StoreDamaged, StoreTooNew, StorageUnavailable: the file cannot be used; nothing was changed.
    """

    def __init__(self, path: Path, now_ms: Callable[[], int] = wall_clock_ms) -> None:
        self.path = path
        self._now_ms = now_ms
        self._reading = threading.Lock()
        prepare_directory(path)
        self._lock = FileLock(path)
        self._lock.acquire()
        try:
            self._db = open_database(path)
            with translated(path):
                self._reader = connect(path, readonly=True)
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        """Close both connections and give the lock back."""
        with self._reading:
            self._reader.close()
        self._db.close()
        self._lock.release()

    def write(self, jobs: Sequence[Job]) -> list[Outcome]:
        """One transaction; each job in its savepoint."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            outcomes = [self._attempt(job) for job in jobs]
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            failure = translate(self.path, error)
            return [failure] * len(jobs)
        except BaseException:
            self._roll_back()
            raise
        return outcomes

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def _attempt(self, job: Job) -> Outcome:
        self._db.execute("SAVEPOINT job")
        try:
            outcome = _JOBS[type(job)](self, job)
        except (StoreError, ValueError) as error:
            outcome = error
        except (sqlite3.IntegrityError, sqlite3.InterfaceError) as error:
            # A constraint of the schema refused this one; the connection and the other jobs are sound.
            outcome = ValueError(f"the database refused {type(job).__name__}: {error}")
        except sqlite3.Error:
            raise
        except Exception as error:  # a fault of ours in one job: the others that share the commit are sound
            outcome = StorageUnavailable(
                f"{type(job).__name__} failed in an unforeseen way ({type(error).__name__}: {error})"
            )
            outcome.__cause__ = error
        if isinstance(outcome, Exception):
            self._db.execute("ROLLBACK TO job")
        self._db.execute("RELEASE job")
        return outcome

    def _commit_unit(self, job: CommitUnit) -> Committed:
        return UnitWriter(self._db, job.session_id, job.token, self._now_ms()).write(job.unit)

    def _create_session(self, job: CreateSession) -> SessionRow:
        now = self._now_ms()
        self._db.execute(
            "INSERT INTO wa_sessions (id, name, created_at, updated_at) VALUES (?,?,?,?) ON CONFLICT (name) DO UPDATE "
            "SET desired_state='down', current_status='new', updated_at=excluded.updated_at "
            "WHERE desired_state='retired'",
            (str(uuid.uuid4()), job.name, now, now),
        )
        return self._row(self._db, job.name)

    def _update_session(self, job: UpdateSession) -> SessionRow:
        columns = rows.session_changes(job.changes)
        more = "".join(f", {name}=?" for name in columns)
        self._db.execute(
            f"UPDATE wa_sessions SET updated_at=?{more} WHERE id=?",
            (self._now_ms(), *columns.values(), job.session_id),
        )
        return self._row(self._db, job.session_id)

    def _attach(self, job: Attach) -> SessionRow:
        self._db.execute(
            "UPDATE wa_sessions SET lease_token=lease_token+1, lease_holder=?, updated_at=? WHERE id=?",
            (job.holder, self._now_ms(), job.session_id),
        )
        return self._row(self._db, job.session_id)

    def _append_event(self, job: AppendEvent) -> Committed:
        name = self._row(self._db, job.session_id).name if job.session_id else None
        return Committed(0, [put_event(self._db, (job.session_id, name), job.type, job.data, self._now_ms())])

    def _seal(self, job: Seal) -> int:
        row = self._row(self._db, job.session_id)
        if job.if_changed and sealing.unchanged(self._db, row):
            return 0
        return sealing.put_seal(self._db, row, job.reason, self._now_ms())

    def _drop_seals(self, job: DropSeals) -> int:
        return sum(self._db.execute(sealing.DROP, (job.session_id, *seal)).rowcount for seal in job.seals)

    def _reset_auth(self, job: ResetAuth) -> int:
        return sealing.reset(self._db, self._row(self._db, job.session_id), job, self._now_ms())

    def _restore_auth(self, job: RestoreAuth) -> Restored:
        return sealing.restore(self._db, self._row(self._db, job.session_id), job, self._now_ms())

    def _prune(self, job: Prune) -> int:
        finished = "state IN ('sent','failed','expired','cancelled')"
        went = self._delete("wa_events", "id", "at<?", job.now_ms - job.event_age_ms)
        went += self._prune_crowded(job.events_per_session)
        went += self._delete(
            "wa_outbox", "seq", f"created_at<? AND {finished}", job.now_ms - job.outbox_age_ms
        )
        for table, column, age in (
            ("wa_retry_buffer", "created_at", RETRY_BUFFER_MS),
            ("wa_inbound_buffer", "inserted_at", JOURNAL_MS),
        ):
            done = self._db.execute(f"DELETE FROM {table} WHERE {column}<?", (job.now_ms - age,))
            went += done.rowcount
        return went

    def _prune_crowded(self, most: int) -> int:
        went = 0
        for (session_id,) in self._db.execute("SELECT id FROM wa_sessions").fetchall():
            bound = self._db.execute(
                "SELECT id FROM wa_events WHERE session_id=? ORDER BY id DESC LIMIT 1 OFFSET ?",
                (session_id, most),
            ).fetchone()
            if bound is not None:
                went += self._delete("wa_events", "id", "id<=? AND session_id=?", bound[0], session_id)
        return went

    def _delete(self, table: str, key: str, condition: str, *values: Any) -> int:
        chosen = f"SELECT {key} FROM {table} WHERE {condition} ORDER BY {key} LIMIT {PRUNE_ROWS}"
        if table == "wa_events":
            top = self._db.execute(f"SELECT max({key}) FROM ({chosen})", values).fetchone()[0]
            if top is not None:
                self._db.execute(
                    "INSERT INTO wa_settings VALUES ('pruned_to', ?) ON CONFLICT (k) DO UPDATE SET v=excluded.v "
                    "WHERE CAST(excluded.v AS INTEGER) > CAST(wa_settings.v AS INTEGER)",
                    (str(top),),
                )
        return self._db.execute(f"DELETE FROM {table} WHERE {key} IN ({chosen})", values).rowcount

    def _row(self, db: sqlite3.Connection, name_or_id: str) -> SessionRow:
        found = db.execute(_SESSIONS + "WHERE id=?1 OR name=?1", (name_or_id,)).fetchone()
        if found is None:
            raise SessionUnknown(f"no session {name_or_id!r}")
        return rows.session_row(found)

    def _read(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._reading, translated(self.path):
            return self._reader.execute(query, values).fetchall()

    def sessions(self, include_retired: bool) -> list[SessionRow]:
        """All sessions by name."""
        where = "" if include_retired else "WHERE desired_state<>'retired' "
        return [rows.session_row(row) for row in self._read(f"{_SESSIONS}{where}ORDER BY name")]

    def session(self, name_or_id: str) -> SessionRow | None:
        """One session."""
        found = self._read(_SESSIONS + "WHERE id=?1 OR name=?1", (name_or_id,))
        return rows.session_row(found[0]) if found else None

    def creds(self, session_id: str) -> bytes | None:
        """The credentials document."""
        found = self._read("SELECT snapshot FROM wa_auth_snapshots WHERE session_id=?", (session_id,))
        return found[0][0] if found else None

    def items(self, session_id: str, kind: str, keys: Sequence[str] | None) -> Mapping[str, bytes]:
        """Items of one kind."""
        where = "" if keys is None else f" AND id IN ({_marks(keys)})"
        query = f"SELECT id, value FROM wa_auth_items WHERE session_id=? AND type=?{where}"
        return dict(self._read(query, (session_id, kind, *(keys or ()))))

    def item_keys(self, session_id: str, kind: str, prefix: str) -> list[str]:
        """Keys with a prefix."""
        query = (
            "SELECT id FROM wa_auth_items WHERE session_id=?1 AND type=?2 AND id>=?3 AND id<?3||char(1114111) "
            "ORDER BY id"
        )
        return [row[0] for row in self._read(query, (session_id, kind, prefix))]

    def events(
        self, after: int, limit: int, session_id: str | None, types: Sequence[str] | None
    ) -> list[EventRow]:
        """Events behind a cursor."""
        where, values = "id>?", [after]  # type: tuple[str, list[Any]]
        if session_id is not None:
            where, values = f"{where} AND session_id=?", [*values, session_id]
        if types is not None:
            where, values = f"{where} AND kind IN ({_marks(types)})", [*values, *types]
        query = f"SELECT id, at, session_id, session, kind, payload FROM wa_events WHERE {where} ORDER BY id LIMIT ?"
        return [rows.event_row(row) for row in self._read(query, (*values, limit))]

    def event_bounds(self) -> tuple[int, int]:
        """What was pruned, and the newest cursor ever given."""
        pruned = self._read("SELECT CAST(v AS INTEGER) FROM wa_settings WHERE k='pruned_to'")
        newest = self._read("SELECT seq FROM sqlite_sequence WHERE name='wa_events'")
        return (pruned[0][0] if pruned else 0), (newest[0][0] if newest else 0)

    def messages(
        self, session_id: str, chats: Sequence[str] | None, before_seq: int | None, limit: int
    ) -> list[MessageRow]:
        """A page of the history, newest first."""
        where, values = "session_id=?", [session_id]  # type: tuple[str, list[Any]]
        if chats is not None:
            where, values = f"{where} AND chat IN ({_marks(chats)})", [*values, *chats]
        if before_seq is not None:
            where, values = f"{where} AND seq<?", [*values, before_seq]
        query = f"{_MESSAGES}WHERE {where} ORDER BY seq DESC LIMIT ?"
        return [rows.message_row(row) for row in self._read(query, (*values, limit))]

    def message(self, session_id: str, message_id: str) -> list[MessageRow]:
        """All messages of that id."""
        return self.messages_by_ids(session_id, [message_id])

    def messages_by_ids(self, session_id: str, message_ids: Sequence[str]) -> list[MessageRow]:
        """All messages of these ids."""
        query = f"{_MESSAGES}WHERE session_id=? AND message_id IN ({_marks(message_ids)}) ORDER BY seq"
        return [rows.message_row(row) for row in self._read(query, (session_id, *message_ids))]

    def outbox(self, session_id: str, states: Sequence[str], limit: int) -> list[OutboxRow]:
        """Rows in these states."""
        query = f"{_OUTBOX}WHERE session_id=? AND state IN ({_marks(states)}) ORDER BY seq LIMIT ?"
        return [rows.outbox_row(row) for row in self._read(query, (session_id, *states, limit))]

    def outbox_count(self, session_id: str, states: Sequence[str]) -> int:
        """Rows in these states."""
        query = f"SELECT count(*) FROM wa_outbox WHERE session_id=? AND state IN ({_marks(states)})"
        count: int = self._read(query, (session_id, *states))[0][0]
        return count

    def seals(self, session_id: str) -> list[SealInfo]:
        """Newest first."""
        return [sealing.info(row) for row in self._read(sealing.LIST, (session_id,))]

    def sealed(self, session_id: str, epoch: int, version: int) -> Sealed:
        """One seal, checked."""
        which = f"{self.path}: the sealed auth state of version {version}"
        found = self._read(sealing.READ, (session_id, epoch, version))
        if not found:
            raise StoreDamaged(f"{which} is gone: use an older one, or a backup")
        document, checksum = found[0]
        return sealing.open_seal(document, checksum, which)

    def outbox_row(
        self, session_id: str, *, client_ref: str | None, message_id: str | None
    ) -> OutboxRow | None:
        """One row."""
        query = f"{_OUTBOX}WHERE session_id=? AND (client_ref=? OR message_id=?)"
        found = self._read(query, (session_id, client_ref, message_id))
        return rows.outbox_row(found[0]) if found else None

    def plaintext(self, session_id: str, message_id: str) -> list[tuple[str, bytes]]:
        """What was sent under that id."""
        return self._read(
            "SELECT chat, plaintext FROM wa_retry_buffer WHERE session_id=? AND message_id=?",
            (session_id, message_id),
        )

    def journal_seen(self, session_id: str, chat: str, sender: str, message_id: str) -> list[bytes]:
        """Hashes handled under that key."""
        query = "SELECT cipher_sha FROM wa_inbound_buffer WHERE session_id=? AND chat=? AND sender=? AND message_id=?"
        return [row[0] for row in self._read(query, (session_id, chat, sender, message_id))]

    def journal_ciphers(self, session_id: str, hashes: Sequence[bytes]) -> set[bytes]:
        """Which of these were handled."""
        query = f"SELECT cipher_sha FROM wa_inbound_buffer WHERE session_id=? AND cipher_sha IN ({_marks(hashes)})"
        return {row[0] for row in self._read(query, (session_id, *hashes))}

    def integrity(self, quick: bool) -> list[str]:
        """On a connection of its own, which takes its time."""
        with translated(self.path):
            checker = connect(self.path, readonly=True)
            try:
                found = checker.execute(f"PRAGMA {'quick_check' if quick else 'integrity_check'}").fetchall()
            finally:
                checker.close()
        return [row[0] for row in found if row[0] != "ok"]


_JOBS: Final[dict[type[Job], Callable[[SqliteEngine, Any], Outcome]]] = {
    CommitUnit: SqliteEngine._commit_unit,
    CreateSession: SqliteEngine._create_session,
    UpdateSession: SqliteEngine._update_session,
    Attach: SqliteEngine._attach,
    AppendEvent: SqliteEngine._append_event,
    Seal: SqliteEngine._seal,
    DropSeals: SqliteEngine._drop_seals,
    ResetAuth: SqliteEngine._reset_auth,
    RestoreAuth: SqliteEngine._restore_auth,
    Prune: SqliteEngine._prune,
}
