"""`wactl status --json` from start to end, beside a Python that does nothing."""

from __future__ import annotations

import resource
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


def _milliseconds(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Median of the time that passes, and mean of the processor time."""
    times = []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(RUNS):
        start = time.perf_counter()
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        times.append((time.perf_counter() - start) * 1000)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return round(statistics.median(times), 1), round(cpu / RUNS * 1000, 1)


async def _measure() -> dict[str, Any]:
    wactl = str(Path(sys.executable).with_name("wactl"))
    with tempfile.TemporaryDirectory(prefix="waD-bench-") as directory:
        async with run_sandbox() as sandbox, running(Path(directory), sandbox) as daemon:
            await daemon.pair(sandbox)
            environment = daemon.environment
            timed = partial(trio.to_thread.run_sync, _milliseconds)
            status, status_cpu = await timed([wactl, "status", "alerts", "--json"], environment)
            bare, bare_cpu = await timed([sys.executable, "-c", "pass"], environment)
    return {
        "goal": {"statusMs": 120},
        "statusMs": status,
        "statusCpuMs": status_cpu,
        "pythonMs": bare,
        "pythonCpuMs": bare_cpu,
        "ratio": round(status / bare, 2),
    }


def run() -> dict[str, Any]:
    """Milliseconds; on a machine with other work the processor time tells more."""
    return trio.run(_measure)
