"""The main job: link, send, receive, survive."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.e2e.daemon import ALICE, BOB, Refused, running
from waD.sandbox import run_sandbox


async def test_links_sends_and_receives(tmp_path: Path) -> None:
    async with run_sandbox() as sandbox, running(tmp_path, sandbox) as daemon:
        view = await daemon.pair(sandbox)
        own = sandbox.phone(ALICE)
        assert view["paired"]
        assert view["me"] == own.lid
        assert view["healthy"] is True
        states = [event["data"]["status"] for event in await daemon.events("connection:status")]
        assert list(dict.fromkeys(states)) == ["connecting", "pairing", "open"] or set(states) == {
            "connecting",
            "pairing",
            "open",
        }
        bob = sandbox.phone(BOB, "Bob")
        message_id = await daemon.send(f"+{BOB}", "disk full on db1")
        assert await daemon.wait(message_id) == "delivered"
        arrived = await bob.wait_message(lambda one: one.text == "disk full on db1")
        assert arrived.sender.startswith(f"{ALICE}:") or arrived.sender.startswith(own.lid.partition("@")[0])
        copy = await own.wait_message(lambda one: one.text == "disk full on db1")
        assert copy.from_me
        await bob.read(own.jid, [message_id])
        assert await daemon.wait(message_id, "read") == "read"
        sent = await bob.send(ALICE, "on my way")
        event = await daemon.event("message:new", body="on my way")
        assert event["session"] == "alerts"
        assert event["connectionId"] == view["connectionId"]
        assert event["data"]["fromMe"] is False
        assert event["data"]["chat"] == bob.lid
        await sandbox.wait(lambda: sent.status >= 3)
        await daemon.call("message.read", session="alerts", chat=BOB, ids=[sent.id])
        await sandbox.wait(lambda: sent.status >= 4)
        history = (await daemon.call("message.list", session="alerts", chat=BOB))["messages"]
        assert [(row["body"], row["fromMe"]) for row in history] == [
            ("on my way", False),
            ("disk full on db1", True),
        ]
        assert sandbox.core.world.keys.report()["reused"] == []
        assert sandbox.core.world.complaints() == []
        assert await daemon.stop() == 0


async def test_restores_the_session_without_a_code(tmp_path: Path) -> None:
    async with run_sandbox() as sandbox, running(tmp_path, sandbox) as daemon:
        before = await daemon.pair(sandbox)
        assert await daemon.stop() == 0
        bob = sandbox.phone(BOB)
        await bob.send_many(ALICE, 20, "while away {n}")
        await daemon.start()
        after = await daemon.until("open", ready=True)
        assert after["connectionId"] == before["connectionId"]
        await daemon.event("message:new", body="while away 20")
        bodies = [event["data"]["body"] for event in await daemon.events("message:new")]
        assert bodies == [f"while away {n}" for n in range(1, 21)]
        device = sandbox.device(ALICE)
        await sandbox.wait(lambda: not device.queue)


async def test_sends_while_down_leave_when_up(tmp_path: Path) -> None:
    async with run_sandbox() as sandbox, running(tmp_path, sandbox) as daemon:
        bob = sandbox.phone(BOB)
        await daemon.pair(sandbox)
        await daemon.call("session.disconnect", name="alerts")
        ids = [await daemon.send(BOB, f"queued {n}", idempotencyKey=f"key-{n}") for n in range(5)]
        again = await daemon.call(
            "message.send", session="alerts", to=BOB, text="something else", idempotencyKey="key-3"
        )
        assert (again["messageId"], again["duplicate"]) == (ids[3], True)
        assert (await daemon.status())["queued"] == 5
        await daemon.call("session.connect", name="alerts")
        for message_id in ids:
            assert await daemon.wait(message_id) == "delivered"
        await bob.wait_message(lambda one: one.text == "queued 4")
        assert [one.text for one in bob.messages()] == [f"queued {n}" for n in range(5)]


async def test_refusals_say_what_is_wrong(tmp_path: Path) -> None:
    async with run_sandbox() as sandbox, running(tmp_path, sandbox) as daemon:
        with pytest.raises(Refused) as unknown:
            await daemon.send(BOB, "hi", name="nobody")
        assert unknown.value.symbol == "no_such_session"
        await daemon.pair(sandbox)
        for text, symbol in (("", "invalid_text"), ("x" * 65_537, "invalid_text")):
            with pytest.raises(Refused) as refused:
                await daemon.send(BOB, text)
            assert refused.value.symbol == symbol
        message_id = await daemon.send("+15559999999", "is anybody there")
        with pytest.raises(Refused) as nobody:
            await daemon.wait(message_id, "sent")
        assert nobody.value.symbol in ("refused", "not_on_whatsapp")
        failed = await daemon.event("message:status", messageId=message_id)
        assert failed["data"]["status"] == "failed"


async def test_logs_out_and_pairs_again_with_the_same_id(tmp_path: Path) -> None:
    async with run_sandbox() as sandbox, running(tmp_path, sandbox) as daemon:
        first = await daemon.pair(sandbox)
        await sandbox.phone(BOB).send(ALICE, "before")
        await daemon.event("message:new", body="before")
        done = await daemon.call("session.logout", name="alerts")
        assert done["unlinked"] is True
        await sandbox.wait(lambda: not sandbox.phone(ALICE).phone.account.companions)
        second = await daemon.pair(sandbox)
        assert second["connectionId"] == first["connectionId"]
        history = (await daemon.call("message.list", session="alerts"))["messages"]
        assert [row["body"] for row in history] == ["before"]
        await sandbox.phone(BOB).send(ALICE, "after")
        await daemon.event("message:new", body="after")


async def test_many_sessions_at_once(tmp_path: Path) -> None:
    async with run_sandbox() as sandbox, running(tmp_path, sandbox) as daemon:
        bob = sandbox.phone(BOB)
        names = [f"s{n}" for n in range(6)]
        for number, name in enumerate(names):
            await daemon.pair(sandbox, f"1555000010{number}", name)
        ids: dict[str, str] = {}

        async def send(name: str) -> None:
            ids[name] = await daemon.send(BOB, f"from {name}", name=name)
            assert await daemon.wait(ids[name], name=name) == "delivered"

        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(send, name)
        assert {one.text for one in bob.messages()} == {f"from {name}" for name in names}
