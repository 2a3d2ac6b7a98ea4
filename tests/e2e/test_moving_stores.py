"""A session moves from one daemon's store to another's, in mid-conversation, and nobody notices (chapter 08 §7.4)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from tests.control.client import Refused
from tests.e2e.daemon import ALICE, BOB, WAIT_S, Daemon, running
from tests.e2e.wactl import Wactl
from waD.sandbox import run_sandbox

ROOT = Path(__file__).parents[2]
NAME = "alerts"


async def migrate(
    daemon: Daemon, *words: str, status: int = 0, crash_at: str | None = None
) -> dict[str, Any]:
    """`wactl migrate-auth`, with the store of a daemon that does not run; what it says, or refuses."""
    environment = daemon.environment | ({"WAD_CRASH_AT": crash_at} if crash_at else {})
    with trio.fail_after(WAIT_S):
        done = await trio.run_process(
            [
                sys.executable,
                "-m",
                "wactl",
                "migrate-auth",
                "--config",
                str(daemon.config),
                "--json",
                "--yes",
                *words,
            ],
            stdin=subprocess.DEVNULL,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=environment,
            cwd=ROOT,
        )
    assert done.returncode == status, done.stderr
    found: dict[str, Any] = msgspec.json.decode(done.stderr if status else done.stdout)
    return found


async def test_conversations_history_and_outbox_go_along(tmp_path: Path) -> None:
    async with run_sandbox() as sandbox:
        alice, bob = sandbox.phone(ALICE, "Alice"), sandbox.phone(BOB, "Bob")
        for phone in (alice, bob):
            await phone.configure(addressing="lid")
        async with running(tmp_path / "first", sandbox) as first:
            await first.pair(sandbox)
            await first.send(BOB, "from the first")
            await bob.wait_message(lambda one: one.text == "from the first")
            await bob.send(ALICE, "to the first")
            await first.event("message:new", body="to the first")
            await first.call("session.disconnect", name=NAME)
            await first.until("stopped")
            await bob.send(ALICE, "on the way")
            waiting = await first.send(BOB, "queued in the first")
            await first.stop()
            target = tmp_path / "second" / "state" / "waD" / "waD.db"
            moved = await migrate(first, "--from", "waD", "--to", f"sqlite:{target}", NAME)
            assert moved["rows"]["wa_outbox"] >= 1
            async with running(tmp_path / "second", sandbox) as second:
                assert (await second.status(NAME))["connectionId"] == moved["destination"]["connectionId"]
                await second.call("session.connect", name=NAME)
                await second.until("open", ready=True)
                await second.event("message:new", body="on the way")
                assert await second.wait(waiting) == "delivered"
                await bob.wait_message(lambda one: one.text == "queued in the first")
                await bob.send(ALICE, "to the second")
                await second.event("message:new", body="to the second")
                listed = await second.call("message.list", session=NAME, limit=50)
                texts = {row.get("body") for row in listed["messages"]}
                assert {"from the first", "to the first", "on the way", "to the second"} <= texts
                told = [row["xml"] for row in sandbox.core.world.traffic(sandbox.device(ALICE).key)]
                assert [xml for xml in told if xml.startswith("<receipt") and "<retry" in xml] == []
                await first.start()
                assert (await first.call("session.list"))["sessions"] == []
        assert sandbox.core.world.keys.report()["reused"] == []
        assert sandbox.core.world.complaints() == []


async def test_both_daemons_tell_of_a_move_that_was_given_up_in_the_end(tmp_path: Path) -> None:
    async with run_sandbox() as sandbox:
        bob = sandbox.phone(BOB, "Bob")
        sandbox.phone(ALICE, "Alice")
        async with (
            running(tmp_path / "first", sandbox) as first,
            running(tmp_path / "second", sandbox) as second,
        ):
            await first.pair(sandbox)
            await first.send(BOB, "before")
            await bob.wait_message(lambda one: one.text == "before")
            await first.stop()
            await second.stop()
            target = f"sqlite:{tmp_path / 'second' / 'state' / 'waD' / 'waD.db'}"
            way = ("--from", "waD", "--to", target)
            await migrate(first, *way, NAME, status=1, crash_at="move.departed")
            await first.start()
            await second.start()
            for daemon, told in ((first, f"--to {target}"), (second, "--to waD")):
                (listed,) = (await daemon.call("session.list"))["sessions"]
                seen = await daemon.status(NAME)
                assert seen["move"] == listed["move"]
                assert (seen["move"]["into"], seen["move"]["givenUp"]) == (daemon is second, True)
                assert told in seen["move"]["command"]
                assert "--abort" in seen["hint"]
                with pytest.raises(Refused, match="--abort"):
                    await daemon.call("session.connect", name=NAME)
                found = (await daemon.call("daemon.check"))["findings"]
                (finding,) = [one for one in found if one["check"] == "move"]
                assert (finding["level"], told in finding["hint"]) == ("warning", True)
                wactl = Wactl(daemon.environment)
                assert b"wactl migrate-auth --from" in (await wactl("list")).stdout
                assert b"--abort" in (await wactl("status", NAME)).stdout
                assert b"has not ended" in (await wactl("check", NAME, status=1)).stdout
                assert b"wactl migrate-auth --from" in (await wactl("doctor", "--offline", status=1)).stdout
            await first.stop()
            await second.stop()
            given = await migrate(first, *way, "--abort", NAME)
            assert (given["done"], given["restored"], given["freed"]) == (True, True, True)
            await second.start()
            assert (await second.call("session.list"))["sessions"] == []
            await first.start()
            await first.until("open", ready=True)
            await bob.send(ALICE, "after")
            await first.event("message:new", body="after")
            await first.send(BOB, "as before")
            await bob.wait_message(lambda one: one.text == "as before")
        told_phones = [row["xml"] for row in sandbox.core.world.traffic(sandbox.device(ALICE).key)]
        assert [xml for xml in told_phones if xml.startswith("<receipt") and "<retry" in xml] == []
        assert sandbox.core.world.keys.report()["reused"] == []
        assert sandbox.core.world.complaints() == []
