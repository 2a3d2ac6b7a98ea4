"""Who is meant, and under which address they are written to."""

from __future__ import annotations

import pytest

from tests.messaging.outbound_helpers import World, bob, carol, make_world
from waD.link.errors import MalformedReply
from waD.messaging.content import ContentError
from waD.messaging.recipients import (
    NotOnWhatsApp,
    NoWireAddress,
    canonical,
    in_namespace,
    known,
    look_up,
    parse_person,
    wire_address,
)
from waD.store.store import Store
from waD.wire.jid import JID

PEER = bob()


@pytest.fixture
async def world(store: Store) -> World:
    return await make_world(store)


async def mapped(world: World) -> None:
    unit = world.ctx.state.unit()
    await world.ctx.addresses.learn(unit, PEER.pn, PEER.lid, "live")
    await world.ctx.state.commit(unit)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("15550000002", "15550000002@s.whatsapp.net"),
        ("+1 (555) 000-0002", "15550000002@s.whatsapp.net"),
        ("15550000002@s.whatsapp.net", "15550000002@s.whatsapp.net"),
        ("15550000002@c.us", "15550000002@s.whatsapp.net"),
        ("15550000002:5@s.whatsapp.net", "15550000002@s.whatsapp.net"),
        ("15550000002:99@hosted", "15550000002@s.whatsapp.net"),
        ("200000000000002@lid", "200000000000002@lid"),
        ("200000000000002:99@hosted.lid", "200000000000002@lid"),
    ],
)
def test_what_people_write(text: str, wanted: str) -> None:
    assert str(parse_person(text)) == wanted


@pytest.mark.parametrize(
    "text",
    ["", "alice", "123", "0" * 12, "1" * 16, "1@g.us", "1@newsletter", "abc@s.whatsapp.net", "@", "x@y@z"],
)
def test_what_is_nobody(text: str) -> None:
    with pytest.raises(ContentError) as caught:
        parse_person(text)
    assert caught.value.code == "bad_recipient"


@pytest.mark.parametrize("migrated", [True, False])
async def test_the_address_on_the_wire(store: Store, migrated: bool) -> None:
    world = await make_world(store, migrated=migrated)
    assert await wire_address(world.ctx, PEER.pn) == PEER.pn
    assert await wire_address(world.ctx, PEER.lid) == PEER.lid
    await mapped(world)
    for form in (PEER.pn, PEER.lid, PEER.lid.with_device(4)):
        assert await wire_address(world.ctx, form) == (PEER.lid if migrated else PEER.pn)
        assert await wire_address(world.ctx, form, by_number=True) == PEER.pn


async def test_without_an_own_lid_only_numbers_can_be_written_to(world: World) -> None:
    await world.ctx.account.change_credentials(lambda creds: creds.change(me_lid=None))
    with pytest.raises(NoWireAddress):
        await wire_address(world.ctx, PEER.lid)
    await mapped(world)
    assert await wire_address(world.ctx, PEER.lid) == PEER.pn


async def test_people_inside_a_message(world: World) -> None:
    assert await in_namespace(world.ctx, PEER.pn, carol().lid) == PEER.pn
    await mapped(world)
    assert await in_namespace(world.ctx, PEER.pn, carol().lid) == PEER.lid
    assert await in_namespace(world.ctx, PEER.lid.with_device(3), carol().pn) == PEER.pn


async def test_who_is_known(world: World) -> None:
    assert not await known(world.ctx, PEER.pn)
    assert await known(world.ctx, PEER.lid)
    assert await known(world.ctx, world.me.pn)
    await mapped(world)
    assert await known(world.ctx, PEER.pn)


async def test_a_number_is_looked_up_and_learned(world: World) -> None:
    world.server.add(PEER)
    assert await look_up(world.ctx, PEER.pn, world.server) == PEER.lid
    assert await canonical(world.ctx, PEER.pn) == PEER.lid


async def test_a_number_whose_lid_is_not_told(world: World) -> None:
    person = world.server.add(carol())
    person.hide_lid = True
    assert await look_up(world.ctx, person.pn, world.server) == person.pn
    async with world.pumping():
        await world.sent("hello", person.pn)
        asked = len(world.server.requests)
        await world.sent("more", person.pn)
    assert person.texts() == ["hello", "more"]
    assert len(world.server.requests) == asked


async def test_a_number_nobody_has(world: World) -> None:
    with pytest.raises(NotOnWhatsApp):
        await look_up(world.ctx, JID.parse("15559999999@s.whatsapp.net"), world.server)


async def test_a_server_that_does_not_say(world: World) -> None:
    world.server.silent_contacts = True
    world.server.add(PEER)
    with pytest.raises(MalformedReply):
        await look_up(world.ctx, PEER.pn, world.server)
