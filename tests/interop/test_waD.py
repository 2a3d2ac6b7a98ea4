"""waD and Baileys 7.0.0-rc14 talk to each other through the sandbox.

Alice is waD, Bob is Baileys, each a companion of a simulated phone. The phones are switched off once both are linked,
so that a tick can only come from the program at the other end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.daemon import ALICE, BOB, CAROL, Daemon, running
from tests.interop.baileys_client import BaileysClient
from tests.interop.conftest import Baileys, pair
from waD.sandbox import Sandbox, run_sandbox
from waD.sandbox.accounts import Device
from waD.store.engine import Attach, CommitUnit
from waD.store.model import SessionRow
from waD.store.opening import open_engine
from waD.store.store import Parts, StoreSettings
from waD.store.unit import Committed, Unit

ALICE_PN = f"{ALICE}@s.whatsapp.net"
BOB_PN = f"{BOB}@s.whatsapp.net"
LONGEST = 60_000
TEXTS = (
    "👩🏽‍🚀 🏳️‍🌈 🇺🇦 e\u0301 – \U0001f9d1\u200d\U0001f4bb",
    "\u202eמה שלומך?\u202c السلام عليكم ورحمة الله \u200f(123)",
    "  first\n\n\tthird\r\n last  ",
    ("0123456789 ünïcödé 漢字 🎉\n" * LONGEST)[:LONGEST],
)


@dataclass
class Talk:
    """Both ends of a conversation and the server between them."""

    sandbox: Sandbox
    alice: Daemon
    bob: BaileysClient

    @property
    def alice_lid(self) -> str:
        return self.sandbox.phone(ALICE).lid

    @property
    def bob_lid(self) -> str:
        return self.sandbox.phone(BOB).lid

    async def greet(self) -> None:
        """Until both sides have a session that the other one has answered."""
        await self.said_by_alice("hello bob")
        await self.said_by_bob("hello alice")
        await self.said_by_alice("nice to meet you")

    async def said_by_alice(self, text: str) -> str:
        """Send as waD and wait until Baileys shows it."""
        message_id = await self.alice.send(BOB, text)
        got = await self.bob.text(text)
        assert (got["key"]["id"], got["key"]["fromMe"]) == (message_id, False)
        assert await self.alice.wait(message_id) == "delivered"
        return message_id

    async def said_by_bob(self, text: str) -> str:
        """Send as Baileys and wait until waD announces it."""
        message_id = await self.bob.send(self.alice_lid, text)
        event = await self.alice.event("message:new", body=text)
        assert (event["data"]["messageId"], event["data"]["fromMe"]) == (message_id, False)
        await self.bob.status(message_id, 3)
        return message_id


@asynccontextmanager
async def linked_waD(tmp_path: Path, *, addressing: str = "lid") -> AsyncIterator[tuple[Sandbox, Daemon]]:  # noqa: N802
    """A daemon with Alice's account; afterwards look for what must never happen."""
    async with run_sandbox() as sandbox, running(tmp_path / "waD", sandbox) as alice:
        for number, name in ((ALICE, "Alice"), (BOB, "Bob")):
            await sandbox.phone(number, name).configure(addressing=addressing)
        await alice.pair(sandbox)
        await sandbox.phone(ALICE).configure(online=False)
        yield sandbox, alice
        await healthy(sandbox, alice)


@asynccontextmanager
async def at_bobs(baileys: Baileys, sandbox: Sandbox, auth_dir: Path) -> AsyncIterator[BaileysClient]:
    """Baileys with Bob's account, linked at first and logged in later; killed when the block ends."""
    first = not await trio.Path(auth_dir).exists()
    async with baileys(sandbox, auth_dir, pushName="Bob") as bob:
        if first:
            await sandbox.phone(BOB).configure(online=True)
            await pair(bob, sandbox, BOB)
            await sandbox.phone(BOB).configure(online=False)
        else:
            await bob.wait_for("offline")
            await bob.wait_for("open")
        yield bob
        assert bob.crashes == []
    await sandbox.wait(lambda: all(one.link is None for one in sandbox.phone(BOB).phone.account.companions))


@asynccontextmanager
async def talking(baileys: Baileys, tmp_path: Path, *, addressing: str = "lid") -> AsyncIterator[Talk]:
    """Both linked and online."""
    async with (
        linked_waD(tmp_path, addressing=addressing) as (sandbox, alice),
        at_bobs(baileys, sandbox, tmp_path / "bob") as bob,
    ):
        yield Talk(sandbox, alice, bob)


