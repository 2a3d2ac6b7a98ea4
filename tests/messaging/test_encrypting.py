"""Sessions for sending and the fan-out: bundles and their proofs, what is missing, what is never sent."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from tests.messaging.accounts import account_blob
from tests.messaging.outbound_helpers import Person, Simulated, World, bob, carol, make_world
from waD.e2ee import session as signal
from waD.e2ee.curve import KeyPair
from waD.e2ee.errors import SignalError
from waD.link.errors import RequestError
from waD.messaging import kinds
from waD.messaging.encrypting import Missing, NoDevices
from waD.messaging.sessions import REFUSED_LIFE_S
from waD.store.errors import StorageUnavailable, StoreDamaged
from waD.store.store import Store
from waD.wire.jid import JID
from waD.wire.node import Node


@pytest.fixture
async def world(store: Store) -> World:
    return await make_world(store, companions=(3,))


def spoiled(device: Simulated, spoil: Callable[[list[Node]], list[Node]]) -> None:
    """Let the server hand out something else for a device."""
    make = device.bundle
    device.bundle = lambda: spoil(make())  # type: ignore[method-assign]


def without(tag: str) -> Callable[[list[Node]], list[Node]]:
    return lambda nodes: [node for node in nodes if node.tag != tag]


def replaced(tag: str, content: bytes) -> Callable[[list[Node]], list[Node]]:
    return lambda nodes: [Node(tag, {}, content) if node.tag == tag else node for node in nodes]


# Bundles.


async def test_sessions_are_built_once_and_are_durable(world: World) -> None:
    peer = world.server.add(bob((0, 4)))
    await world.outbound.sessions.ensure(peer.jids("lid"), world.server)
    await world.outbound.sessions.ensure(peer.jids("s.whatsapp.net"), world.server)
    assert world.server.asked("encrypt") == 2, "by number the sessions are not known before the mapping is"
    assert await world.outbound.sessions.usable(peer.lid)
    stored = await world.ctx.state.item(kinds.IDENTITY, "200000000000002_1.4")
    assert stored is not None
    assert base64.b64decode(json.loads(stored)) == b"\x05" + peer.devices[4].identity.public


async def test_two_that_need_one_device_take_one_bundle(world: World) -> None:
    peer = world.server.add(bob())
    world.server.gate = trio.Event()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(world.outbound.sessions.ensure, [peer.lid], world.server)
        await trio.testing.wait_all_tasks_blocked(0.05)
        world.server.gate.set()
    assert world.server.asked("encrypt") == 1
    assert peer.phone.handed == 1


async def test_a_cancelled_wait_leaves_no_lock_behind(world: World) -> None:
    peer = world.server.add(bob())
    world.server.gate = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.outbound.sessions.ensure, [peer.lid], world.server)
        await trio.testing.wait_all_tasks_blocked(0.05)
        with trio.move_on_after(0.05):
            await world.outbound.sessions.ensure([peer.lid], world.server)
        nursery.cancel_scope.cancel()
    world.server.gate.set()
    await world.outbound.sessions.ensure([peer.lid], world.server)
    assert await world.outbound.sessions.usable(peer.lid)


@pytest.mark.parametrize(
    "spoil",
    [
        without("registration"),
        without("skey"),
        replaced("registration", b"abc"),
        replaced("identity", b"short"),
        replaced("identity", bytes(32)),
        replaced("type", b"\x06"),
        replaced("device-identity", b"nonsense"),
        replaced(
            "device-identity", account_blob(KeyPair.from_private(b"x" * 32), KeyPair.from_private(b"y" * 32))
        ),
        without("device-identity"),
    ],
)
async def test_a_companion_with_a_bad_bundle_is_left_out(
    world: World, spoil: Callable[[list[Node]], list[Node]]
) -> None:
    peer = world.server.add(bob((0, 4)))
    spoiled(peer.devices[4], spoil)
    async with world.pumping():
        await world.sent("hello", peer.pn)
    assert (peer.texts(0), peer.texts(4)) == (["hello"], [])


async def test_a_companion_of_another_phone_is_left_out(world: World) -> None:
    """A device that the server slips in: its own phone vouches for it, the contact's does not."""
    peer, stranger = world.server.add(bob((0, 4))), carol((0, 4))
    device = peer.devices[4]
    whole = account_blob(stranger.phone.identity, device.identity, 4)
    spoiled(device, replaced("device-identity", whole))
    async with world.pumping():
        await world.sent("hello", peer.pn)
    assert (peer.texts(0), peer.texts(4)) == (["hello"], [])


