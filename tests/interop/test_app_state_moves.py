"""The app state of a session that moves from Baileys 7.0.0-rc14 into waD and back goes on where it was."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.daemon import ALICE, BOB, CAROL, running
from tests.e2e.test_app_state import agrees, change, named, people, stored
from tests.e2e.wactl import Wactl
from tests.interop.conftest import Baileys, pair
from tests.interop.test_app_state import expect_agreement
from tests.interop.test_baileys_auth import left
from waD.messaging import kinds
from waD.sandbox import run_sandbox
from waD.sandbox.environment import Settings
from waD.transfer.collections import sound_heads

NAME = "alerts"


async def test_there_and_back(baileys: Baileys, tmp_path: Path) -> None:
    source, back = f"baileys-dir:{tmp_path / 'alice'}", tmp_path / "back"
    async with run_sandbox(settings=Settings(app_state_page=2)) as sandbox:
        alice = people(sandbox)
        await change(alice, "Alice of Baileys")
        async with baileys(sandbox, tmp_path / "alice", log="warn") as client:
            await pair(client, sandbox, ALICE)
            await client.wait_for("name", name="Alice of Baileys")
            await client.wait_for("contact", name="Bob of Alice of Baileys")
            await client.command("modify", change={"pin": True}, jid=sandbox.phone(BOB).lid)
            await sandbox.wait(lambda: BOB in alice.chats and alice.chats[BOB].pinned)
            await client.command("close")
            await left(sandbox)
        await alice.pin(CAROL, False)
        async with running(tmp_path / "waD", sandbox) as daemon:
            wactl = Wactl(daemon.environment)
            await wactl("migrate-auth", "--from", source, "--i-stopped-it", NAME)
            assert await daemon.stop() == 0
            items = await stored(daemon)
            before = sound_heads(items)
            assert before["regular_low"].version > 0
            assert before["regular_low"].macs
            await daemon.start()
            await daemon.call("session.connect", name=NAME)
            await daemon.until("open", ready=True)
            await change(alice, "Alice of waD")
            await named(daemon, "Alice of waD")
            await wactl("disconnect", NAME)
            assert await daemon.stop() == 0
            items = await stored(daemon)
            assert agrees(items, alice)
            for head in sound_heads(items).values():
                assert (head.resyncs, head.retried) == ([], False)  # nothing was fetched from the beginning
            assert any(kind == kinds.APP_STATE_ENTRIES for kind, _ in items)
            await daemon.start()
            await wactl("migrate-auth", "--to", f"baileys-dir:{back}", NAME)
        async with baileys(sandbox, back, log="warn") as client:
            await client.wait_for("offline")
            position = client.position
            await alice.archive(BOB)
            await client.wait_for("chat", after=position, id=sandbox.phone(BOB).lid, archived=True)
            await client.command("modify", change={"pin": True}, jid=sandbox.phone(CAROL).lid)
            await sandbox.wait(lambda: alice.chats[CAROL].pinned)
            expect_agreement(client, alice)
