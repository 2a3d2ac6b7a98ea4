"""Device lists: asked for, checked, kept, and changed by notifications."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.messaging.accounts import START_MS
from tests.messaging.outbound_helpers import Person, World, bob, carol, make_world, need
from waD.link.devices import device_jids
from waD.link.errors import RequestError
from waD.link.usync import ListedDevice
from waD.messaging import kinds
from waD.messaging.device_lists import UNVERIFIED_LIFE_MS, DeviceRecord
from waD.messaging.phash import contact_hash, device_hash
from waD.messaging.reaction import FetchDevices, Reaction
from waD.store.store import Store
from waD.wire.jid import JID
from waD.wire.node import Node, Value


@pytest.fixture
async def clock() -> list[int]:
    return [0]


@pytest.fixture
async def world(store: Store, clock: list[int]) -> World:
    return await make_world(store, companions=(3,), now_ms=lambda: START_MS + clock[0])


async def known(world: World, peer: Person, *, met: bool = True) -> Person:
    """A person whose list is stored; with `met` one that was written to, so that the list is verified."""
    world.server.add(peer)
    if met:
        async with world.pumping():
            await world.sent("hello", peer.pn)
        await world.devices.refresh([peer.pn], world.server)
    else:
        await world.devices.refresh([peer.lid], world.server)
    return peer


async def numbers(world: World, user: JID) -> list[int] | None:
    record = await world.devices.record(user)
    return None if record is None else [item.id for item in record.devices]


async def session_is_current(world: World, device: JID) -> bool:
    record = await world.ctx.records.session(await world.ctx.addresses.signal_address(device))
    return record is not None and record.current is not None


# Asking.


async def test_a_list_is_stored_under_the_canonical_address(world: World) -> None:
    peer = await known(world, bob((0, 4)))
    record = await world.devices.record(peer.pn)
    assert record is not None
    assert (record.state, record.raw_id, record.signed) == ("verified", 1, None)
    assert record == await world.devices.record(peer.lid)
    assert await numbers(world, peer.pn) == [0, 4]
    assert await world.devices.targets(peer.pn) == peer.jids("s.whatsapp.net")
    assert await world.devices.targets(peer.lid) == peer.jids("lid")


async def test_the_own_list_leaves_this_device_out(world: World) -> None:
    await known(world, bob())
    assert await numbers(world, world.me.pn) == [0, 3, 7]
    assert await world.devices.targets(world.me.lid) == [world.me.lid, world.me.lid.with_device(3)]
    assert await world.devices.targets(world.me.pn) == [world.me.pn, world.me.pn.with_device(3)]


async def test_before_the_phone_is_known_a_list_is_provisional_and_then_verified(world: World) -> None:
    peer = await known(world, bob((0, 4)), met=False)
    record = await world.devices.record(peer.lid)
    assert record is not None
    assert record.state == "provisional"
    async with world.pumping():
        await world.sent("hello", peer.lid)
    record = await world.devices.record(peer.lid)
    assert record is not None
    assert (record.state, record.signed) == ("verified", None)
    assert peer.texts(4) == ["hello"]


async def test_a_forged_list_counts_for_the_phone_only(world: World) -> None:
    peer = bob((0, 4))
    peer.forged = True
    await known(world, peer, met=False)
    async with world.pumping():
        await world.sent("hello", peer.lid)
        assert (peer.texts(0), await numbers(world, peer.lid)) == (["hello"], [0])
        await world.sent("more", peer.lid)
    assert peer.texts(4) == []
    assert peer.texts(0) == ["hello", "more"]


async def test_a_list_without_signature_counts_for_the_phone_only(world: World) -> None:
    peer = bob((0, 4))
    peer.tell_signed_list = False
    await known(world, peer)
    assert (peer.texts(0), peer.texts(4)) == (["hello"], [])
    record = await world.devices.record(peer.lid)
    assert record is not None
    assert (record.state, record.hash) == ("missing", None)


async def test_an_unverified_list_is_asked_for_again_after_a_while(world: World, clock: list[int]) -> None:
    peer = bob((0, 4))
    peer.tell_signed_list = False
    await known(world, peer)
    assert await world.devices.targets(peer.lid) is not None
    clock[0] += UNVERIFIED_LIFE_MS
    assert await world.devices.targets(peer.lid) is None
    peer.tell_signed_list = True
    async with world.pumping():
        await world.sent("more", peer.lid)
    assert peer.texts(4) == ["more"]


async def test_an_unchanged_list_is_left_out_by_the_server_and_stays(world: World) -> None:
    peer = await known(world, bob((0, 4)))
    before = await world.devices.record(peer.lid)
    assert before is not None
    assert await world.devices.refresh([peer.pn, peer.lid], world.server) == {}
    assert await world.devices.record(peer.lid) == before
    (user,) = need(need(world.server.requests[-1], "usync"), "list").children("user")
    assert need(user, "devices").attrs == {"device_hash": before.hash, "ts": str(before.ts)}


async def test_a_hash_over_numbers_says_nothing_about_lids(world: World) -> None:
    peer = await known(world, bob((0, 4)))
    await world.devices.refresh([peer.lid], world.server)
    (user,) = need(need(world.server.requests[-1], "usync"), "list").children("user")
    assert user.child("devices") is None
    record = await world.devices.record(peer.lid)
    assert record is not None
    assert record.namespace == "lid"


async def test_an_older_list_is_ignored(world: World) -> None:
    peer = await known(world, bob((0, 4)))
    peer.list_ts -= 100
    del peer.devices[4]
    await world.devices.refresh([peer.lid], world.server)
    assert await numbers(world, peer.lid) == [0, 4]


async def test_a_device_that_left_gets_nothing_more(world: World) -> None:
    peer = await known(world, bob((0, 4)))
    assert await session_is_current(world, peer.lid.with_device(4))
    peer.remove(4)
    await world.devices.refresh([peer.lid], world.server)
    assert await numbers(world, peer.lid) == [0]
    assert not await session_is_current(world, peer.lid.with_device(4))
    assert await session_is_current(world, peer.lid)


async def test_an_account_registered_anew_gets_new_sessions(world: World) -> None:
    """Another raw id under the same key: sessions are archived. Under another key the phone's bundle decides."""
    peer = await known(world, bob((0, 4)))
    peer.raw_id, peer.list_ts = 2, peer.list_ts + 5
    peer.phone.reinstall()
    peer.devices[4].reinstall()
    peer.add(5)
    await world.devices.refresh([peer.lid], world.server)
    assert not await session_is_current(world, peer.lid)
    async with world.pumping():
        await world.sent("more", peer.lid)
    assert peer.texts(0) == ["hello", "more"]
    changes = [event for event in await world.events() if event.type == "identity:changed"]
    assert [event.data for event in changes] == [{"user": str(peer.lid), "implicit": True}]


