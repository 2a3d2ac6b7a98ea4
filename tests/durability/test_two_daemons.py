"""Two daemons, one database: each session runs in exactly one, whatever becomes of the other."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import trio

from tests.durability.test_field import seed
from tests.e2e.daemon import BOB, Daemon
from tests.store.postgres_server import Server, binaries, running_server
from waD.sandbox import Sandbox, run_sandbox

LEASE_S: Final = 10.0
SLACK_S: Final = 5.0
TURNS: Final = 4
SESSIONS: Final = 4
MANY_TURNS: Final = 100
MANY_SESSIONS: Final = 10
"""Each turn all sessions change hands, so that this makes a thousand changes."""
PAUSE_S: Final = 0.025
"""Between two messages, of whomever."""
GONE: Final = (EOFError, OSError, trio.BrokenResourceError, trio.ClosedResourceError)

pytestmark = pytest.mark.skipif(binaries() is None, reason="there are no PostgreSQL binaries on this machine")


@pytest.fixture
def server() -> Iterator[Server]:
    with running_server() as started:
        yield started


class Pair:
    """Two daemons on one database, and somebody who writes to their sessions all the time."""

    def __init__(self, directory: Path, sandbox: Sandbox, url: str, sessions: int, chosen: int) -> None:
        more = f'stable_after = 1\nattempts = 1000\n[store]\nurl = "{url}"\nlease = {LEASE_S:g}'
        self.daemons = [Daemon(directory / name, sandbox, more=more) for name in ("one", "other")]
        self.sandbox = sandbox
        self.random = random.Random(chosen)
        self.numbers = {f"s{number}": f"155500700{number:02}" for number in range(sessions)}
        self.written: dict[str, list[str]] = {name: [] for name in self.numbers}
        self.changes = 0
        self._writing = True

    async def run(self, turns: int) -> None:
        for daemon in self.daemons:
            await daemon.start()
        for name, number in self.numbers.items():
            await self.daemons[0].pair(self.sandbox, number, name)
        async with trio.open_nursery() as nursery:
            for name in self.numbers:
                nursery.start_soon(self._write, name)
            for turn in range(turns):
                await self._change(turn)
                self.changes += len(self.numbers)
                print(f"{self.changes} changes, {sum(map(len, self.written.values()))} messages")
            # Not cancelled: what a writer has in its books it must also have sent.
            self._writing = False
        await self._judge()

    async def _write(self, name: str) -> None:
        bob = self.sandbox.phone(BOB)
        while self._writing:
            text = f"{name} {len(self.written[name])}"
            self.written[name].append(text)
            await bob.send(self.numbers[name], text)
            await trio.sleep(PAUSE_S * len(self.numbers))

    async def _change(self, number: int) -> None:
        """Freeze, kill or stop whoever runs the sessions; the other one takes them over in time."""
        owner = await self._owner()
        daemon, other = self.daemons[owner], self.daemons[1 - owner]
        how = (
            ("freeze", "kill", "stop")[number % 3]
            if number < 3
            else self.random.choice(("freeze", "kill", "stop"))
        )
        assert daemon.process is not None
        if how == "freeze":
            daemon.process.send_signal(signal.SIGSTOP)
        elif how == "kill":
            await daemon.kill()
        else:
            await daemon.stop()
        with trio.move_on_after(LEASE_S + SLACK_S) as patience:
            for name in self.numbers:
                await self._until_open(other, name)
        if patience.cancelled_caught:
            views = [await other.status(name) for name in self.numbers]
            late = {view["name"]: view for view in views if not (view["state"] == "open" and view["ready"])}
            raise other.failure(f"no takeover in time after {how} of {late}")
        if how == "freeze":
            await self._wake(daemon, other)
        else:
            await daemon.start()

    async def _wake(self, daemon: Daemon, other: Daemon) -> None:
        """One that wakes up after its time sees that it has nothing to say any more."""
        assert daemon.process is not None
        connected = {name: self.sandbox.device(number).link for name, number in self.numbers.items()}
        daemon.process.send_signal(signal.SIGCONT)
        for name in self.numbers:
            with trio.fail_after(LEASE_S + SLACK_S):
                while (await daemon.status(name)).get("runBy") is None:  # noqa: ASYNC110 - another process
                    await trio.sleep(0.1)
            assert (await other.status(name))["state"] == "open"
            assert self.sandbox.device(self.numbers[name]).link is connected[name]

    async def _owner(self) -> int:
        with trio.fail_after(LEASE_S + SLACK_S):
            while True:
                for number, daemon in enumerate(self.daemons):
                    views = [await daemon.status(name) for name in self.numbers]
                    if all(view["state"] == "open" and view.get("runBy") is None for view in views):
                        return number
                await trio.sleep(0.1)

    async def _until_open(self, daemon: Daemon, name: str) -> None:
        while True:
            view = await daemon.status(name)
            if view["state"] == "open" and view["ready"] and view.get("runBy") is None:
                return
            await trio.sleep(0.1)

    async def _judge(self) -> None:
        devices = [self.sandbox.device(number) for number in self.numbers.values()]
        await self.sandbox.wait(lambda: not any(device.queue for device in devices), 60.0)
        daemon = self.daemons[await self._owner()]
        wanted = Counter(text for texts in self.written.values() for text in texts)
        told: Counter[str] = Counter()
        with trio.move_on_after(30):
            while told.total() < wanted.total():
                told = Counter(event["data"]["body"] for event in await daemon.events("message:new"))
                await trio.sleep(0.1)
        assert told == wanted, f"lost {[*(wanted - told)][:5]}, too often {[*(told - wanted)][:5]}"
        assert self.sandbox.core.world.keys.report()["reused"] == []

    async def end(self) -> None:
        for daemon in self.daemons:
            if daemon.process is not None:
                daemon.process.kill()
                await daemon.process.wait()


async def take_turns(directory: Path, server: Server, turns: int, sessions: int, chosen: int) -> None:
    async with run_sandbox() as sandbox:
        pair = Pair(directory, sandbox, server.url(server.database()), sessions, chosen)
        try:
            await pair.run(turns)
        finally:
            with trio.CancelScope(shield=True):
                await pair.end()


@pytest.mark.timeout(400)
async def test_sessions_go_from_daemon_to_daemon(tmp_path: Path, server: Server) -> None:
    await take_turns(tmp_path, server, TURNS, SESSIONS, seed(5))


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_sessions_go_from_daemon_to_daemon_a_thousand_times(tmp_path: Path, server: Server) -> None:
    await take_turns(tmp_path, server, MANY_TURNS, MANY_SESSIONS, seed(None))
