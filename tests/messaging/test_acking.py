"""The server's answer to a message: taken, refused for now, refused for good."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.messaging.accounts import OWN_LID, START_MS
from tests.messaging.outbound_helpers import World, bob, encs_of, make_world, restarted
from waD.messaging import kinds
from waD.messaging.acking import MAX_REPEATS
from waD.messaging.phash import device_hash
from waD.messaging.reaction import FetchDevices
from waD.store.store import Store
from waD.wire.codec import encode
from waD.wire.jid import JID
from waD.wire.node import Node, Value


@pytest.fixture
async def world(store: Store) -> World:
    return await make_world(store, companions=(3,))


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0.05)


def ack(message_id: str, chat: JID, **attrs: Value) -> Node:
    return Node("ack", {"class": "message", "id": message_id, "from": chat, "t": "1700000009", **attrs})


async def written(world: World, text: str = "one") -> str:
    """A message on the wire that nobody acknowledged."""
    if not world.server.people.get(bob().pn.user):
        world.server.add(bob())
    world.server.acks = lambda node: None
    message_id = await world.send(text, bob().pn)
    async with world.pumping():
        await world.until(message_id, "sending")
        await world.until_written(len(world.server.messages()) or 1)
    return message_id


async def test_the_servers_time_is_the_messages_time(world: World) -> None:
    message_id = await written(world)
    await world.acked(ack(message_id, bob().lid))
    assert (await world.message(message_id)).ts == (await world.row(message_id)).sent_at == 1_700_000_009_000


@pytest.mark.parametrize("time", [{}, {"t": "soon"}])
async def test_without_a_readable_time_our_own_counts(world: World, time: dict[str, Value]) -> None:
    message_id = await written(world)
    stanza = ack(message_id, bob().lid)
    del stanza.attrs["t"]
    stanza.attrs.update(time)
    await world.acked(stanza)
    row = await world.row(message_id)
    assert (row.state, row.sent_at is not None and row.sent_at >= START_MS) == ("sent", True)


async def test_an_ack_in_the_other_namespace_counts_and_one_of_somebody_else_does_not(world: World) -> None:
    message_id = await written(world)
    await world.acked(ack(message_id, JID.parse("900000000000009@lid")))
    assert (await world.row(message_id)).state == "sending"
    await world.acked(ack(message_id, bob().pn))
    assert (await world.row(message_id)).state == "sent"


@pytest.mark.parametrize(
    "stanza",
    [
        Node("ack", {"class": "message", "from": bob().lid}),
        Node("ack", {"class": "message", "id": "3EB0UNKNOWN", "from": bob().lid}),
        Node("ack", {"class": "message", "id": "3EB0UNKNOWN", "from": bob().lid, "error": "479"}),
        Node("ack", {"class": "message", "id": "x"}),
    ],
)
async def test_acks_about_nothing_change_nothing(world: World, stanza: Node) -> None:
    message_id = await written(world)
    reaction = await world.acked(stanza)
    assert (reaction.answers, reaction.work) == ([], [])
    assert (await world.row(message_id)).state == "sending"


async def test_two_acks_tell_once(world: World) -> None:
    message_id = await written(world)
    async with world.ctx.state.lock:
        unit = world.ctx.state.unit()
        await world.outbound.acked(ack(message_id, bob().lid), unit)
        await world.outbound.acked(ack(message_id, bob().lid), unit)
        await world.ctx.state.commit(unit)
    await world.acked(ack(message_id, bob().lid))
    assert await world.statuses(message_id) == ["sent"]


async def test_an_ack_after_a_restart_is_matched_with_the_outbox(world: World) -> None:
    message_id = await written(world)
    again = restarted(world)
    await again.acked(ack(message_id, bob().lid))
    assert (await again.row(message_id)).state == "sent"
    assert await again.statuses(message_id) == ["sent"]


@pytest.mark.parametrize("same_unit", [True, False])
async def test_a_receipt_that_overtook_the_ack_is_not_taken_back(world: World, same_unit: bool) -> None:
    message_id = await written(world)
    async with world.ctx.state.lock:
        unit = world.ctx.state.unit()
        unit.raise_status(str(bob().lid), message_id, 3)
        if not same_unit:
            await world.ctx.state.commit(unit)
            unit = world.ctx.state.unit()
        await world.outbound.acked(ack(message_id, bob().lid), unit)
        await world.ctx.state.commit(unit)
    assert (await world.row(message_id)).state == "sent"
    assert (await world.message(message_id)).status == 3
    assert await world.statuses(message_id) == []


@pytest.mark.parametrize("code", [401, 403, 404, 405, 429, 463, 473, 475, 479, 999])
async def test_final_refusals_fail_the_message_with_their_code(world: World, code: int) -> None:
    message_id = await written(world)
    await world.acked(ack(message_id, bob().lid, error=str(code)))
    row, message = await world.row(message_id), await world.message(message_id)
    assert (row.state, row.last_error, message.status) == ("failed", str(code), 0)
    (event,) = [event for event in await world.events() if event.type == "message:status"]
    assert (event.data["status"], event.data["code"]) == ("failed", code)
    known = await world.devices.record(bob().lid)
    assert (known is None) == (code == 404)


async def test_a_refusal_without_a_number_is_still_one(world: World) -> None:
    message_id = await written(world)
    await world.acked(ack(message_id, bob().lid, error="who knows"))
    assert (await world.row(message_id)).last_error == "0"


@pytest.mark.parametrize("code", [406, 421])
async def test_stale_devices_are_asked_for_and_the_message_is_encrypted_once_more(
    world: World, code: int
) -> None:
    peer = world.server.add(bob())
    answers: list[dict[str, Value]] = [{"error": str(code)}, {}]
    world.server.acks = lambda node: answers.pop(0)
    async with world.pumping():
        message_id = await world.send("one", peer.pn)
        await world.until(message_id, "sent")
    first, second = world.server.messages()
    assert first.attrs["id"] == second.attrs["id"] == message_id
    assert encode(first) != encode(second)
    assert peer.texts() == ["one", "one"]
    assert world.server.asked("usync") == 3
    assert (await world.row(message_id)).attempts == 2
    assert await world.statuses(message_id) == ["sent"]


@pytest.mark.parametrize("code", [400, 406])
async def test_a_second_refusal_of_the_addressing_is_final(world: World, code: int) -> None:
    peer = world.server.add(bob())
    world.server.acks = lambda node: {"error": str(code)}
    async with world.pumping():
        message_id = await world.send("one", peer.pn)
        row = await world.until(message_id, "failed")
    assert row.last_error == str(code)
    assert len(world.server.messages()) == 2


async def test_a_refused_lid_is_tried_by_number(world: World) -> None:
    peer = world.server.add(bob((0, 4)))
    world.server.acks = lambda node: {"error": "400"} if node.jid("to") == peer.lid else {}
    async with world.pumping():
        await world.sent("one", peer.pn)
    first, second = world.server.messages()
    assert (first.jid("to"), second.jid("to")) == (peer.lid, peer.pn)
    assert not any(jid.is_lid for jid, _ in encs_of(second))
    assert peer.phone.failed == []
    assert world.me.phone.inbox[-1][1].deviceSentMessage.destinationJid == str(peer.pn)


async def test_trouble_of_the_server_repeats_the_same_bytes_later(store: Store, clock: MockClock) -> None:
    world = await make_world(store)
    peer = world.server.add(bob())
    answers: list[dict[str, Value]] = [{"error": "503"}, {"error": "500"}, {}, {}]
    world.server.acks = lambda node: answers.pop(0)
    async with world.pumping():
        first = await world.send("one", peer.pn)
        second = await world.send("two", peer.pn)
        await world.until(first, "sent")
        await world.until(second, "sent")
    assert trio.current_time() >= 4
    for message_id in (first, second):
        sent = [encode(node) for node in world.server.messages() if node.attrs["id"] == message_id]
        assert len(set(sent)) == 1
        assert len(sent) == 2


async def test_trouble_that_does_not_end_fails(store: Store, clock: MockClock) -> None:
    world = await make_world(store)
    peer = world.server.add(bob())
    world.server.acks = lambda node: {"error": "503"}
    async with world.pumping():
        row = await world.until(await world.send("one", peer.pn), "failed")
    assert row.last_error == "503"
    assert len(world.server.messages()) == MAX_REPEATS


# Hints.


async def lists(world: World) -> tuple[bool, bool]:
    """Whether the recipient's list and the own one are known."""
    theirs = await world.ctx.state.item(kinds.DEVICES, str(bob().lid))
    own = await world.ctx.state.item(kinds.DEVICES, str(OWN_LID.bare))
    return theirs is not None, own is not None


