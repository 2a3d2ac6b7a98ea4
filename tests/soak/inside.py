"""A daemon's inside, composed as `waD.daemon` does, in one loop with its servers and on a simulated clock.

The clock jumps to the next deadline whenever every task waits and no thread works for the store, so that a simulated
day takes as long as its work does.
"""

from __future__ import annotations

import logging
import math
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import trio
import trio.testing

from waD.config import Settings, load
from waD.control.types import EventView, SendRequest, SessionView
from waD.events.log import EventLog
from waD.link.endpoint import Endpoint
from waD.sandbox import Sandbox
from waD.sandbox.handles import PhoneHandle
from waD.session.manager import Manager
from waD.session.network import NetworkDoors
from waD.session.retention import run_retention
from waD.session.vitals import Clock
from waD.store.engine import Engine
from waD.store.sqlite.engine import SqliteEngine
from waD.store.store import Store, StoreSettings

T = TypeVar("T")

START_S = 1_800_000_000
PAGE = 500
NAME = "alerts"
SMALLEST_JUMP_S = 1e-6
"""A smaller one may be lost in the rounding of the time it is added to, and repeat for ever."""
Serve = Callable[[trio.abc.Stream], Awaitable[object]]

_log = logging.getLogger(__name__)

_TOML = """
[network]
url = "ws://server.test/ws/chat"
root_key = "{root_key}"
[outbox]
rate = 0
new_conversation_interval = 0
[daemon]
restore_spread = 0
{more}
"""


class Watch:
    """Simulated time, and whether a thread is at work meanwhile."""

    def __init__(self, clock: trio.testing.MockClock) -> None:
        self.clock = clock
        self._threads = 0
        self._rest = trio.Event()

    def unix_ms(self) -> int:
        """From any thread."""
        return START_S * 1000 + int(self.clock.current_time() * 1000)

    async def during(self, work: Awaitable[T]) -> T:
        """Keep the clock from jumping."""
        self._threads += 1
        try:
            return await work
        finally:
            self._threads -= 1
            if not self._threads:
                self._rest.set()
                self._rest = trio.Event()

    async def run(self) -> None:
        """Jump from deadline to deadline, until cancelled."""
        assert trio.lowlevel.current_clock() is self.clock, (
            "the test has to name the fixture mock_clock itself"
        )
        while True:
            await trio.testing.wait_all_tasks_blocked()
            if self._threads:
                await self._rest.wait()
                continue
            left = trio.lowlevel.current_statistics().seconds_to_next_deadline
            assert left < math.inf, "every task waits, and for nothing that time would bring"
            if left > 0:
                self.clock.jump(max(left, SMALLEST_JUMP_S))


class WatchedStore(Store):
    """A store whose worker threads hold the clock still."""

    def __init__(self, engine: Engine, settings: StoreSettings, watch: Watch) -> None:
        super().__init__(engine, settings)
        self._watch = watch

    async def read(self, query: Callable[..., T], *args: Any) -> T:
        return await self._watch.during(super().read(query, *args))

    async def write(self, job: Any) -> Any:
        return await self._watch.during(super().write(job))


class Inside:
    """A manager with its store, and what a test asks of them."""

    def __init__(self, store: Store, log: EventLog, manager: Manager, watch: Watch, path: Path) -> None:
        self.store = store
        self.log = log
        self.manager = manager
        self.watch = watch
        self.path = path

    async def status(self, name: str = NAME) -> SessionView:
        return await self.manager.status(name)

    async def until(
        self, condition: Callable[[SessionView], bool], name: str = NAME, timeout_s: float = 900
    ) -> SessionView:
        """Wait, on the simulated clock, until the session looks like this."""
        view: SessionView | None = None
        with trio.move_on_after(timeout_s):
            while not condition(view := await self.manager.status(name)):
                with trio.move_on_after(1):
                    await self.log.news.wait()
            return view
        raise AssertionError(f"not in time: {view}; {await self.told()}")

    async def pair(self, phone: PhoneHandle, name: str = NAME) -> SessionView:
        await self.manager.connect(name)
        with trio.fail_after(60):
            news = self.log.news
            while (code := await self.manager.qr(name)) is None:
                await news.wait()
                news = self.log.news
        await phone.scan(code.qr)
        return await self.until(is_ready, name)

    async def send(self, to: str, text: str, name: str = NAME) -> str:
        sent = await self.manager.send(SendRequest(session=name, to=to, text=text))
        return sent.message_id

    async def events(self, *types: str, since: int = 0) -> list[EventView]:
        """All of them."""
        found: list[EventView] = []
        while True:
            page = await self.manager.events(since=since, types=types, session=None, limit=PAGE)
            found += page.events
            if len(page.events) < PAGE:
                return found
            since = page.events[-1].cursor

    async def bodies(self, source: str | None = None) -> list[str]:
        """Texts of all messages that came in, in their order."""
        news = await self.events("message:new")
        return [event.data.get("body", "") for event in news if source in (None, event.data["source"])]

    async def told_of(self, body: str, timeout_s: float = 600) -> None:
        """Wait for a text that comes in."""
        with trio.fail_after(timeout_s):
            news = self.log.news
            while body not in await self.bodies():
                await news.wait()
                news = self.log.news

    async def told(self) -> list[tuple[str, Any]]:
        """The last events, for failures."""
        return [(event.type, event.data) for event in (await self.events())[-20:]]


def is_ready(view: SessionView) -> bool:
    return view.state == "open" and view.ready


def settings(directory: Path, root_key: bytes, more: str = "") -> Settings:
    path = directory / "waD.toml"
    path.write_text(_TOML.format(root_key=root_key.hex(), more=more))
    return load(path, {"HOME": str(directory)})


@asynccontextmanager
async def inside(
    directory: Path, serve: Serve, root_key: bytes, watch: Watch, *, more: str = ""
) -> AsyncIterator[Inside]:
    """Run a daemon's inside for the life of the block, and the clock with it.

    Args:
        directory: for the database and the configuration.
        serve: serves one connection of the daemon.
        root_key: of that server.
        watch: the clock.
        more: more lines for the end of the configuration.
    """
    rules = settings(directory, root_key, more)
    clock = Clock(unix_ms=watch.unix_ms, jitter=random.Random(7).random, random=os.urandom)
    async with trio.open_nursery() as network:

        async def dial(_: Endpoint) -> trio.abc.Stream:
            ours, theirs = trio.testing.memory_stream_pair()
            network.start_soon(serve, theirs)
            await trio.lowlevel.checkpoint()
            return ours

        def doors(name: str) -> NetworkDoors:
            return NetworkDoors(lambda: rules.session(name), clock, dial=dial)

        path = directory / "waD.db"
        store = WatchedStore(SqliteEngine(path, watch.unix_ms), StoreSettings(path=path), watch)
        try:
            log = EventLog(store)
            manager = Manager(store, log, lambda: rules, doors, clock, "test/1")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch.run)
                await nursery.start(manager.run)
                nursery.start_soon(run_retention, store, watch.unix_ms)
                yield Inside(store, log, manager, watch, path)
                await manager.stop()
                nursery.cancel_scope.cancel()
        finally:
            await store.close()
        network.cancel_scope.cancel()


def with_sandbox(sandbox: Sandbox) -> tuple[Serve, bytes]:
    """How `inside` reaches a sandbox."""
    return sandbox.serve_stream, sandbox.root_key
