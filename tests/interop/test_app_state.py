"""App state between the phone of the sandbox and Baileys 7.0.0-rc14, with all its MAC checks on."""

from __future__ import annotations

from pathlib import Path

from tests.interop.baileys_client import BaileysClient
from tests.interop.conftest import Baileys, pair
from waD.sandbox import Settings, run_sandbox
from waD.sandbox.handles import PhoneHandle

ALICE = "15550000001"
BOB = "15550000002"
CAROL = "15550000003"
UNTIL_MS = 1_900_000_000_000

COMPLAINTS = (b"verification failed", b"failed to decode", b"failed to sync", b"skipping")
"""What Baileys logs, and does not throw, about a state it does not believe."""


def expect_agreement(client: BaileysClient, phone: PhoneHandle) -> None:
    """Neither side has refused anything."""
    assert [word for word in COMPLAINTS if word in client.errors] == []
    assert phone.phone.failures == []
    assert client.crashes == []


async def test_the_state_of_a_phone_arrives(baileys: Baileys, tmp_path: Path) -> None:
    async with run_sandbox() as sandbox:
        alice, bob = sandbox.phone(ALICE, "Alice"), sandbox.phone(BOB, "Bob")
        await bob.send(ALICE, "there is a chat")
        await alice.set_push_name("Alice of the phone")
        await alice.set_contact(BOB, "Bob Builder")
        await alice.mute(BOB, UNTIL_MS)
        await alice.pin(BOB)
        sandbox.phone(CAROL)
        await alice.set_contact(CAROL, "Carol Gone")
        await alice.remove_contact(CAROL)
        async with baileys(sandbox, tmp_path / "alice", log="warn") as client:
            await pair(client, sandbox, ALICE)
            await client.wait_for("name", name="Alice of the phone")
            await client.wait_for("contact", name="Bob Builder", id=bob.jid)
            await client.wait(lambda one: one["event"] == "chat" and one.get("muteEndTime") == UNTIL_MS)
            await client.wait(lambda one: one["event"] == "chat" and one.get("pinned"))
            expect_agreement(client, alice)


async def test_snapshots_are_files_that_baileys_reads(baileys: Baileys, tmp_path: Path) -> None:
    async with run_sandbox(tls=True, settings=Settings(app_state_snapshots=True)) as sandbox:
        alice, bob = sandbox.phone(ALICE, "Alice"), sandbox.phone(BOB, "Bob")
        await bob.send(ALICE, "there is a chat")
        await alice.set_push_name("Alice of the phone")
        await alice.set_contact(BOB, "Bob Builder")
        for until in range(UNTIL_MS - 3, UNTIL_MS + 1):
            await alice.mute(BOB, until)
        host = sandbox.core.world.settings.media_host
        async with baileys(sandbox, tmp_path / "alice", log="warn", mediaHost=host) as client:
            await pair(client, sandbox, ALICE)
            await client.wait_for("name", name="Alice of the phone")
            await client.wait_for("contact", name="Bob Builder", id=bob.jid)
            await client.wait(lambda one: one["event"] == "chat" and one.get("muteEndTime") == UNTIL_MS)
            expect_agreement(client, alice)
        assert len(sandbox.core.media.records()) >= 3, "one for each collection that is not empty"


async def test_changes_go_both_ways(baileys: Baileys, tmp_path: Path) -> None:
    async with run_sandbox() as sandbox, baileys(sandbox, tmp_path / "alice", log="warn") as client:
        alice, bob = sandbox.phone(ALICE), sandbox.phone(BOB, "Bob")
        await pair(client, sandbox, ALICE)
        await client.wait_for("name", name=ALICE)
        await client.command("modify", change={"mute": UNTIL_MS}, jid=bob.lid)
        await client.command("modify", change={"pin": True}, jid=bob.lid)
        await sandbox.wait(lambda: BOB in alice.chats and alice.chats[BOB].pinned)
        assert alice.chats[BOB].muted_until_ms == UNTIL_MS
        await client.command("rename", name="Alice of Baileys")
        await sandbox.wait(lambda: alice.phone.account.record.name == "Alice of Baileys")
        before = client.position
        await alice.mute(BOB, None)
        await alice.archive(BOB)
        await client.wait_for("chat", after=before, id=bob.lid, muteEndTime=None)
        await client.wait_for("chat", after=before, id=bob.lid, archived=True)
        await client.wait(lambda one: one["event"] == "chat" and one.get("pinned", 1) is None, after=before)
        sent = await bob.send(ALICE, "a star")
        got = await client.text("a star")
        star = {"messages": [{"id": sent.id, "fromMe": False}], "star": True}
        await client.command("modify", change={"star": star}, jid=got["key"]["remoteJid"])
        await sandbox.wait(lambda: alice.chats[BOB].starred == [sent.id])
        await client.command("modify", change={"pin": True}, jid=bob.lid)
        await sandbox.wait(lambda: alice.chats[BOB].pinned)
        expect_agreement(client, alice)


async def test_keys_and_conflicts(baileys: Baileys, tmp_path: Path) -> None:
    """Two companions write after each other; one goes, and what follows is under a new key."""
    async with (
        run_sandbox() as sandbox,
        baileys(sandbox, tmp_path / "one", log="warn") as one,
        baileys(sandbox, tmp_path / "two", log="warn") as two,
    ):
        alice, bob = sandbox.phone(ALICE), sandbox.phone(BOB, "Bob")
        await pair(one, sandbox, ALICE)
        first = sandbox.device(ALICE)
        await pair(two, sandbox, ALICE)
        await one.wait_for("name", name=ALICE)
        await two.wait_for("name", name=ALICE)
        for number in range(3):
            await one.command("modify", change={"mute": UNTIL_MS + number}, jid=bob.lid)
            await two.wait_for("chat", id=bob.lid, muteEndTime=UNTIL_MS + number)
            await two.command("modify", change={"mute": UNTIL_MS + 10 + number}, jid=bob.lid)
            await one.wait_for("chat", id=bob.lid, muteEndTime=UNTIL_MS + 10 + number)
        await alice.unlink(first.id)
        assert len(alice.phone.keys.record.app_keys) == 2
        before = two.position
        await alice.mute(BOB, None)
        await two.wait_for("chat", after=before, id=bob.lid, muteEndTime=None)
        await two.command("modify", change={"pin": True}, jid=bob.lid)
        await sandbox.wait(lambda: alice.chats[BOB].pinned)
        (pin,) = alice.phone.app_state.entries("pin_v1")
        assert pin.key_id == alice.phone.keys.record.app_keys[-1].id
        expect_agreement(two, alice)
