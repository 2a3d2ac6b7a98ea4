"""Many sessions taken up from the disk: a few at a time, a broken one holds up nobody, a kill in the middle is borne.

A reload under load leaves every connection as it is.
"""

from __future__ import annotations

import signal
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest
import trio
import trio.testing

from tests.e2e.crowd import database_in, make_crowd, name_of, phone_of
from tests.e2e.daemon import BOB, Daemon, running
from tests.e2e.in_process import Machine, machine, sandbox_beside
from tests.soak.inside import Watch, is_ready
from waD.sandbox import Sandbox, run_sandbox

AT_ONCE: Final = 5
FEW_OR_MANY: Final = [50, pytest.param(200, marks=pytest.mark.soak)]
OPEN_S: Final = 120.0
RELOADS: Final = 4
TALKERS: Final = 10
MESSAGES: Final = 5


def damage(database: Path, name: str) -> None:
    """Cut off the end of a session's credentials."""
    with sqlite3.connect(database) as opened:
        opened.execute(
            "UPDATE wa_auth_snapshots SET snapshot = substr(snapshot, 1, 300) "
            "WHERE session_id = (SELECT id FROM wa_sessions WHERE name = ?)",
            (name,),
        )
    opened.close()


class Rush:
    """Counts, at every dial, how many sessions are between their dial and `open`."""

    def __init__(self, made: Machine) -> None:
        self.most = 0
        self._made = made
        made.dials.on_begin = self._look

    def _look(self) -> None:
        live = self._made.dials.live
        entries = self._made.manager.roster.entries.values()
        busy = [
            vitals.name
            for vitals in (entry.supervisor.vitals for entry in entries)
            if live[vitals.name] and vitals.status == "connecting"
        ]
        self.most = max(self.most, len(busy))


@pytest.mark.parametrize("count", FEW_OR_MANY)
async def test_a_broken_one_and_a_silent_one_hold_up_nobody(
    tmp_path: Path, mock_clock: trio.testing.MockClock, count: int
) -> None:
    watch = Watch(mock_clock)
    more = f"[daemon]\nrestore_concurrency = {AT_ONCE}\nrestore_spread = 2"
    async with sandbox_beside(watch) as sandbox:
        names = await make_crowd(tmp_path, sandbox, count, watch)
        silent, broken, *others = names
        database = database_in(tmp_path)
        damage(database, broken)
        async with machine(tmp_path, sandbox, watch, database=database, more=more) as made:
            # All sessions wait a random part of the spread, so that this is early enough.
            made.routes[silent] = made.to_nobody
            rush, began = Rush(made), trio.current_time()
            for name in others:
                await made.until(is_ready, name)
            assert trio.current_time() - began < 2 + 1
            assert rush.most <= AT_ONCE
            view = await made.status(broken)
            assert view.state == "failed"
            assert view.last_disconnect is not None
            assert view.last_disconnect.cause == "auth_corrupt"
            assert (await made.status(silent)).state == "connecting"
            # One login each, and no more of the silent one than the policy allows.
            assert Counter(name for name, _ in made.dials.begun) == Counter([silent, *others])
            made.routes.clear()
            await made.until(is_ready, silent)
            assert broken not in {name for name, _ in made.dials.begun}


