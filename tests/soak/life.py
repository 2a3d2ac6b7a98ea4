"""A long life of one session: messages both ways, strangers, faults; then what must not have grown.

Everything is counted twice: what was done is added up while it is done, and compared with what the log, the tables
and the heap say at the end.
"""

from __future__ import annotations

import gc
import os
import random
import sqlite3
import threading
import tracemalloc
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import trio

import waD
from tests.soak.inside import Inside, is_ready
from waD.link.prekeys import HIGH_WATERMARK
from waD.sandbox import Sandbox
from waD.sandbox.handles import PhoneHandle
from waD.wire.node import Node

ALICE: Final = "15550000001"
FIRST_FRIEND: Final = 15550000100
FIRST_STRANGER: Final = 15550010000
HOUR_S: Final = 3600.0
DAY_MS: Final = 86_400_000
PING_XMLNS: Final = "w:p"
LOW: Final = HIGH_WATERMARK - 20
"""The sandbox tells of few prekeys below this: every twenty strangers cost an upload."""
EXHAUSTED: Final = "exhaust-prekeys"
EXHAUSTIONS: Final = 2
ROOMS: Final = ("store", "events", "link", "messaging", "session")

RESTART: Final = 515
"""The server asks for a new connection: routine, not an error."""
BREAKS: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("close", {}),
    ("close", {"frame": False}),
    ("stream-error", {"code": RESTART}),
    ("stream-error", {"code": 503}),
    ("stream-end", {}),
    ("stall", {"mode": "send"}),
)
"""Faults that cost a connection, in turn."""
BEFORE_LOGIN: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("http", {"code": 503}),
    ("noise", {"mode": "garbage"}),
    ("noise", {"mode": "silent"}),
    ("failure", {"code": 503}),
)
"""Faults that meet the next login."""
NUISANCES: Final[tuple[str, ...]] = ("duplicate", "reorder", "corrupt-enc", "ib", "ping")


@dataclass(frozen=True)
class Plan:
    """How long, how much, how often.

    Attributes:
        hours: simulated time.
        messages: texts in both directions together, strangers' first words not counted.
        friends: people who write and are written to.
        strangers: people who write once, before the first look, …
        newcomers: … and after it, spread over the rest.
        look_at: hour of the first look at the heap.
        breaks: lost connections.
    """

    hours: int
    messages: int
    friends: int = 20
    strangers: int = 150
    newcomers: int = 60
    look_at: int = 2
    breaks: int = 12


@dataclass
class Tally:
    """What was done.

    Attributes:
        received: texts written to the session.
        sent: ids of messages that it sent.
        written_to: its texts, by the number of whom they went to.
        breaks: connections that were broken.
        errors: ends of connections and failed attempts that are reported as errors.
        stalls: connections on which the server fell silent.
        lost_prekeys: prekeys that the server lost without handing them out.
        strangers: people who wrote once.
    """

    received: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    written_to: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    breaks: int = 0
    errors: int = 0
    stalls: int = 0
    lost_prekeys: int = 0
    strangers: int = 0


