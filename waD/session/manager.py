"""What the control protocol may ask of all the sessions of a daemon."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Final

import trio
from msgspec.structs import replace

from waD.config import Settings
from waD.control.api import ControlError, MessageIds, bad_param, no_such_session
from waD.control.types import (
    DecideResult,
    EventList,
    LogoutResult,
    MessageList,
    Milestone,
    OutboxList,
    OutboxState,
    PolicyTable,
    PurgeParams,
    PurgeResult,
    QrView,
    ReadResult,
    RemoveResult,
    SendRequest,
    SendResult,
    SessionView,
    UndoResult,
    WaitResult,
)
from waD.events.log import EventLog
from waD.session.dates import Dates
from waD.session.doors import Doors
from waD.session.effective import policy_table
from waD.session.eventlog import EventReader, Stream
from waD.session.leases import release
from waD.session.moving import listed, with_move
from waD.session.orders import Busy
from waD.session.purging import purge
from waD.session.refusals import not_paired, translated, wrong_state
from waD.session.retention import store_settings
from waD.session.roster import Roster
from waD.session.stillness import HINT, standing_still
from waD.session.undo import NothingToUndo, look, undo
from waD.session.views import sealed_as, session_view, undo_result
from waD.session.vitals import MS, Clock
from waD.store.errors import KekUnavailable
from waD.store.model import SessionRow
from waD.store.names import NAME_RULE, SESSION_NAME
from waD.store.store import Store

if TYPE_CHECKING:
    from waD.session.authority import AuthKeeper
    from waD.session.repairing import RepairKeeper
    from waD.session.storage import StorageKeeper

QUEUED: Final = ("queued", "sending")
UNDECIDED: Final = ("held",)


class Manager:
    """Runs all sessions. Implements `waD.control.api.Sessions`.

    Args:
        store: the open store.
        log: its event log.
        settings: the settings in force, asked for anew at each use.
        doors: makes the ways out for a session of that name.
        clock: time and chance.
        holder: who takes the leases: text that names this process.
        context: entered where a session's task is started, with its name and connection id; the task inherits it.
        program: name and version, for the manifests of backups.

    Attributes:
        roster: the sessions that are attached.
    """

    def __init__(
        self,
        store: Store,
        log: EventLog,
        settings: Callable[[], Settings],
        doors: Callable[[str], Doors],
        clock: Clock,
        holder: str,
        context: Callable[[str, str], AbstractContextManager[object]] = lambda *_: nullcontext(),
        program: str = "waD",
    ) -> None:
        self.roster = Roster(store, log, settings, doors, clock, holder, context)
        self._spool = settings().store.path.with_name("spool")
        self._program = program
        self._dates = Dates(store)
        self._store = store
        self._reader = EventReader(store, log)
        self._settings = settings
        self._clock = clock

    # What concerns auth states brings archives, encryption and verification with it; most daemons never need it, so
    # it is loaded when somebody asks.

    @cached_property
    def auth(self) -> AuthKeeper:
        """What can be done with the sessions' auth states."""
        from waD.session import authority

        return authority.AuthKeeper(
            self._store, self.roster, self._clock, self._spool, self._program, self._dates
        )

    @cached_property
    def repair(self) -> RepairKeeper:
        """How they are repaired."""
        from waD.session import repairing

        return repairing.RepairKeeper(self._store, self.roster, self._clock)

    @cached_property
    def storage(self) -> StorageKeeper:
        """How they are stored."""
        from waD.session import storage

        return storage.StorageKeeper(self._store, self.roster, self._clock)

    # Life.

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take up all sessions and run them until `stop`. Reports when all are attached.

        Raises:
            StoreError: the sessions cannot be read.
        """
        await self.roster.run(task_status=task_status)

    async def stop(self) -> None:
        """Refuse new work, close all connections in an orderly way, and end `run`; bounded by `stop_timeout`."""
        await self.roster.stop()
        if "auth" in vars(self):
            self.auth.close()

    async def _view(self, session_id: str) -> SessionView:
        with translated(session_id):
            row = await self._store.session(session_id)
            if row is None:
                raise no_such_session(session_id)
            return await self._view_of(row)

    async def _view_of(self, row: SessionRow) -> SessionView:
        entry = self.roster.entries.get(row.id)
        if entry is None:
            return session_view(row, None)
        queued, held = await self._store.read(self._waiting, row.id)
        view = session_view(row, entry.supervisor, queued=queued, held=held)
        backup_at, verified_at = await self._dates.of(row.id)
        due_s = self._settings().session(row.name).alerts.backup_age_s
        view = replace(
            view,
            last_backup_at=backup_at,
            backup_due_at=None if backup_at is None or not due_s else backup_at + round(due_s * MS),
            last_verified_at=verified_at,
        )
        wrong = standing_still(self._store)
        return view if wrong is None else replace(view, hint=f"{wrong}: {HINT}")

    def _waiting(self, session_id: str) -> tuple[int, int]:
        """How many messages are on their way, and how many are held; blocking."""
        count = self._store.engine.outbox_count
        return count(session_id, QUEUED), count(session_id, UNDECIDED)

    # Orders.

    async def connect(self, name: str) -> SessionView:
        """See `Sessions.connect`."""
        self.roster.refuse_when_stopping()
        row = await self._row_to_connect(name)
        if row.held:
            raise ControlError(
                "wrong_state",
                f"session {row.name!r} is held; wactl release {row.name} first",
                {"state": row.current_status, "held": True},
            )
        _, entry = await self.roster.find(row.id)
        if entry.supervisor.lost:
            raise ControlError(
                "lease_held",
                f"session {row.name!r} is run by {row.lease_holder}",
                {"holder": row.lease_holder},
            )
        with translated(name):
            await self._store.update_session(row.id, desired_state="up")
        entry.supervisor.connect()
        return await self._view(row.id)

    async def _row_to_connect(self, name: str) -> SessionRow:
        with translated(name):
            row = await self._store.session(name)
            if row is not None and row.desired_state != "retired":
                return row
            name = name if row is None else row.name
            if not SESSION_NAME.fullmatch(name):
                raise bad_param("name", NAME_RULE)
            return await self._store.create_session(name)

    async def disconnect(self, name: str) -> SessionView:
        """See `Sessions.disconnect`."""
        row, entry = await self.roster.find(name)
        with translated(name):
            await self._store.update_session(row.id, desired_state="down")
        await entry.supervisor.disconnect()
        return await self._view(row.id)

    async def hold(self, name: str) -> SessionView:
        """Keep a session down, whatever is wanted, until `release`; return when its connection is closed."""
        row, entry = await self.roster.find(name)
        with translated(name):
            await self._store.update_session(row.id, held=True)
        await entry.supervisor.hold()
        return await self._view(row.id)

    async def release(self, name: str) -> SessionView:
        """Let a held session do again what is wanted."""
        self.roster.refuse_when_stopping()
        row, entry = await self.roster.find(name)
        with translated(name):
            await self._store.update_session(row.id, held=False)
        entry.supervisor.release()
        return await self._view(row.id)

    async def reset(self, name: str) -> SessionView:
        """Forget the counters and the reason of the last disconnect."""
        row, entry = await self.roster.find(name)
        with translated(name):
            await entry.supervisor.reset()
        return await self._view(row.id)

    async def undo(self, name: str) -> UndoResult:
        """See `Sessions.undo`."""
        self.roster.refuse_when_stopping()
        row, entry = await self.roster.find(name)
        supervisor, undo_days = entry.supervisor, self._settings().session(row.name).reconnect.undo_days
        store, state = self._store, supervisor.state
        with translated(name):
            try:
                await look(store, state, undo_days, self._clock)
                await store.update_session(row.id, desired_state="down")
                done = await supervisor.at_rest(lambda: undo(store, state, undo_days, self._clock))
            except (NothingToUndo, Busy) as refused:
                raise wrong_state(row.name, supervisor.vitals.status, str(refused)) from None
        return undo_result(await self._view(row.id), done)

    async def unretire(self, name: str) -> UndoResult:
        """See `Sessions.unretire`."""
        with translated(name):
            row = await self._store.session(name)
        if row is None:
            raise no_such_session(name)
        undo_days = self._settings().session(row.name).reconnect.undo_days
        done = await self.auth.unretire(row, undo_days)
        return undo_result(await self._view(row.id), done)

    async def logout(self, name: str) -> LogoutResult:
        """See `Sessions.logout`."""
        row, entry = await self.roster.find(name)
        if not entry.supervisor.paired:
            raise not_paired(row.name, entry.supervisor.vitals.status)
        with translated(name):
            await self._store.update_session(row.id, desired_state="down")
            done = await entry.supervisor.logout()
        view = await self._view(row.id)
        return LogoutResult(session=view, unlinked=done.unlinked, backup=sealed_as(done.sealed))

    async def remove(self, name: str) -> RemoveResult:
        """See `Sessions.remove`."""
        row, entry = await self.roster.find(name)
        with trio.CancelScope(shield=True), translated(name):
            async with self.roster.attaching:
                sealed = await self._seal_to_remove(row)
                await self._store.update_session(row.id, desired_state="retired")
                entry.supervisor.halt()
                await entry.done.wait()
                del self.roster.entries[row.id]
                await release(self._store, [entry.supervisor])
        return RemoveResult(name=row.name, connection_id=row.id, backup=sealed)

    async def _seal_to_remove(self, row: SessionRow) -> str | None:
        """A state whose key is gone cannot be copied, but it stays as it is, too."""
        try:
            return sealed_as(await self._store.seal(row.id, "manual"))
        except KekUnavailable:
            return None

    def reloaded(self) -> None:
        """The settings in force are other ones now; connections go on undisturbed."""
        settings = self._settings()
        self.roster.turns.at_once = settings.daemon.restore_concurrency
        self._store.settings = store_settings(settings)
        for entry in self.roster.entries.values():
            entry.supervisor.settings_changed()

    # Questions.

    async def policy(self, name: str | None) -> PolicyTable:
        """See `Sessions.policy`."""
        if name is not None:
            with translated(name):
                row = await self._store.session(name)
            name = name if row is None else row.name
        return policy_table(self._settings(), name)

    async def list(self) -> list[SessionView]:
        """See `Sessions.list`."""
        with translated():
            rows, moves = await listed(self._store)
            return [with_move(await self._view_of(row), moves.get(row.id)) for row in rows]

    async def status(self, name: str) -> SessionView:
        """See `Sessions.status`."""
        with translated(name):
            row = await self._store.session(name)
            move = None if row is None else (await self._store.read(self._store.engine.moves)).get(row.id)
            if row is None or (row.desired_state == "retired" and move is None):
                raise no_such_session(name)
            return with_move(await self._view_of(row), move)

    async def qr(self, name: str) -> QrView | None:
        """See `Sessions.qr`."""
        entry = self.roster.entries.get((await self.roster.row(name)).id)
        return None if entry is None else entry.supervisor.vitals.qr

    # Messages.

    async def send(self, request: SendRequest) -> SendResult:
        """See `Sessions.send`."""
        self.roster.refuse_when_stopping()
        row, entry = await self.roster.find(request.session)
        expire_s = self._settings().session(row.name).outbox.expire_s
        expires_at = self._clock.unix_ms() + round(expire_s * MS) if expire_s else None
        with translated(row.name):
            return await entry.messages.send(request, expires_at)

    async def wait(self, name: str, message_id: str, state: Milestone) -> WaitResult:
        """See `Sessions.wait`."""
        _, entry = await self.roster.find(name)
        with translated(name):
            return await entry.messages.wait(message_id, state)

    async def messages(self, name: str, *, chat: str | None, before: int | None, limit: int) -> MessageList:
        """See `Sessions.messages`."""
        _, entry = await self.roster.find(name)
        with translated(name):
            return await entry.messages.page(chat, before, limit)

    async def purge(self, order: PurgeParams) -> PurgeResult:
        """See `Sessions.purge`."""
        row, entry = await self.roster.find(order.session)
        with translated(row.name):
            return await purge(self._store, row, entry.messages, order)

    async def mark_read(self, name: str, chat: str, ids: MessageIds) -> ReadResult:
        """See `Sessions.mark_read`."""
        self.roster.refuse_when_stopping()
        _, entry = await self.roster.find(name)
        with translated(name):
            return await entry.messages.mark_read(chat, ids)

    async def outbox(self, name: str, *, states: tuple[OutboxState, ...], limit: int) -> OutboxList:
        """See `Sessions.outbox`."""
        _, entry = await self.roster.find(name)
        with translated(name):
            return await entry.outbox.page(states, limit)

    async def release_held(self, name: str, ids: MessageIds | None) -> DecideResult:
        """See `Sessions.release_held`."""
        self.roster.refuse_when_stopping()
        _, entry = await self.roster.find(name)
        with translated(name):
            return await entry.outbox.release(ids)

    async def cancel_unsent(self, name: str, ids: MessageIds | None) -> DecideResult:
        """See `Sessions.cancel_unsent`."""
        self.roster.refuse_when_stopping()
        _, entry = await self.roster.find(name)
        with translated(name):
            return await entry.outbox.cancel(ids)

    # Events.

    async def events(
        self, *, since: int, types: tuple[str, ...], session: str | None, limit: int
    ) -> EventList:
        """See `Sessions.events`."""
        return await self._reader.page(since=since, types=types, session=session, limit=limit)

    def subscribe(
        self, *, since: int | None, types: tuple[str, ...], session: str | None, follow: bool
    ) -> AbstractAsyncContextManager[Stream]:
        """See `Sessions.subscribe`."""
        return self._reader.subscribe(since=since, types=types, session=session, follow=follow)