async def test_not_more_at_once_than_allowed(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    """Without a spread everybody wants to begin at the same moment."""
    watch = Watch(mock_clock)
    more = f"[daemon]\nrestore_concurrency = {AT_ONCE}\nrestore_spread = 0"
    async with sandbox_beside(watch) as sandbox:
        names = await make_crowd(tmp_path, sandbox, 30, watch)
        async with machine(tmp_path, sandbox, watch, database=database_in(tmp_path), more=more) as made:
            rush = Rush(made)
            for name in names:
                await made.until(is_ready, name)
            assert rush.most == AT_ONCE
            assert len(made.dials.begun) == len(names)


# With a process of its own.


def is_open(sandbox: Sandbox, number: int) -> bool:
    link = sandbox.device(phone_of(number)).link
    return link is not None and link.active


async def all_ready(daemon: Daemon, names: list[str]) -> None:
    with trio.fail_after(OPEN_S):
        while True:
            listed = (await daemon.call("session.list"))["sessions"]
            late = [one["name"] for one in listed if one["state"] != "open" or not one["ready"]]
            if not late and len(listed) == len(names):
                return
            await trio.sleep(0.05)


@pytest.mark.parametrize("count", FEW_OR_MANY)
async def test_killed_while_it_takes_its_sessions_up(tmp_path: Path, count: int) -> None:
    """Twice; afterwards all are there, nobody has to scan again, and what waited comes exactly once."""
    async with run_sandbox() as sandbox:
        names = await make_crowd(tmp_path, sandbox, count)
        bob = sandbox.phone(BOB)
        for number in range(count):
            await bob.send(phone_of(number), f"for {name_of(number)}")
        more = "[daemon]\nrestore_concurrency = 3\nrestore_spread = 0"
        daemon = Daemon(tmp_path, sandbox, more=more)
        for part in (0.2, 0.6):
            await daemon.start(wait=False)

            def enough(part: float = part) -> bool:
                return sum(is_open(sandbox, number) for number in range(count)) >= part * count

            await sandbox.wait(enough, OPEN_S)
            await daemon.kill()
        async with running(tmp_path, sandbox, more=more) as again:
            await all_ready(again, names)
            devices = [sandbox.device(phone_of(number)) for number in range(count)]
            await sandbox.wait(lambda: not any(device.queue for device in devices), OPEN_S)
            told = Counter(event["data"]["body"] for event in await again.events("message:new"))
            assert told == Counter(f"for {name}" for name in names)
            assert sandbox.core.world.keys.report()["reused"] == []
            assert await again.stop() == 0


class Load:
    """Sessions that write to somebody, and somebody who writes to them, all the time."""

    def __init__(self, daemon: Daemon, sandbox: Sandbox) -> None:
        self.daemon = daemon
        self.bob = sandbox.phone(BOB)
        self.written: list[str] = []
        self.sent: list[str] = []

    async def write(self, number: int) -> None:
        for n in range(MESSAGES):
            text = f"{name_of(number)} {n}"
            message_id = await self.daemon.send(BOB, text, name_of(number))
            self.sent.append(text)
            await self.bob.send(phone_of(number), f"to {text}")
            self.written.append(f"to {text}")
            await self.daemon.wait(message_id, "delivered", name_of(number))


async def test_a_reload_under_load_touches_no_connection(tmp_path: Path) -> None:
    """By signal and by order, with other settings each time: nobody logs in again, and no message is lost."""
    count = 30
    async with run_sandbox() as sandbox:
        names = await make_crowd(tmp_path, sandbox, count)
        async with running(tmp_path, sandbox) as daemon:
            await all_ready(daemon, names)
            devices = [sandbox.device(phone_of(number)) for number in range(count)]
            logins = [device.record.logins for device in devices]
            links = [device.link for device in devices]
            load = Load(daemon, sandbox)
            plain = daemon.config.read_text()
            async with trio.open_nursery() as nursery:
                for number in range(TALKERS):
                    nursery.start_soon(load.write, number)
                for n in range(RELOADS):
                    daemon.config.write_text(f"{plain}\n[health]\npong_late = {6 + n}\n")
                    assert daemon.process is not None
                    daemon.process.send_signal(signal.SIGHUP)
                    result: dict[str, Any] = await daemon.call("daemon.reload")
                    assert result["restartNeeded"] == []
                    await trio.sleep(0.05)
            await all_ready(daemon, names)
            assert [device.link for device in devices] == links
            assert [device.record.logins for device in devices] == logins
            received = Counter(event["data"]["body"] for event in await daemon.events("message:new"))
            assert received == Counter(load.written)
            assert Counter(one.text for one in load.bob.messages() if not one.from_me) == Counter(load.sent)
            errors = await daemon.events("connection:error")
            assert errors == []
