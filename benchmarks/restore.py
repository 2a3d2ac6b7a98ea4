"""Two hundred sessions: how fast they open, how late the daemon's loop is under load, what faults leave in memory.

The sandbox runs in the process of the benchmark; its share of the processor time of a restore is told beside.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import trio

from benchmarks.processes import cpu_seconds, resident_mb
from tests.e2e.crowd import make_crowd, name_of, phone_of
from tests.e2e.daemon import BOB, Daemon, running
from waD.sandbox import Sandbox, run_sandbox

SESSIONS: Final = 200
RESTORES: Final = 3
FAULTS: Final = 10_000
WARM_UP: Final = 3 * SESSIONS
LOOK_EVERY: Final = 2_000
ROUND: Final = 50
"""Faults between two waits for everybody to be back."""
KINDS: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("close", {}),
    ("close", {"frame": False}),
    ("stream-end", {}),
    ("stream-error", {"code": 515}),
    ("stream-error", {"code": 599}),
)
TALKERS: Final = 50
LOAD_S: Final = 20.0
WAIT_S: Final = 600.0
# A limit on attempts and long delays would only measure the policy.
MORE: Final = """
attempts = 1000
max = 1
stable_after = 1
[alerts]
reconnects = 1000
[control]
max_clients = 200
max_clients_per_user = 200
[daemon]
restore_spread = 0
"""

_PING: Final = """
import json, socket, sys, time
one = socket.socket(socket.AF_UNIX)
one.connect(sys.argv[1])
found, stream, number = [], one.makefile("rwb"), 0
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    number += 1
    start = time.perf_counter()
    stream.write(json.dumps({"jsonrpc": "2.0", "id": number, "method": "daemon.ping", "params": {}}).encode() + b"\\n")
    stream.flush()
    while json.loads(stream.readline()).get("id") != number:
        pass
    found.append((time.perf_counter() - start) * 1000)
    time.sleep(0.005)
json.dump(found, sys.stdout)
"""
"""In a process of its own, so that the sandbox's work is not taken for the daemon's."""


def _all_open(sandbox: Sandbox) -> bool:
    links = [sandbox.device(phone_of(number)).link for number in range(SESSIONS)]
    return all(link is not None and link.active for link in links)


async def _ready(daemon: Daemon, sandbox: Sandbox) -> None:
    await sandbox.wait(lambda: _all_open(sandbox), WAIT_S)
    with trio.fail_after(WAIT_S):
        while True:
            listed = (await daemon.call("session.list"))["sessions"]
            if all(one["state"] == "open" and one["ready"] for one in listed):
                return
            await trio.sleep(0.2)


async def _restore(daemon: Daemon, sandbox: Sandbox) -> dict[str, float]:
    await sandbox.wait(lambda: not any(sandbox.device(phone_of(n)).link for n in range(SESSIONS)), WAIT_S)
    own, start = time.process_time(), time.perf_counter()
    await daemon.start(wait=False)
    assert daemon.process is not None
    await sandbox.wait(lambda: _all_open(sandbox), WAIT_S)
    seconds = time.perf_counter() - start
    theirs = cpu_seconds(daemon.process.pid)
    own = time.process_time() - own
    await daemon.answers()
    await _ready(daemon, sandbox)
    return {
        "seconds": round(seconds, 2),
        "daemonCpuSeconds": round(theirs, 2),
        "sandboxCpuSeconds": round(own, 2),
        "sandboxShare": round(own / (own + theirs), 2),
    }


async def _write(daemon: Daemon, sandbox: Sandbox, number: int) -> None:
    """Messages both ways, one after the other, until cancelled."""
    bob, n = sandbox.phone(BOB), 0
    while True:
        n += 1
        await bob.send(phone_of(number), f"in {n}")
        await daemon.wait(await daemon.send(BOB, f"out {n}", name_of(number)), "sent", name_of(number))


async def _lag(daemon: Daemon, sandbox: Sandbox) -> dict[str, float]:
    """How long a ping of the control socket takes while sessions talk."""
    command = [sys.executable, "-c", _PING, str(daemon.socket), str(LOAD_S)]
    before = (await daemon.call("daemon.info"))["lastCursor"]
    async with trio.open_nursery() as nursery:
        for number in range(TALKERS):
            nursery.start_soon(_write, daemon, sandbox, number)
        done = await trio.run_process(command, capture_stdout=True, stderr=subprocess.DEVNULL)
        nursery.cancel_scope.cancel()
    times = sorted(map(float, done.stdout.decode().strip("[]").split(",")))
    events = (await daemon.call("daemon.info"))["lastCursor"] - before
    return {
        "pings": len(times),
        "eventsPerSecond": round(events / LOAD_S),
        "p50Ms": round(times[len(times) // 2], 2),
        "p99Ms": round(times[int(len(times) * 0.99)], 2),
        "maxMs": round(times[-1], 2),
    }


async def _break(daemon: Daemon, sandbox: Sandbox, first: int, count: int) -> None:
    for number in range(first, first + count):
        device = sandbox.device(phone_of(number % SESSIONS))
        logins = device.record.logins
        kind, details = KINDS[number % len(KINDS)]
        sandbox.fault(kind, device.key, **details)
        if number % ROUND == ROUND - 1:
            await sandbox.wait(lambda device=device, logins=logins: device.record.logins > logins, WAIT_S)
            await sandbox.wait(lambda: _all_open(sandbox), WAIT_S)
    await _ready(daemon, sandbox)


async def _memory(daemon: Daemon, sandbox: Sandbox) -> dict[str, Any]:
    """Resident memory before and after; every session has been through a few faults before the first look."""
    assert daemon.process is not None
    pid = daemon.process.pid
    await _break(daemon, sandbox, 0, WARM_UP)
    before = after = resident_mb(pid)
    start, between = time.perf_counter(), []
    for first in range(0, FAULTS, LOOK_EVERY):
        await _break(daemon, sandbox, WARM_UP + first, LOOK_EVERY)
        after = resident_mb(pid)
        between.append(round(after, 1))
    seconds = time.perf_counter() - start
    return {
        "faults": FAULTS,
        "seconds": round(seconds, 1),
        "beforeMb": round(before, 1),
        "betweenMb": between,
        "afterMb": round(after, 1),
        "growth": round(after / before - 1, 4),
    }


async def _measure() -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="waD-bench-") as directory:
        async with run_sandbox() as sandbox:
            start = time.perf_counter()
            await make_crowd(Path(directory), sandbox, SESSIONS)
            pairing = time.perf_counter() - start
            async with running(Path(directory), sandbox, more=MORE) as daemon:
                await _ready(daemon, sandbox)
                restores = []
                for _ in range(RESTORES):
                    await daemon.stop()
                    restores.append(await _restore(daemon, sandbox))
                lag = await _lag(daemon, sandbox)
                memory = await _memory(daemon, sandbox)
    return {
        "goal": {"seconds": 60, "p99Ms": 50, "growth": 0.05},
        "sessions": SESSIONS,
        "processors": os.cpu_count(),
        "pairingSeconds": round(pairing, 1),
        "restore": min(restores, key=lambda one: one["seconds"]),
        "restores": restores,
        "lag": lag,
        "memory": memory,
    }


def run() -> dict[str, Any]:
    """Seconds, milliseconds, MB."""
    return trio.run(_measure)