async def test_a_companion_whose_phone_cannot_be_asked_is_left_out(world: World) -> None:
    peer = world.server.add(bob((0, 4)))
    world.server.refused_devices = {peer.lid}
    async with world.pumping():
        row = await world.until(await world.send("hello", peer.pn), "failed")
    assert row.last_error == "no_devices"
    assert peer.texts(4) == []


async def test_the_phone_comes_along_when_its_key_is_needed(world: World) -> None:
    peer = world.server.add(bob((0, 4)))
    await world.outbound.sessions.ensure([peer.lid.with_device(4)], world.server)
    assert await world.outbound.sessions.usable(peer.lid)
    assert await world.outbound.sessions.usable(peer.lid.with_device(4))


async def test_another_phone_of_our_own_account_gets_nothing(world: World) -> None:
    peer = world.server.add(bob())
    world.me.phone.reinstall()
    async with world.pumping():
        await world.sent("hello", peer.pn)
    assert peer.texts() == ["hello"]
    assert world.me.texts() == []


async def test_a_device_that_was_refused_is_asked_about_again_after_a_while(
    store: Store, clock: MockClock
) -> None:
    world = await make_world(store)
    peer = world.server.add(bob((0, 4)))
    world.server.refused_devices = {peer.lid.with_device(4)}
    async with world.pumping():
        await world.sent("one", peer.pn)
        world.server.refused_devices = set()
        await world.sent("two", peer.pn)
        assert peer.texts(4) == []
        await trio.sleep(REFUSED_LIFE_S)
        await world.sent("three", peer.pn)
    assert peer.texts(4) == ["three"]


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0.05)


async def test_a_phone_with_a_new_identity_is_told_once_and_its_companions_start_anew(world: World) -> None:
    peer = world.server.add(bob((0, 4)))
    async with world.pumping():
        await world.sent("one", peer.pn)
        peer.phone.reinstall()
        await world.outbound.renew_session(peer.lid, world.server)
        await world.outbound.renew_session(peer.lid, world.server)
        await world.sent("two", peer.pn)
    changes = [event.data for event in await world.events() if event.type == "identity:changed"]
    assert changes == [{"user": str(peer.lid), "implicit": True}]
    assert peer.texts(0) == peer.texts(4) == ["one", "two"]
    reasons = [
        node.child("key").child("user").text("reason")
        for node in world.server.requests
        if node.attrs["xmlns"] == "encrypt"
    ]  # type: ignore[union-attr]
    assert reasons == [None, "identity", "identity", None]


async def test_a_change_the_server_told_of_is_not_told_again(world: World) -> None:
    peer = world.server.add(bob())
    async with world.pumping():
        await world.sent("one", peer.pn)
    unit = world.ctx.state.unit()
    unit.put(kinds.IDENTITY_CHANGE, "200000000000002_1.0", b'"told"')
    await world.ctx.state.commit(unit)
    peer.phone.reinstall()
    await world.outbound.renew_session(peer.lid, world.server)
    assert [event for event in await world.events() if event.type == "identity:changed"] == []
    assert await world.ctx.state.item(kinds.IDENTITY_CHANGE, "200000000000002_1.0") != b'"told"'


async def test_late_messages_of_the_old_session_still_decrypt(world: World) -> None:
    peer = world.server.add(bob())
    async with world.pumping():
        await world.sent("one", peer.pn)
    late = peer.phone.encrypt(peer.phone.inbox[0][1])
    await world.outbound.renew_session(peer.lid, world.server)
    record = await world.ctx.records.session(await world.ctx.addresses.signal_address(peer.lid))
    assert record is not None
    done = signal.decrypt(
        record,
        world.ctx.account.creds.local_identity(),
        *late,
        lambda number: None,
        lambda number: None,
        lambda: KeyPair.from_private(b"r" * 32),
    )
    assert done.plaintext


async def test_nothing_is_built_that_cannot_be_stored(world: World) -> None:
    peer = world.server.add(bob())
    world.refuse_commit = lambda job: True
    with pytest.raises(StorageUnavailable):
        await world.outbound.sessions.ensure([peer.lid], world.server)
    world.refuse_commit = None
    assert not await world.outbound.sessions.usable(peer.lid)