def addressed(world: World, *more: JID) -> list[JID]:
    return [*(jid for jid, _ in encs_of(world.server.messages()[-1])), *more]


@pytest.mark.parametrize("this_device_too", [True, False])
async def test_a_hash_of_the_devices_written_to_is_no_news(world: World, this_device_too: bool) -> None:
    message_id = await written(world)
    told = device_hash(addressed(world, *([OWN_LID] if this_device_too else [])))
    await world.acked(ack(message_id, bob().lid, phash=told))
    assert await lists(world) == (True, True)


async def test_another_hash_makes_the_next_message_ask_again(world: World) -> None:
    message_id = await written(world)
    await world.acked(ack(message_id, bob().lid, phash="2:AAAAAAAA"))
    assert await lists(world) == (False, False)
    assert (await world.row(message_id)).state == "sent"
    peer = world.server.people[bob().pn.user]
    peer.add(9)
    world.server.acks = lambda node: {}
    async with world.pumping():
        await world.sent("two", peer.pn)
    assert peer.texts(9) == ["two"]


async def test_a_stale_lid_is_asked_for(world: World) -> None:
    message_id = await written(world)
    reaction = await world.acked(ack(message_id, bob().lid, refresh_lid="true"))
    assert reaction.work == [FetchDevices((bob().pn,))]
    person = world.server.people[bob().pn.user]
    person.lid = JID.parse("200000000000099@lid")
    world.server.add(person)
    await world.devices.refresh((bob().pn,), world.server)
    assert await world.ctx.addresses.lid_of(bob().pn) == person.lid


async def test_an_operators_order_is_not_undone_by_a_late_ack(world: World) -> None:
    message_id = await written(world)
    changes: dict[str, Any] = {"state": "cancelled"}
    async with world.ctx.state.lock:
        unit = world.ctx.state.unit()
        unit.update_outbox(message_id, **changes)
        await world.ctx.state.commit(unit)
    await world.acked(ack(message_id, bob().lid))
    assert (await world.row(message_id)).state == "cancelled"
