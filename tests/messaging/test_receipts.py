"""Receipts of others: what they raise, whom they may not fool, and that each is acked once."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.messaging.accounts import OWN_LID, OWN_PN, START_MS
from tests.messaging.inbound_helpers import (
    ANN_LID,
    ANN_PN,
    BOB_LID,
    GROUP,
    Receiver,
    hostile,
    receiving,
)
from waD.link import acks
from waD.messaging.context import Context
from waD.messaging.devices import Devices
from waD.messaging.outbound import Outbound
from waD.messaging.reaction import FetchDevices, Reaction
from waD.messaging.receipts import MAX_USERS, Receipts, parse
from waD.messaging.retries import Retries
from waD.store.model import EventRow, MessageRow, OutboxRow
from waD.store.unit import Unit
from waD.wire.jid import JID
from waD.wire.node import Node, Value


async def ask_nobody(stanza: Node, unit: Unit) -> Reaction:
    """In place of what answers retry receipts."""
    reaction = Reaction()
    reaction.add(acks.ack(stanza))
    unit.event("test:retry", {"id": stanza.text("id")})
    return reaction


class Receiving(Receiver):
    """Drives receipts instead of messages."""

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.receipts = Receipts(ctx, ask_nobody)

    async def handle(self, stanza: Node, unit: Unit) -> Reaction:
        return await self.receipts.receipt(stanza, unit)


@pytest.fixture
def receiver(ctx: Context) -> Receiving:
    return Receiving(ctx)


async def wrote(ctx: Context, *ids: str, chat: JID = ANN_LID, status: int = 2, from_me: bool = True) -> None:
    """Messages in the history, ours unless said otherwise."""
    async with ctx.state.lock:
        unit = ctx.state.unit()
        for message_id in ids:
            sender = OWN_LID.account if from_me else chat
            unit.add_message(
                MessageRow(
                    chat=str(chat),
                    sender=str(sender),
                    message_id=message_id,
                    from_me=from_me,
                    ts=START_MS,
                    kind="text",
                    status=status,
                )
            )
        await ctx.state.commit(unit)


def receipt(*ids: str, source: Value = ANN_LID, **attrs: Value) -> Node:
    listed = [Node("list", {}, [Node("item", {"id": one}) for one in ids[1:]])] if ids[1:] else None
    return Node("receipt", {"id": ids[0], "from": source, "t": "1700000001"} | attrs, listed)


def told(events: list[EventRow]) -> list[tuple[str, str]]:
    assert {event.type for event in events} <= {"message:status"}
    return [(event.data["messageId"], event.data["status"]) for event in events]


async def statuses(receiver: Receiver) -> dict[str, int]:
    return {row.message_id: row.status for row in await receiver.rows()}


class TestRaising:
    async def test_delivered_then_read(self, receiver: Receiving, ctx: Context) -> None:
        await wrote(ctx, "A")
        reaction = await receiver.take(receipt("A"))
        assert [one.attrs for one in reaction.answers] == [{"class": "receipt", "id": "A", "to": ANN_LID}]
        assert await statuses(receiver) == {"A": 3}
        await receiver.take(receipt("A", type="read"))
        await receiver.take(receipt("A", type="played"))
        assert await statuses(receiver) == {"A": 5}
        events = await receiver.events()
        assert told(events) == [("A", "delivered"), ("A", "read"), ("A", "played")]
        assert events[0].data == {"chat": str(ANN_LID), "messageId": "A", "status": "delivered"}

    async def test_never_lowered_and_never_told_twice(self, receiver: Receiving, ctx: Context) -> None:
        await wrote(ctx, "A")
        await receiver.take(receipt("A", type="read"), receipt("A"), receipt("A", type="read"))
        await receiver.take(receipt("A"), receipt("A", source=ANN_LID.with_device(3)))
        assert await statuses(receiver) == {"A": 4}
        assert told(await receiver.events()) == [("A", "read")]

    async def test_two_steps_in_one_unit(self, receiver: Receiving, ctx: Context) -> None:
        await wrote(ctx, "A")
        await receiver.take(receipt("A"), receipt("A", type="read"))
        assert told(await receiver.events()) == [("A", "delivered"), ("A", "read")]

    async def test_a_list(self, receiver: Receiving, ctx: Context) -> None:
        await wrote(ctx, "A", "B", "C")
        await receiver.take(receipt("A", "B", "A", "unknown", type="read"))
        assert await statuses(receiver) == {"A": 4, "B": 4, "C": 2}

    async def test_at_most_256_ids(self, receiver: Receiving, ctx: Context) -> None:
        parsed = parse(receipt(*[f"A{n}" for n in range(400)]), OWN_PN, OWN_LID)
        assert parsed is not None
        assert len(parsed.ids) == 256

    @pytest.mark.parametrize("kind", ["inactive", "hist_sync", "peer_msg", "server-error", "new", "view"])
    async def test_types_that_say_nothing(self, receiver: Receiving, ctx: Context, kind: str) -> None:
        await wrote(ctx, "A")
        reaction = await receiver.take(receipt("A", type=kind))
        assert reaction.answers[0].attrs["type"] == kind
        assert await statuses(receiver) == {"A": 2}
        assert await receiver.events() == []

    async def test_by_the_other_address(self, receiver: Receiving, ctx: Context) -> None:
        await wrote(ctx, "A")
        await receiver.take(receipt("A", source=ANN_PN, sender_lid=ANN_LID))
        assert await statuses(receiver) == {"A": 3}

    async def test_a_receipt_that_overtakes_the_ack(self, receiver: Receiving, ctx: Context) -> None:
        await wrote(ctx, "A", status=1)
        async with ctx.state.lock:
            unit = ctx.state.unit()
            unit.enqueue(
                OutboxRow(client_ref="r", chat=str(ANN_LID), message_id="A", payload={}, state="sending")
            )
            await ctx.state.commit(unit)
        await receiver.take(receipt("A"))
        row = await ctx.state.outbox_by_message_id("A")
        assert row is not None
        assert (row.state, row.sent_at) == ("sent", START_MS)

    async def test_a_device_that_cannot_handle_lids(self, receiver: Receiving, ctx: Context) -> None:
        await wrote(ctx, "A")
        node = receipt("A")
        node.content = [Node("error", {"reason": "lid", "type": "feature-incapable"})]
        await receiver.take(node)
        assert await statuses(receiver) == {"A": 2}


class TestWhoMayNot:
    async def test_other_chats_and_others_messages_are_untouched(
        self, receiver: Receiving, ctx: Context
    ) -> None:
        await wrote(ctx, "A", chat=BOB_LID)
        await wrote(ctx, "B", chat=ANN_LID, from_me=False, status=3)
        await receiver.take(receipt("A", type="read"), receipt("B", type="read"))
        assert await statuses(receiver) == {"A": 2, "B": 3}
        assert await receiver.events() == []

    async def test_unknown_messages_are_acked(self, receiver: Receiving) -> None:
        reaction = await receiver.take(receipt("nothing"))
        assert [one.tag for one in reaction.answers] == ["ack"]

    async def test_own_devices_do_not_deliver(self, receiver: Receiving, ctx: Context) -> None:
        await wrote(ctx, "A", status=1)
        phone = OWN_LID.with_device(0)
        await receiver.take(receipt("A", source=phone, recipient=ANN_LID))
        assert await statuses(receiver) == {"A": 2}
        await receiver.take(receipt("A", source=phone))
        assert await statuses(receiver) == {"A": 2}

    async def test_a_conflicting_address_asks_the_server(self, receiver: Receiving, ctx: Context) -> None:
        await receiver.take(receipt("A", source=ANN_PN, sender_lid=ANN_LID))
        reaction = await receiver.take(receipt("A", source=ANN_PN, sender_lid=BOB_LID))
        assert reaction.work == [FetchDevices((ANN_PN,))]


class TestReadElsewhere:
    @pytest.mark.parametrize("kind", ["read-self", "read"])
    async def test_an_own_device_showed_it(self, receiver: Receiving, ctx: Context, kind: str) -> None:
        await wrote(ctx, "A", "B", from_me=False, status=3)
        node = receipt("A", "B", source=OWN_LID.with_device(0), recipient=ANN_LID, type=kind)
        reaction = await receiver.take(node, node)
        assert reaction.answers[0].attrs["recipient"] == ANN_LID
        assert await statuses(receiver) == {"A": 4, "B": 4}
        events = await receiver.events()
        assert told(events) == [("A", "read"), ("B", "read")]
        assert events[0].data["fromMe"] is False

    async def test_in_a_group(self, receiver: Receiving, ctx: Context) -> None:
        await wrote(ctx, "A", chat=GROUP, from_me=False, status=3)
        await receiver.take(receipt("A", source=GROUP, participant=OWN_LID, type="read-self"))
        assert await statuses(receiver) == {"A": 4}

    async def test_delivery_to_an_own_device_says_nothing(self, receiver: Receiving, ctx: Context) -> None:
        await wrote(ctx, "A", from_me=False, status=3)
        await receiver.take(receipt("A", source=OWN_LID.with_device(0), recipient=ANN_LID))
        assert await receiver.events() == []


class TestGroups:
    async def test_each_participant_is_told(self, receiver: Receiving, ctx: Context) -> None:
        await wrote(ctx, "A", chat=GROUP)
        await receiver.take(receipt("A", source=GROUP, participant=ANN_LID.with_device(2)))
        await receiver.take(receipt("A", source=GROUP, participant=BOB_LID, type="read"))
        await receiver.take(receipt("A", source=GROUP, participant=ANN_LID, type="read"))
        events = await receiver.events()
        assert [(event.data["participant"], event.data["status"]) for event in events] == [
            (str(ANN_LID), "delivered"),
            (str(BOB_LID), "read"),
            (str(ANN_LID), "read"),
        ]
        assert await statuses(receiver) == {"A": 4}

    async def test_collected_receipts(self, receiver: Receiving, ctx: Context) -> None:
        await wrote(ctx, "A", chat=GROUP)
        users = [
            Node("user", {"jid": ANN_LID, "t": "1"}),
            Node("user", {"jid": BOB_LID, "t": "1", "type": "read"}),
            Node("user", {"jid": "garbage"}),
            Node("user", {}),
        ]
        for name in ("key", "message_id"):
            node = Node(
                "receipt",
                {"id": "R", "from": GROUP, "t": "1"},
                [Node("participants", {name: "A"}, users)],
            )
            reaction = await receiver.take(node)
            assert [one.attrs["id"] for one in reaction.answers] == ["R"]
        assert await statuses(receiver) == {"A": 4}

    async def test_collected_ones_are_limited(self) -> None:
        users = [Node("user", {"jid": JID(str(n), "lid")}) for n in range(MAX_USERS + 5)]
        node = Node("receipt", {"id": "R", "from": GROUP}, [Node("participants", {"key": "A"}, users)])
        parsed = parse(node, OWN_PN, OWN_LID)
        assert parsed is not None
        assert len(parsed.reached) == MAX_USERS

    async def test_without_participant(self, receiver: Receiving, ctx: Context) -> None:
        await wrote(ctx, "A", chat=GROUP)
        reaction = await receiver.take(receipt("A", source=GROUP, type="read"))
        assert [one.tag for one in reaction.answers] == ["ack"]
        assert await statuses(receiver) == {"A": 2}


async def test_retry_receipts_go_to_who_answers_them(receiver: Receiving) -> None:
    node = receipt("A", type="retry")
    node.content = [Node("retry", {"count": "1", "id": "A"})]
    reaction = await receiver.take(node)
    assert [one.tag for one in reaction.answers] == ["ack"]
    assert [event.type for event in await receiver.events()] == ["test:retry"]
    await receiver.take(receipt("A", type="retry"))
    assert await receiver.events() == []


@settings(max_examples=25)
@given(st.lists(hostile("receipt"), min_size=1, max_size=30))
def test_no_receipt_is_too_much(nodes: list[Node]) -> None:
    async def scenario() -> None:
        async with receiving() as plain:
            receiver = Receiving(plain.ctx)
            devices = Devices(plain.ctx)
            retries = Retries(plain.ctx, devices, Outbound(plain.ctx, devices))
            receiver.receipts = Receipts(plain.ctx, retries.asked)
            await wrote(plain.ctx, "A", chat=GROUP)
            for node in nodes:
                answers = (await receiver.take(node)).answers
                answerable = bool(node.attrs.get("id")) and bool(node.attrs.get("from"))
                assert [one.tag for one in answers] == ["ack"] * answerable

    trio.run(scenario)