async def healthy(sandbox: Sandbox, daemon: Daemon) -> None:
    """No key was used twice, the server has nothing to complain about, no message was announced twice."""
    assert sandbox.core.world.keys.report()["reused"] == []
    assert sandbox.core.world.complaints() == []
    announced = Counter(
        (event["session"], event["data"]["chat"], event["data"]["messageId"])
        for event in await daemon.events("message:new")
    )
    assert [key for key, count in announced.items() if count > 1] == []
    assert "Traceback" not in daemon.log.read_text(errors="replace")


async def drained(sandbox: Sandbox, number: str) -> Device:
    """An account's newest companion, once it has taken everything that was queued for it."""
    device = sandbox.device(number)
    await sandbox.wait(lambda: not device.queue)
    return device


async def bodies(daemon: Daemon, **fields: Any) -> list[str | None]:
    """Texts of all messages announced, in order."""
    return [
        event["data"].get("body")
        for event in await daemon.events("message:new")
        if all(event["data"].get(name) == value for name, value in fields.items())
    ]


async def heard(daemon: Daemon, body: str) -> dict[str, Any]:
    """The event that brings a text, of a message that is new or of one that could not be read at first."""
    with trio.fail_after(30):
        async with daemon.client() as client:
            await client.call("events.subscribe", since=0, types=["message:new", "message:update"])
            while True:
                event: dict[str, Any] = (await client.notice())["params"]["event"]
                if event["data"].get("body") == body:
                    return event


def retries(sandbox: Sandbox, device: Device, message_id: str | None = None) -> list[tuple[int, bool]]:
    """Number of each request for a message that a device sent, and whether it brought keys."""
    xml = [
        row["xml"]
        for row in sandbox.core.world.traffic(device.key)
        if row["direction"] == "in" and row["xml"].startswith("<receipt")
    ]
    asked = [one for one in xml if "<retry " in one and (message_id is None or f'id="{message_id}"' in one)]
    return [
        (number, "<keys>" in one)
        for one in asked
        for number in range(1, 6)
        if f'<retry count="{number}"' in one
    ]


@pytest.mark.parametrize("addressing", ["lid", "pn"])
async def test_messages_and_receipts_by_number_and_by_lid(
    baileys: Baileys, tmp_path: Path, addressing: str
) -> None:
    async with talking(baileys, tmp_path, addressing=addressing) as talk:
        alice, bob = talk.alice, talk.bob
        for n, to in enumerate((f"+{BOB}", BOB_PN, talk.bob_lid)):
            message_id = await alice.send(to, f"to bob {n}")
            got = await bob.text(f"to bob {n}")
            assert got["key"]["addressingMode"] == addressing
            assert got["pushName"] == "Alice"
            assert await alice.wait(message_id) == "delivered"
            await bob.command("read", chat=got["key"]["remoteJid"], ids=[message_id])
            assert await alice.wait(message_id, "read") == "read"
        for n, to in enumerate((ALICE_PN, talk.alice_lid)):
            message_id = await bob.send(to, f"to alice {n}")
            event = await alice.event("message:new", body=f"to alice {n}")
            assert event["data"]["chat"] == event["data"]["sender"] == talk.bob_lid
            assert event["data"]["senderPn"] == BOB_PN
            assert event["data"]["pushName"] == "Bob"
            await bob.status(message_id, 3)
            await alice.call("message.read", session="alerts", chat=BOB, ids=[message_id])
            await bob.status(message_id, 4)


async def test_texts_arrive_as_they_were_written(baileys: Baileys, tmp_path: Path) -> None:
    async with talking(baileys, tmp_path) as talk:
        for text in TEXTS:
            await talk.said_by_alice(text)
            await talk.said_by_bob(text)


