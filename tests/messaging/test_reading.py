"""Read receipts: for whom, in which form, and that they are durable before they are sent."""

from __future__ import annotations

from typing import Any

import pytest

from tests.messaging.accounts import START_MS
from tests.messaging.outbound_helpers import World, bob, make_world
from waD.messaging.content import ContentError
from waD.messaging.delivery import MAX_RECEIPT_IDS
from waD.messaging.reading import receipts
from waD.store.errors import StorageUnavailable
from waD.store.model import MessageRow
from waD.store.store import Store
from waD.wire.node import Node

PEER = bob()
GROUP = "120363000000000001@g.us"


@pytest.fixture
async def world(store: Store) -> World:
    return await make_world(store, now_ms=lambda: START_MS)


def row(message_id: str, **more: Any) -> MessageRow:
    values: dict[str, Any] = {
        "chat": str(PEER.lid),
        "sender": str(PEER.lid),
        "message_id": message_id,
        "from_me": False,
        "ts": START_MS,
        "kind": "text",
        "body": "x",
        "status": 3,
        "wire_chat": str(PEER.pn),
        "wire_sender": f"{PEER.pn.user}:4@s.whatsapp.net",
        **more,
    }
    return MessageRow(**values)


async def stored(world: World, *rows: MessageRow) -> None:
    async with world.ctx.state.lock:
        unit = world.ctx.state.unit()
        await world.ctx.addresses.learn(unit, PEER.pn, PEER.lid, "live")
        for message in rows:
            unit.add_message(message)
        await world.ctx.state.commit(unit)


async def test_a_direct_chat_is_told_as_its_stanzas_spelt_it(world: World) -> None:
    await stored(world, row("A1"), row("A2"))
    (node,) = await world.outbound.mark_read("15550000002", ["A1", "A2", "A1"])
    assert node == Node(
        "receipt",
        {"id": "A1", "to": PEER.pn, "type": "read", "t": str(START_MS // 1000)},
        [Node("list", {}, [Node("item", {"id": "A2"})])],
    )
    assert [(await world.message(name)).status for name in ("A1", "A2")] == [4, 4]


async def test_one_id_needs_no_list(world: World) -> None:
    await stored(world, row("A1", wire_chat=None))
    (node,) = await world.outbound.mark_read(str(PEER.lid), ["A1"])
    assert (node.attrs["to"], node.content) == (PEER.lid, None)


async def test_groups_name_the_author(world: World) -> None:
    more = {"chat": GROUP, "wire_chat": GROUP}
    other = {"sender": "300000000000003@lid", "wire_sender": "300000000000003:9@lid"}
    await stored(world, row("A1", **more), row("B1", **more, **other), row("A2", **more))
    first, second = await world.outbound.mark_read(GROUP, ["A1", "B1", "A2"])
    assert first.text("participant") == str(PEER.pn)
    assert [item.attrs["id"] for item in first.child("list").children()] == ["A2"]  # type: ignore[union-attr]
    assert (second.text("participant"), second.attrs["id"]) == ("300000000000003@lid", "B1")


async def test_who_keeps_it_to_himself_tells_own_devices_only_and_groups_all_the_same(store: Store) -> None:
    world = await make_world(store, settings={"send_read_receipts": False})
    group = {"chat": GROUP, "wire_chat": GROUP}
    status = {"chat": "status@broadcast", "wire_chat": "status@broadcast"}
    await stored(world, row("A1"), row("G1", **group), row("S1", **status))
    (direct,) = await world.outbound.mark_read(str(PEER.pn), ["A1"])
    (of_group,) = await world.outbound.mark_read(GROUP, ["G1"])
    (of_status,) = await world.outbound.mark_read("status@broadcast", ["S1"])
    assert [node.attrs["type"] for node in (direct, of_group, of_status)] == ["read-self", "read", "read"]
    assert of_status.attrs["context"] == "status"
    assert "context" not in of_group.attrs


async def test_own_messages_are_left_out(world: World) -> None:
    await stored(world, row("A1", from_me=True, sender=str(world.me.lid)))
    assert await world.outbound.mark_read(str(PEER.lid), ["A1"]) == []
    assert await world.outbound.mark_read(str(PEER.lid), []) == []


@pytest.mark.parametrize("ids", [["A1", "NOPE"], ["\ud83d"], ["IN-ANOTHER-CHAT"]])
async def test_unknown_messages_are_named_and_nothing_is_marked(world: World, ids: list[str]) -> None:
    await stored(world, row("A1"), row("IN-ANOTHER-CHAT", chat=GROUP))
    with pytest.raises(ContentError) as caught:
        await world.outbound.mark_read(str(PEER.lid), ids)
    assert caught.value.code == "unknown_message"
    assert repr(ids[-1]) in str(caught.value)
    assert (await world.message("A1")).status == 3


async def test_a_bad_chat_is_refused(world: World) -> None:
    with pytest.raises(ContentError) as caught:
        await world.outbound.mark_read("nobody@nowhere", ["A1"])
    assert caught.value.code == "bad_recipient"


async def test_what_could_not_be_stored_is_not_told(world: World) -> None:
    await stored(world, row("A1"))
    world.refuse_commit = lambda job: True
    with pytest.raises(StorageUnavailable):
        await world.outbound.mark_read(str(PEER.lid), ["A1"])


async def test_a_played_message_stays_played(world: World) -> None:
    await stored(world, row("A1", status=5))
    assert len(await world.outbound.mark_read(str(PEER.lid), ["A1"])) == 1
    assert (await world.message("A1")).status == 5


async def test_many_are_split(world: World) -> None:
    rows = [row(f"M{number}") for number in range(2 * MAX_RECEIPT_IDS + 3)]
    nodes = receipts(world.ctx, rows)
    sizes = [1 + len(node.child("list").children()) for node in nodes]  # type: ignore[union-attr]
    assert sizes == [MAX_RECEIPT_IDS, MAX_RECEIPT_IDS, 3]
