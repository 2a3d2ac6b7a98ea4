"""All sessions of a daemon: who supervises which, and what the control protocol may ask of them."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Final

import trio

from waD.config import SessionSettings, Settings
from waD.control.api import ControlError, MessageIds, bad_param, no_such_session
from waD.control.types import (
    EventList,
    EventView,
    LogoutResult,
    MessageList,
    Milestone,
    PolicyTable,
    QrView,
    ReadResult,
    RemoveResult,
    SendRequest,
    SendResult,
    SessionView,
    UndoResult,
    WaitResult,
)
from waD.events.log import EventLog, Subscription
from waD.session.doors import Doors
from waD.session.effective import policy_table
from waD.session.messages import SessionMessages, not_paired
from waD.session.orders import Abandoned, Busy
from waD.session.retention import store_settings
from waD.session.supervisor import Supervisor
from waD.session.turns import Turns
from waD.session.undo import NothingToUndo, look, undo
from waD.session.views import event_view, sealed_as, session_view, undo_result
from waD.session.vitals import MS, Clock
from waD.store.errors import CursorExpired, LeaseLost, SessionUnknown, StoreError
from waD.store.model import SessionRow
from waD.store.store import Store

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
QUEUED: Final = ("queued", "sending", "held")

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Entry:
    """One attached session."""

    supervisor: Supervisor
    messages: SessionMessages
    done: trio.Event = field(default_factory=trio.Event)


class Stream:
    """A subscription as the control protocol sees it."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self.oldest = subscription.oldest
        self.last = subscription.last

    def __aiter__(self) -> AsyncIterator[EventView]:
        return self

    async def __anext__(self) -> EventView:
        with translated():
            return event_view(await anext(self._subscription))