async def test_quotes_and_mentions(baileys: Baileys, tmp_path: Path) -> None:
    async with talking(baileys, tmp_path) as talk:
        carol = talk.sandbox.phone(CAROL, "Carol")
        asked = await talk.said_by_bob("is it up?")
        await talk.alice.send(BOB, f"yes, ask @{CAROL}", quote=asked, mentions=[f"+{CAROL}"])
        answer = await talk.bob.text(f"yes, ask @{CAROL}")
        assert set(answer["kinds"]) == {"extendedTextMessage", "messageContextInfo"}
        assert answer["context"]["quoted"] == asked
        assert answer["context"]["author"] == talk.bob_lid
        assert answer["context"]["quotedText"] == "is it up?"
        assert answer["context"]["mentions"] == [carol.jid]
        await talk.bob.send(
            talk.alice_lid, "I did", quote=answer["key"]["id"], mentions=[carol.lid, talk.alice_lid]
        )
        event = await talk.alice.event("message:new", body="I did")
        assert event["data"]["kind"] == "text"
        assert event["data"]["content"] == {
            "quoted": {
                "messageId": answer["key"]["id"],
                "sender": talk.alice_lid,
                "kind": "text",
                "body": f"yes, ask @{CAROL}",
            },
            "mentions": [carol.lid, talk.alice_lid],
        }
        # Each quotes what it said itself, too.
        own = await talk.said_by_alice("by the way")
        await talk.alice.send(BOB, "see above", quote=own)
        own_quote = await talk.bob.text("see above")
        assert own_quote["context"]["author"] == talk.alice_lid
        await talk.bob.send(talk.alice_lid, "as I asked", quote=asked)
        event = await talk.alice.event("message:new", body="as I asked")
        assert event["data"]["content"]["quoted"]["sender"] == talk.bob_lid
        assert event["data"]["content"]["quoted"]["messageId"] == asked


async def test_baileys_is_killed_and_comes_back(baileys: Baileys, tmp_path: Path) -> None:
    async with linked_waD(tmp_path) as (sandbox, alice):
        async with at_bobs(baileys, sandbox, tmp_path / "bob") as bob:
            await Talk(sandbox, alice, bob).greet()
        for again in range(2):
            queued = [f"while bob was away {again} {n}" for n in range(15)]
            ids = [await alice.send(BOB, text) for text in queued]
            for message_id in ids:
                assert await alice.wait(message_id, "sent") == "sent"
            async with at_bobs(baileys, sandbox, tmp_path / "bob") as bob:
                await bob.text(queued[-1])
                assert bob.texts == queued
                # Not always "delivered": before Baileys shows itself it sends the receipts of somebody who is away.
                device = await drained(sandbox, BOB)
                assert {sandbox.core.world.deliveries.count(device.key, one) for one in ids} == {1}
                talk = Talk(sandbox, alice, bob)
                await talk.said_by_bob(f"back {again}")
                await talk.said_by_alice(f"welcome back {again}")


async def test_waD_goes_and_comes_back(baileys: Baileys, tmp_path: Path) -> None:  # noqa: N802
    async with talking(baileys, tmp_path) as talk:
        alice, bob = talk.alice, talk.bob
        await talk.greet()
        for how in ("stop", "kill"):
            await alice.call("session.disconnect", name="alerts")
            mine = [f"queued by alice before {how} {n}" for n in range(10)]
            for text in mine:
                await alice.send(BOB, text)
            await (alice.stop() if how == "stop" else alice.kill())
            theirs = [f"queued for alice after {how} {n}" for n in range(15)]
            for text in theirs:
                await bob.send(talk.alice_lid, text)
            await alice.start()
            await alice.call("session.connect", name="alerts")
            await alice.event("message:new", body=theirs[-1])
            await bob.text(mine[-1])
            assert [text for text in bob.texts if f"before {how}" in text] == mine
            assert [text for text in await bodies(alice, source="offline") if text and how in text] == theirs
            await talk.said_by_alice(f"all there after {how}")
            await talk.said_by_bob(f"here as well after {how}")


async def test_waD_is_killed_while_it_sends(baileys: Baileys, tmp_path: Path) -> None:  # noqa: N802
    async with talking(baileys, tmp_path) as talk:
        await talk.greet()
        texts = [f"a{n}" for n in range(60)]
        for text in texts:
            await talk.alice.send(BOB, text)
        for kill_at in (10, 30):
            await talk.bob.text(f"a{kill_at}")
            await talk.alice.kill()
            await talk.alice.start()
        await talk.bob.text(texts[-1])
        assert [text for text in talk.bob.texts if text.startswith("a")] == texts
        assert [event for event in talk.bob.events if event.get("stub")] == []


