"""Doing the store's jobs inside one open transaction, each in its savepoint."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final

from waD.store.codec import Codec, Upgrade
from waD.store.engine import (
    AppendEvent,
    ArriveMove,
    Attach,
    Backfill,
    CommitUnit,
    CopyRows,
    CreateSession,
    Depart,
    DropSeals,
    EncryptAuth,
    GiveUpMove,
    Job,
    MovePhase,
    Outcome,
    OwnMove,
    Prune,
    Purge,
    Purged,
    ReleaseLease,
    Renewed,
    RenewLeases,
    ReserveMove,
    ResetAuth,
    RestoreAuth,
    Restored,
    RewrapAuth,
    Rewrapped,
    Seal,
    StageMove,
    UpdateSession,
)
from waD.store.errors import SessionLeased, SessionUnknown, StorageUnavailable, StoreError
from waD.store.model import SessionRow
from waD.store.phases import Phase
from waD.store.sql import moves, moving, pruning, rows
from waD.store.sql.database import Database, Ms
from waD.store.sql.encrypting import Encrypting
from waD.store.sql.heads import Heads
from waD.store.sql.phasing import Phasing
from waD.store.sql.sealing import DROP, Sealing
from waD.store.sql.writing import UnitWriter, put_event
from waD.store.unit import Committed
from waD.store.vault import Cipher, Vault

SESSIONS: Final = f"SELECT {', '.join(rows.SESSION_COLUMNS)} FROM wa_sessions "
_ATTACH: Final = (
    "UPDATE wa_sessions SET lease_token=lease_token+1, lease_holder=?, lease_expires_at={until}, updated_at=? "
    "WHERE id=? AND (lease_expires_at IS NULL OR lease_expires_at<{now} OR lease_holder IN (?,?)) RETURNING lease_token"
)
_RENEW: Final = (
    "UPDATE wa_sessions SET lease_expires_at={until} WHERE id=? AND lease_token=? RETURNING lease_token"
)
_RELEASE: Final = (
    "UPDATE wa_sessions SET lease_token=lease_token+1, lease_holder=NULL, lease_expires_at=NULL "
    "WHERE id=? AND lease_token=?"
)


class Jobs:
    """Does jobs on the connection that writes.

    Args:
        refused: errors of the driver that mean that a constraint refused one job; the others are sound.
        failed: errors of the driver that mean that the transaction is lost.
        now_ms: the time that rows get.
        codec: of legacy rows; None where none are kept.
        vault: the operator's keys; None without.
        upgrade: for seals that an earlier version made.
        new_phase: of sessions that are made here.
    """

    def __init__(
        self,
        refused: tuple[type[Exception], ...],
        failed: tuple[type[Exception], ...],
        now_ms: Callable[[], int],
        codec: Codec | None,
        vault: Vault | None,
        upgrade: Upgrade,
        new_phase: Phase,
    ) -> None:
        self._refused = refused
        self._failed = failed
        self._now_ms = now_ms
        self._vault = vault
        self._new_phase = new_phase
        self._heads = Heads(codec)
        self.sealing = Sealing(self._heads, codec, vault, upgrade)
        self._phasing = Phasing(self._heads, self.sealing, codec, vault)
        self._encrypting = Encrypting(self._heads, vault)

    def run(self, db: Database, jobs: Sequence[Job], *, apart: bool = False) -> list[Outcome]:
        """Do all of them; the caller has begun a transaction and commits it afterwards.

        An outcome that is an error means that this job changed nothing. After any exception, or a commit that
        failed, the caller calls `forget`. With `apart` nothing of a job is put off until after its savepoint.
        """
        outcomes = [self._attempt(db, job, apart) for job in jobs]
        self.flush(db)
        return outcomes

    def begin(self) -> None:
        """A transaction begins in which jobs have no savepoints: none of them is undone by itself."""
        self._heads.mark()

    def do(self, db: Database, job: Job) -> Outcome:
        """Do one; raises what it fails with, and the transaction is of no use then."""
        return _DOERS[type(job)](self, db, job)

    def unit_writer(self, db: Database) -> UnitWriter:
        """For one unit."""
        return UnitWriter(db, self._heads, self._vault, self._now_ms())

    def flush(self, db: Database) -> None:
        """Write what is only in memory yet; the last that is done before a commit."""
        self._heads.flush(db, self._now_ms())

    def forget(self) -> None:
        """The transaction was rolled back."""
        self._heads.forget()

    def _attempt(self, db: Database, job: Job, apart: bool) -> Outcome:
        db.execute("SAVEPOINT job")
        self._heads.mark()
        try:
            outcome = self.do(db, job)
            if apart:
                self.flush(db)
            db.settle()
        except (StoreError, ValueError) as error:
            outcome = error
        except self._refused as error:
            outcome = ValueError(f"the database refused {type(job).__name__}: {error}")
        except self._failed:
            raise
        except Exception as error:  # a fault of ours in one job: the others that share the commit are sound
            outcome = StorageUnavailable(
                f"{type(job).__name__} failed in an unforeseen way ({type(error).__name__}: {error})"
            )
            outcome.__cause__ = error
        if isinstance(outcome, Exception):
            db.discard()
            db.execute("ROLLBACK TO SAVEPOINT job")
            self._heads.revert()
        db.execute("RELEASE SAVEPOINT job")
        return outcome

    def _commit_unit(self, db: Database, job: CommitUnit) -> Committed:
        return self.unit_writer(db).write(job.session_id, (job.token, job.epoch), job.unit)

    def _create_session(self, db: Database, job: CreateSession) -> SessionRow:
        found = self._named(db, job.name)
        if found is not None and found.desired_state == "retired":
            moves.refuse_moving(db, found)
        return self._create(db, job.name)

    def _named(self, db: Database, name: str) -> SessionRow | None:
        found = db.execute(f"{SESSIONS}WHERE name=?", (name,)).fetchone()
        return None if found is None else rows.session_row(found)

    def _create(self, db: Database, name: str) -> SessionRow:
        now = Ms(self._now_ms())
        made = str(uuid.uuid4())
        cipher = self._first_cipher(db, made, name)
        db.execute(
            "INSERT INTO wa_sessions (id, name, auth_phase, dek_wrapped, dek_kek_id, created_at, updated_at) "
            "VALUES (?,?,?,?,?,?,?) ON CONFLICT (name) DO UPDATE "
            "SET desired_state='down', current_status='new', updated_at=excluded.updated_at "
            "WHERE wa_sessions.desired_state='retired'",
            (made, name, self._new_phase, cipher and cipher.wrapped, cipher and cipher.kek_id, now, now),
        )
        return find_session(db, name)

    def _first_cipher(self, db: Database, session_id: str, name: str) -> Cipher | None:
        """Of a session that is made now; one that is there has its own.

        Raises:
            KekUnavailable: there is no key for it.
        """
        if self._vault is None:
            return None
        if self._vault.lost and db.execute("SELECT 1 FROM wa_sessions WHERE name=?", (name,)).fetchone():
            return None
        return self._vault.new(session_id, 1)

    def _update_session(self, db: Database, job: UpdateSession) -> SessionRow:
        columns = rows.session_changes(job.changes)
        more = "".join(f", {name}=?" for name in columns)
        db.execute(
            f"UPDATE wa_sessions SET updated_at=?{more} WHERE id=?",
            (Ms(self._now_ms()), *columns.values(), job.session_id),
        )
        return find_session(db, job.session_id)

    def _attach(self, db: Database, job: Attach) -> SessionRow:
        until = "NULL" if job.lease_ms is None else db.later.format(job.lease_ms)
        done = db.execute(
            _ATTACH.format(until=until, now=db.now),
            (
                job.holder,
                Ms(self._now_ms()),
                job.session_id,
                job.holder,
                job.instead_of or job.holder,
            ),
        ).fetchone()
        row = find_session(db, job.session_id)
        if done is None:
            holder, expires = row.lease_holder or "somebody", row.lease_expires_at or 0
            raise SessionLeased(f"session {row.name} is run by {holder}", holder, expires)
        self._heads.drop(job.session_id)
        return row

    def _renew(self, db: Database, job: RenewLeases) -> Renewed:
        statement = _RENEW.format(until=db.later.format(job.lease_ms))
        ours = [lease[0] for lease in job.leases if db.execute(statement, lease).fetchone() is not None]
        return Renewed(frozenset(ours))

    def _release(self, db: Database, job: ReleaseLease) -> int:
        self._heads.drop(job.session_id)
        return db.execute(_RELEASE, (job.session_id, job.token)).rowcount

    def _append_event(self, db: Database, job: AppendEvent) -> Committed:
        name = find_session(db, job.session_id).name if job.session_id else None
        return Committed(0, [put_event(db, (job.session_id, name), job.type, job.data, self._now_ms())])

    def _seal(self, db: Database, job: Seal) -> int:
        self._heads.flush(db, self._now_ms(), job.session_id)
        row = find_session(db, job.session_id)
        if job.if_changed and self.sealing.unchanged(db, row):
            return 0
        return self.sealing.put(db, row, job.reason, self._now_ms())

    def _drop_seals(self, db: Database, job: DropSeals) -> int:
        return sum(db.execute(DROP, (job.session_id, *seal)).rowcount for seal in job.seals)

    def _reset_auth(self, db: Database, job: ResetAuth) -> int:
        return self.sealing.reset(db, find_session(db, job.session_id), job, self._now_ms())

    def _restore_auth(self, db: Database, job: RestoreAuth) -> Restored:
        return self.sealing.restore(db, find_session(db, job.session_id), job, self._now_ms())

    def _copy_rows(self, db: Database, job: CopyRows) -> int:
        return moving.copy_rows(db, job, self._vault)

    def _own_move(self, db: Database, job: OwnMove) -> SessionRow:
        row = self._attach(db, Attach(job.session_id, job.holder, job.lease_ms))
        moves.require_note(db, job)
        return row

    def _stage_move(self, db: Database, job: StageMove) -> int:
        return moves.stage(db, job)

    def _reserve_move(self, db: Database, job: ReserveMove) -> SessionRow:
        before = self._named(db, job.name)
        made = self._create(db, job.name)
        row = self._attach(db, Attach(made.id, job.holder, job.lease_ms))
        moves.reserve(db, job, before, row)
        return row

    def _arrive_move(self, db: Database, job: ArriveMove) -> int:
        moves.arrive(db, job, self._now_ms())
        self._heads.drop(job.session_id)
        return 1

    def _give_up_move(self, db: Database, job: GiveUpMove) -> int:
        note, now_ms = moves.staged_note(db, job), self._now_ms()
        row = find_session(db, job.session_id)
        if row.auth_epoch > note["epoch"] or row.me_pn is not None:
            self.sealing.clear(db, row, ResetAuth(job.session_id, job.token, job.creds), now_ms)
        moves.leave_unowned(db, row, note, now_ms)
        self._heads.drop(row.id)
        return 1

    def _depart(self, db: Database, job: Depart) -> int:
        row, now_ms = find_session(db, job.session_id), self._now_ms()
        sealed = self.sealing.reset(db, row, ResetAuth(job.session_id, job.token, job.creds), now_ms)
        moves.depart(db, row, job.note, now_ms)
        self._heads.drop(row.id)
        return sealed

    def _move_phase(self, db: Database, job: MovePhase) -> SessionRow:
        self._heads.flush(db, self._now_ms(), job.session_id)
        self._phasing.move(db, find_session(db, job.session_id), job, self._now_ms())
        return find_session(db, job.session_id)

    def _backfill(self, db: Database, job: Backfill) -> int:
        return self._phasing.backfill(db, find_session(db, job.session_id), job, self._now_ms())

    def _encrypt(self, db: Database, job: EncryptAuth) -> int:
        return self._encrypting.encrypt(db, find_session(db, job.session_id), job, self._now_ms())

    def _rewrap(self, db: Database, job: RewrapAuth) -> Rewrapped:
        return self._encrypting.rewrap(db, find_session(db, job.session_id), job)

    def _purge(self, db: Database, job: Purge) -> Purged:
        return pruning.purge(db, find_session(db, job.session_id), job, self._now_ms())

    def _prune(self, db: Database, job: Prune) -> int:
        return pruning.prune(db, job)


def find_session(db: Database, name_or_id: str) -> SessionRow:
    """One session by name or id.

    Raises:
        SessionUnknown: there is none.
    """
    found = db.execute(*one_session(name_or_id)).fetchone()
    if found is None:
        raise SessionUnknown(f"no session {name_or_id!r}")
    return rows.session_row(found)


def one_session(name_or_id: str) -> tuple[str, Sequence[str]]:
    """The query for one session; what is no id must not be compared with one."""
    try:
        uuid.UUID(name_or_id)
    except ValueError:
        return f"{SESSIONS}WHERE name=?", (name_or_id,)
    return f"{SESSIONS}WHERE id=? OR name=?", (name_or_id, name_or_id)


_DOERS: Final[dict[type[Job], Callable[[Jobs, Database, Any], Outcome]]] = {
    CommitUnit: Jobs._commit_unit,
    CreateSession: Jobs._create_session,
    UpdateSession: Jobs._update_session,
    Attach: Jobs._attach,
    RenewLeases: Jobs._renew,
    ReleaseLease: Jobs._release,
    AppendEvent: Jobs._append_event,
    Seal: Jobs._seal,
    DropSeals: Jobs._drop_seals,
    ResetAuth: Jobs._reset_auth,
    RestoreAuth: Jobs._restore_auth,
    CopyRows: Jobs._copy_rows,
    ReserveMove: Jobs._reserve_move,
    OwnMove: Jobs._own_move,
    StageMove: Jobs._stage_move,
    ArriveMove: Jobs._arrive_move,
    GiveUpMove: Jobs._give_up_move,
    Depart: Jobs._depart,
    MovePhase: Jobs._move_phase,
    Backfill: Jobs._backfill,
    EncryptAuth: Jobs._encrypt,
    RewrapAuth: Jobs._rewrap,
    Purge: Jobs._purge,
    Prune: Jobs._prune,
}