async def test_refusals_for_single_accounts_are_told(world: World) -> None:
    world.server.add(bob())
    world.server.faults = [("usync", RequestError(429, "rate-overlimit", 9))]
    with pytest.raises(RequestError) as caught:
        await world.devices.refresh([bob().lid], world.server)
    assert caught.value.backoff == 9
    assert await world.devices.record(bob().lid) is None


async def test_an_account_without_devices_is_not_remembered(world: World) -> None:
    assert await world.devices.refresh([carol().lid], world.server) == {}
    assert await world.devices.record(carol().lid) is None
    assert await world.devices.targets(carol().lid) is None


async def test_a_notification_overtakes_an_answer(world: World) -> None:
    peer = world.server.add(bob((0, 4)))
    world.server.gate = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.devices.refresh, [peer.lid], world.server)
        await trio.testing.wait_all_tasks_blocked(0.05)
        async with world.ctx.state.lock:
            unit = world.ctx.state.unit()
            await world.devices.invalidate(unit, peer.lid)
            await world.ctx.state.commit(unit)
        world.server.gate.set()
    assert await world.devices.record(peer.lid) is None


async def test_a_damaged_list_is_asked_for_again(world: World) -> None:
    peer = await known(world, bob())
    unit = world.ctx.state.unit()
    unit.put(kinds.DEVICES, str(peer.lid), b"{}")
    await world.ctx.state.commit(unit)
    assert await world.devices.record(peer.lid) is None
    async with world.pumping():
        await world.sent("more", peer.lid)
    assert await numbers(world, peer.lid) == [0]


async def test_nobody_asks_about_bots_and_groups(world: World) -> None:
    for text in ("13135550002@s.whatsapp.net", "120363000000000001@g.us", "1@newsletter", "1@bot"):
        assert await world.devices.refresh([JID.parse(text)], world.server) == {}
    assert world.server.requests == []


async def test_lists_know_devices(world: World) -> None:
    peer = await known(world, bob((0, 4)))
    assert await world.devices.knows(peer.pn.with_device(4)) is True
    assert await world.devices.knows(peer.lid.with_device(5)) is False
    assert await world.devices.knows(carol().lid) is None
    assert await world.devices.companions(peer.lid) == [peer.lid.with_device(4)]