async def test_waD_is_killed_while_it_receives(baileys: Baileys, tmp_path: Path) -> None:  # noqa: N802
    async with talking(baileys, tmp_path) as talk:
        await talk.greet()
        texts = [f"b{n}" for n in range(60)]

        async def bob_sends() -> None:
            for text in texts:
                await talk.bob.send(talk.alice_lid, text)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(bob_sends)
            for kill_at in (10, 30):
                await talk.alice.event("message:new", body=f"b{kill_at}")
                await talk.alice.kill()
                await talk.alice.start()
        await talk.alice.event("message:new", body=texts[-1])
        assert [text for text in await bodies(talk.alice) if text and text.startswith("b")] == texts


async def test_both_write_first(baileys: Baileys, tmp_path: Path) -> None:
    """Each encrypts for the other before it has seen anything of it, again and again with accounts that are new."""
    async with talking(baileys, tmp_path) as talk:
        for n in range(4):
            await crossing(talk, f"s{n}", f"1555000010{n}")
        texts = talk.bob.texts
        assert len(texts) == len(set(texts)), "Baileys shows something twice"


async def crossing(talk: Talk, name: str, number: str) -> None:
    """One first contact in both directions at once.

    Two sessions come of it. Looking for the one that fits, Baileys spoils the other, so that the first thing it says
    afterwards may need a second attempt.
    """
    sandbox, alice, bob = talk.sandbox, talk.alice, talk.bob
    await alice.pair(sandbox, number, name)
    phone = sandbox.phone(number)
    await phone.configure(online=False)
    devices = [await drained(sandbox, number), await drained(sandbox, BOB)]
    for device in devices:
        sandbox.fault("stall", device.key, mode="queue")
    await alice.send(BOB, f"{name} was first", name=name)
    await bob.send(phone.jid, f"bob was first, {name}")
    await sandbox.wait(lambda: all("message" in device.queue.counts() for device in devices))
    for device in devices:
        assert {enc.text("type") for item in device.queue for enc in item.stanza.children("enc")} == {"pkmsg"}
    for device in devices:
        sandbox.fault("resume", device.key)
    await bob.text(f"{name} was first")
    await alice.event("message:new", body=f"bob was first, {name}")
    for n in range(3):
        await alice.send(BOB, f"{name} then {n}", name=name)
        await bob.text(f"{name} then {n}")
        await bob.send(phone.lid, f"bob then {n}, {name}")
        event = await heard(alice, f"bob then {n}, {name}")
        assert n == 0 or event["type"] == "message:new"


def forget_sessions(auth_dir: Path, address: str) -> int:
    """Delete the sessions of a Baileys that is not running with one account."""
    user = address.partition("@")[0]
    found = [path for path in auth_dir.glob("session-*.json") if path.name.startswith(f"session-{user}")]
    for path in found:
        path.unlink()
    return len(found)


async def test_baileys_has_lost_its_sessions(baileys: Baileys, tmp_path: Path) -> None:
    async with linked_waD(tmp_path) as (sandbox, alice):
        async with at_bobs(baileys, sandbox, tmp_path / "bob") as bob:
            await Talk(sandbox, alice, bob).greet()
        assert forget_sessions(tmp_path / "bob", sandbox.phone(ALICE).lid) > 0
        async with at_bobs(baileys, sandbox, tmp_path / "bob") as bob:
            talk = Talk(sandbox, alice, bob)
            message_id = await alice.send(BOB, "do you remember me?")
            await bob.text("do you remember me?")
            assert await alice.wait(message_id) == "delivered"
            assert retries(sandbox, sandbox.device(BOB))[0] == (1, False)
            await talk.said_by_alice("and now?")
            await talk.said_by_bob("yes")
            assert Counter(bob.texts)["do you remember me?"] == 1
        assert forget_sessions(tmp_path / "bob", sandbox.phone(ALICE).lid) > 0
        async with at_bobs(baileys, sandbox, tmp_path / "bob") as bob:
            # Now Baileys writes first: with a new session, while waD still has the old one.
            await Talk(sandbox, alice, bob).said_by_bob("who are you?")
            await Talk(sandbox, alice, bob).said_by_alice("still alice")


async def test_damage_on_the_way_to_baileys(baileys: Baileys, tmp_path: Path) -> None:
    """From the second request on Baileys brings its keys."""
    async with talking(baileys, tmp_path) as talk:
        await talk.greet()
        device = talk.sandbox.device(BOB)
        for times in range(1, 4):
            talk.sandbox.fault("corrupt-enc", device.key, count=times)
            message_id = await talk.said_by_alice(f"fragile {times}")
            assert retries(talk.sandbox, device, message_id) == [(n, n > 1) for n in range(1, times + 1)]
            await talk.said_by_alice(f"sturdy {times}")
            await talk.said_by_bob(f"thanks {times}")