class Traffic:
    """Counts what passes the server, instead of keeping it."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.seen: Counter[tuple[str, str]] = Counter()
        self.pings: list[float] = []
        self.answered = 0
        sandbox.core.world.note_traffic = self._note  # type: ignore[method-assign]

    def _note(self, direction: str, _: str, node: Node) -> None:
        self.seen[direction, node.tag] += 1
        if node.tag != "iq":
            return
        if direction == "in" and node.text("xmlns") == PING_XMLNS:
            self.pings.append(trio.current_time())
        elif direction == "out" and node.text("type") == "result" and "t" in node.attrs:
            self.answered += 1

    @property
    def unanswered(self) -> int:
        """Pings without an answer."""
        return len(self.pings) - self.answered

    def between(self, start_s: float, end_s: float) -> list[float]:
        """When it was pinged in that time."""
        return [at for at in self.pings if start_s <= at < end_s]


@dataclass(frozen=True)
class Look:
    """What a process has at a quiet moment."""

    objects: Counter[str]
    held: Counter[str]
    tasks: int
    files: int
    threads: int

    @classmethod
    def take(cls) -> Look:
        gc.collect()
        objects: Counter[str] = Counter()
        for one in gc.get_objects():
            objects[f"{type(one).__module__}.{type(one).__qualname__}"] += 1
        return cls(
            objects,
            _held_bytes() if tracemalloc.is_tracing() else Counter(),
            trio.lowlevel.current_statistics().tasks_living,
            len(os.listdir("/proc/self/fd")),
            sum(thread.name == "wad-writer" for thread in threading.enumerate()),
        )

    def growth(self, before: Look) -> dict[str, int]:
        """Of types that the daemon brings or uses, those with more objects than before; the sandbox's are left out."""
        return {
            name: count - before.objects[name]
            for name, count in self.objects.items()
            if count > before.objects[name]
            and name.startswith(("waD.", "trio", "_thread", "sqlite3", "h11", "wsproto", "google"))
            and not name.startswith("waD.sandbox")
        }

    def more_bytes(self, before: Look) -> int:
        """How many more are held than before, in all."""
        return sum(self.held.values()) - sum(before.held.values())