# Notifications.


def notice(user: JID, *operations: Node, kind: str = "devices", **attrs: Value) -> Node:
    return Node("notification", {"from": user, "id": "77", "t": "1", "type": kind, **attrs}, list(operations))


def listed(peer: Person, server: str, *ids: int, index: bool = True) -> list[Node]:
    nodes = []
    for number in ids:
        attrs: dict[str, Value] = {"jid": (peer.lid if server == "lid" else peer.pn).with_device(number)}
        if index and number:
            attrs["key-index"] = str(number)
        nodes.append(Node("device", attrs))
    return nodes


def signed(peer: Person) -> Node:
    return Node("key-index-list", {"ts": str(peer.list_ts)}, peer.key_index_list())


async def told(world: World, stanza: Node) -> Reaction:
    reaction = await world.lane(world.devices.apply_notification, stanza)
    (ack,) = reaction.answers
    assert (ack.tag, ack.attrs["class"], ack.attrs["id"]) == ("ack", "notification", "77")
    return reaction


@pytest.mark.parametrize("server", ["lid", "s.whatsapp.net"])
async def test_a_device_is_added(world: World, server: str) -> None:
    peer = await known(world, bob((0, 4)))
    device = peer.add(6)
    user = peer.lid if server == "lid" else peer.pn
    hashed = device_hash(peer.jids(server))
    name = "device_lid_hash" if server == "lid" else "device_hash"
    await told(world, notice(user, Node("add", {name: hashed}, [*listed(peer, server, 6), signed(peer)])))
    assert await numbers(world, peer.lid) == [0, 4, 6]
    record = await world.devices.record(peer.lid)
    assert record is not None
    assert record.state == "verified"
    async with world.pumping():
        await world.sent("more", peer.lid)
    assert device.texts() == ["more"]


async def test_a_device_the_account_did_not_sign_for_is_not_added(world: World) -> None:
    peer = await known(world, bob((0, 4)))
    before = signed(peer)
    assert before.attrs["ts"] == str(peer.list_ts)
    peer.list_ts += 1
    stanza = notice(peer.lid, Node("add", {}, [*listed(peer, "lid", 6), signed(peer)]))
    # Index 6 is above the current index, which says "newer than this list": it is let through (chapter 06 §1.4).
    await told(world, stanza)
    assert await numbers(world, peer.lid) == [0, 4, 6]
    peer.add(9)
    peer.remove(9)
    await told(world, notice(peer.lid, Node("add", {}, [*listed(peer, "lid", 2), signed(peer)])))
    assert 2 not in (await numbers(world, peer.lid) or [])


@pytest.mark.parametrize(
    "spoil",
    ["another hash", "no list", "no devices", "somebody else's device", "two numbers", "forged"],
)
async def test_an_addition_that_does_not_fit_drops_the_list(world: World, spoil: str) -> None:
    peer = await known(world, bob((0, 4)))
    peer.add(6)
    devices, index = listed(peer, "lid", 6), [signed(peer)]
    attrs: dict[str, Value] = {"device_lid_hash": device_hash(peer.jids("lid"))}
    match spoil:
        case "another hash":
            attrs["device_lid_hash"] = "2:AAAAAAAA"
        case "no list":
            index = []
        case "no devices":
            devices = []
        case "somebody else's device":
            devices = listed(carol(), "lid", 6)
        case "two numbers":
            devices[0].attrs["lid"] = peer.lid.with_device(7)
        case _:
            peer.forged = True
            index = [signed(peer)]
    await told(world, notice(peer.lid, Node("add", attrs, [*devices, *index])))
    assert await world.devices.record(peer.lid) is None


async def test_an_older_addition_changes_nothing(world: World) -> None:
    peer = await known(world, bob((0, 4)))
    before = await world.devices.record(peer.lid)
    peer.list_ts -= 50
    await told(world, notice(peer.lid, Node("add", {}, [*listed(peer, "lid", 6), signed(peer)])))
    assert await world.devices.record(peer.lid) == before


async def test_without_a_stored_list_an_addition_waits_for_the_next_message(world: World) -> None:
    peer = bob()
    await told(world, notice(peer.lid, Node("add", {}, [*listed(peer, "lid", 6), signed(peer)])))
    assert await world.devices.record(peer.lid) is None


