"""What may be done with the auth states of sessions that run: backup, restore, verification (chapter 08 §7).

The work itself is `waD.transfer`'s; here it is done in worker threads, beside sessions that go on, or at rest where
the state is exchanged.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
import trio

from waD.control.api import ControlError, bad_param, no_such_session
from waD.control.types import (
    MAX_PART,
    BackupParams,
    BackupResult,
    CompareParams,
    CompareResult,
    DifferenceView,
    Part,
    RestoreMode,
    RestoreParams,
    RestoreResult,
    SealList,
    SealRestoreParams,
    SealView,
    UploadResult,
    VerifyResult,
)
from waD.events import model as events
from waD.session.auth_refusals import auth_refusals
from waD.session.auth_refusals import verdict as verdict
from waD.session.backups import Backups
from waD.session.dates import Dates
from waD.session.refusals import wrong_state
from waD.session.replacing import Old, OldT, Replacing, RestoreDone
from waD.session.resealing import OldSeal, Resealing, is_current
from waD.session.resting import at_rest
from waD.session.restoring import Restoring, Taken
from waD.session.roster import Roster
from waD.session.spool import Spool
from waD.session.undo import Undone
from waD.session.verifying import verify_session
from waD.session.views import sealed_as
from waD.session.vitals import Clock
from waD.store.errors import StoreError
from waD.store.model import SessionRow
from waD.store.names import NAME_RULE, SESSION_NAME
from waD.store.store import Store
from waD.transfer import archive, plans
from waD.transfer.state import Report

CRYPTOGRAPHY: Final = 2
"""The level to which an archive is verified."""
LIVE: Final = 4
"""The level of verification that asks WhatsApp."""
AT_ONCE: Final = 2
"""Archives that are made or read at the same time: it costs memory and the disk."""

_log = logging.getLogger(__name__)


class AuthKeeper:
    """Implements `waD.control.api.Auth`.

    Args:
        store: the open store.
        roster: the sessions that are attached.
        clock: time and chance.
        directory: for files on their way.
        program: name and version, for the manifest of a backup.
        dates: told of backups and verifications.
    """

    def __init__(
        self, store: Store, roster: Roster, clock: Clock, directory: Path, program: str, dates: Dates
    ) -> None:
        self._store = store
        self._roster = roster
        self._clock = clock
        self._spool = Spool(directory)
        self._limiter = trio.CapacityLimiter(AT_ONCE)
        self._backups = Backups(store, roster, clock, self._spool, program, self._limiter)
        self._dates = dates

    def close(self) -> None:
        """Forget what waits to be fetched."""
        self._spool.close()

    # Backup.

    async def backup(self, order: BackupParams) -> BackupResult:
        """See `Auth.backup`."""
        row, entry = await self._roster.find(order.name)
        with auth_refusals(row.name):
            self._spool.make_room()
            if order.final:
                made = await self._backups.move(row, entry, order)
            else:
                made = await self._backups.make(row, order)
            (session,) = made.sessions
            about = {"session": row.id, "version": session.version, "sha256": made.sha256}
            about["recipients"] = list(order.recipients)
            about["sound"] = session.report.ok
            file_id = self._spool.adopt(made.path, made.size, **about)
        return BackupResult(
            id=file_id,
            name=row.name,
            connection_id=row.id,
            file_name=archive.file_name(session.owner, row.name, made.created_ms, session.version),
            size=made.size,
            sha256=made.sha256,
            created_at=made.created_ms,
            epoch=session.epoch,
            version=session.version,
            verdict=verdict(
                CRYPTOGRAPHY,
                session.report,
                versions={"epoch": session.epoch, "version": session.version},
            ),
        )

    async def fetch(self, file_id: str, offset: int) -> Part:
        """See `Auth.fetch`."""
        with auth_refusals():
            data, end = await self._spool.part(file_id, offset, MAX_PART)
        return Part(data=data, end=end)

    async def discard(self, file_id: str, *, kept: bool) -> None:
        """See `Auth.discard`."""
        if kept:
            with auth_refusals():
                await self._record(dict(self._spool.get(file_id).about))
        self._spool.discard(file_id)

    async def _record(self, about: dict[str, object]) -> None:
        """An archive that is safe now; one that would not work does not count as a backup."""
        session_id = about.pop("session", None)
        if session_id is None:
            raise bad_param("kept", "it is no backup")
        if about.pop("sound"):
            event = await self._store.append_event(str(session_id), events.AUTH_BACKUP, about)
            self._dates.note(str(session_id), events.AUTH_BACKUP, event.time)

    # Restore.

    async def upload(self, file_id: str | None, data: bytes) -> UploadResult:
        """See `Auth.upload`."""
        with auth_refusals():
            file_id, size = await self._spool.append(file_id, data)
        return UploadResult(id=file_id, size=size)

    async def restore(self, order: RestoreParams) -> RestoreResult:
        """See `Auth.restore`."""
        self._roster.refuse_when_stopping()
        with auth_refusals(order.name or ""):
            file = self._spool.get(order.id).file
            restoring = Restoring(self._store, self._clock, order)
            taken = await self._take(restoring, file)
            if not taken.report.ok:
                raise _would_not_work("archive", taken.report)
            return await self._restore(restoring, taken, order)

    async def _take(self, restoring: Restoring, file: BinaryIO) -> Taken:
        def work() -> Taken:
            return restoring.take(file, self._spool.prepare())

        return await trio.to_thread.run_sync(work, limiter=self._limiter)

    async def _restore(self, restoring: Restoring, taken: Taken, order: RestoreParams) -> RestoreResult:
        name = order.name or taken.session.listed.name
        row = await self._store.session(name)
        plan = await restoring.plan(taken, row)
        if row is None and not SESSION_NAME.fullmatch(name):
            raise bad_param("name", NAME_RULE)
        if order.dry_run:
            return _restored(taken, plan, name, "" if row is None else row.id, done=False)
        await self._store.create_session(name)
        row, done = await self._put_in_place(restoring, taken, name)
        state = self._roster.entries[row.id].supervisor.state
        held, messages = await restoring.add_rows(taken, state)
        self._spool.discard(order.id)
        result = _after(taken, done, order.mode, row)
        return msgspec.structs.replace(result, held=result.held + held, messages=messages)

    async def _put_in_place(
        self, replacing: Replacing[OldT], old: OldT, name: str
    ) -> tuple[SessionRow, RestoreDone]:
        """Exchange the state of a session while it is at rest; it stays down."""
        row, entry = await self._roster.find(name)
        work = partial(replacing.apply, old, entry.supervisor.state)
        done = await at_rest(self._store, row, entry, work)
        for twin in await replacing.locked_twins(old):
            if twin.desired_state != "retired":
                await self._backups.retire(twin)
        return row, done

    async def seals(self, name: str) -> SealList:
        """See `Auth.seals`."""
        with auth_refusals(name):
            row = await self._store.session(name)
            if row is None:
                raise no_such_session(name)
            found = await self._store.seals(row.id)
        views = [
            SealView(
                epoch=seal.epoch,
                version=seal.version,
                reason=seal.reason,
                sealed_at=seal.sealed_at,
                items=seal.item_count,
                current=is_current(seal.epoch, seal.version, row),
            )
            for seal in found
        ]
        return SealList(
            name=row.name, connection_id=row.id, epoch=row.auth_epoch, version=row.auth_version, seals=views
        )

    async def restore_seal(self, order: SealRestoreParams) -> RestoreResult:
        """See `Auth.restore_seal`."""
        self._roster.refuse_when_stopping()
        with auth_refusals(order.name):
            row = await self._store.session(order.name)
            if row is None:
                raise no_such_session(order.name)
            retired = row.desired_state == "retired"
            if retired and row.me_pn is None:
                raise wrong_state(
                    row.name,
                    row.current_status,
                    f"it was moved, or cleared and removed: wactl restore-auth --unretire {row.name}",
                )
            resealing = Resealing(self._store, self._clock, order)
            seal = await resealing.find(row)
            old = await trio.to_thread.run_sync(resealing.take, row, seal, limiter=self._limiter)
            if not old.report.ok:
                raise _would_not_work("sealed copy", old.report)
            plan = await resealing.plan(old, row)
            if order.dry_run:
                return _restored(old, plan, row.name, row.id, done=False)
            return await self._restore_seal(resealing, old, row, retired=retired)

    async def _restore_seal(
        self, resealing: Resealing, old: OldSeal, row: SessionRow, *, retired: bool
    ) -> RestoreResult:
        """A session that was removed comes back with it, or stays removed."""
        if retired:
            await self._store.create_session(row.name)
        try:
            row, done = await self._put_in_place(resealing, old, row.id)
        except Exception:
            if retired:
                with trio.CancelScope(shield=True):
                    await self._backups.retire(row)
            raise
        return _after(old, done, resealing.order.mode, row)

    async def unretire(self, row: SessionRow, undo_days: float) -> Undone:
        """Bring back a session that was moved; raises ControlError, with everything as it was."""
        self._roster.refuse_when_stopping()
        if row.desired_state != "retired":
            raise wrong_state(row.name, row.current_status, "it is not retired")
        with auth_refusals(row.name):
            return await self._backups.unretire(row, undo_days)

    # Verification.

    async def compare(self, order: CompareParams) -> CompareResult:
        """See `Auth.compare`."""
        with auth_refusals(order.name):
            row = await self._store.session(order.name)
            if row is None:
                raise no_such_session(order.name)
            asked = RestoreParams(id=order.id, source=order.source, name=row.name, mode=order.mode)
            restoring = Restoring(self._store, self._clock, asked)
            taken = await self._take(restoring, self._spool.get(order.id).file)
            found, target = await restoring.compare(taken, row)
            exact = await restoring.is_exact(taken)
            plan = plans.plan(taken.state, order.mode, exact=exact)
        listed = taken.session.listed
        return CompareResult(
            name=row.name,
            connection_id=row.id,
            same_identity=target.identity_fp == listed.identity_fp,
            same_epoch=found.same_epoch,
            equal=found.equal,
            exact=exact,
            archive={"epoch": listed.epoch, "version": listed.version},
            store={"epoch": target.epoch, "version": target.version},
            kinds={
                kind: msgspec.convert(one, DifferenceView, from_attributes=True)
                for kind, one in found.kinds.items()
            },
            plan=[*plan.lines()],
            peers=plan.peers,
            sessions=plan.sessions,
            verdict=verdict(CRYPTOGRAPHY, taken.report, counts=taken.state.counts()),
        )

    async def verify(self, name: str, level: int) -> VerifyResult:
        """See `Auth.verify`."""
        row = await self._roster.row(name)
        entry = self._roster.entries.get(row.id)
        supervisor = None if entry is None else entry.supervisor
        if level >= LIVE and (supervisor is None or supervisor.link is None):
            raise wrong_state(
                row.name, row.current_status, "it is not connected, so WhatsApp cannot be asked"
            )
        with auth_refusals(row.name):
            report, counts, versions = await verify_session(
                self._store, row, supervisor, level, self._clock.unix_ms(), self._limiter
            )
            await self._tell_verified(row, level, errors=len(report.errors))
        return VerifyResult(
            name=row.name,
            connection_id=row.id,
            verdict=verdict(level, report, counts=counts, versions=versions),
        )

    async def _tell_verified(self, row: SessionRow, level: int, *, errors: int) -> None:
        """Record it; a disk that is full is no reason not to say what was found."""
        data = {"level": level, "ok": not errors, "errors": errors}
        try:
            event = await self._store.append_event(row.id, events.AUTH_VERIFIED, data)
        except StoreError as error:
            _log.warning("session %s: its verification cannot be recorded: %s", row.name, error)
        else:
            self._dates.note(row.id, events.AUTH_VERIFIED, None if errors else event.time)


def _would_not_work(what: str, report: Report) -> ControlError:
    return ControlError(
        "damaged",
        f"the {what} would not work, so nothing was changed: {report.errors[0]}",
        {"errors": [str(note) for note in report.errors]},
    )


def _restored(old: Old, plan: plans.Plan, name: str, session_id: str, *, done: bool) -> RestoreResult:
    return RestoreResult(
        name=name,
        connection_id=session_id,
        done=done,
        exact=plan.exact,
        plan=[*plan.lines()],
        peers=plan.peers,
        sessions=plan.sessions,
        verdict=verdict(CRYPTOGRAPHY, old.report, counts=old.state.counts()),
    )


def _after(old: Old, done: RestoreDone, mode: RestoreMode, row: SessionRow) -> RestoreResult:
    """What was done, and where what was in place is."""
    restored = done.restored
    result = _restored(old, plans.done(done.revival, mode), row.name, row.id, done=True)
    under = "" if restored.locked is None else f", under the key {restored.locked!r}, which is not here"
    return msgspec.structs.replace(
        result, held=restored.held, lost=restored.lost, backup=sealed_as(restored.sealed) + under
    )
