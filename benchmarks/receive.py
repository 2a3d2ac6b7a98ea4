"""A queue of 5,000 encrypted messages drained by one session: waD with its store, Baileys with its file store.

The clock runs from the order to connect until the server's queue is empty: everything durable and acknowledged.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import trio

from benchmarks.processes import cpu_seconds
from tests.e2e.daemon import ALICE, BOB, CAROL, running
from tests.interop import npm
from tests.interop.baileys_client import start_client
from tests.interop.conftest import connect_client, pair
from waD.sandbox import Sandbox, run_sandbox

MESSAGES = 5000
TEXT = "message {n} of a night in which the disk of db1 filled up"
WAIT_S = 900.0


async def _drained(sandbox: Sandbox, number: str, pid: int, connect: Any) -> dict[str, float]:
    device = sandbox.device(number)
    await sandbox.wait(lambda: device.link is None)
    await sandbox.phone(BOB).send_many(number, MESSAGES, TEXT)
    before, start = cpu_seconds(pid), time.perf_counter()
    await connect()
    await sandbox.wait(lambda: device.link is not None and not device.queue, WAIT_S)
    spent = time.perf_counter() - start
    cpu = cpu_seconds(pid) - before
    return {
        "seconds": round(spent, 2),
        "perSecond": round(MESSAGES / spent),
        "perCpuSecond": round(MESSAGES / cpu),
    }


async def _ours(sandbox: Sandbox, directory: Path) -> dict[str, float]:
    async with running(directory, sandbox) as daemon:
        await daemon.pair(sandbox, ALICE)
        await daemon.call("session.disconnect", name="alerts")
        assert daemon.process is not None

        async def connect() -> None:
            await daemon.call("session.connect", name="alerts")

        found = await _drained(sandbox, ALICE, daemon.process.pid, connect)
        await daemon.event("message:new", body=TEXT.replace("{n}", str(MESSAGES)))
        return found


async def _theirs(sandbox: Sandbox, directory: Path) -> dict[str, float]:
    modules = npm.install_baileys()
    async with start_client(npm.find_node().node, modules, {**os.environ, "NO_COLOR": "1"}) as client:
        await connect_client(client, sandbox, directory)
        await pair(client, sandbox, CAROL)
        await client.command("close")

        async def connect() -> None:
            await connect_client(client, sandbox, directory)

        return await _drained(sandbox, CAROL, client.pid, connect)


async def _both() -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="waD-bench-") as directory:
        async with run_sandbox() as sandbox:
            ours = await _ours(sandbox, Path(directory) / "waD")
            theirs = await _theirs(sandbox, Path(directory) / "baileys")
    return {
        "messages": MESSAGES,
        "goal": {"ratio": 2.0, "perSecond": 1000},
        "ours": ours,
        "peer": theirs,
        "ratio": round(ours["perSecond"] / theirs["perSecond"], 2),
    }


def run() -> dict[str, Any]:
    """Messages in a second until all are durable and acknowledged."""
    return trio.run(_both)
