"""A daemon's inside beside its server in one process, with every dial written down.

As `tests.soak.inside` composes it, for tests that need more of it: several sessions, another server or a real socket
for some of them, settings that change, faults of the database, and the same database taken up again. Time is simulated
when a clock is given, else real.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import trio
import trio.testing

from tests.soak.inside import Inside, Watch, WatchedStore
from waD.config import Settings, load
from waD.control.types import EventView
from waD.daemon import unix_ms
from waD.events.log import EventLog
from waD.link.endpoint import Endpoint
from waD.link.websocket import open_stream
from waD.sandbox import Environment, Sandbox, run_sandbox
from waD.session import states
from waD.session.manager import Manager
from waD.session.network import NetworkDoors
from waD.session.supervisor import Supervisor
from waD.session.vitals import Clock
from waD.store.engine import Engine, Job, Outcome
from waD.store.errors import StorageUnavailable
from waD.store.sqlite.engine import SqliteEngine
from waD.store.store import Store, StoreSettings

URL: Final = "ws://server.test/ws/chat"
Route = Callable[[str, Endpoint], Awaitable[trio.abc.Stream]]
"""Opens the stream for a dial of a session."""

_TOML: Final = """
[network]
url = "{url}"
root_key = "{root_key}"
[outbox]
rate = 0
new_conversation_interval = 0
{more}
"""


class Dials:
    """Every connection as it is begun.

    Attributes:
        begun: session and monotonic seconds.
        marks: what the event log's newest cursor was at each of them.
        live: connections by session, from the dial until the stream is closed.
        most: the most of one session at a time.
        news: set by the next dial.
        on_begin: called at each dial.
    """

    def __init__(self) -> None:
        self.begun: list[tuple[str, float]] = []
        self.marks: list[int] = []
        self.cursor: Callable[[], int] = lambda: 0
        self.live: Counter[str] = Counter()
        self.most = 0
        self.news = trio.Event()
        self.on_begin: Callable[[], None] = lambda: None

    def of(self, name: str) -> list[float]:
        """When a session dialed."""
        return [at for who, at in self.begun if who == name]

    async def watched(self, name: str, dial: Callable[[], Awaitable[trio.abc.Stream]]) -> trio.abc.Stream:
        """Open a stream, and count it as long as it is open."""
        self.begun.append((name, trio.current_time()))
        self.marks.append(self.cursor())
        self.live[name] += 1
        self.most = max(self.most, self.live[name])
        self.on_begin()
        self.news.set()
        self.news = trio.Event()
        try:
            return Counted(await dial(), partial(self._over, name))
        except BaseException:
            self._over(name)
            raise

    def _over(self, name: str) -> None:
        self.live[name] -= 1


class Counted(trio.abc.Stream):
    """A stream that tells when it is closed."""

    def __init__(self, stream: trio.abc.Stream, on_close: Callable[[], None]) -> None:
        self._stream = stream
        self._on_close: Callable[[], None] | None = on_close

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close()
        await self._stream.aclose()


class FaultyEngine(SqliteEngine):
    """The real database, which fails when told to.

    Attributes:
        refuses: says of a job whether its transaction fails.
    """

    refuses: Callable[[Job], bool] | None = None

    def write(self, jobs: Sequence[Job]) -> list[Outcome]:
        if self.refuses is not None and any(self.refuses(job) for job in jobs):
            failure = StorageUnavailable(f"cannot write {self.path}: no space left on device")
            return [failure for _ in jobs]
        return super().write(jobs)


class Machine(Inside):
    """A manager with its store, its network and its sandbox.

    Attributes:
        sandbox: the server of everybody for whom no other route is set.
        dials: all connections.
        engine: the database.
        routes: other ways than to the sandbox, by session.
        network: a nursery that outlives every connection.
    """

    def __init__(self, sandbox: Sandbox, directory: Path, network: trio.Nursery, watch: Watch | None) -> None:
        self.sandbox = sandbox
        self.dials = Dials()
        self.routes: dict[str, Route] = {}
        self.network = network
        self._directory = directory
        self._watch = watch
        self.settings: Settings
        self.engine: FaultyEngine
        self.dials.cursor = self.newest

    def configure(self, more: str = "", *, url: str = URL) -> None:
        """Put other settings into force."""
        path = self._directory / "waD.toml"
        path.write_text(_TOML.format(url=url, root_key=self.sandbox.root_key.hex(), more=more))
        self.settings = load(path, {"HOME": str(self._directory)})

    def newest(self) -> int:
        """The newest cursor that was told of."""
        recent = self.log._recent
        return recent[-1].cursor if recent else 0

    def supervisor(self, name: str) -> Supervisor:
        """The task that owns a session."""
        entries = self.manager.roster.entries.values()
        return next(one.supervisor for one in entries if one.supervisor.vitals.name == name)

    async def statuses(self, name: str, since: int = 0) -> list[EventView]:
        """The states that a session went through, as the log has them."""
        return [one for one in await self.events("connection:status", since=since) if one.session == name]

    async def check_transitions(self) -> None:
        """Every step of every session is one that the table of states has."""
        last: dict[str, str] = {}
        for event in await self.events("connection:status"):
            assert event.session is not None
            status = event.data["status"]
            before = last.get(event.session)
            # A process that ends leaves no event of it behind.
            if before is not None and before != status:
                assert (before, status) in states.TRANSITIONS, (event, before)
            last[event.session] = status

    # Ways to a server.

    async def to_sandbox(self, _name: str, _endpoint: Endpoint) -> trio.abc.Stream:
        """Over memory."""
        ours, theirs = trio.testing.memory_stream_pair()
        self.network.start_soon(self.sandbox.serve_stream, theirs)
        await trio.lowlevel.checkpoint()
        return ours

    async def to_nobody(self, _name: str, _endpoint: Endpoint) -> trio.abc.Stream:
        """To a server that took the connection and says nothing."""
        await trio.lowlevel.checkpoint()
        return trio.testing.memory_stream_pair()[0]

    async def to_socket(self, _name: str, endpoint: Endpoint) -> trio.abc.Stream:
        """As the daemon does; the simulated clock stands still until name, TCP and TLS are through or have failed."""
        dialing = open_stream(endpoint)
        return await (dialing if self._watch is None else self._watch.during(dialing))

    def doors(self, name: str, clock: Clock) -> NetworkDoors:
        """The ways out of a session."""

        async def dial(endpoint: Endpoint) -> trio.abc.Stream:
            route = self.routes.get(name, self.to_sandbox)
            return await self.dials.watched(name, lambda: route(name, endpoint))

        return NetworkDoors(lambda: self.settings.session(name), clock, dial=dial)


def _clock(watch: Watch | None, seed: int) -> Clock:
    now = unix_ms if watch is None else watch.unix_ms
    return Clock(unix_ms=now, jitter=random.Random(seed).random, random=os.urandom)


@asynccontextmanager
async def machine(
    directory: Path,
    sandbox: Sandbox,
    watch: Watch | None,
    *,
    more: str = "",
    seed: int = 7,
    database: Path | None = None,
    engine: Engine | None = None,
) -> AsyncIterator[Machine]:
    """Run a daemon's inside for the life of the block.

    Args:
        directory: for the configuration and the database; what is there is taken up.
        sandbox: its server.
        watch: the simulated clock; None: real time.
        more: more lines for the end of the configuration.
        seed: of the jitter.
        database: the file, when it is to be another one.
        engine: another database than a file.
    """
    path = database or directory / "waD.db"
    clock = _clock(watch, seed)
    async with trio.open_nursery() as network:
        made = Machine(sandbox, directory, network, watch)
        made.configure(more)
        if engine is None:
            engine = made.engine = FaultyEngine(path, clock.unix_ms)
        settings = StoreSettings(path=path)
        store = Store(engine, settings) if watch is None else WatchedStore(engine, settings, watch)
        try:
            log = EventLog(store)
            manager = Manager(
                store, log, lambda: made.settings, lambda name: made.doors(name, clock), clock, "test/1"
            )
            # Inside's part of a Machine is known only now.
            made.store, made.log, made.manager, made.path = store, log, manager, path
            made.watch = watch  # type: ignore[assignment]  # only `inside` itself asks for it
            async with trio.open_nursery() as nursery:
                if watch is not None:
                    nursery.start_soon(watch.run)
                await nursery.start(manager.run)
                yield made
                await manager.stop()
                nursery.cancel_scope.cancel()
        finally:
            await store.close()
        network.cancel_scope.cancel()


@asynccontextmanager
async def sandbox_beside(watch: Watch | None) -> AsyncIterator[Sandbox]:
    """A sandbox without a listener, on the same clock."""
    environment = Environment() if watch is None else Environment(clock=watch.unix_ms)
    async with run_sandbox(None, environment=environment) as sandbox:
        yield sandbox


def open_files() -> list[str]:
    """What this process has open, sorted; the numbers are left out."""
    found: list[str] = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}").split(":[")[0])
        except OSError:
            continue
    return sorted(found)


def living_tasks() -> int:
    """Tasks of this loop."""
    return trio.lowlevel.current_statistics().tasks_living
