"""The lane's watch: received stanzas that stay unanswered end the connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import trio
import trio.testing

from waD.link.causes import Cause
from waD.link.connection import Connection
from waD.messaging.facade import Messaging
from waD.messaging.reaction import Reaction
from waD.session.lane import DEAF_S, Lane
from waD.store.unit import Unit
from waD.wire.node import Node


class Line:
    """A connection that only receives, and whose writes can be held up."""

    def __init__(self) -> None:
        self.put, self.stanzas = trio.open_memory_channel[Node](256)
        self.sent: list[Node] = []
        self.writable = trio.Event()
        self.writable.set()
        self.failed: tuple[float, Cause] | None = None

    async def send_all(self, nodes: list[Node]) -> None:
        await self.writable.wait()
        self.sent += nodes

    def fail(self, reason: Cause) -> None:
        self.failed = (trio.current_time(), reason)


class Hands:
    """State and messaging in one: answers each stanza, or raises for `bad`."""

    def __init__(self) -> None:
        self.lock = trio.Lock()
        self.context: Any = self
        self.state = self

    def unit(self) -> Unit:
        return Unit()

    async def commit(self, unit: Unit) -> None:
        await trio.lowlevel.checkpoint()

    async def read_ahead(self, stanzas: list[Node], unit: Unit) -> None:
        await trio.lowlevel.checkpoint()

    async def handle(self, stanza: Node, unit: Unit) -> Reaction:
        await trio.lowlevel.checkpoint()
        if stanza.tag == "bad":
            raise RuntimeError("a fault")
        return Reaction([Node("ack", {"id": stanza.attrs["id"]})], [])


class Rig:
    def __init__(self) -> None:
        self.line = Line()
        self.lane = Lane(
            cast(Connection, self.line),
            cast(Messaging, Hands()),
            on_work=lambda _: None,
            on_info=lambda _: None,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.lane.run)
            nursery.start_soon(self.lane.watch)
            yield
            nursery.cancel_scope.cancel()

    def receive(self, tag: str = "message") -> None:
        self.line.put.send_nowait(Node(tag, {"id": "1"}))


async def test_answers_that_cannot_leave_make_it_deaf(autojump_clock: object) -> None:
    rig = Rig()
    async with rig.running():
        await trio.sleep(7)
        rig.line.writable = trio.Event()
        rig.receive()
        await trio.testing.wait_all_tasks_blocked()
        rig.receive()
        assert rig.lane.unanswered == 2
        began = trio.current_time()
        await trio.sleep(DEAF_S - 1)
        assert rig.line.failed is None
        await trio.sleep(2)
        assert rig.line.failed is not None
        at, reason = rig.line.failed
        assert at - began == DEAF_S
        assert (reason.id, "2 received stanzas stayed unanswered" in reason.message) == ("deaf", True)


async def test_a_lane_that_keeps_up_is_left_alone(autojump_clock: object) -> None:
    rig = Rig()
    async with rig.running():
        for _ in range(100):
            rig.receive()
            await trio.sleep(DEAF_S / 3)
        assert len(rig.line.sent) == 100
        rig.line.writable = trio.Event()
        rig.receive()
        await trio.sleep(DEAF_S - 5)
        rig.line.writable.set()
        await trio.sleep(DEAF_S * 3)
    assert rig.line.failed is None
    assert rig.lane.unanswered == 0


async def test_what_nobody_could_handle_stays_unanswered_and_shows(autojump_clock: object) -> None:
    rig = Rig()
    async with rig.running():
        rig.receive("bad")
        rig.receive()
        await trio.sleep(DEAF_S * 3)
        assert len(rig.line.sent) == 1
        assert rig.lane.unanswered == 1
    assert rig.line.failed is None  # a new connection would bring the same stanza again
