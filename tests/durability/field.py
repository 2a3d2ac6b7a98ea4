"""The killing field: real traffic in both directions while the daemon is killed, and the books of who said what.

Everything random comes from one seed, which is printed.
"""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import trio

from tests.e2e.daemon import Daemon, Refused
from waD.sandbox import Sandbox

SESSIONS: Final = {"s0": "15550050000", "s1": "15550050001"}
"""Sessions under test, and the numbers of their phones."""
PEERS: Final = ("15550060000", "15550060001", "15550060002")
MARKS: Final = (
    "receive.before_commit",
    "receive.after_commit",
    "receive.after_answers",
    "send.before_commit",
    "send.after_commit",
    "send.after_write",
    "send.before_ack_commit",
    "send.after_ack_commit",
)
PAUSE_S: Final = 0.03
"""Between two messages of one writer."""
MARK_S: Final = 1.5
"""A mark that is not passed within this is no reason to wait any longer: the kill comes anyway."""
SETTLE_S: Final = 90.0
EVERY: Final = 25
"""Kills between two looks at the books."""
GONE: Final = (EOFError, OSError, trio.BrokenResourceError, trio.ClosedResourceError)


@dataclass(slots=True)
class Books:
    """Who said what: texts to a session by its name, and texts of a session by the peer's number."""

    to_session: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in SESSIONS})
    to_peer: dict[str, list[str]] = field(default_factory=lambda: {number: [] for number in PEERS})


