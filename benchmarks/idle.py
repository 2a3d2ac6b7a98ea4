"""Resident memory of the daemon with no, some and many open sessions, and how long all take to open after a start."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import trio

from benchmarks.processes import resident_mb
from tests.e2e.daemon import Daemon, running
from waD.sandbox import Sandbox, run_sandbox

STEPS = (0, 50, 200)
SETTLE_S = 5.0


async def _fill(daemon: Daemon, sandbox: Sandbox, wanted: int, have: int) -> None:
    for number in range(have, wanted):
        await daemon.pair(sandbox, f"1555001{number:04}", f"s{number}")


async def _measure() -> dict[str, Any]:
    found: dict[str, float] = {}
    opened: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="waD-bench-") as directory:
        async with run_sandbox() as sandbox, running(Path(directory), sandbox) as daemon:
            have = 0
            for wanted in STEPS:
                await _fill(daemon, sandbox, wanted, have)
                have = wanted
                # Pairing leaves garbage that a daemon in use does not have: measure a restarted one.
                await daemon.stop()
                began = trio.current_time()
                await daemon.start()
                for number in range(wanted):
                    await daemon.until("open", f"s{number}")
                opened[str(wanted)] = round(trio.current_time() - began, 2)
                for number in range(wanted):
                    await daemon.until("open", f"s{number}", ready=True)
                await trio.sleep(SETTLE_S)
                assert daemon.process is not None
                found[str(wanted)] = round(resident_mb(daemon.process.pid), 1)
    most = STEPS[-1]
    return {
        "goal": {"emptyMb": 60, "perSessionMb": 1.0},
        "residentMb": found,
        "secondsToAllOpen": opened,
        "perSessionMb": round((found[str(most)] - found["0"]) / most, 3),
    }


def run() -> dict[str, Any]:
    """MB with each number of sessions, what one costs, and seconds from the start to the last one open."""
    return trio.run(_measure)