async def test_damage_on_the_way_to_waD(baileys: Baileys, tmp_path: Path) -> None:  # noqa: N802
    """Baileys answers two requests for one message; after that Alice's phone is the one that still has it."""
    async with talking(baileys, tmp_path) as talk:
        await talk.greet()
        await talk.sandbox.phone(ALICE).configure(online=True)
        device = talk.sandbox.device(ALICE)
        for times in range(1, 4):
            talk.sandbox.fault("corrupt-enc", device.key, count=times)
            message_id = await talk.bob.send(talk.alice_lid, f"fragile {times}")
            await resolved(talk.alice, message_id, f"fragile {times}")
            await talk.bob.status(message_id, 3)
            assert retries(talk.sandbox, device, message_id) == [(n, n > 1) for n in range(1, times + 1)]
            await talk.said_by_bob(f"sturdy {times}")
            await talk.said_by_alice(f"thanks {times}")


async def resolved(daemon: Daemon, message_id: str, body: str, **fields: Any) -> None:
    """Wait until a message that could not be read at first can be: one placeholder, one update, in that order."""
    update = await daemon.event("message:update", messageId=message_id)
    assert update["data"]["reason"] == "resolved"
    assert update["data"]["body"] == body
    told = [
        (event["type"], event["data"]["kind"], event["data"].get("body"))
        for event in await daemon.events("message:new", "message:update")
        if event["data"]["messageId"] == message_id
    ]
    assert told == [("message:new", "undecryptable", None), ("message:update", "text", body)]
    for name, value in fields.items():
        assert update["data"][name] == value


async def test_waD_has_lost_its_sessions(baileys: Baileys, tmp_path: Path) -> None:  # noqa: N802
    async with talking(baileys, tmp_path) as talk:
        await talk.greet()
        await talk.alice.stop()
        assert forget_records(talk.alice, talk.bob_lid) > 0
        await talk.alice.start()
        message_id = await talk.bob.send(talk.alice_lid, "do you remember me?")
        await resolved(talk.alice, message_id, "do you remember me?")
        await talk.bob.status(message_id, 3)
        await talk.said_by_bob("and now?")
        await talk.said_by_alice("yes")
        await talk.alice.stop()
        assert forget_records(talk.alice, talk.bob_lid) > 0
        await talk.alice.start()
        # Now waD writes first: with a new session, while Baileys still has the old one.
        await talk.said_by_alice("who are you?")
        await talk.said_by_bob("still bob")


def forget_records(daemon: Daemon, address: str) -> int:
    """Delete the sessions of a daemon that is not running with one account; returns how many there were."""
    (database,) = (daemon.directory / "state").rglob("*.db")
    user = address.partition("@")[0]
    engine = open_engine(StoreSettings(path=database), Parts())
    try:
        (row,) = engine.sessions(include_retired=False)
        (owned,) = engine.write([Attach(row.id, "test")])
        assert isinstance(owned, SessionRow)
        unit = Unit()
        for key in engine.item_keys(row.id, "session", user):
            unit.delete("session", key)
        (done,) = engine.write([CommitUnit(row.id, owned.lease_token, unit)])
        assert isinstance(done, Committed)
        return len(unit.items)
    finally:
        engine.close()


async def test_phones_have_lost_their_sessions(baileys: Baileys, tmp_path: Path) -> None:
    """Bob's phone and Alice's own phone ask waD again; nobody else gets anything twice."""
    async with talking(baileys, tmp_path) as talk:
        phones = [talk.sandbox.phone(ALICE), talk.sandbox.phone(BOB)]
        await talk.greet()
        for phone in phones:
            await phone.configure(online=True)
            await phone.wait_message(lambda one: one.text == "nice to meet you")
            assert await phone.drop_sessions() > 0
        message_id = await talk.said_by_alice("to whom it may concern")
        for phone in phones:
            found = await phone.wait_message(lambda one: one.text == "to whom it may concern")
            assert (found.id, found.copies) == (message_id, 1)
            assert {failure["id"] for failure in phone.phone.failures} == {message_id}
        sent = await phones[1].send(ALICE, "from the phone")
        await talk.alice.event("message:new", body="from the phone")
        await talk.sandbox.wait(lambda: sent.status >= 3)
        copies = [event for event in talk.bob.events if event.get("text") == "to whom it may concern"]
        assert len(copies) == 1


