"""A session walks through the phases of storage and back, under traffic, with kills and restarts between."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.daemon import ALICE, BOB, CAROL, Daemon, Refused, running
from waD.sandbox import Sandbox, run_sandbox

MORE = '[store]\nlegacy = "on"\n'
DAY_MS = 86_400_000
PAUSE_S = 0.05


class Traffic:
    """Messages in both directions, numbered, until the block ends."""

    def __init__(self, daemon: Daemon, sandbox: Sandbox) -> None:
        self._daemon = daemon
        self._sandbox = sandbox
        self._stop = False
        self.received: list[str] = []
        self.sent: list[str] = []

    async def run(self) -> None:
        """Send until told to stop; what the daemon does not take is asked again under the same key."""
        number = 0
        while not self._stop:
            number += 1
            peer = BOB if number % 2 else CAROL
            self.received.append(f"to us {number}")
            await self._sandbox.phone(peer).send(ALICE, self.received[-1])
            await self._submit(peer, f"from us {number}")
            await trio.sleep(PAUSE_S)

    async def _submit(self, peer: str, text: str) -> None:
        self.sent.append(text)
        while True:
            try:
                await self._daemon.send(peer, text, idempotencyKey=text)
            except (Refused, OSError, EOFError, trio.BrokenResourceError):
                await trio.sleep(PAUSE_S)
            else:
                return

    def stop(self) -> None:
        self._stop = True


async def step(daemon: Daemon, name: str, outcome: str = "done", **params: Any) -> dict[str, Any]:
    result: dict[str, Any] = await daemon.call(f"storage.{name}", name="alerts", **params)
    assert result["outcome"] == outcome, result
    return result


def age(daemon: Daemon, days: int) -> None:
    """Let everything that was logged about phases have been so much earlier."""
    with closing(sqlite3.connect(daemon.directory / "state" / "waD" / "waD.db")) as db:
        db.execute("UPDATE wa_auth_phase_log SET at=at-?", (days * DAY_MS,))
        db.execute("UPDATE wa_sessions SET created_at=created_at-?", (days * DAY_MS,))
        db.execute("UPDATE wa_events SET at=at-? WHERE kind='alert:raised'", (days * DAY_MS,))
        db.commit()


async def backed_up(daemon: Daemon) -> None:
    """A backup that somebody took away."""
    made = await daemon.call("auth.backup", name="alerts", passphrase="correct horse battery staple")
    part = {"end": False}
    offset = 0
    while not part["end"]:
        part = await daemon.call("auth.fetch", id=made["id"], offset=offset)
        offset += 256 * 1024
    await daemon.call("auth.discard", id=made["id"], kept=True)


async def restart(daemon: Daemon, *, kill: bool = False) -> None:
    if kill:
        await daemon.kill()
    else:
        assert await daemon.stop() == 0
    await daemon.start()
    await daemon.until("open", ready=True)


async def walk(daemon: Daemon) -> None:
    """legacy_only → … → cut_over → snapshot_primary → legacy_only."""
    assert (await daemon.call("storage.status", name="alerts"))["phase"] == "snapshot_primary"
    await step(daemon, "rollback", to="legacy_only")
    await restart(daemon, kill=True)
    await step(daemon, "dual_write")
    first = await step(daemon, "backfill", outcome="unfinished", batch=100, batches=1)
    assert first["progress"]["copied"] == 100
    await restart(daemon, kill=True)
    await step(daemon, "backfill", batch=100)
    await step(daemon, "promote", outcome="refused")
    await restart(daemon)
    await step(daemon, "promote", minAge=0)
    await step(daemon, "cutover", outcome="refused")
    for kill in (True, False):
        await restart(daemon, kill=kill)
    age(daemon, 8)
    await backed_up(daemon)
    cut = await step(daemon, "cutover")
    assert all(check["ok"] for check in cut["checks"])
    await restart(daemon, kill=True)
    await step(daemon, "verify")
    await step(daemon, "rollback")
    await daemon.until("open", ready=True)
    await step(daemon, "verify")
    await step(daemon, "rollback", to="legacy_only")
    await restart(daemon, kill=True)


async def test_the_whole_way_loses_no_message(tmp_path: Path) -> None:
    async with run_sandbox() as sandbox, running(tmp_path, sandbox, more=MORE) as daemon:
        await daemon.pair(sandbox)
        traffic = Traffic(daemon, sandbox)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(traffic.run)
            await walk(daemon)
            traffic.stop()
        for peer in (BOB, CAROL):
            await sandbox.phone(peer).send(ALICE, f"the end {peer}")
            await daemon.wait(await daemon.send(peer, f"the end {peer}"))
            await daemon.event("message:new", body=f"the end {peer}")
            traffic.received.append(f"the end {peer}")
            traffic.sent.append(f"the end {peer}")

        news = Counter(
            event["data"]["body"]
            for event in await daemon.events("message:new")
            if not event["data"]["fromMe"]
        )
        assert news == Counter(traffic.received)
        arrived: Counter[str] = Counter()
        for peer in (BOB, CAROL):
            phone = sandbox.phone(peer)
            await phone.wait_message(lambda message, peer=peer: message.text == f"the end {peer}")
            arrived += Counter(message.text for message in phone.messages() if not message.from_me)
        assert arrived == Counter(traffic.sent)
        assert sandbox.core.world.keys.report()["reused"] == []

        status = await daemon.call("storage.status", name="alerts")
        assert (status["phase"], status["fallbackHits"], status["lag"]) == ("legacy_only", 0, 0)
        assert await daemon.events("storage:fallback", "storage:write_failed") == []
        await step(daemon, "verify")
        assert await daemon.stop() == 0


async def test_without_rows_the_way_back_makes_them(tmp_path: Path) -> None:
    """A session of a database file begins in cut_over; even so it can be handed to a service that reads rows."""
    async with run_sandbox() as sandbox, running(tmp_path, sandbox) as daemon:
        await daemon.pair(sandbox)
        bob = sandbox.phone(BOB)
        await daemon.wait(await daemon.send(BOB, "before"))
        status = await daemon.call("storage.status", name="alerts")
        assert (status["phase"], status["legacyRows"], status["encrypted"]) == ("cut_over", 0, True)
        await step(daemon, "rollback", to="legacy_only")
        await daemon.until("open", ready=True)
        await restart(daemon, kill=True)
        await daemon.wait(await daemon.send(BOB, "after"))
        await bob.send(ALICE, "hello")
        await daemon.event("message:new", body="hello")
        status = await daemon.call("storage.status", name="alerts")
        assert (status["phase"], status["items"]) == ("legacy_only", 0)
        assert status["legacyRows"] > 100
        with pytest.raises(Refused) as refused:
            await daemon.call("storage.cutover", name="alerts")
        assert refused.value.symbol == "wrong_state"
        texts = [message.text for message in bob.messages() if not message.from_me]
        assert texts == ["before", "after"]
        assert sandbox.core.world.keys.report()["reused"] == []