async def test_a_refusal_of_the_server_builds_nothing(world: World) -> None:
    peer = world.server.add(bob())
    world.server.faults = [("encrypt", RequestError(503, "busy"))]
    with pytest.raises(RequestError):
        await world.outbound.sessions.ensure([peer.lid], world.server)
    assert not await world.outbound.sessions.usable(peer.lid)


async def test_a_session_of_an_older_identity_of_ours_is_not_used(world: World) -> None:
    peer = world.server.add(bob())
    async with world.pumping():
        await world.sent("one", peer.pn)
        fresh = KeyPair.from_private(b"n" * 32)
        account = world.ctx.account.creds.account
        blob = account_blob(world.me.phone.identity, fresh)
        assert account != blob
        await world.ctx.account.change_credentials(lambda creds: creds.change(identity=fresh, account=blob))
        assert not await world.outbound.sessions.usable(peer.lid)
        await world.sent("two", peer.pn)
    assert peer.texts() == ["one", "two"]


# The fan-out.


async def test_what_is_missing_is_named(world: World) -> None:
    peer = world.server.add(bob((0, 4)))
    unit = world.ctx.state.unit()
    with pytest.raises(Missing) as caught:
        await world.outbound.encryptor.targets(peer.lid, unit)
    assert (caught.value.lists, caught.value.stranger) == ((peer.lid, world.me.lid), True)
    await world.devices.refresh([peer.lid, world.me.lid], world.server)
    with pytest.raises(Missing) as caught:
        await world.outbound.encryptor.targets(peer.lid, unit)
    own = (world.me.lid, world.me.lid.with_device(3))
    assert caught.value.sessions == (*peer.jids("lid"), *own)
    assert caught.value.stranger
    await world.outbound.sessions.ensure([peer.lid], world.server)
    with pytest.raises(Missing) as caught:
        await world.outbound.encryptor.targets(peer.lid, unit)
    assert not caught.value.stranger
    await world.outbound.sessions.ensure([*peer.jids("lid"), *own], world.server)
    targets = await world.outbound.encryptor.targets(peer.lid, unit)
    assert (targets.devices, targets.own) == (tuple(peer.jids("lid")), own)


async def test_a_chat_with_oneself_has_own_devices_only(world: World) -> None:
    unit = world.ctx.state.unit()
    with pytest.raises(Missing) as caught:
        await world.outbound.encryptor.targets(world.me.pn, unit)
    assert (caught.value.lists, caught.value.stranger) == ((world.me.pn,), False)


async def test_only_own_devices_are_no_recipients(world: World) -> None:
    peer = world.server.add(bob())
    world.server.refused_devices = {peer.lid}
    own = [world.me.lid, world.me.lid.with_device(3)]
    await world.devices.refresh([peer.lid, world.me.lid], world.server)
    await world.outbound.sessions.ensure([peer.lid, *own], world.server)
    await world.devices.refresh([peer.lid], world.server)
    with pytest.raises(NoDevices):
        await world.outbound.encryptor.targets(peer.lid, world.ctx.state.unit())


async def test_an_unknown_own_namespace_is_a_damaged_session(world: World) -> None:
    await world.ctx.account.change_credentials(lambda creds: creds.change(me_lid=None))
    with pytest.raises(StoreDamaged):
        await world.outbound.encryptor.targets(bob().lid, world.ctx.state.unit())


async def test_a_failed_encryption_leaves_the_unit_as_it_was(world: World) -> None:
    unit = world.ctx.state.unit()
    with pytest.raises(SignalError), unit.step():
        await world.outbound.encryptor.encrypt(unit, bob().lid, b"x")
    assert unit.empty


async def test_an_address_that_no_device_can_have_is_left_out(world: World) -> None:
    ready, missing = await world.outbound.sessions.split(
        [JID("abc def", "lid"), JID("1", "newsletter"), bob().lid]
    )
    assert (ready, missing) == ([], [bob().lid])


async def test_everybody_gets_the_same_message_under_another_cipher(world: World) -> None:
    peer: Person = world.server.add(bob((0, 4, 5)))
    async with world.pumping():
        await world.sent("hello", peer.pn)
    messages = {device.inbox[0][1].SerializeToString() for device in peer.devices.values()}
    assert len(messages) == 1
    assert len(set(world.server.wire.values())) == 5
