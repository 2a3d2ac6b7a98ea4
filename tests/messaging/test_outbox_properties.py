"""Whatever fails, and whenever: nothing is lost, nothing overtakes, no counter is used twice (chapter 03 §8.6)."""

from __future__ import annotations

import tempfile
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.messaging.outbound_helpers import Person, World, bob, carol, make_world, restarted
from waD.link.errors import Disconnected, RequestError
from waD.messaging.outbound import TextRequest
from waD.store.errors import StorageUnavailable
from waD.store.model import OutboxRow
from waD.store.store import StoreSettings, open_store

FAULTS = ("none", "commit", "break", "cancel", "lost acks", "busy", "server trouble", "new device")


class Round(NamedTuple):
    """Messages to put into the outbox, by number of the person, and what goes wrong while they are sent."""

    people: list[int]
    fault: str
    when: int
    settle: bool


ROUNDS = st.lists(
    st.builds(
        Round,
        people=st.lists(st.integers(0, 2), max_size=5),
        fault=st.sampled_from(FAULTS),
        when=st.integers(0, 24),
        settle=st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


class Play:
    """One random history of a session."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.people = [bob((0, 4)), carol(), world.me]
        self.wanted: dict[str, list[str]] = {person.pn.user: [] for person in self.people}
        self.ids: list[str] = []
        self.count = 0
        for person in self.people[:2]:
            world.server.add(person)

    async def enqueue(self, number: int) -> None:
        person, text = self.people[number], f"{self.count}"
        self.count += 1
        try:
            done = await self.world.outbound.enqueue(
                TextRequest(to=str(person.pn), text=text, client_ref=text)
            )
        except StorageUnavailable:
            return
        self.ids.append(done.row.message_id)
        self.wanted[person.pn.user].append(text)

    async def play(self, turn: Round) -> None:
        server, ticks = self.world.server, 0
        scope = trio.CancelScope()

        def on_tick() -> None:
            nonlocal ticks
            ticks += 1
            if turn.fault == "cancel" and ticks > turn.when:
                scope.cancel()

        server.on_tick = on_tick
        self.world.refuse_commit = lambda job: turn.fault == "commit" and ticks > turn.when
        server.break_at = len(server.sent) + turn.when // 4 if turn.fault == "break" else None
        server.acks = lambda node: {"error": "503"} if turn.fault == "server trouble" and ticks % 3 else {}
        if turn.fault == "lost acks":
            server.acks = lambda node: None
        if turn.fault == "busy":
            server.faults = [("usync", RequestError(503, "busy")), ("encrypt", RequestError(429, "slow"))]
        if turn.fault == "new device":
            await self.new_device()
        for number in turn.people:
            await self.enqueue(number)
        with scope:
            await self.run(wait=turn.fault in ("none", "new device"))
        if turn.settle:
            await self.settle()
        self.world = restarted(self.world)
        self.world.server.on_tick = None

    async def new_device(self) -> None:
        """A person links another device, and the server says so."""
        number = max(self.people[0].devices) + 1
        self.people[0].add(number)
        world = self.world
        async with world.ctx.state.lock:
            unit = world.ctx.state.unit()
            await world.devices.invalidate(unit, self.people[0].lid)
            await world.ctx.state.commit(unit)

    async def settle(self) -> None:
        """Devices answer, so that their sessions are no longer pending."""
        self.world.refuse_commit = None
        for person in self.people:
            for device in person.devices.values():
                if device.number != 7 and device.record is not None:
                    await self.world.answered(device)

    async def run(self, *, wait: bool) -> None:
        """The pump, until everything is out or something ends it."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.pump, nursery.cancel_scope)
                if wait:
                    await self.all_sent()
                else:
                    await trio.testing.wait_all_tasks_blocked(0.02)
                nursery.cancel_scope.cancel()
        except* (StorageUnavailable, Disconnected):
            pass

    async def pump(self, scope: trio.CancelScope) -> None:
        try:
            await self.world.outbound.run(self.world.server, self.world.offline_done)
        finally:
            scope.cancel()

    async def rows(self) -> list[OutboxRow]:
        return [await self.world.row(message_id) for message_id in self.ids]

    async def all_sent(self) -> None:
        async def there() -> bool:
            return all(row.state in ("sent", "failed") for row in await self.rows())

        await self.world.wait_for(there)

    async def finish(self) -> None:
        await self.play(Round([0, 1, 2], "none", 0, settle=True))
        await self.play(Round([0, 1, 2], "none", 0, settle=False))
        # A server that is in trouble for the fifth time about one message has taken it all the same.
        ends = {(row.state, row.last_error) for row in await self.rows()}
        assert ends <= {("sent", None), ("failed", "503")}
        assert await self.world.ctx.state.outbox() == []
        for person in self.people:
            assert in_order(person) == self.wanted[person.pn.user] or person is self.world.me
        mine = in_order(self.world.me)
        assert sorted(mine, key=int) == sorted(chain.from_iterable(self.wanted.values()), key=int)
        for person in self.people:
            assert [text for text in mine if text in self.wanted[person.pn.user]] == self.wanted[
                person.pn.user
            ]


def in_order(person: Person) -> list[str]:
    """Texts the phone read, each message once, in the order of their first arrival."""
    seen: dict[str, str] = {}
    for (message_id, _), text in zip(person.phone.inbox, person.texts(), strict=True):
        seen.setdefault(message_id, text)
    assert {code for _, code in person.phone.failed} <= {"duplicate"}
    return list(seen.values())


async def play_all(rounds: list[Round], directory: Path) -> None:
    async with open_store(StoreSettings(path=directory / "waD.db")) as store:
        play = Play(await make_world(store))
        for turn in rounds:
            await play.play(turn)
        await play.finish()


@settings(max_examples=40)
@given(ROUNDS)
def test_random_histories(rounds: list[Round]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        trio.run(play_all, rounds, Path(directory), clock=MockClock(autojump_threshold=0.05))