@pytest.mark.parametrize("second", ["baileys", "waD"])
async def test_two_devices_of_one_account(baileys: Baileys, tmp_path: Path, second: str) -> None:
    async with (
        run_sandbox() as sandbox,
        running(tmp_path / "waD", sandbox) as alice,
        baileys(sandbox, tmp_path / "sibling", pushName="Alice") as sibling,
    ):
        own, bob = sandbox.phone(ALICE, "Alice"), sandbox.phone(BOB, "Bob")
        if second == "baileys":
            await alice.pair(sandbox)
            await pair(sibling, sandbox, ALICE)
            its_device, sibling_device = own.phone.account.companions
        else:
            await pair(sibling, sandbox, ALICE)
            await alice.pair(sandbox)
            sibling_device, its_device = own.phone.account.companions
        await bob.send(ALICE, "to both")
        await sibling.text("to both")
        await alice.event("message:new", body="to both", fromMe=False)
        for n in range(3):
            message_id = await alice.send(BOB, f"from waD {n}")
            copy = await sibling.text(f"from waD {n}")
            assert copy["key"]["id"] == message_id
            assert (copy["key"]["fromMe"], copy["key"]["remoteJid"]) == (True, bob.lid)
            message_id = await sibling.send(bob.lid, f"from baileys {n}")
            event = await alice.event("message:new", body=f"from baileys {n}")
            assert event["data"]["messageId"] == message_id
            assert (event["data"]["fromMe"], event["data"]["chat"]) == (True, bob.lid)
            assert event["data"]["sender"] == own.lid
        # Damage on the way between the two: each asks its sibling again.
        sandbox.fault("corrupt-enc", its_device.key)
        message_id = await sibling.send(bob.lid, "a damaged copy for waD")
        await resolved(alice, message_id, "a damaged copy for waD", fromMe=True, chat=bob.lid)
        sandbox.fault("corrupt-enc", sibling_device.key)
        await alice.send(BOB, "a damaged copy for baileys")
        copy = await sibling.text("a damaged copy for baileys")
        assert (copy["key"]["fromMe"], copy["key"]["remoteJid"]) == (True, bob.lid)
        # To oneself: from waD only, for Baileys lists each own device twice, and the server does not take that.
        await alice.send(ALICE, "note from waD")
        assert (await sibling.text("note from waD"))["key"]["fromMe"] is True
        texts = [one.text for one in bob.messages()]
        assert len(texts) == len(set(texts)) == 9
        await healthy(sandbox, alice)
        assert sibling.crashes == []


async def test_everything_comes_twice(baileys: Baileys, tmp_path: Path) -> None:
    """To waD only: what is doubled makes Baileys ask for it again, although it has it."""
    async with talking(baileys, tmp_path) as talk:
        device = talk.sandbox.device(ALICE)
        talk.sandbox.fault("duplicate", device.key, count=0)
        await talk.greet()
        for n in range(10):
            await talk.said_by_alice(f"twice to bob {n}")
            message_id = await talk.said_by_bob(f"twice to alice {n}")
            assert talk.sandbox.core.world.deliveries.count(device.key, message_id) == 1
        await drained(talk.sandbox, ALICE)
        assert retries(talk.sandbox, device) == []


async def test_changed_order(baileys: Baileys, tmp_path: Path) -> None:
    """What waits at the server goes out in another order than it came, and to waD twice as well."""
    async with talking(baileys, tmp_path) as talk:
        await talk.greet()
        devices = [talk.sandbox.device(ALICE), talk.sandbox.device(BOB)]
        for device in devices:
            talk.sandbox.fault("stall", device.key, mode="queue")
        ids = [await talk.alice.send(BOB, f"shuffled for bob {n}") for n in range(10)]
        for n in range(10):
            await talk.bob.send(talk.alice_lid, f"shuffled for alice {n}")
        await talk.alice.wait(ids[-1], "sent")
        talk.sandbox.fault("duplicate", devices[0].key, count=0)
        for device in devices:
            talk.sandbox.fault("reorder", device.key, count=0)
            talk.sandbox.fault("resume", device.key)
        for n in range(10):
            await talk.bob.text(f"shuffled for bob {n}")
            await talk.alice.event("message:new", body=f"shuffled for alice {n}")
        talk.sandbox.core.world.faults.clear()
        received = [text for text in await bodies(talk.alice) if text and text.startswith("shuffled")]
        assert received != sorted(received)
        assert len(talk.bob.texts) == len(set(talk.bob.texts))
        await talk.said_by_alice("in order")
        await talk.said_by_bob("in order, too")