class Field:
    """One daemon, its sessions, and those who write to them and are written to.

    Args:
        daemon: not running yet.
        sandbox: with everybody's phones.
        seed: of everything random.
        rough: kills something else than the daemon, such as the database, and brings it back; None: only the daemon.
    """

    def __init__(
        self,
        daemon: Daemon,
        sandbox: Sandbox,
        seed: int,
        rough: Callable[[random.Random], Awaitable[None]] | None = None,
    ) -> None:
        self.daemon = daemon
        self.sandbox = sandbox
        self.books = Books()
        self.kills = 0
        self.random = random.Random(seed)
        self._rough = rough
        self._number = 0
        self._writing = trio.Event()
        self._up = trio.Event()
        self._cursor = 0
        self._told: dict[str, Counter[str]] = {name: Counter() for name in SESSIONS}
        self._heard: dict[str, Counter[str]] = {number: Counter() for number in PEERS}
        self._counted: set[tuple[str, str, str]] = set()

    async def run(self, kills: int) -> None:
        """Pair, let everybody write, kill so often, and look at the books every now and then."""
        await self.daemon.start()
        for name, number in SESSIONS.items():
            await self.daemon.pair(self.sandbox, number, name)
        self._up.set()
        async with trio.open_nursery() as nursery:
            self._writing.set()
            for number in PEERS:
                nursery.start_soon(self._peer_writes, number)
            for name in SESSIONS:
                nursery.start_soon(self._session_writes, name)
            judged = 0
            while self.kills < kills:
                await self._kill_once()
                if self.kills >= min(judged + EVERY, kills):
                    await self._judge()
                    judged = self.kills
                    print(f"{judged} kills, {self._number} messages")
            nursery.cancel_scope.cancel()

    # Those who write.

    def _text(self, what: str) -> str:
        self._number += 1
        return f"{what} {self._number}"

    async def _peer_writes(self, number: str) -> None:
        phone = self.sandbox.phone(number)
        while True:
            await self._writing.wait()
            name = self.random.choice([*SESSIONS])
            text = self._text(f"to {name}")
            self.books.to_session[name].append(text)
            await phone.send(SESSIONS[name], text)
            await trio.sleep(PAUSE_S)

    async def _session_writes(self, name: str) -> None:
        """A script that repeats its order, under the same key, until it is answered."""
        while True:
            await self._writing.wait()
            number = self.random.choice(PEERS)
            text = self._text(f"of {name}")
            self.books.to_peer[number].append(text)
            while not await self._submitted(number, text, name):
                await self._up.wait()
                await trio.sleep(PAUSE_S)
            await trio.sleep(PAUSE_S)

    async def _submitted(self, number: str, text: str, name: str) -> bool:
        try:
            await self.daemon.send(number, text, name, idempotencyKey=text)
        except (*GONE, Refused):
            return False
        return True

    # The killer.

    async def _kill_once(self) -> None:
        if self.random.random() < 0.5:
            await self._kill_at_a_mark()
        else:
            await self._kill_somewhen()

    async def _kill_at_a_mark(self) -> None:
        """The process that runs goes first, so that the next one can be told its mark."""
        await self._end()
        mark = f"{self.random.choice(MARKS)}:{self.random.randrange(1, 6)}"
        await self.daemon.start(crash_at=mark, wait=False)
        process = self.daemon.process
        assert process is not None
        self._up.set()
        with trio.move_on_after(MARK_S):
            await process.wait()
        await self._end()
        await self._begin()

    async def _kill_somewhen(self) -> None:
        """At the beginning, or in the middle of the traffic."""
        if self.random.random() < 0.5:
            await trio.sleep(self.random.uniform(0.0, 0.4))
        else:
            with suppress(*GONE, AssertionError):
                await self.daemon.answers()
            await trio.sleep(self.random.uniform(0.0, 0.4))
        if self._rough is not None and self.random.random() < 0.5:
            await self._rough(self.random)
        await self._end()
        await self._begin()

    async def _end(self) -> None:
        self._up = trio.Event()
        if self.daemon.process is not None:
            self.daemon.process.kill()
            assert await self.daemon.ended() == -signal.SIGKILL  # by us now, or by itself at its mark
            self.kills += 1

    async def _begin(self) -> None:
        await self.daemon.start(wait=False)
        self._up.set()

    # The judge.

    async def _judge(self) -> None:
        """When everything has arrived: once each, no key twice, and every stored state sound."""
        self._writing = trio.Event()
        await self.daemon.answers()
        await self._settled()
        await self._read_log()
        for name, texts in self.books.to_session.items():
            assert self._told[name] == Counter(texts), self._difference(self._told[name], texts)
        for number, texts in self.books.to_peer.items():
            assert self._heard_by(number) == Counter(texts), self._difference(self._heard[number], texts)
        assert self.sandbox.core.world.keys.report()["reused"] == []
        for name in SESSIONS:
            verdict = (await self.daemon.call("auth.verify", name=name, level=2))["verdict"]
            assert verdict["ok"], verdict["errors"]
        self._writing.set()

    async def _settled(self) -> None:
        with trio.fail_after(SETTLE_S):
            for name, number in SESSIONS.items():
                await self.daemon.until("open", name, ready=True)
                device = self.sandbox.device(number)
                while device.queue or (await self.daemon.status(name))["queued"]:  # noqa: ASYNC110 - two processes
                    await trio.sleep(0.05)
            while not await self._all_heard():  # noqa: ASYNC110 - another process
                await trio.sleep(0.05)

    async def _all_heard(self) -> bool:
        await self._read_log()
        return all(self._told[name].total() >= len(texts) for name, texts in self.books.to_session.items())

    async def _read_log(self) -> None:
        for event in await self.daemon.events("message:new", since=self._cursor):
            self._cursor = event["cursor"]
            if not event["data"].get("fromMe"):
                self._told[event["session"]][event["data"]["body"]] += 1

    def _heard_by(self, number: str) -> Counter[str]:
        """All that a phone has heard; it forgets the oldest itself."""
        for one in self.sandbox.phone(number).messages():
            place = (number, one.chat, one.id)
            if not one.from_me and place not in self._counted:
                self._counted.add(place)
                self._heard[number][str(one.text)] += 1
        return self._heard[number]

    def _difference(self, found: Counter[str], texts: list[str]) -> str:
        wanted = Counter(texts)
        lost, twice = wanted - found, found - wanted
        said = f"lost {[*lost][:5]} ({lost.total()}), too often {[*twice][:5]} ({twice.total()})"
        return f"after {self.kills} kills: {said}"
