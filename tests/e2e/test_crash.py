"""SIGKILL at every marked step: nothing is lost, nothing comes twice, no key is used twice (chapter 03 §8.6)."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from tests.e2e.daemon import ALICE, BOB, WAIT_S, Daemon, Refused, running
from waD.sandbox import Sandbox, run_sandbox

RECEIVE = ("receive.before_commit", "receive.after_commit", "receive.after_answers")
SEND = (
    "send.before_commit",
    "send.after_commit",
    "send.after_write",
    "send.before_ack_commit",
    "send.after_ack_commit",
)
PAIR = ("pair.before_commit", "pair.after_commit", "pair.after_send")
MESSAGES = 6
KILLED = -signal.SIGKILL
POLL_S = 0.02


def alive(daemon: Daemon) -> bool:
    return daemon.process is not None and daemon.process.poll() is None


async def drained_or_dead(daemon: Daemon, sandbox: Sandbox) -> None:
    """Wait until the daemon has taken everything that waited for it, or is gone."""
    device = sandbox.device(ALICE)
    with trio.fail_after(WAIT_S):
        while alive(daemon) and (device.link is None or device.queue):  # noqa: ASYNC110 - a process has no event
            await trio.sleep(POLL_S)


@pytest.mark.parametrize("passage", [1, 2, 4])
@pytest.mark.parametrize("step", RECEIVE)
async def test_killed_while_receiving(tmp_path: Path, step: str, passage: int) -> None:
    async with run_sandbox() as sandbox, running(tmp_path, sandbox) as daemon:
        await daemon.pair(sandbox)
        await daemon.stop()
        bob = sandbox.phone(BOB)
        await bob.send(ALICE, "0")
        await daemon.start(crash_at=f"{step}:{passage}", wait=False)
        for number in range(1, MESSAGES):
            await drained_or_dead(daemon, sandbox)
            await bob.send(ALICE, str(number))
        assert await daemon.ended() == KILLED
        await daemon.start()
        await daemon.event("message:new", body=str(MESSAGES - 1))
        await daemon.until("open", ready=True)
        bodies = [event["data"].get("body") for event in await daemon.events("message:new")]
        assert bodies == [str(n) for n in range(MESSAGES)]
        device = sandbox.device(ALICE)
        await sandbox.wait(lambda: not device.queue)
        assert sandbox.core.world.keys.report()["reused"] == []


@pytest.mark.parametrize("passage", [1, 2])
@pytest.mark.parametrize("step", SEND)
async def test_killed_while_sending(tmp_path: Path, step: str, passage: int) -> None:
    """First a queue that leaves with one commit, then messages one at a time."""
    async with run_sandbox() as sandbox, running(tmp_path, sandbox) as daemon:
        bob = sandbox.phone(BOB)
        await daemon.pair(sandbox)
        await daemon.wait(await daemon.send(BOB, "first contact"))
        await daemon.call("session.disconnect", name="alerts")
        for number in range(MESSAGES):
            await daemon.send(BOB, f"queued {number}")
        await daemon.stop()
        await daemon.start(crash_at=f"{step}:{passage}")
        with suppress(EOFError, OSError, trio.BrokenResourceError, Refused):
            await daemon.call("session.connect", name="alerts")
            for number in range(MESSAGES):
                message_id = await daemon.send(BOB, f"online {number}", idempotencyKey=f"online {number}")
                await daemon.wait(message_id, "sent")
        assert await daemon.ended() == KILLED
        await daemon.start()
        for number in range(MESSAGES):
            message_id = await daemon.send(BOB, f"online {number}", idempotencyKey=f"online {number}")
            assert await daemon.wait(message_id) == "delivered"
        texts = [one.text for one in bob.messages()]
        queued = [f"queued {n}" for n in range(MESSAGES)]
        assert texts == ["first contact", *queued, *(f"online {n}" for n in range(MESSAGES))]
        assert sandbox.core.world.keys.report()["reused"] == []


@pytest.mark.parametrize("step", PAIR)
async def test_killed_while_pairing(tmp_path: Path, step: str) -> None:
    async with run_sandbox() as sandbox, running(tmp_path, sandbox) as daemon:
        await daemon.stop()
        await daemon.start(crash_at=step)
        with suppress(EOFError, OSError, AssertionError, trio.BrokenResourceError):
            await daemon.pair(sandbox)
        assert await daemon.ended() == KILLED
        bob = sandbox.phone(BOB)
        await daemon.start()
        if step == "pair.after_send":
            await daemon.until("open", ready=True)
        else:
            # The phone never heard of this device, so that even committed credentials are refused: a new code comes.
            await daemon.until("pairing")
            await daemon.pair(sandbox)
        message_id = await daemon.send(BOB, "linked after all")
        assert await daemon.wait(message_id) == "delivered"
        assert [one.text for one in bob.messages()] == ["linked after all"]
