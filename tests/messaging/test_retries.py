"""Devices that could not read a message: who gets it again, how, and who never does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from tests.messaging.outbound_helpers import Person, Simulated, World, bob, carol, encs_of, make_world, need
from waD.e2ee.messages import parse_signal_message
from waD.e2ee.x3dh import LocalIdentity
from waD.link.errors import RequestError
from waD.messaging import kinds
from waD.messaging.reaction import AnswerRetry, FetchDevices, Reaction
from waD.messaging.retries import MAX_ANSWERS, RECREATE_MS, Retries
from waD.store.errors import StorageUnavailable
from waD.store.store import Store
from waD.wire.jid import JID
from waD.wire.node import Node, Value


@pytest.fixture
async def clock() -> list[int]:
    """Milliseconds to add to the time."""
    return [0]


@pytest.fixture
async def world(store: Store, clock: list[int]) -> World:
    return await make_world(store, companions=(3,), now_ms=lambda: 1_700_000_000_000 + clock[0])


async def delivered(world: World, peer: Person, text: str = "one") -> str:
    """A message that the server took; its devices answered it, so the sessions are settled."""
    world.server.add(peer)
    async with world.pumping():
        message_id = await world.sent(text, peer.pn)
    for device in (*peer.devices.values(), world.me.phone, world.me.devices[3]):
        await world.answered(device)
    return message_id


def receipt(
    message_id: str,
    sender: JID,
    count: int | str | None = 1,
    *,
    device: Simulated | None = None,
    keys: bool = False,
    blob: bytes | None = None,
    registration: int | None = None,
    **attrs: Value,
) -> Node:
    """A retry receipt of a device; with `keys` it brings a bundle of that device."""
    told: dict[str, Value] = {"id": message_id, "t": "1700000000", "v": "1"}
    if count is not None:
        told["count"] = str(count)
    children = [Node("retry", told)]
    number = registration if registration is not None else device.local.registration_id if device else None
    if number is not None:
        children.append(Node("registration", {}, number.to_bytes(4, "big")))
    if keys:
        assert device is not None
        bundle = [child for child in device.key_nodes() if child.tag != "device-identity"]
        if blob != b"":
            own = blob or (device.blob() if device.number else None)
            bundle += [Node("device-identity", {}, own)] if own else []
        children.append(Node("keys", {}, bundle))
    return Node(
        "receipt", {"id": message_id, "from": sender, "type": "retry", "t": "1700000000", **attrs}, children
    )


async def asked(world: World, stanza: Node) -> Reaction:
    return await world.lane(world.retries.asked, stanza)


def requests(reaction: Reaction) -> list[AnswerRetry]:
    return [work for work in reaction.work if isinstance(work, AnswerRetry)]


async def answered(world: World, stanza: Node) -> list[Node]:
    """Handle a receipt and do the work it leads to; what went out for it."""
    before = len(world.server.sent)
    for work in (await asked(world, stanza)).work:
        if isinstance(work, AnswerRetry):
            await world.retries.answer(work, world.server)
    return world.server.sent[before:]


# The checks.


async def test_a_request_of_the_recipient_is_acked_and_leads_to_work(world: World) -> None:
    peer = bob((0, 4))
    message_id = await delivered(world, peer)
    device = peer.lid.with_device(4)
    stanza = receipt(message_id, device, 2)
    reaction = await asked(world, stanza)
    (ack,) = reaction.answers
    assert ack == Node("ack", {"class": "receipt", "id": message_id, "to": device, "type": "retry"})
    assert reaction.work == [AnswerRetry(str(peer.lid), message_id, device, 2, stanza)]


async def test_requests_are_counted(world: World) -> None:
    message_id = await delivered(world, bob())
    for count in (1, 2):
        await asked(world, receipt(message_id, bob().lid, count))
    await asked(world, receipt(message_id, bob().lid, "x"))
    row = await world.store.session(world.ctx.state.session_id)
    assert row is not None
    assert row.retry_requests == 2


async def test_a_request_by_number_finds_the_message_too(world: World) -> None:
    peer = bob()
    message_id = await delivered(world, peer)
    (work,) = requests(await asked(world, receipt(message_id, peer.pn)))
    assert (work.chat, work.requester) == (str(peer.lid), peer.pn)


@pytest.mark.parametrize("count", [0, 5, 6, 4_000_000_000, "x", "-1"])
async def test_counts_that_are_not_answered(world: World, count: int | str) -> None:
    message_id = await delivered(world, bob())
    reaction = await asked(world, receipt(message_id, bob().lid, count))
    assert len(reaction.answers) == 1
    assert reaction.work == []


async def test_without_a_count_it_is_the_first(world: World) -> None:
    message_id = await delivered(world, bob())
    (work,) = requests(await asked(world, receipt(message_id, bob().lid, None)))
    assert work.count == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda node: node.content.append(Node("retry", {"count": "1"})),
        lambda node: node.content.clear(),
        lambda node: node.attrs.update(id="3EB0UNKNOWN"),
        lambda node: node.attrs.update(id="x" * 256),
        lambda node: node.attrs.update(
            {"from": JID.parse("120363000000000001@g.us"), "participant": bob().lid}
        ),
        lambda node: node.attrs.update({"from": JID.parse("status@broadcast"), "participant": bob().lid}),
        lambda node: node.attrs.update({"from": JID.parse("s.whatsapp.net")}),
        lambda node: node.attrs.update({"from": "100000000000001:7@lid"}),
        lambda node: node.attrs.update({"from": "15550000001:7@s.whatsapp.net"}),
    ],
)
async def test_malformed_and_foreign_requests_are_acked_and_ignored(
    world: World, spoil: Callable[[Node], None]
) -> None:
    message_id = await delivered(world, bob())
    stanza = receipt(message_id, bob().lid)
    spoil(stanza)
    reaction = await asked(world, stanza)
    assert len(reaction.answers) == 1
    assert reaction.work == []


async def test_somebody_else_does_not_get_it(world: World) -> None:
    message_id = await delivered(world, bob())
    other = carol()
    await delivered(world, other, "hello")
    for sender, more in (
        (other.lid, {}),
        (bob().lid, {"participant": other.lid}),
        (other.lid, {"recipient": bob().lid}),
        # Digits of the chat in the other namespace are somebody else.
        (JID("200000000000002", "s.whatsapp.net"), {}),
        # A stranger who says that an own device asks.
        (other.lid, {"participant": world.me.lid, "recipient": bob().lid}),
    ):
        reaction = await asked(world, receipt(message_id, sender, **more))  # type: ignore[arg-type]
        assert requests(reaction) == []


async def test_own_devices_may_ask_and_have_to_say_for_which_chat(world: World) -> None:
    message_id = await delivered(world, bob())
    own = world.me.lid.with_device(3)
    assert requests(await asked(world, receipt(message_id, own))) == []
    assert requests(await asked(world, receipt(message_id, own, recipient=carol().lid))) == []
    (work,) = requests(await asked(world, receipt(message_id, own, recipient=bob().lid)))
    assert work.chat == str(bob().lid)


async def test_an_unknown_device_without_keys_gets_nothing_and_is_asked_about(world: World) -> None:
    peer = bob()
    message_id = await delivered(world, peer)
    reaction = await asked(world, receipt(message_id, peer.lid.with_device(8)))
    assert reaction.work == [FetchDevices((peer.lid,))]


async def test_where_no_list_is_known_it_is_asked_for_first(world: World) -> None:
    peer = bob((0, 4))
    message_id = await delivered(world, peer)
    async with world.ctx.state.lock:
        unit = world.ctx.state.unit()
        await world.devices.invalidate(unit, peer.lid)
        await world.ctx.state.commit(unit)
    device = peer.devices[4]
    await answered(world, receipt(message_id, peer.lid.with_device(4), 1, device=device))
    assert device.texts() == ["one", "one"]
    async with world.ctx.state.lock:
        unit = world.ctx.state.unit()
        await world.devices.invalidate(unit, peer.lid)
        await world.ctx.state.commit(unit)
    assert await answered(world, receipt(message_id, peer.lid.with_device(8), 1)) == []


async def test_an_unknown_own_device_gets_nothing(world: World) -> None:
    message_id = await delivered(world, bob())
    stanza = receipt(message_id, world.me.lid.with_device(44), recipient=bob().lid)
    assert requests(await asked(world, stanza)) == []


# The answers.


async def test_the_message_goes_to_the_one_device_that_asked(world: World) -> None:
    peer = bob((0, 4))
    message_id = await delivered(world, peer)
    device = peer.devices[4]
    (node,) = await answered(world, receipt(message_id, peer.lid.with_device(4), 1, device=device))
    assert node.child("participants") is None
    enc = need(node, "enc")
    assert (enc.attrs["count"], enc.attrs["type"]) == ("1", "msg")
    assert (node.attrs["to"], node.attrs["id"]) == (peer.lid.with_device(4), message_id)
    assert (node.attrs["type"], node.attrs["device_fanout"]) == ("text", "false")
    assert node.attrs["t"] == str((await world.message(message_id)).ts // 1000)
    assert "recipient" not in node.attrs
    assert device.texts() == ["one", "one"]
    assert device.inbox[0][1] == device.inbox[1][1]
    assert peer.texts(0) == ["one"]


async def test_an_own_device_gets_the_wrapped_copy(world: World) -> None:
    peer = bob()
    message_id = await delivered(world, peer)
    own = world.me.lid.with_device(3)
    stanza = receipt(message_id, own, device=world.me.devices[3], recipient=peer.lid)
    (node,) = await answered(world, stanza)
    assert (node.attrs["to"], node.attrs["recipient"]) == (own, peer.lid)
    copy = world.me.devices[3].inbox[-1][1].deviceSentMessage
    assert (copy.destinationJid, copy.message.conversation) == (str(peer.lid), "one")


async def test_a_device_that_lost_its_session_brings_keys(world: World) -> None:
    peer = bob((0, 4))
    message_id = await delivered(world, peer)
    device = peer.devices[4]
    device.record = None
    (node,) = await answered(world, receipt(message_id, peer.lid.with_device(4), 2, device=device, keys=True))
    assert need(node, "enc").attrs["type"] == "pkmsg"
    assert node.child("device-identity") is not None
    assert device.texts() == ["one", "one"]
    assert world.server.asked("encrypt") == 1


async def test_a_phone_that_was_reinstalled_is_accepted_and_told(world: World) -> None:
    peer = bob()
    message_id = await delivered(world, peer)
    peer.phone.reinstall()
    await answered(world, receipt(message_id, peer.lid, 2, device=peer.phone, keys=True))
    assert peer.texts() == ["one", "one"]
    (event,) = [event for event in await world.events() if event.type == "identity:changed"]
    assert event.data == {"user": str(peer.lid), "implicit": True}


async def test_a_companion_with_a_new_identity_has_to_prove_itself(world: World) -> None:
    peer = bob((0, 4))
    message_id = await delivered(world, peer)
    device, jid = peer.devices[4], peer.lid.with_device(4)
    device.reinstall()
    stranger = Person(carol().pn, carol().lid, (0, 4)).devices[4]
    for blob in (b"", b"nonsense", stranger.blob()):
        assert await answered(world, receipt(message_id, jid, 2, device=device, keys=True, blob=blob)) == []
    await answered(world, receipt(message_id, jid, 2, device=device, keys=True))
    assert device.texts() == ["one", "one"]


async def test_a_known_companion_without_its_blob_is_believed(world: World) -> None:
    peer = bob((0, 4))
    message_id = await delivered(world, peer)
    device = peer.devices[4]
    device.record = None
    await answered(world, receipt(message_id, peer.lid.with_device(4), 2, device=device, keys=True, blob=b""))
    assert device.texts() == ["one", "one"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda keys: setattr(keys, "content", [n for n in keys.children() if n.tag != "key"]),
        lambda keys: setattr(keys, "content", [n for n in keys.children() if n.tag != "type"]),
        lambda keys: setattr(need(keys, "identity"), "content", b"short"),
        lambda keys: setattr(need(need(keys, "skey"), "signature"), "content", bytes(64)),
        lambda keys: setattr(need(need(keys, "key"), "value"), "content", bytes(32)),
    ],
)
async def test_bad_keys_end_it(world: World, spoil: Callable[[Node], None]) -> None:
    peer = bob()
    message_id = await delivered(world, peer)
    stanza = receipt(message_id, peer.lid, 2, device=peer.phone, keys=True)
    before = await world.ctx.records.session(await world.ctx.addresses.signal_address(peer.lid))
    spoil(need(stanza, "keys"))
    assert await answered(world, stanza) == []
    assert await world.ctx.records.session(await world.ctx.addresses.signal_address(peer.lid)) == before


async def test_an_own_device_with_another_registration_is_refused(world: World) -> None:
    peer = bob()
    message_id = await delivered(world, peer)
    device = world.me.devices[3]
    device.local = LocalIdentity(device.identity, 999)
    stanza = receipt(message_id, world.me.lid.with_device(3), 2, device=device, keys=True, recipient=peer.lid)
    assert await answered(world, stanza) == []


async def test_a_new_device_with_keys_gets_it_when_its_account_lists_it(world: World) -> None:
    peer = bob()
    message_id = await delivered(world, peer)
    device = peer.add(9)
    await answered(world, receipt(message_id, peer.lid.with_device(9), 2, device=device, keys=True))
    assert device.texts() == ["one"]


async def test_a_device_its_account_does_not_list_gets_nothing(world: World) -> None:
    peer = bob()
    message_id = await delivered(world, peer)
    hidden = Simulated(peer, 9, 9)
    stanza = receipt(message_id, peer.lid.with_device(9), 2, device=hidden, keys=True)
    assert await answered(world, stanza) == []
    assert hidden.texts() == []


async def test_another_registration_without_keys_fetches_a_bundle(world: World) -> None:
    peer = bob()
    message_id = await delivered(world, peer)
    peer.phone.reinstall()
    (node,) = await answered(world, receipt(message_id, peer.lid, 1, device=peer.phone))
    assert need(node, "enc").attrs["type"] == "pkmsg"
    assert need(need(world.server.requests[-1], "key"), "user").attrs["reason"] == "retry"
    assert peer.texts() == ["one", "one"]
    address = await world.ctx.addresses.signal_address(peer.lid)
    record = await world.ctx.records.session(address)
    assert record is not None
    assert len(record.archived) == 1


async def test_a_second_request_makes_a_new_session_but_not_every_hour_anew(
    world: World, clock: list[int]
) -> None:
    peer = bob()
    message_id = await delivered(world, peer)
    fetched = world.server.asked("encrypt")
    await answered(world, receipt(message_id, peer.lid, 2, device=peer.phone))
    assert world.server.asked("encrypt") == fetched + 1
    await answered(world, receipt(message_id, peer.lid, 2, device=peer.phone))
    assert world.server.asked("encrypt") == fetched + 1
    clock[0] += RECREATE_MS + 1
    await answered(world, receipt(message_id, peer.lid, 2, device=peer.phone))
    assert world.server.asked("encrypt") == fetched + 2
    assert peer.texts() == ["one"] * 4


async def test_a_session_that_was_not_rebuilt_is_archived_at_the_third_request(world: World) -> None:
    peer = bob()
    message_id = await delivered(world, peer)
    await answered(world, receipt(message_id, peer.lid, 2, device=peer.phone))
    # The base key noted at the second request is that of the session it replaced, so this one stays.
    fetched = world.server.asked("encrypt")
    await answered(world, receipt(message_id, peer.lid, 3, device=peer.phone))
    assert world.server.asked("encrypt") == fetched
    # Within the hour the second request replaces nothing; the third one sees the same base key.
    await answered(world, receipt(message_id, peer.lid, 2, device=peer.phone))
    assert world.server.asked("encrypt") == fetched
    await answered(world, receipt(message_id, peer.lid, 3, device=peer.phone))
    assert world.server.asked("encrypt") == fetched + 1


async def test_five_answers_are_enough_and_a_restart_does_not_forget_them(world: World) -> None:
    peer = bob()
    message_id = await delivered(world, peer)
    for _ in range(MAX_ANSWERS):
        assert len(await answered(world, receipt(message_id, peer.lid, 1, device=peer.phone))) == 1
    assert await answered(world, receipt(message_id, peer.lid, 1, device=peer.phone)) == []
    world.retries = Retries(world.ctx, world.devices, world.outbound)
    assert await answered(world, receipt(message_id, peer.lid, 1, device=peer.phone)) == []
    assert peer.texts() == ["one"] * (MAX_ANSWERS + 1)


async def test_one_answer_at_a_time(world: World) -> None:
    peer = bob()
    message_id = await delivered(world, peer)
    peer.phone.record = None
    stanza = receipt(message_id, peer.lid, 2, device=peer.phone)
    (work,) = requests(await asked(world, stanza))
    world.server.gate = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.retries.answer, work, world.server)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert requests(await asked(world, stanza)) == []
        await world.retries.answer(work, world.server)
        world.server.gate.set()
    assert peer.texts() == ["one", "one"]
    assert requests(await asked(world, stanza)) != []


async def test_trouble_of_the_server_leaves_the_request_to_be_repeated(world: World) -> None:
    peer = bob()
    message_id = await delivered(world, peer)
    stanza = receipt(message_id, peer.lid, 2, device=peer.phone)
    world.server.faults = [("encrypt", RequestError(503, "busy"))]
    with pytest.raises(RequestError):
        await answered(world, stanza)
    await answered(world, stanza)
    assert peer.texts() == ["one", "one"]


async def test_nothing_leaves_that_was_not_stored(world: World) -> None:
    peer = bob()
    message_id = await delivered(world, peer)
    stanza = receipt(message_id, peer.lid, 1, device=peer.phone)
    (work,) = requests(await asked(world, stanza))
    world.refuse_commit = lambda job: any(kind == kinds.RETRY for kind, _ in job.unit.items)
    with pytest.raises(StorageUnavailable):
        await world.retries.answer(work, world.server)
    assert peer.texts() == ["one"]
    world.refuse_commit = None
    await world.retries.answer(work, world.server)
    assert peer.texts() == ["one", "one"]
    assert peer.phone.failed == []


async def test_a_revoked_message_is_not_repeated(world: World) -> None:
    peer = bob()
    message_id = await delivered(world, peer)
    row = await world.message(message_id)
    async with world.ctx.state.lock:
        unit = world.ctx.state.unit()
        unit.update_message(row.chat, row.sender, message_id, revoked_at=1)
        await world.ctx.state.commit(unit)
    assert await answered(world, receipt(message_id, peer.lid, 1, device=peer.phone)) == []


async def test_a_device_without_prekeys_gets_nothing(world: World) -> None:
    peer = bob()
    message_id = await delivered(world, peer)
    world.server.refused_devices = {peer.lid}
    assert await answered(world, receipt(message_id, peer.lid, 2, device=peer.phone)) == []


async def test_a_repeat_keeps_its_turn_behind_what_was_encrypted_before(world: World) -> None:
    """Whatever runs at once: on each session the wire has the order of the counters."""
    peer = bob()
    message_id = await delivered(world, peer)
    (work,) = requests(await asked(world, receipt(message_id, peer.lid, 1, device=peer.phone)))
    async with world.pumping(), trio.open_nursery() as nursery:
        ids = [await world.send(f"{number}", peer.pn) for number in range(20)]
        nursery.start_soon(world.retries.answer, work, world.server)
        for name in ids:
            await world.until(name, "sent")
    counters = []
    for node in world.server.messages():
        for jid, enc in encs_of(node):
            if jid == peer.lid and enc.attrs["type"] == "msg":
                parsed = parse_signal_message(enc.data)
                counters.append((parsed.ratchet_key, parsed.counter))
    assert len(counters) == 21
    assert [counter for _, counter in counters] == sorted(counter for _, counter in counters)