@contextmanager
def translated(session: str = "") -> Iterator[None]:
    """Turn what the store raises into refusals of the control protocol."""
    try:
        yield
    except CursorExpired as error:
        raise ControlError("cursor_expired", str(error), {"oldest": error.oldest}) from None
    except SessionUnknown:
        raise no_such_session(session) from None
    except Abandoned as error:
        raise ControlError("shutting_down", str(error)) from None
    except LeaseLost as error:
        raise ControlError("lease_held", str(error), {"name": session}) from None
    except StoreError as error:
        raise ControlError("storage_unavailable", str(error)) from None


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
    ) -> None:
        self._store = store
        self._log = log
        self._settings = settings
        self._doors = doors
        self._clock = clock
        self._holder = holder
        self._context = context
        self._entries: dict[str, _Entry] = {}
        self._attaching = trio.Lock()
        self._turns = Turns(settings().daemon.restore_concurrency)
        self._nursery: trio.Nursery | None = None
        self._stopping = False
        self._stopped = trio.Event()

    # Life.

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take up all sessions and run them until `stop`. Reports when all are attached.

        Raises:
            StoreError: the sessions cannot be read.
        """
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            rows = await self._store.sessions()
            async with trio.open_nursery() as attaching:
                for row in rows:
                    attaching.start_soon(self._take_up, row)
            task_status.started()
            await self._stopped.wait()
            nursery.cancel_scope.cancel()

    async def stop(self) -> None:
        """Refuse new work, close all connections in an orderly way, and end `run`; bounded by `stop_timeout`."""
        self._stopping = True
        entries = list(self._entries.values())
        for entry in entries:
            entry.supervisor.halt()
        with trio.move_on_after(self._settings().daemon.stop_timeout_s) as waiting:
            for entry in entries:
                await entry.done.wait()
        if waiting.cancelled_caught:
            late = sorted(e.supervisor.vitals.name for e in entries if not e.done.is_set())
            _log.warning("sessions that did not end in time: %s", ", ".join(late))
        self._stopped.set()

    async def _take_up(self, row: SessionRow) -> None:
        try:
            entry = await self._attach(row)
        except StoreError as error:
            _log.critical("session %s cannot be taken up: %s", row.name, error)
            return
        spread = self._settings().daemon.restore_spread_s
        self._start(entry, self._clock.jitter() * spread)

    async def _attach(self, row: SessionRow) -> _Entry:
        state = await self._store.attach(row.id, self._holder)
        name = row.name

        def settings() -> SessionSettings:
            return self._settings().session(name)

        supervisor = Supervisor(state, self._doors(name), settings, self._clock, self._turns)
        entry = _Entry(supervisor, SessionMessages(self._store, self._log, supervisor))
        self._entries[row.id] = entry
        return entry

    def _start(self, entry: _Entry, after_s: float = 0.0) -> None:
        assert self._nursery is not None, "the manager is not running"
        name = entry.supervisor.vitals.name
        with self._context(name, entry.supervisor.state.session_id):
            self._nursery.start_soon(self._supervise, entry, after_s, name=f"session {name}")

    async def _supervise(self, entry: _Entry, after_s: float) -> None:
        try:
            await entry.supervisor.run(after_s)
        finally:
            entry.done.set()

    # Finding.

    async def _row(self, name: str) -> SessionRow:
        with translated(name):
            row = await self._store.session(name)
        if row is None or row.desired_state == "retired":
            raise no_such_session(name)
        return row

    async def _find(self, name: str) -> tuple[SessionRow, _Entry]:
        """The row and the entry; one whose state could not be read at the start is tried again."""
        row = await self._row(name)
        async with self._attaching:
            entry = self._entries.get(row.id)
            if entry is None:
                self._refuse_when_stopping()
                with translated(name):
                    entry = await self._attach(row)
                self._start(entry)
        return row, entry

    def _refuse_when_stopping(self) -> None:
        if self._stopping:
            raise ControlError("shutting_down", "the daemon is stopping; try again when it runs")

    async def _view(self, session_id: str) -> SessionView:
        with translated(session_id):
            row = await self._store.session(session_id)
            if row is None:
                raise no_such_session(session_id)
            return await self._view_of(row)

    async def _view_of(self, row: SessionRow) -> SessionView:
        entry = self._entries.get(row.id)
        if entry is None:
            return session_view(row, None, 0)
        queued = await self._store.outbox_count(row.id, QUEUED)
        return session_view(row, entry.supervisor, queued)

    # Orders.

    async def connect(self, name: str) -> SessionView:
        """See `Sessions.connect`."""
        self._refuse_when_stopping()
        row = await self._row_to_connect(name)
        if row.held:
            raise ControlError(
                "wrong_state",
                f"session {row.name!r} is held; wactl release {row.name} first",
                {"state": row.current_status, "held": True},
            )
        _, entry = await self._find(row.id)
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
            if not NAME.fullmatch(name):
                raise bad_param(
                    "name", "1 to 64 letters, digits, dots, dashes and underscores, no sign first"
                )
            return await self._store.create_session(name)

    async def disconnect(self, name: str) -> SessionView:
        """See `Sessions.disconnect`."""
        row, entry = await self._find(name)
        with translated(name):
            await self._store.update_session(row.id, desired_state="down")
        await entry.supervisor.disconnect()
        return await self._view(row.id)

    async def hold(self, name: str) -> SessionView:
        """Keep a session down, whatever is wanted, until `release`; return when its connection is closed."""
        row, entry = await self._find(name)
        with translated(name):
            await self._store.update_session(row.id, held=True)
        await entry.supervisor.hold()
        return await self._view(row.id)

    async def release(self, name: str) -> SessionView:
        """Let a held session do again what is wanted."""
        self._refuse_when_stopping()
        row, entry = await self._find(name)
        with translated(name):
            await self._store.update_session(row.id, held=False)
        entry.supervisor.release()
        return await self._view(row.id)

    async def reset(self, name: str) -> SessionView:
        """Forget the counters and the reason of the last disconnect."""
        row, entry = await self._find(name)
        with translated(name):
            await entry.supervisor.reset()
        return await self._view(row.id)

    async def undo(self, name: str) -> UndoResult:
        """See `Sessions.undo`."""
        self._refuse_when_stopping()
        row, entry = await self._find(name)
        supervisor, undo_days = entry.supervisor, self._settings().session(row.name).reconnect.undo_days
        store, state = self._store, supervisor.state
        with translated(name):
            try:
                await look(store, state, undo_days, self._clock)
                await store.update_session(row.id, desired_state="down")
                done = await supervisor.at_rest(lambda: undo(store, state, undo_days, self._clock))
            except (NothingToUndo, Busy) as refused:
                raise _wrong_state(row.name, supervisor, str(refused)) from None
        return undo_result(await self._view(row.id), done)

    async def logout(self, name: str) -> LogoutResult:
        """See `Sessions.logout`."""
        row, entry = await self._find(name)
        if not entry.supervisor.paired:
            raise not_paired(row.name, entry.supervisor.vitals.status)
        with translated(name):
            await self._store.update_session(row.id, desired_state="down")
            done = await entry.supervisor.logout()
        view = await self._view(row.id)
        return LogoutResult(session=view, unlinked=done.unlinked, backup=sealed_as(done.sealed))

    async def remove(self, name: str) -> RemoveResult:
        """See `Sessions.remove`."""
        row, entry = await self._find(name)
        with trio.CancelScope(shield=True), translated(name):
            async with self._attaching:
                sealed = await self._store.seal(row.id, "manual")
                await self._store.update_session(row.id, desired_state="retired")
                entry.supervisor.halt()
                await entry.done.wait()
                del self._entries[row.id]
        return RemoveResult(name=row.name, connection_id=row.id, backup=sealed_as(sealed))

    def reloaded(self) -> None:
        """The settings in force are other ones now; connections go on undisturbed."""
        settings = self._settings()
        self._turns.at_once = settings.daemon.restore_concurrency
        self._store.settings = store_settings(settings)
        for entry in self._entries.values():
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
            return [await self._view_of(row) for row in await self._store.sessions()]

    async def status(self, name: str) -> SessionView:
        """See `Sessions.status`."""
        row = await self._row(name)
        with translated(name):
            return await self._view_of(row)

    async def qr(self, name: str) -> QrView | None:
        """See `Sessions.qr`."""
        entry = self._entries.get((await self._row(name)).id)
        return None if entry is None else entry.supervisor.vitals.qr

    # Messages.

    async def send(self, request: SendRequest) -> SendResult:
        """See `Sessions.send`."""
        self._refuse_when_stopping()
        row, entry = await self._find(request.session)
        expire_s = self._settings().session(row.name).outbox.expire_s
        expires_at = self._clock.unix_ms() + round(expire_s * MS) if expire_s else None
        with translated(row.name):
            return await entry.messages.send(request, expires_at)

    async def wait(self, name: str, message_id: str, state: Milestone) -> WaitResult:
        """See `Sessions.wait`."""
        _, entry = await self._find(name)
        with translated(name):
            return await entry.messages.wait(message_id, state)

    async def messages(self, name: str, *, chat: str | None, before: int | None, limit: int) -> MessageList:
        """See `Sessions.messages`."""
        _, entry = await self._find(name)
        with translated(name):
            return await entry.messages.page(chat, before, limit)

    async def mark_read(self, name: str, chat: str, ids: MessageIds) -> ReadResult:
        """See `Sessions.mark_read`."""
        self._refuse_when_stopping()
        _, entry = await self._find(name)
        with translated(name):
            return await entry.messages.mark_read(chat, ids)

    # Events.

    async def events(
        self, *, since: int, types: tuple[str, ...], session: str | None, limit: int
    ) -> EventList:
        """See `Sessions.events`."""
        session_id = await self._id_for_events(session)
        with translated():
            oldest, last = await self._log.bounds()
            rows = await self._log.page(since, limit, session_id, types)
        return EventList(events=[event_view(row) for row in rows], oldest=oldest, last=last)

    @asynccontextmanager
    async def subscribe(
        self, *, since: int | None, types: tuple[str, ...], session: str | None, follow: bool
    ) -> AsyncIterator[Stream]:
        """See `Sessions.subscribe`."""
        session_id = await self._id_for_events(session)
        with translated():
            async with self._log.subscribe(
                since=since, types=types, session_id=session_id, follow=follow
            ) as subscription:
                yield Stream(subscription)

    async def _id_for_events(self, session: str | None) -> str | None:
        """The id of a session, also of a retired one: its events are kept."""
        if session is None:
            return None
        with translated(session):
            row = await self._store.session(session)
        if row is None:
            raise no_such_session(session)
        return row.id


def _wrong_state(name: str, supervisor: Supervisor, why: str) -> ControlError:
    return ControlError("wrong_state", f"session {name!r}: {why}", {"state": supervisor.vitals.status})
