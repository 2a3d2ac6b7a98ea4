"""Baileys 7.0.0-rc14 from npm against the sandbox."""

from __future__ import annotations

from pathlib import Path

from tests.interop.conftest import Baileys, pair
from waD.sandbox import run_sandbox

ALICE = "15550000001"
BOB = "15550000002"


async def test_pairs_receives_and_sends(baileys: Baileys, tmp_path: Path) -> None:
    async with run_sandbox() as sandbox, baileys(sandbox, tmp_path / "alice") as client:
        await pair(client, sandbox, ALICE)
        bob = sandbox.phone(BOB, "Bob")
        sent = await bob.send(ALICE, "hello from bob")
        got = await client.text("hello from bob")
        assert got["pushName"] == "Bob"
        assert got["key"]["fromMe"] is False
        await sandbox.wait(lambda: sent.status == 3)
        message_id = await client.send(bob.lid, "hello from baileys")
        arrived = await bob.wait_message(lambda one: one.text == "hello from baileys")
        assert arrived.sender.startswith(f"{ALICE}:")
        await client.status(message_id, 3)
        await bob.read(ALICE, [message_id])
        await client.status(message_id, 4)
        await client.command("read", chat=got["key"]["remoteJid"], ids=[sent.id])
        await sandbox.wait(lambda: sent.status == 4)
        own = sandbox.phone(ALICE)
        copy = await own.wait_message(lambda one: one.text == "hello from baileys")
        assert copy.from_me
        assert sandbox.core.world.keys.report()["reused"] == []
        assert client.crashes == []


async def test_two_clients_talk_both_ways(baileys: Baileys, tmp_path: Path) -> None:
    async with (
        run_sandbox() as sandbox,
        baileys(sandbox, tmp_path / "alice") as alice,
        baileys(sandbox, tmp_path / "bob") as bob,
    ):
        await pair(alice, sandbox, ALICE)
        await pair(bob, sandbox, BOB)
        # By phone number one way, by LID the other: both kinds of addressing.
        first = await alice.send(f"{BOB}@s.whatsapp.net", "one")
        got = await bob.text("one")
        assert got["key"]["fromMe"] is False
        await alice.status(first, 3)
        second = await bob.send(sandbox.phone(ALICE).lid, "two")
        await alice.text("two")
        await bob.status(second, 3)
        for number in range(10):
            await alice.send(f"{BOB}@s.whatsapp.net", f"a{number}")
            await bob.send(got["key"]["remoteJid"], f"b{number}")
        await bob.text("a9")
        await alice.text("b9")
        assert [text for text in bob.texts if text.startswith("a")] == [f"a{n}" for n in range(10)]
        assert [text for text in alice.texts if text.startswith("b")] == [f"b{n}" for n in range(10)]
        await bob.command("read", chat=got["key"]["remoteJid"], ids=[first])
        await alice.status(first, 4)
        assert sandbox.core.world.keys.report()["reused"] == []
        assert [] == alice.crashes == bob.crashes


async def test_two_devices_of_one_account(baileys: Baileys, tmp_path: Path) -> None:
    async with (
        run_sandbox() as sandbox,
        baileys(sandbox, tmp_path / "one") as one,
        baileys(sandbox, tmp_path / "two") as two,
    ):
        await pair(one, sandbox, ALICE)
        await pair(two, sandbox, ALICE)
        bob = sandbox.phone(BOB)
        await bob.send(ALICE, "to both")
        await one.text("to both")
        await two.text("to both")
        await one.send(bob.lid, "from one")
        copy = await two.text("from one")
        assert copy["key"]["fromMe"] is True
        assert copy["key"]["remoteJid"] == bob.lid
        arrived = await bob.wait_message(lambda message: message.text == "from one")
        assert arrived.copies == 1


async def test_offline_queue_in_order(baileys: Baileys, tmp_path: Path) -> None:
    async with run_sandbox() as sandbox:
        async with baileys(sandbox, tmp_path / "alice") as client:
            await pair(client, sandbox, ALICE)
            await client.command("close")
        device = sandbox.device(ALICE)
        await sandbox.wait(lambda: device.link is None)
        bob = sandbox.phone(BOB)
        ids = await bob.send_many(ALICE, 300, "queued {n}")
        assert len(device.queue) >= 300
        assert bob.messages()[0].receipts.keys() == {sandbox.phone(ALICE).lid}
        async with baileys(sandbox, tmp_path / "alice") as client:
            await client.wait_for("offline")
            await client.text("queued 300")
            assert client.texts == [f"queued {n}" for n in range(1, 301)]
            await sandbox.wait(lambda: not device.queue)
            counts = [sandbox.core.world.deliveries.count(device.key, one) for one in ids]
            assert counts == [1] * 300
            assert client.crashes == []


