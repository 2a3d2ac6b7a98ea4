"""`wactl status --json` from start to end, beside a Python that does nothing."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import trio

from tests.e2e.daemon import running
from waD.sandbox import run_sandbox

RUNS = 30


def _milliseconds(command: list[str], environment: dict[str, str]) -> float:
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        times.append((time.perf_counter() - start) * 1000)
    return round(statistics.median(times), 1)


async def _measure() -> dict[str, Any]:
    wactl = str(Path(sys.executable).with_name("wactl"))
    with tempfile.TemporaryDirectory(prefix="waD-bench-") as directory:
        async with run_sandbox() as sandbox, running(Path(directory), sandbox) as daemon:
            await daemon.pair(sandbox)
            environment = daemon.environment
            timed = partial(trio.to_thread.run_sync, _milliseconds)
            status = await timed([wactl, "status", "alerts", "--json"], environment)
            bare = await timed([sys.executable, "-c", "pass"], environment)
    return {"goal": {"statusMs": 120}, "statusMs": status, "pythonMs": bare, "ratio": round(status / bare, 2)}


def run() -> dict[str, Any]:
    """Median milliseconds."""
    return trio.run(_measure)
