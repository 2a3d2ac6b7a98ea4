"""One session and everything that can be done to it, for the tests of the disconnect table."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import trio
import trio.testing

from tests.e2e.in_process import URL, Machine, machine, sandbox_beside
from tests.link.kit import FakeServer, ServerLink
from tests.soak.inside import Watch, is_ready
from waD.control.types import EventView, QrView
from waD.sandbox import Sandbox, run_sandbox
from waD.sandbox.links import Link
from waD.store.model import SealInfo, SessionRow

NAME: Final = "alerts"
ALICE: Final = "15550000001"
BOB: Final = "15550000002"
LONG_S: Final = 100_000.0
"""Simulated: longer than any delay of the policy."""
OLD: Final = "written before"
"""A message of the history, which nothing may take away."""

Play = Callable[[ServerLink], Awaitable[object]]


@dataclass(frozen=True)
class Snapshot:
    """A session at one time.

    Attributes:
        row: as stored.
        creds: the credentials document as stored.
        seals: sealed copies of the auth state.
        cursor: of the event log.
        dials: connections begun so far.
        at: monotonic seconds.
    """

    row: SessionRow
    creds: bytes | None
    seals: list[SealInfo]
    cursor: int
    dials: int
    at: float


class Town:
    """A session, its phone, somebody to talk to, and a second server that follows a script.

    Attributes:
        machine: the daemon's inside.
        sandbox: WhatsApp.
        patch: what is undone by `heal`.
        closing: what is closed in the end.
    """

    def __init__(self, sandbox: Sandbox, nursery: trio.Nursery, directory: Path, watch: Watch) -> None:
        self.sandbox = sandbox
        self.machine: Machine
        self.patch = pytest.MonkeyPatch()
        self.alice = sandbox.phone(ALICE)
        self.bob = sandbox.phone(BOB)
        self.closing = ExitStack()
        self.directory = directory
        self._nursery = nursery
        self._fake = FakeServer(nursery)
        self._watch = watch
        self._life = AsyncExitStack()

    # The daemon.

    async def start(self) -> None:
        self.machine = await self._life.enter_async_context(
            machine(self.directory, self.sandbox, self._watch)
        )

    async def stop(self) -> None:
        """The daemon stops in an orderly way; what it stored stays."""
        await self._life.aclose()

    async def close(self) -> None:
        self.heal()
        await self._life.aclose()
        self.closing.close()

    def heal(self) -> None:
        """Nothing goes wrong any more."""
        self.patch.undo()
        self.sandbox.core.world.faults.clear()
        self.machine.routes.clear()
        self.machine.engine.refuses = None
        self.machine.configure()

    # The session.

    async def pair(self) -> None:
        """Paired, with a history, and open for long enough to count as stable."""
        await self.machine.pair(self.alice, NAME)
        if OLD not in await self.machine.bodies():
            await self.bob.send(ALICE, OLD)
            await self.until_told(lambda: self._knows(OLD))
        await self.stable()

    async def _knows(self, body: str) -> bool:
        return body in await self.machine.bodies()

    async def stable(self) -> None:
        await self.machine.until(is_ready, NAME)
        await trio.sleep(31)

    async def codes(self) -> QrView:
        """The next code that it shows, or the one it shows now."""
        await self.machine.until(lambda view: view.state == "pairing", NAME, LONG_S)
        code: QrView | None = None
        with trio.fail_after(100):
            while code is None:
                news = self.machine.log.news
                code = await self.machine.manager.qr(NAME)
                if code is None:
                    await news.wait()
        return code

    async def scan(self) -> None:
        """Its phone scans the code."""
        await self.alice.scan((await self.codes()).qr)

    async def snapshot(self) -> Snapshot:
        row = await self.machine.store.require_session(NAME)
        return Snapshot(
            row,
            await self.machine.store.read(self.machine.engine.creds, row.id),
            await self.machine.store.seals(row.id),
            await self.machine.store.last_cursor(),
            len(self.machine.dials.begun),
            trio.current_time(),
        )

    async def row(self) -> SessionRow:
        return await self.machine.store.require_session(NAME)

    # The server.

    @property
    def device(self) -> Any:
        """The session's device as WhatsApp knows it."""
        return self.sandbox.device(ALICE)

    @property
    def link(self) -> Link:
        """The session's connection as WhatsApp sees it, paired or not."""
        (found,) = (link for link in self.sandbox.core.world.links.values() if not link.closed)
        return found

    def fault(self, kind: str, **details: object) -> None:
        """Order a fault for whoever comes next."""
        self.sandbox.fault(kind, **details)

    def play(self, script: Play) -> None:
        """From the next dial on another server answers, by this script."""
        self._fake.script = script
        self.machine.routes[NAME] = lambda _, endpoint: self._fake.dial(endpoint)

    def dial_for_real(self, url: str = URL) -> None:
        """From the next dial on: name resolution, TCP and TLS of this machine."""
        self.machine.configure(url=url)
        self.machine.routes[NAME] = self.machine.to_socket

    async def tls_server(self) -> Sandbox:
        """A server on a port of this machine whose authority nobody knows."""

        async def serve(*, task_status: trio.TaskStatus[Sandbox]) -> None:
            async with run_sandbox(tls=True) as other:
                task_status.started(other)
                await trio.sleep_forever()

        started: Sandbox = await self._watch.during(self._nursery.start(serve))
        return started

    # What happened.

    async def until_told(self, condition: Callable[[], Awaitable[bool]], timeout_s: float = LONG_S) -> None:
        """Wait until something is the case; it is looked at after each event."""
        with trio.move_on_after(timeout_s):
            while True:
                news = self.machine.log.news
                if await condition():
                    return
                await news.wait()
        raise AssertionError(f"not in time; {await self.machine.told()}")

    async def ended(self, cause: str, since: int, times: int = 1) -> EventView:
        """Wait for the state that follows the n-th end of a connection for this cause."""
        found: list[EventView] = []

        async def look() -> bool:
            told = await self.machine.statuses(NAME, since)
            found[:] = [event for event in told if event.data.get("cause") == cause]
            return len(found) >= times

        await self.until_told(look)
        return found[times - 1]

    async def dialed(self, before: int) -> float:
        """Wait for the next dial after so many; when it began."""
        dials = self.machine.dials
        with trio.fail_after(LONG_S):
            while len(dials.begun) <= before:
                await dials.news.wait()
        return dials.begun[before][1]


@asynccontextmanager
async def town(directory: Path, clock: trio.testing.MockClock) -> AsyncIterator[Town]:
    """A town whose session is not made yet."""
    watch = Watch(clock)
    async with sandbox_beside(watch) as sandbox, trio.open_nursery() as nursery:
        made = Town(sandbox, nursery, directory, watch)
        await made.start()
        try:
            yield made
        finally:
            await made.close()
            nursery.cancel_scope.cancel()