async def test_sandbox_restarts_with_its_state(baileys: Baileys, tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with run_sandbox(state=state) as sandbox:
        async with baileys(sandbox, tmp_path / "alice") as client:
            await pair(client, sandbox, ALICE)
            await sandbox.phone(BOB, "Bob").send(ALICE, "before")
            await client.text("before")
            await client.command("close")
        await sandbox.wait(lambda: sandbox.device(ALICE).link is None)
        await sandbox.phone(BOB).send(ALICE, "while away")
        root = sandbox.root_key
    async with run_sandbox(state=state) as sandbox:
        assert sandbox.root_key == root
        bob = sandbox.phone(BOB)
        assert [one.text for one in bob.messages()] == ["before", "while away"]
        await bob.send(ALICE, "after the restart")
        async with baileys(sandbox, tmp_path / "alice") as client:
            await client.text("after the restart")
            assert client.texts == ["while away", "after the restart"]
            await client.send(bob.lid, "still here")
            await bob.wait_message(lambda one: one.text == "still here")


async def test_lost_sessions_are_repaired_by_retries(baileys: Baileys, tmp_path: Path) -> None:
    async with run_sandbox() as sandbox, baileys(sandbox, tmp_path / "alice") as client:
        await pair(client, sandbox, ALICE)
        bob = sandbox.phone(BOB)
        await bob.send(ALICE, "first")
        got = await client.text("first")
        await client.send(bob.lid, "answer")
        await bob.wait_message(lambda one: one.text == "answer")
        await bob.drop_sessions()
        message_id = await client.send(bob.lid, "bob has forgotten")
        again = await bob.wait_message(lambda one: one.text == "bob has forgotten")
        assert again.id == message_id
        sandbox.fault("corrupt-enc", ALICE)
        await bob.send(ALICE, "damaged on the way")
        await client.text("damaged on the way")
        assert got["key"]["remoteJid"] == bob.lid
        assert client.crashes == []


async def test_unlinked_and_replaced(baileys: Baileys, tmp_path: Path) -> None:
    async with run_sandbox() as sandbox, baileys(sandbox, tmp_path / "alice") as client:
        await pair(client, sandbox, ALICE)
        sandbox.fault("replaced", ALICE)
        assert (await client.wait_for("closed", code=440))["code"] == 440
        position = client.position
        await client.command(
            "connect", url=sandbox.url, authDir=str(tmp_path / "alice"), rootKey=sandbox.root_key.hex()
        )
        await client.wait_for("open", after=position)
        await sandbox.phone(ALICE).unlink(sandbox.device(ALICE).id)
        await client.wait_for("closed", code=401, after=position)


async def test_logs_out(baileys: Baileys, tmp_path: Path) -> None:
    async with run_sandbox() as sandbox, baileys(sandbox, tmp_path / "alice") as client:
        await pair(client, sandbox, ALICE)
        await client.command("logout")
        await sandbox.wait(lambda: not sandbox.phone(ALICE).phone.account.companions)


async def test_over_tls_with_its_own_authority(baileys: Baileys, tmp_path: Path) -> None:
    async with run_sandbox(tls=True) as sandbox, baileys(sandbox, tmp_path / "alice") as client:
        assert sandbox.url.startswith("wss://")
        await pair(client, sandbox, ALICE)
        await sandbox.phone(BOB).send(ALICE, "secured")
        await client.text("secured")


async def test_presence_typing_and_number_check(baileys: Baileys, tmp_path: Path) -> None:
    async with run_sandbox() as sandbox, baileys(sandbox, tmp_path / "alice") as client:
        await pair(client, sandbox, ALICE)
        bob = sandbox.phone(BOB)
        await client.command("presence", kind="subscribe", to=bob.jid)
        await bob.presence("available")
        await client.wait(lambda event: "available" in str(event.get("presences")))
        await bob.typing(ALICE)
        await client.wait(lambda event: "composing" in str(event.get("presences")))
        found = (await client.command("check", number=BOB))["found"]
        assert found[0]["exists"] is True
        assert (await client.command("check", number="15559999999"))["found"] == []