async def test_a_device_is_removed(world: World) -> None:
    peer = await known(world, bob((0, 4)))
    peer.remove(4)
    hashed = device_hash(peer.jids("lid"))
    removed = Node("device", {"jid": peer.lid.with_device(4)})
    index = Node("key-index-list", {"ts": str(peer.list_ts)})
    # Several operations in one stanza: removal wins.
    add = Node("add", {}, [*listed(peer, "lid", 9), index])
    await told(world, notice(peer.lid, add, Node("remove", {"device_lid_hash": hashed}, [removed, index])))
    assert await numbers(world, peer.lid) == [0]
    assert not await session_is_current(world, peer.lid.with_device(4))


@pytest.mark.parametrize(
    ("number", "ts"), [(0, "1900000000"), (4, None), (4, "0"), (4, "1000"), (5, "1900000000")]
)
async def test_removals_that_remove_nothing(world: World, number: int, ts: str | None) -> None:
    peer = await known(world, bob((0, 4)))
    index = Node("key-index-list", {} if ts is None else {"ts": ts})
    removed = Node("device", {"jid": peer.lid.with_device(number)})
    await told(world, notice(peer.lid, Node("remove", {}, [removed, index])))
    assert await numbers(world, peer.lid) == [0, 4]


async def test_a_removal_with_another_hash_drops_the_list(world: World) -> None:
    peer = await known(world, bob((0, 4, 6)))
    index = Node("key-index-list", {"ts": str(peer.list_ts + 1)})
    removed = Node("device", {"jid": peer.lid.with_device(4)})
    await told(world, notice(peer.lid, Node("remove", {"device_lid_hash": "2:AAAAAAAA"}, [removed, index])))
    assert await world.devices.record(peer.lid) is None


@pytest.mark.parametrize("by_number", [True, False])
async def test_a_contact_named_by_a_hash_is_asked_about_again(world: World, by_number: bool) -> None:
    peer, other = await known(world, bob()), await known(world, carol())
    user = peer.pn.user if by_number else peer.lid.user
    await told(world, notice(other.lid, Node("update", {"hash": contact_hash(user)})))
    assert await world.devices.record(peer.lid) is None
    assert await world.devices.record(other.lid) is not None


async def test_a_notification_fills_a_gap_in_the_map_of_people(world: World) -> None:
    peer = carol()
    update = Node("update", {"hash": "AAAA"})
    await told(world, notice(peer.pn, update, lid=peer.lid))
    assert await world.ctx.addresses.lid_of(peer.pn) == peer.lid


@pytest.mark.parametrize(
    "stanza", [notice(bob().lid), notice(JID.parse("1@g.us")), notice(JID("", "s.whatsapp.net"))]
)
async def test_notices_about_nothing_are_acked(world: World, stanza: Node) -> None:
    assert (await told(world, stanza)).work == []


# The own account.


def sync(me: Person, ids: tuple[int, ...], **attrs: Value) -> Node:
    hashed = device_hash([me.pn.with_device(number) for number in ids])
    devices = Node("devices", {"dhash": hashed, **attrs}, listed(me, "s.whatsapp.net", *ids))
    return notice(me.pn, devices, kind="account_sync")


async def test_an_own_device_that_left_is_gone_at_once(world: World) -> None:
    await known(world, bob())
    reaction = await told(world, sync(world.me, (0, 7)))
    assert await numbers(world, world.me.pn) == [0, 7]
    assert not await session_is_current(world, world.me.lid.with_device(3))
    assert reaction.work == []


async def test_a_new_own_device_is_asked_about(world: World) -> None:
    await known(world, bob())
    reaction = await told(world, sync(world.me, (0, 3, 7, 9)))
    assert reaction.work == [FetchDevices((world.me.pn,))]
    assert await world.devices.record(world.me.pn) is None


async def test_the_own_list_of_somebody_else_is_ignored(world: World) -> None:
    peer = await known(world, bob((0, 4)))
    await told(world, sync(peer, (0,)))
    assert await numbers(world, peer.lid) == [0, 4]
    assert await numbers(world, world.me.pn) == [0, 3, 7]


# Hosted devices.


@pytest.mark.parametrize("hosted", [True, False])
async def test_hosted_devices_get_messages_only_of_hosted_businesses(world: World, hosted: bool) -> None:
    record = DeviceRecord(
        devices=(ListedDevice(0), ListedDevice(99, 99, hosted=True)), state="verified", hosted=hosted
    )
    unit = world.ctx.state.unit()
    unit.put(kinds.DEVICES, str(bob().lid), record)
    await world.ctx.state.commit(unit)
    wanted: list[Any] = device_jids(bob().lid, record.devices)
    assert await world.devices.targets(bob().lid) == (wanted if hosted else wanted[:1])