class Life:
    """Lives a plan; `run` it once."""

    def __init__(self, plan: Plan, daemon: Inside, sandbox: Sandbox) -> None:
        self.plan = plan
        self.daemon = daemon
        self.sandbox = sandbox
        self.traffic = Traffic(sandbox)
        self.tally = Tally()
        self.first: Look
        self.last: Look
        self.quiet: tuple[float, float] = (0.0, 0.0)
        self._random = random.Random(11)
        self.friends = [sandbox.phone(str(FIRST_FRIEND + n)) for n in range(plan.friends)]
        # All made now, so that their keys are not taken for growth of the daemon.
        count = plan.strangers + plan.newcomers + EXHAUSTIONS
        self._strangers = iter([sandbox.phone(str(FIRST_STRANGER + n)) for n in range(count)])
        self.alice = sandbox.phone(ALICE)

    async def run(self) -> None:
        """From pairing to the last quiet hour."""
        await self.daemon.pair(self.alice)
        await self._warm_up()
        self.first = await self._look()
        await self._live()
        await self._rest_an_hour()
        self.last = await self._look()

    async def _warm_up(self) -> None:
        """Everybody is met, and every bounded cache is full, before the first look."""
        plan = self.plan
        for _ in range(plan.strangers):
            await self._stranger()
            await trio.sleep(1)
        for number in range(round(plan.messages * 0.3)):
            await self._message(number)
            await trio.sleep(1)
        await trio.sleep_until(plan.look_at * HOUR_S)

    async def _live(self) -> None:
        """The rest of the messages and all faults, evenly."""
        for at, number, kind in self._schedule(trio.current_time(), (self.plan.hours - 1) * HOUR_S):
            await trio.sleep_until(at)
            await self._act(kind, number)

    def _schedule(self, begin: float, end: float) -> list[tuple[float, int, str]]:
        plan = self.plan
        done = len(self.tally.sent) + len(self.tally.received) - plan.strangers
        counts = {
            "message": plan.messages - done,
            "stranger": plan.newcomers,
            "break": plan.breaks,
            "exhaust": EXHAUSTIONS,
        }
        acts = []
        for kind, count in counts.items():
            step = (end - begin) / (count + 1)
            acts += [(begin + step * (n + self._random.random() * 0.9), n, kind) for n in range(1, count + 1)]
        return sorted(acts)

    async def _act(self, kind: str, number: int) -> None:
        if kind == "message":
            await self._message(number)
            if number % 7 == 0:
                self._nuisance(number // 7)
        elif kind == "stranger":
            await self._stranger()
        elif kind == "break":
            await self._break(number)
        else:
            self.tally.lost_prekeys += len(self.sandbox.device(ALICE).record.keys.one_time)
            self.sandbox.fault(EXHAUSTED, self._device)
            await self._stranger()

    async def _message(self, number: int) -> None:
        friend = self.friends[self._random.randrange(len(self.friends))]
        if number % 2:
            await self._from(friend)
        else:
            text = f"out {len(self.tally.sent)}"
            self.tally.sent.append(await self.daemon.send(friend.number, text))
            self.tally.written_to[friend.number].append(text)

    async def _from(self, phone: PhoneHandle) -> None:
        text = f"in {len(self.tally.received)}"
        self.tally.received.append(text)
        await phone.send(ALICE, text)

    async def _stranger(self) -> None:
        self.tally.strangers += 1
        await self._from(next(self._strangers))

    def _nuisance(self, number: int) -> None:
        kind = NUISANCES[number % len(NUISANCES)]
        if kind in ("ib", "ping") and self.sandbox.device(ALICE).link is None:
            return
        self.sandbox.fault(kind, self._device)

    async def _break(self, number: int) -> None:
        """Lose the connection, in many ways, and wait until it is back."""
        await self.daemon.until(is_ready)
        logins = self.sandbox.device(ALICE).record.logins
        if number % 3 == 0:
            kind, details = BEFORE_LOGIN[number // 3 % len(BEFORE_LOGIN)]
            self.tally.errors += 1
            self.sandbox.fault(kind, self._device if kind == "failure" else None, **details)
        kind, details = BREAKS[number % len(BREAKS)]
        self.sandbox.fault(kind, self._device, **details)
        self.tally.breaks += 1
        self.tally.errors += details.get("code") != RESTART
        self.tally.stalls += kind == "stall"
        await self.sandbox.wait(lambda: self.sandbox.device(ALICE).record.logins > logins, 900)
        await self.daemon.until(is_ready)

    async def _rest_an_hour(self) -> None:
        await self._settled()
        begin = trio.current_time()
        await trio.sleep_until(max(self.plan.hours * HOUR_S, begin + HOUR_S / 2))
        self.quiet = (begin, trio.current_time())

    async def _look(self) -> Look:
        await self._settled()
        await trio.sleep(120)
        return Look.take()

    async def _settled(self) -> None:
        """Nothing is on its way."""
        device = self.sandbox.device(ALICE)
        await self.daemon.until(is_ready)
        await self.sandbox.wait(lambda: not device.queue, 900)
        await self.daemon.until(lambda view: view.queued == 0)

    @property
    def _device(self) -> str:
        return self.sandbox.device(ALICE).key


def _held_bytes() -> Counter[str]:
    """Bytes in use, by the line that asked for them, of the packages that only the daemon uses."""
    gc.collect()
    package = str(Path(waD.__file__).parent)
    chosen = [tracemalloc.Filter(True, f"{package}/{room}/*") for room in ROOMS]
    found = tracemalloc.take_snapshot().filter_traces(chosen)
    return Counter(
        {
            f"{one.traceback[0].filename}:{one.traceback[0].lineno}": one.size
            for one in found.statistics("lineno")
        }
    )


class Tables:
    """What the database holds, read beside the daemon."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def count(self, query: str) -> dict[str, int]:
        """A grouped count: text, number."""
        with sqlite3.connect(f"file:{self._path}?mode=ro", uri=True) as db:
            rows = db.execute(query).fetchall()
        db.close()
        return {str(name): int(number) for name, number in rows}

    def items(self) -> dict[str, int]:
        """Items of the auth state by kind."""
        return self.count("SELECT type, count(*) FROM wa_auth_items GROUP BY type")

    def outbox(self) -> dict[str, int]:
        """Rows of the outbox by state."""
        return self.count("SELECT state, count(*) FROM wa_outbox GROUP BY state")

    def rows(self, table: str) -> int:
        """How many a table has."""
        return self.count(f"SELECT 'all', count(*) FROM {table}")["all"]
