"""The one thread that writes: it takes every job that waits and commits them together (chapter 08 §6.4)."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import trio

from waD.store.engine import Engine, Job, Outcome
from waD.store.errors import StorageUnavailable
from waD.store.model import EventRow
from waD.store.unit import Committed

MAX_GROUP: Final = 64
"""Jobs that share one transaction at the most."""
MAX_WAITING: Final = 4096
"""Jobs that wait for the writer at the most, however long a database is away; who comes later waits before the door."""


class _Ticket:
    """A job and whoever waits for it."""

    __slots__ = ("done", "job", "outcome")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.done = trio.Event()
        self.outcome: Outcome | None = None


class Writer:
    """Runs an engine's writes in a thread of its own.

    A job waits for no timer: a lone one is committed at once, and those that arrive while a commit runs share the next.

    Args:
        engine: the database.
        published: called on the trio loop with the events of each transaction, in the order of their cursors.
    """

    def __init__(self, engine: Engine, published: Callable[[list[EventRow]], None]) -> None:
        self._engine = engine
        self._published = published
        self._tickets: queue.SimpleQueue[_Ticket | None] = queue.SimpleQueue()
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.Thread(target=self._run, name="wad-writer", daemon=True)
        self._finished = trio.Event()
        self._room = trio.Semaphore(MAX_WAITING)
        self._closed = False
        self._busy_since: float | None = None
        self._thread.start()

    async def submit(self, job: Job) -> Outcome:
        """Commit a job; returns or raises its outcome.

        A cancellation is held back until the outcome is known: a caller must never be in doubt whether its keys are
        used up. It is let through only while the job is not among those that wait, of which there are not too many.

        Raises:
            StoreError: nothing of the job was committed.
        """
        if self._closed:
            raise StorageUnavailable("the store is closed")
        ticket = _Ticket(job)
        try:
            self._room.acquire_nowait()
        except trio.WouldBlock:
            await self._room.acquire()
        try:
            if self._closed:
                raise StorageUnavailable("the store is closed")
            self._tickets.put(ticket)
            with trio.CancelScope(shield=True):
                await ticket.done.wait()
        finally:
            self._room.release()
        outcome = ticket.outcome
        assert outcome is not None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    @property
    def busy_s(self) -> float:
        """For how many seconds the present transaction has been running; 0 when none is."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    async def close(self) -> None:
        """Let the thread finish what was submitted, and end it."""
        self._closed = True
        self._tickets.put(None)
        with trio.CancelScope(shield=True):
            await self._finished.wait()

    def _run(self) -> None:
        ending = False
        while not ending:
            group, ending = self._next_group()
            if group:
                outcomes = self._write([ticket.job for ticket in group])
                self._token.run_sync_soon(self._deliver, group, outcomes)
        self._token.run_sync_soon(self._finished.set)

    def _write(self, jobs: Sequence[Job]) -> list[Outcome]:
        self._busy_since = time.monotonic()
        try:
            return self._engine.write(jobs)
        except (
            Exception
        ) as error:  # whatever an engine did not foresee must reach those who wait, not end the thread
            failure = StorageUnavailable(
                f"the database failed in an unforeseen way ({type(error).__name__}: {error})"
            )
            failure.__cause__ = error
            return [failure] * len(jobs)
        finally:
            self._busy_since = None

    def _next_group(self) -> tuple[list[_Ticket], bool]:
        first = self._tickets.get()
        if first is None:
            return [], True
        group = [first]
        while len(group) < MAX_GROUP:
            try:
                ticket = self._tickets.get_nowait()
            except queue.Empty:
                return group, False
            if ticket is None:
                return group, True
            group.append(ticket)
        return group, False

    def _deliver(self, group: list[_Ticket], outcomes: list[Outcome]) -> None:
        events: list[EventRow] = []
        for ticket, outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, Committed):
                events += outcome.events
            ticket.outcome = outcome
            ticket.done.set()
        if events:
            events.sort(
                key=lambda event: event.cursor
            )  # units that were written together have got them in turns
            self._published(events)
