"""The sessions that this process runs: taken up at the start, found by name, each in a task of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial

import trio

from waD.config import SessionSettings, Settings
from waD.control.api import ControlError, no_such_session
from waD.events.log import EventLog
from waD.session.doors import Doors
from waD.session.holders import is_gone
from waD.session.leases import look_s, release, run_leases, without_a_daemon
from waD.session.messages import SessionMessages
from waD.session.outbox import SessionOutbox
from waD.session.refusals import translated
from waD.session.supervisor import Supervisor
from waD.session.turns import Turns
from waD.session.vitals import Clock
from waD.store.errors import SessionLeased, StoreError
from waD.store.model import SessionRow
from waD.store.store import Store

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Entry:
    """One attached session.

    Attributes:
        supervisor: the task that owns it.
        messages: what can be asked about its messages.
        outbox: what can be decided about those that have not ended.
        done: set when the task has ended.
    """

    supervisor: Supervisor
    messages: SessionMessages
    outbox: SessionOutbox
    done: trio.Event = field(default_factory=trio.Event)


class Roster:
    """Attaches sessions and runs their supervisors.

    Args:
        store: the open store.
        log: its event log.
        settings: the settings in force, asked for anew at each use.
        doors: makes the ways out for a session of that name.
        clock: time and chance.
        holder: who takes the leases: text that names this process.
        context: entered where a session's task is started, with its name and connection id; the task inherits it.

    Attributes:
        entries: the attached sessions by connection id.
        attaching: held by whoever attaches a session or lets one go.
        turns: of the logins.
        stopping: no new work is taken.
        asleep: sessions are only attached when they are asked for, and none connects.
    """

    def __init__(
        self,
        store: Store,
        log: EventLog,
        settings: Callable[[], Settings],
        doors: Callable[[str], Doors],
        clock: Clock,
        holder: str,
        context: Callable[[str, str], AbstractContextManager[object]],
    ) -> None:
        self.entries: dict[str, Entry] = {}
        self.attaching = trio.Lock()
        self.turns = Turns(settings().daemon.restore_concurrency)
        self.stopping = False
        self.asleep = False
        self._store = store
        self._log = log
        self._settings = settings
        self._doors = doors
        self._clock = clock
        self._holder = holder
        self._context = context
        self._nursery: trio.Nursery | None = None
        self._stopped = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take up all sessions and run them until `stop`. Reports when all are attached.

        Raises:
            StoreError: the sessions cannot be read.
        """
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            rows = [] if self.asleep else await self._store.sessions()
            async with trio.open_nursery() as attaching:
                for row in rows:
                    attaching.start_soon(self._take_up, row, self._settings().daemon.restore_spread_s)
            nursery.start_soon(run_leases, self._store, self._supervisors)
            nursery.start_soon(self._take_over)
            task_status.started()
            await self._stopped.wait()
            nursery.cancel_scope.cancel()

    def _supervisors(self) -> list[Supervisor]:
        return [entry.supervisor for entry in self.entries.values()]

    async def _take_over(self) -> None:
        """Run what nobody runs any more: sessions whose daemon has gone, and those that others have made."""
        while self._store.engine.shared:
            await trio.sleep(look_s(self._store))
            try:
                await self._drop_lost()
                found = await without_a_daemon(self._store)
                async with self.attaching, trio.open_nursery() as attaching:
                    for row in found if not self.stopping else ():
                        attaching.start_soon(self._take_up, row)
            except StoreError as error:
                _log.warning("sessions without a daemon are looked for later: %s", error)

    async def _drop_lost(self) -> None:
        """A session that another daemon has taken is looked at from outside from now on."""
        for session_id, entry in [*self.entries.items()]:
            if entry.supervisor.lost:
                async with self.attaching:
                    entry.supervisor.halt()
                    await entry.done.wait()
                    self.entries.pop(session_id, None)

    async def stop(self) -> None:
        """Refuse new work, close all connections in an orderly way, and end `run`; bounded by `stop_timeout`."""
        self.stopping = True
        entries = list(self.entries.values())
        for entry in entries:
            entry.supervisor.halt()
        with trio.move_on_after(self._settings().daemon.stop_timeout_s) as waiting:
            for entry in entries:
                await entry.done.wait()
        if waiting.cancelled_caught:
            late = sorted(e.supervisor.vitals.name for e in entries if not e.done.is_set())
            _log.warning("sessions that did not end in time: %s", ", ".join(late))
        await release(self._store, [entry.supervisor for entry in entries if entry.done.is_set()])
        self._stopped.set()

    async def _take_up(self, row: SessionRow, spread_s: float = 0.0) -> None:
        if row.id in self.entries:
            return
        try:
            entry = await self._attach(row)
        except SessionLeased as elsewhere:
            _log.info("session %s is run by %s", row.name, elsewhere.holder)
            return
        except StoreError as error:
            _log.critical("session %s cannot be taken up: %s", row.name, error)
            return
        self._start(entry, self._clock.jitter() * spread_s)

    async def _attach(self, row: SessionRow) -> Entry:
        try:
            state = await self._store.attach(row.id, self._holder)
        except SessionLeased as elsewhere:
            if not is_gone(elsewhere.holder):
                raise
            _log.info("session %s is taken over from %s, which has died", row.name, elsewhere.holder)
            state = await self._store.attach(row.id, self._holder, elsewhere.holder)
        name = row.name

        def settings() -> SessionSettings:
            return self._settings().session(name)

        announce = partial(self._store.append_event, row.id)
        supervisor = Supervisor(state, self._doors(name), settings, self._clock, self.turns, announce)
        supervisor.asleep = self.asleep
        messages = SessionMessages(self._store, self._log, supervisor)
        entry = Entry(supervisor, messages, SessionOutbox(self._store, supervisor))
        self.entries[row.id] = entry
        return entry

    def _start(self, entry: Entry, after_s: float = 0.0) -> None:
        assert self._nursery is not None, "the manager is not running"
        name = entry.supervisor.vitals.name
        with self._context(name, entry.supervisor.state.session_id):
            self._nursery.start_soon(self._supervise, entry, after_s, name=f"session {name}")

    async def _supervise(self, entry: Entry, after_s: float) -> None:
        try:
            await entry.supervisor.run(after_s)
        finally:
            entry.done.set()

    async def row(self, name: str) -> SessionRow:
        """The row of a session by name or connection id.

        Raises:
            ControlError: there is none.
        """
        with translated(name):
            row = await self._store.session(name)
        if row is None or row.desired_state == "retired":
            raise no_such_session(name)
        return row

    async def find(self, name: str) -> tuple[SessionRow, Entry]:
        """The row and the entry; one whose state could not be read at the start is tried again.

        Raises:
            ControlError: there is none, or it cannot be attached now.
        """
        row = await self.row(name)
        async with self.attaching:
            entry = self.entries.get(row.id)
            if entry is None:
                self.refuse_when_stopping()
                with translated(name):
                    entry = await self._attach(row)
                self._start(entry)
        return row, entry

    def refuse_when_stopping(self) -> None:
        """Raises ControlError when the daemon is about to end."""
        if self.stopping:
            raise ControlError("shutting_down", "the daemon is stopping; try again when it runs")
