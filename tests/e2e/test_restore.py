"""Many sessions: restored after a kill, whatever is wrong with one of them, and left alone by a reload."""

from __future__ import annotations

import signal
import sqlite3
from pathlib import Path

import trio

from tests.e2e.daemon import BOB, WAIT_S, Daemon, running
from waD.sandbox import Sandbox, run_sandbox

SESSIONS = 12
MESSAGES = 60


def number(index: int) -> str:
    return f"155500020{index:02}"


def name(index: int) -> str:
    return f"s{index}"


async def pair_all(daemon: Daemon, sandbox: Sandbox, count: int = SESSIONS) -> None:
    for index in range(count):
        await daemon.pair(sandbox, number(index), name(index))


async def open_sessions(daemon: Daemon) -> list[str]:
    listed = (await daemon.call("session.list"))["sessions"]
    return [view["name"] for view in listed if view["state"] == "open"]


async def test_killed_in_the_middle_of_restoring(tmp_path: Path) -> None:
    more = "[daemon]\nrestore_concurrency = 2\nrestore_spread = 0"
    async with run_sandbox() as sandbox, running(tmp_path, sandbox, more=more) as daemon:
        await pair_all(daemon, sandbox)
        await daemon.stop()
        bob = sandbox.phone(BOB)
        for index in range(SESSIONS):
            await bob.send(number(index), f"for {index}")
        for enough in (1, SESSIONS // 2):
            await daemon.start()
            with trio.fail_after(WAIT_S):
                while len(await open_sessions(daemon)) < enough:
                    await trio.lowlevel.checkpoint()
            await daemon.kill()
        await daemon.start()
        for index in range(SESSIONS):
            await daemon.until("open", name(index), ready=True)
            await daemon.event("message:new", body=f"for {index}")
        bodies = [event["data"]["body"] for event in await daemon.events("message:new")]
        assert sorted(bodies) == sorted(f"for {index}" for index in range(SESSIONS))
        assert sandbox.core.world.keys.report()["reused"] == []


async def test_a_broken_session_delays_nobody(tmp_path: Path) -> None:
    more = "[daemon]\nrestore_concurrency = 1\nrestore_spread = 0"
    async with run_sandbox() as sandbox, running(tmp_path, sandbox, more=more) as daemon:
        await pair_all(daemon, sandbox, 4)
        await daemon.stop()
        with sqlite3.connect(daemon.directory / "state" / "waD" / "waD.db") as database:
            database.execute(
                "UPDATE wa_auth_snapshots SET snapshot=? WHERE session_id="
                "(SELECT id FROM wa_sessions WHERE name=?)",
                (b'{"v":1}', name(1)),
            )
        database.close()
        await daemon.start()
        for index in (0, 2, 3):
            await daemon.until("open", name(index), ready=True)
        broken = await daemon.until("failed", name(1))
        assert broken["lastDisconnect"]["cause"] == "auth_corrupt"
        assert broken["hint"]


async def test_a_reload_under_load_touches_no_session(tmp_path: Path) -> None:
    async with run_sandbox() as sandbox, running(tmp_path, sandbox) as daemon:
        bob = sandbox.phone(BOB)
        await pair_all(daemon, sandbox, 3)
        before = [await daemon.status(name(index)) for index in range(3)]
        links = [sandbox.device(number(index)).link for index in range(3)]
        ids: list[tuple[str, str]] = []

        async def send() -> None:
            for count in range(MESSAGES):
                session = name(count % 3)
                ids.append((session, await daemon.send(BOB, f"message {count}", name=session)))

        async def reload() -> None:
            config = daemon.config.read_text()
            for limit in range(1000, 1009):
                daemon.config.write_text(config.replace("[outbox]", f"[outbox]\ntext_limit = {limit}"))
                if limit % 2:
                    assert daemon.process is not None
                    daemon.process.send_signal(signal.SIGHUP)
                else:
                    # A signal before it may have read this very file already, so that nothing is left to apply.
                    await daemon.call("daemon.reload")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            nursery.start_soon(reload)
        options = {row["key"]: row["value"] for row in (await daemon.call("config.show"))["options"]}
        assert options["outbox.text_limit"] == "1008"
        for session, message_id in ids:
            assert await daemon.wait(message_id, name=session) == "delivered"
        assert len(bob.messages()) == MESSAGES
        after = [await daemon.status(name(index)) for index in range(3)]
        assert [sandbox.device(number(index)).link for index in range(3)] == links
        for old, new in zip(before, after, strict=True):
            assert (new["state"], new["reconnectCount"]) == ("open", old["reconnectCount"])
            assert new["lastConnectedAt"] == old["lastConnectedAt"]