async def test_baileys_is_linked_anew(baileys: Baileys, tmp_path: Path) -> None:
    """Another device of the same phone: nothing about Bob himself has changed."""
    async with linked_waD(tmp_path) as (sandbox, alice):
        async with at_bobs(baileys, sandbox, tmp_path / "bob") as bob:
            await Talk(sandbox, alice, bob).greet()
        await sandbox.phone(BOB).unlink(sandbox.device(BOB).id)
        async with at_bobs(baileys, sandbox, tmp_path / "bob again") as bob:
            talk = Talk(sandbox, alice, bob)
            await talk.said_by_bob("a new device")
            await talk.said_by_alice("as good as the old one")
        assert await alice.events("identity:changed") == []


@pytest.mark.parametrize("first", ["alice", "bob"])
async def test_bob_has_a_new_phone(baileys: Baileys, tmp_path: Path, first: str) -> None:
    async with linked_waD(tmp_path) as (sandbox, alice):
        phone = sandbox.phone(BOB)
        async with at_bobs(baileys, sandbox, tmp_path / "bob") as bob:
            await Talk(sandbox, alice, bob).greet()
            await phone.change_identity()
            await bob.wait_for("closed", code=401)
        async with at_bobs(baileys, sandbox, tmp_path / "bob again") as bob:
            talk = Talk(sandbox, alice, bob)
            await alice.event("identity:changed", user=phone.lid)
            if first == "bob":
                await talk.said_by_bob("new phone, new me")
                await talk.said_by_alice("congratulations")
            else:
                await talk.said_by_alice("is it you?")
                await talk.said_by_bob("it is me")
        await phone.configure(online=True)
        await phone.send(ALICE, "from the new phone")
        await alice.event("message:new", body="from the new phone")
        changes = [event["data"] for event in await alice.events("identity:changed")]
        assert changes == [{"user": phone.lid, "implicit": False}]


async def test_two_hundred_each_way(baileys: Baileys, tmp_path: Path) -> None:
    """With Baileys by turns, because it uses keys twice when it sends and receives at once; with a phone at once."""
    async with talking(baileys, tmp_path) as talk:
        alice, bob, carol = talk.alice, talk.bob, talk.sandbox.phone(CAROL, "Carol")
        await talk.greet()
        mine = [f"to bob {n}" for n in range(200)]
        theirs = [f"from bob {n}" for n in range(200)]
        ids: list[str] = []

        async def alice_sends(to: str, texts: list[str]) -> None:
            async with alice.client() as control:
                for text in texts:
                    sent = await control.call("message.send", session="alerts", to=to, text=text)
                    ids.append(sent["messageId"])

        async def carol_sends() -> None:
            for n in range(200):
                await carol.send(ALICE, f"from carol {n}")

        async def by_turns() -> None:
            for start in range(0, 200, 20):
                await alice_sends(BOB, mine[start : start + 20])
                await bob.text(mine[start + 19])
                for text in theirs[start : start + 20]:
                    await bob.send(talk.alice_lid, text)
                await alice.event("message:new", body=theirs[start + 19])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(by_turns)
            nursery.start_soon(carol_sends)
            nursery.start_soon(alice_sends, CAROL, [f"to carol {n}" for n in range(200)])
        await talk.said_by_alice("the last one")
        await drained(talk.sandbox, ALICE)
        told = await alice.events("message:status")
        assert len(ids) == 400
        assert set(ids) <= {one["data"]["messageId"] for one in told if one["data"]["status"] == "delivered"}
        assert [text for text in bob.texts if text.startswith("to bob")] == mine
        received = await bodies(alice)
        assert [text for text in received if text and text.startswith("from bob")] == theirs
        assert [text for text in received if text and text.startswith("from carol")] == [
            f"from carol {n}" for n in range(200)
        ]
        assert [one.text for one in carol.messages() if not one.from_me] == [
            f"to carol {n}" for n in range(200)
        ]
        assert await alice.events("message:update") == []
