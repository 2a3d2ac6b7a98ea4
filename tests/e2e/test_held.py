"""Messages that were on their way when credentials were cleared: held, then released or cancelled by the operator."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.daemon import ALICE, BOB, Daemon, Refused, running
from waD.sandbox import run_sandbox


async def states(daemon: Daemon) -> dict[str, str]:
    """States of the outbox by message id."""
    every = ["queued", "held", "sending", "sent", "failed", "expired", "cancelled"]
    page = await daemon.call("outbox.list", session="alerts", states=every, limit=500)
    return {row["messageId"]: row["state"] for row in page["messages"]}


async def test_a_reset_holds_and_the_operator_decides(tmp_path: Path) -> None:
    """Pair, unlink with messages on their way, pair again: nothing leaves by itself, what is released leaves once."""
    async with run_sandbox() as sandbox, running(tmp_path, sandbox) as daemon:
        await daemon.pair(sandbox)
        bob = sandbox.phone(BOB)
        await daemon.wait(await daemon.send(BOB, "before"))
        sandbox.fault("stall", ALICE, mode="send")
        written = await daemon.send(BOB, "written, not acknowledged")
        await bob.wait_message(lambda message: message.text == "written, not acknowledged")
        assert (await states(daemon))[written] == "sending"
        await daemon.call("session.disconnect", name="alerts")
        released, cancelled, last = [
            await daemon.send(BOB, text) for text in ("released", "cancelled", "last")
        ]
        await daemon.call("session.logout", name="alerts")
        view = await daemon.status()
        assert (view["queued"], view["heldMessages"]) == (0, 4)
        found = await states(daemon)
        assert {found[one] for one in (written, released, cancelled, last)} == {"held"}

        # They can be decided about with nobody connected, also after another process has taken the session up.
        assert await daemon.stop() == 0
        await daemon.start()
        done = await daemon.call("outbox.cancel", session="alerts", ids=[cancelled])
        assert (done["count"], done["messageIds"]) == (1, [cancelled])
        await daemon.pair(sandbox)
        await daemon.wait(await daemon.send(BOB, "after"))
        assert (await states(daemon))[released] == "held"
        assert all(message.text not in ("released", "last") for message in bob.messages())

        await daemon.call("outbox.release", session="alerts", ids=[released])
        assert await daemon.wait(released) in ("delivered", "read")
        await daemon.call("outbox.release", session="alerts", all=True)
        for message_id in (written, last):
            assert await daemon.wait(message_id) in ("delivered", "read")
        texts = Counter(message.text for message in bob.messages() if not message.from_me)
        assert texts == Counter(["before", "written, not acknowledged", "released", "last", "after"])
        assert sandbox.core.world.keys.report()["reused"] == []

        view = await daemon.status()
        assert (view["queued"], view["heldMessages"]) == (0, 0)
        news = await daemon.events("message:status")
        told = [one["data"]["status"] for one in news if one["data"]["messageId"] == released]
        assert told[:2] == ["queued", "sent"]
        assert [one["data"]["status"] for one in news if one["data"]["messageId"] == cancelled] == [
            "cancelled"
        ]
        with pytest.raises(Refused) as refused:
            await daemon.wait(cancelled)
        assert refused.value.symbol == "refused"
        with pytest.raises(Refused) as too_late:
            await daemon.call("outbox.release", session="alerts", ids=[cancelled])
        assert too_late.value.symbol == "wrong_state"


async def test_a_queued_message_is_cancelled_before_it_leaves(tmp_path: Path) -> None:
    async with run_sandbox() as sandbox, running(tmp_path, sandbox) as daemon:
        await daemon.pair(sandbox)
        await daemon.call("session.disconnect", name="alerts")
        bob = sandbox.phone(BOB)
        gone, kept = [await daemon.send(BOB, text) for text in ("gone", "kept")]
        await daemon.call("outbox.cancel", session="alerts", ids=[gone])
        await daemon.call("session.connect", name="alerts")
        await daemon.wait(kept)
        assert [one.text for one in bob.messages()] == ["kept"]


async def test_history_is_found_by_number_after_the_account_was_paired_anew(tmp_path: Path) -> None:
    """What is filed under a LID is asked for by the phone number; that both are one outlives the credentials."""
    async with run_sandbox() as sandbox, running(tmp_path, sandbox) as daemon:
        await daemon.pair(sandbox)
        bob = sandbox.phone(BOB)
        await daemon.wait(await daemon.send(BOB, "before"))
        await bob.send(ALICE, "answer")
        await daemon.event("message:new", body="answer")
        before = await daemon.call("message.list", session="alerts", chat=BOB)
        assert sorted(one["body"] for one in before["messages"]) == ["answer", "before"]
        chat = before["messages"][0]["chat"]
        assert chat.endswith("@lid")

        await daemon.call("session.logout", name="alerts")
        for wanted in (BOB, f"{BOB}@s.whatsapp.net", chat):
            assert await daemon.call("message.list", session="alerts", chat=wanted) == before
        await daemon.pair(sandbox)
        assert await daemon.call("message.list", session="alerts", chat=BOB) == before
        await daemon.wait(await daemon.send(BOB, "after"))
        after = await daemon.call("message.list", session="alerts", chat=BOB)
        assert sorted(one["body"] for one in after["messages"]) == ["after", "answer", "before"]
        assert {one["chat"] for one in after["messages"]} == {chat}
