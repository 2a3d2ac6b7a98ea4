"""Reading ahead for a batch: the handlers find in memory what they ask for, and whatever is named does no harm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.messaging.accounts import START_MS
from tests.messaging.inbound_helpers import (
    ANN_LID,
    ANN_PN,
    BOB_LID,
    GROUP,
    Peer,
    Receiver,
    hostile,
    introduce,
    receiving,
)
from waD.messaging import ahead
from waD.messaging.ahead import read_ahead
from waD.messaging.context import Context
from waD.messaging.facade import FEWEST_AHEAD, Messaging
from waD.proto.e2e_pb2 import Message
from waD.store.store import Store
from waD.wire.jid import JID
from waD.wire.node import Node

PEOPLE = 20


@pytest.fixture
async def peers(ctx: Context) -> list[Peer]:
    """People by LID and by number, with sessions, none of it in the cache any more."""
    found = [Peer(JID(str(200_000_000_000_000 + n), "lid")) for n in range(PEOPLE)]
    found += [Peer(JID(str(15_551_000_000 + n), "s.whatsapp.net")) for n in range(PEOPLE)]
    await introduce(ctx, *found)
    return found


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the queries from now on."""
    reads: list[str] = []
    original = Store.read

    async def read(self: Store, query: Any, *args: Any) -> Any:
        reads.append(query.__name__)
        return await original(self, query, *args)

    monkeypatch.setattr(Store, "read", read)
    return reads


async def handle(ctx: Context, batch: Sequence[Node]) -> None:
    messaging, unit = Messaging(ctx), ctx.state.unit()
    await messaging.read_ahead(batch, unit)
    for stanza in batch:
        await messaging.handle(stanza, unit)
    await ctx.state.commit(unit)


async def test_first_messages_of_strangers_take_two_reads(
    ctx: Context, peers: list[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = [peer.text(f"hello from {number}") for number, peer in enumerate(peers)]
    reads = count_reads(monkeypatch)
    await handle(ctx, batch)
    assert reads == ["gather", "gather"]
    assert len(await ctx.state._store.messages(ctx.state.session_id, limit=100)) == len(peers)


async def test_later_ones_in_groups_too(
    ctx: Context, peers: list[Peer], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await receiver.take(*(peer.group_text(GROUP, "first") for peer in peers))
    ctx.state._cache.clear()
    batch = [peer.group_text(GROUP, "second", share=False) for peer in peers]
    reads = count_reads(monkeypatch)
    await handle(ctx, batch)
    assert reads == ["gather", "gather"]


async def test_receipts_and_acks_find_their_messages(
    ctx: Context, receiver: Receiver, peers: list[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = [peer.text("read me") for peer in peers[:6]]
    await receiver.take(*sent)
    ids = [node.text("id", "") for node in sent]
    more = [Node("list", {}, [Node("item", {"id": name}) for name in ids[1:]])]
    batch = [
        Node("receipt", {"id": ids[0], "from": peers[0].jid, "t": str(START_MS // 1000)}, more)
        for _ in range(FEWEST_AHEAD)
    ]
    reads = count_reads(monkeypatch)
    await handle(ctx, batch)
    assert "message" not in reads


async def test_a_lone_stanza_is_not_worth_it(
    ctx: Context, peers: list[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = [peer.text("hello") for peer in peers[: FEWEST_AHEAD - 1]]
    reads = count_reads(monkeypatch)
    await Messaging(ctx).read_ahead(batch, ctx.state.unit())
    assert reads == []


async def test_what_the_batch_itself_changes_counts(ctx: Context, receiver: Receiver) -> None:
    """A mapping, a message, its edit, a repetition and the revoke of another one, all in one unit."""
    ann, bob = Peer(ANN_PN), Peer(BOB_LID)
    await introduce(ctx, ann, bob)
    first, second = ann.text("one", sender_lid=ANN_LID), ann.text("two")
    edit = Message()
    edit.protocolMessage.type = Message.ProtocolMessage.MESSAGE_EDIT
    edit.protocolMessage.key.id = first.text("id", "")
    edit.protocolMessage.key.fromMe = True
    edit.protocolMessage.editedMessage.conversation = "one, better"
    edit.protocolMessage.timestampMs = START_MS
    revoke = Message()
    revoke.protocolMessage.type = Message.ProtocolMessage.REVOKE
    revoke.protocolMessage.key.id = second.text("id", "")
    revoke.protocolMessage.key.fromMe = True
    await receiver.take(
        first, second, ann.stanza(ann.enc(edit)), first, ann.stanza(ann.enc(revoke)), bob.text("hi")
    )
    rows = {row.message_id: row for row in await receiver.rows()}
    assert len(rows) == 3
    assert {row.chat for row in rows.values()} == {str(ANN_LID), str(BOB_LID)}
    assert rows[first.text("id", "")].body == "one, better"
    assert rows[second.text("id", "")].revoked_at is not None


async def test_a_batch_that_names_too_much_is_read_in_part(
    ctx: Context, receiver: Receiver, peers: list[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "MOST", 3)
    await receiver.take(*(peer.text("hello") for peer in peers))
    assert len(await receiver.rows()) == len(peers)


@settings(max_examples=60)
@given(st.lists(st.sampled_from(["message", "receipt", "ack", "call"]).flatmap(hostile), max_size=6))
async def test_hostile_batches_are_read_without_harm(batch: list[Node]) -> None:
    async with receiving() as receiver:
        unit = receiver.ctx.state.unit()
        await read_ahead(receiver.ctx, batch, unit)
        assert unit.empty


@pytest.mark.parametrize("text", ["\ud800", "\x00", "", "a\nb", "x" * 5000, "0@lid", "1:99999@lid", "@g.us"])
async def test_names_that_no_database_can_be_asked_for(ctx: Context, text: str) -> None:
    enc = Node("enc", {"type": "skmsg"}, b"x")
    stanza = Node("message", {"id": text, "from": text, "participant": text, "recipient": text}, [enc])
    await read_ahead(ctx, [stanza, Node("receipt", {"id": text, "from": f"{text}@lid"})], ctx.state.unit())
