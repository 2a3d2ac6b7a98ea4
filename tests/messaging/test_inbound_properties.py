"""Conversations under everything a network and a disk do: each message is announced once, and none is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeAlias

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.messaging.inbound_helpers import (
    ANN_LID,
    BOB_LID,
    GROUP,
    Peer,
    Receiver,
    answer,
    introduce,
    of_kind,
    receiving,
)
from waD.messaging.reaction import Paced
from waD.store.errors import StorageUnavailable, StoreError
from waD.wire.node import Node

Step: TypeAlias = tuple[str, int]

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "group", "deliver", "all", "again", "reply", "fail", "restart"]),
        st.integers(0, 7),
    ),
    max_size=40,
)


class World:
    """Two contacts, what they have written, and what of it is still under way."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.peers = [Peer(ANN_LID), Peer(BOB_LID), Peer(ANN_LID.with_device(3))]
        self.waiting: list[Node] = []
        self.handled: list[Node] = []
        self.written: list[str] = []

    async def step(self, what: str, number: int) -> None:
        peer = self.peers[number % len(self.peers)]
        match what:
            case "write" | "group":
                text = f"text {len(self.written)}"
                self.written.append(text)
                self.waiting.append(peer.text(text) if what == "write" else peer.group_text(GROUP, text))
            case "deliver" if self.waiting:
                await self.take(self.next(number))
            case "all":
                batch, self.waiting = self.waiting, []
                await self.take(*batch)
            case "again" if self.handled:
                await self.take(self.handled[number % len(self.handled)])
            case "reply":
                await self.reply(peer)
            case "fail" if self.waiting:
                await self.fail(self.waiting[number % len(self.waiting)])
            case "restart":
                self.receiver.ctx.state._cache.clear()
                self.receiver = Receiver(self.receiver.ctx)

    def next(self, number: int) -> Node:
        """Any stanza; of those of one device to a group the first, because the server keeps their order."""
        picked = self.waiting[number % len(self.waiting)]
        author = picked.attrs.get("participant")
        if author is not None:
            picked = next(node for node in self.waiting if node.attrs.get("participant") == author)
        self.waiting.remove(picked)
        return picked

    async def take(self, *stanzas: Node) -> None:
        reaction = await self.receiver.take(*stanzas)
        assert [node.tag for node in reaction.answers] == ["receipt"] * len(stanzas)
        assert of_kind(reaction.work, Paced) == []
        self.handled += stanzas

    async def reply(self, peer: Peer) -> None:
        """Turn the ratchet, once there is a session to turn."""
        address = await self.receiver.ctx.addresses.signal_address(peer.jid)
        if await self.receiver.ctx.records.session(address) is not None:
            await answer(self.receiver.ctx, peer)

    async def fail(self, stanza: Node) -> None:
        """The disk is full when the stanza comes; the server keeps it."""
        async with full_disk(self.receiver):
            with pytest.raises(StoreError):
                await self.receiver.take(stanza)


@asynccontextmanager
async def full_disk(receiver: Receiver) -> AsyncIterator[None]:
    store = receiver.ctx.state._store
    with pytest.MonkeyPatch.context() as patch:

        async def fail(_job: object) -> None:
            raise StorageUnavailable("the disk is full")

        patch.setattr(store, "write", fail)
        yield


@settings(max_examples=40)
@given(STEPS)
def test_each_message_once(steps: list[Step]) -> None:
    async def scenario() -> None:
        async with receiving() as receiver:
            world = World(receiver)
            await introduce(receiver.ctx, *world.peers)
            for what, number in steps:
                await world.step(what, number)
            await world.step("all", 0)
            events = await receiver.events()
            assert sorted(event.data["body"] for event in events) == sorted(world.written)
            assert {event.type for event in events} <= {"message:new"}
            assert sorted(row.body or "" for row in await receiver.rows()) == sorted(world.written)

    trio.run(scenario)
