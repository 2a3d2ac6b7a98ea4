"""From a request to send to the server's ack, and everything that can come between."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.messaging.accounts import START_MS
from tests.messaging.outbound_helpers import (
    Person,
    World,
    bob,
    carol,
    encs_of,
    make_world,
    restarted,
)
from waD.link.errors import Disconnected, MalformedReply, RequestError, RequestTimeout
from waD.messaging.outbound import ContentError, TextRequest
from waD.messaging.pump import MAX_UNACKED
from waD.proto.e2e_pb2 import Message
from waD.store.errors import StorageUnavailable
from waD.store.model import MessageRow
from waD.store.store import Store
from waD.wire.codec import encode
from waD.wire.jid import JID
from waD.wire.node import Node

GROUP = "120363000000000001@g.us"


@pytest.fixture
async def world(store: Store) -> World:
    return await make_world(store, companions=(3,))


@pytest.fixture
def clock() -> MockClock:
    """Time jumps when nothing happens; the database works in threads, so it waits a moment for them."""
    return MockClock(autojump_threshold=0.05)


@pytest.fixture
async def timed(store: Store, clock: MockClock) -> World:
    return await make_world(store, companions=(3,))


# Taking messages in.


async def test_a_request_is_durable_and_nothing_else_happens(world: World) -> None:
    peer = bob()
    message_id = await world.send("hello", peer.pn, client_ref="job-1")
    row, message = await world.row(message_id), await world.message(message_id)
    assert (row.state, row.chat, row.client_ref, row.attempts) == ("queued", str(peer.pn), "job-1", 0)
    assert (message.body, message.kind, message.status, message.from_me) == ("hello", "text", 1, True)
    assert message.sender == str(world.me.lid)
    assert message.raw is not None
    assert await world.events() == []
    assert world.server.sent == world.server.requests == []


async def test_the_same_key_gives_the_same_message(world: World) -> None:
    peer = world.server.add(bob())
    first = await world.outbound.enqueue(TextRequest(to=str(peer.pn), text="hello", client_ref="job-1"))
    again = await world.outbound.enqueue(TextRequest(to=str(peer.pn), text="other", client_ref="job-1"))
    assert (first.duplicate, again.duplicate) == (False, True)
    assert again.row.message_id == first.row.message_id
    async with world.pumping():
        await world.until(first.row.message_id, "sent")
    last = await world.outbound.enqueue(TextRequest(to="15550000009", text="x", client_ref="job-1"))
    assert (last.duplicate, last.row.state) == (True, "sent")
    assert peer.texts() == ["hello"]


async def test_requests_with_one_key_at_once_make_one_message(world: World) -> None:
    found: set[str] = set()

    async def one() -> None:
        done = await world.outbound.enqueue(TextRequest(to="15550000002", text="hello", client_ref="k" * 128))
        found.add(done.row.message_id)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(one)
    assert len(found) == 1
    assert len(await world.ctx.state.outbox()) == 1


@pytest.mark.parametrize(
    ("more", "code", "told"),
    [
        ({"text": ""}, "empty_text", "empty"),
        ({"text": "x" * 65_537}, "text_too_long", "65537"),
        ({"text": "a\x00b"}, "not_text", "U\\+0000"),
        ({"text": "ab\ud83d"}, "not_text", "character 3"),
        ({"to": "12"}, "bad_recipient", "number"),
        ({"to": "0155500000"}, "bad_recipient", "number"),
        ({"to": GROUP}, "bad_recipient", "people only"),
        ({"to": "status@broadcast"}, "bad_recipient", "people only"),
        ({"to": "13135550002@s.whatsapp.net"}, "bad_recipient", "people only"),
        ({"to": "123@nowhere"}, "bad_recipient", "nowhere"),
        ({"to": "0@s.whatsapp.net"}, "bad_recipient", "number"),
        ({"mentions": ("me",)}, "bad_mention", "number"),
        ({"mentions": ("15550000003",) * 1025}, "bad_mention", "1025"),
        ({"client_ref": ""}, "bad_reference", "128"),
        ({"client_ref": "k" * 129}, "bad_reference", "128"),
        ({"client_ref": "\ud83d"}, "bad_reference", "128"),
        ({"quote_id": "3EB0F00"}, "unknown_quote", "3EB0F00"),
        ({"quote_id": "\ud83d"}, "unknown_quote", "no message"),
    ],
)
async def test_bad_requests_are_named_and_change_nothing(
    world: World, more: dict[str, Any], code: str, told: str
) -> None:
    with pytest.raises(ContentError, match=told) as caught:
        await world.outbound.enqueue(TextRequest(**{"to": "15550000002", "text": "x", **more}))
    assert caught.value.code == code
    assert await world.ctx.state.outbox() == []


async def test_an_unpaired_session_takes_nothing(world: World) -> None:
    await world.ctx.account.change_credentials(lambda creds: creds.change(me_pn=None, account=None))
    with pytest.raises(ContentError) as caught:
        await world.send("hello", "15550000002")
    assert caught.value.code == "not_paired"


def test_requests_do_not_show_their_text() -> None:
    assert "secret" not in repr(TextRequest(to="15550000002", text="secret"))


# The way out.


async def test_a_text_arrives_at_every_device(world: World) -> None:
    peer = world.server.add(bob((0, 4)))
    async with world.pumping():
        message_id = await world.sent("hello", peer.pn)
    assert peer.texts(0) == peer.texts(4) == ["hello"]
    assert world.me.texts(0) == world.me.texts(3) == ["hello"]
    (stanza,) = world.server.messages()
    assert (stanza.jid("to"), stanza.jid("peer_recipient_pn")) == (peer.lid, peer.pn)
    assert {str(jid) for jid, _ in encs_of(stanza)} == {
        "200000000000002@lid",
        "200000000000002:4@lid",
        "100000000000001@lid",
        "100000000000001:3@lid",
    }
    row, message = await world.row(message_id), await world.message(message_id)
    assert row.stanza == encode(stanza)
    assert row.sent_at == message.ts == START_MS + 5000
    assert message.status == 2
    assert await world.statuses(message_id) == ["sent"]


async def test_the_rows_move_to_the_lid_once_it_is_known(world: World) -> None:
    peer = world.server.add(bob())
    async with world.pumping():
        message_id = await world.sent("hello", peer.pn)
    assert (await world.row(message_id)).chat == (await world.message(message_id)).chat == str(peer.lid)
    assert await world.ctx.addresses.lid_of(peer.pn) == peer.lid


async def test_own_devices_get_the_wrapped_copy(world: World) -> None:
    peer = world.server.add(bob())
    async with world.pumping():
        await world.sent("hello", peer.pn)
    ((_, copy),) = world.me.phone.inbox
    ((_, plain),) = peer.phone.inbox
    assert copy.deviceSentMessage.destinationJid == str(peer.lid)
    assert copy.deviceSentMessage.message == plain
    assert copy.messageContextInfo == plain.messageContextInfo
    assert len(plain.messageContextInfo.messageSecret) == 32
    assert not plain.HasField("deviceSentMessage")


async def test_an_account_that_is_not_migrated_writes_by_number(store: Store) -> None:
    world = await make_world(store, migrated=False)
    peer = world.server.add(bob((0, 4)))
    async with world.pumping():
        await world.sent("one", peer.pn)
        await world.sent("two", peer.lid)
    for stanza in world.server.messages():
        assert stanza.jid("to") == peer.pn
        assert not any(jid.is_lid for jid, _ in encs_of(stanza))
    assert peer.texts(4) == ["one", "two"]
    # The Signal state is kept under the LID all the same (chapter 03 §4.1).
    keys = await world.ctx.state.item_keys("session", "200000000000002")
    assert keys == ["200000000000002_1.0", "200000000000002_1.4"]


async def test_a_person_known_by_lid_only_is_written_to_by_lid(store: Store) -> None:
    world = await make_world(store, migrated=False)
    peer = world.server.add(bob())
    async with world.pumping():
        await world.sent("one", peer.lid)
    (stanza,) = world.server.messages()
    assert stanza.jid("to") == peer.lid
    assert peer.texts() == ["one"]


async def test_a_lid_without_an_own_lid_fails_clearly(store: Store) -> None:
    world = await make_world(store)
    await world.ctx.account.change_credentials(lambda creds: creds.change(me_lid=None))
    peer = world.server.add(bob())
    async with world.pumping():
        message_id = await world.send("one", peer.lid)
        row = await world.until(message_id, "failed")
    assert row.last_error == "no_own_lid"


async def test_the_chat_with_oneself_lists_every_device_once(world: World) -> None:
    async with world.pumping():
        await world.sent("note", world.me.pn)
    (stanza,) = world.server.messages()
    assert stanza.jid("to") == world.me.lid
    assert [str(jid) for jid, _ in encs_of(stanza)] == ["100000000000001@lid", "100000000000001:3@lid"]
    assert world.me.texts(0) == world.me.texts(3) == ["note"]
    assert world.me.phone.inbox[0][1].deviceSentMessage.destinationJid == str(world.me.lid)


async def test_prekey_messages_until_the_device_answers(world: World) -> None:
    peer = world.server.add(bob())
    async with world.pumping():
        await world.sent("one", peer.pn)
        await world.answered(peer.phone)
        await world.answered(world.me.phone)
        await world.answered(world.me.devices[3])
        await world.sent("two", peer.pn)
    first, second = world.server.messages()
    assert {enc.text("type") for _, enc in encs_of(first)} == {"pkmsg"}
    assert {enc.text("type") for _, enc in encs_of(second)} == {"msg"}
    assert first.child("device-identity") is not None
    assert second.child("device-identity") is None
    assert peer.texts() == ["one", "two"]
    assert world.server.asked("encrypt") == 1


async def test_what_is_known_is_not_asked_again(world: World) -> None:
    peer = world.server.add(bob())
    async with world.pumping():
        await world.sent("one", peer.pn)
        asked = len(world.server.requests)
        await world.sent("two", peer.pn)
        await world.sent("three", peer.lid)
    assert len(world.server.requests) == asked
    assert peer.texts() == ["one", "two", "three"]


async def test_a_conversation_keeps_its_order(world: World) -> None:
    peers = [world.server.add(bob()), world.server.add(carol((0, 2)))]
    wanted: dict[str, list[str]] = {str(peer.pn): [] for peer in peers}
    for number in range(40):
        peer = peers[number % 2]
        await world.send(f"{number}", peer.pn)
        wanted[str(peer.pn)].append(f"{number}")
    last = await world.send("end", peers[0].pn)
    async with world.pumping():
        await world.until(last, "sent")
        await world.until_written(41)
    assert peers[0].texts() == [*wanted[str(peers[0].pn)], "end"]
    assert peers[1].texts(2) == wanted[str(peers[1].pn)]
    assert sorted(map(int, [text for text in world.me.texts() if text != "end"])) == list(range(40))
    assert not world.me.phone.failed


async def test_a_conversation_that_waits_does_not_stop_the_others(world: World) -> None:
    slow, quick = world.server.add(bob()), world.server.add(carol())
    world.server.gate, world.server.gated = trio.Event(), {slow.pn.user, slow.lid.user}
    async with world.pumping():
        first = await world.send("slow", slow.pn)
        await world.sent("quick", quick.pn)
        assert (await world.row(first)).state == "queued"
        world.server.gate.set()
        await world.until(first, "sent")
    assert slow.texts() == ["slow"]


async def test_a_long_queue_for_one_person_does_not_hide_the_others(world: World) -> None:
    slow, quick = world.server.add(bob()), world.server.add(carol())
    world.server.gate, world.server.gated = trio.Event(), {slow.pn.user, slow.lid.user}
    for number in range(150):
        await world.send(f"{number}", slow.pn)
    async with world.pumping():
        await world.sent("quick", quick.pn)
    assert slow.texts() == []


async def test_a_number_without_account_fails_with_everything_for_it(world: World) -> None:
    first = await world.send("one", "15550000002")
    second = await world.send("two", "15550000002")
    async with world.pumping():
        row = await world.until(first, "failed")
        await world.until(second, "failed")
    assert row.last_error == "not_on_whatsapp"
    assert await world.statuses(first) == ["failed"]
    assert (await world.message(first)).status == 0
    assert world.server.messages() == []


async def test_whatsapps_own_spelling_of_a_number(world: World) -> None:
    """A Brazilian mobile number: people write a 9 that the account does not have."""
    peer = Person(JID.parse("551187654321@s.whatsapp.net"), JID.parse("500000000000005@lid"))
    world.server.add(peer)
    world.server.people["5511987654321"] = peer
    world.server.spelt["5511987654321"] = peer.pn
    async with world.pumping():
        first = await world.sent("one", "+55 11 98765-4321")
        asked = len(world.server.requests)
        await world.sent("two", "5511987654321")
    assert peer.texts() == ["one", "two"]
    assert (await world.row(first)).chat == str(peer.lid)
    assert len(world.server.requests) == asked


async def test_nobody_can_be_reached_without_devices(world: World) -> None:
    peer = world.server.add(bob())
    peer.devices.clear()
    peer.tell_signed_list = False
    async with world.pumping():
        row = await world.until(await world.send("one", peer.pn), "failed")
    assert row.last_error == "no_devices"


async def test_a_device_without_prekeys_is_left_out(world: World) -> None:
    peer = world.server.add(bob((0, 4)))
    world.server.refused_devices = {peer.lid.with_device(4), world.me.lid.with_device(3)}
    async with world.pumping():
        await world.sent("one", peer.pn)
        await world.sent("two", peer.pn)
    assert peer.texts(0) == ["one", "two"]
    assert peer.texts(4) == []
    # Asked once about the refused devices, and again only after a while.
    assert world.server.asked("encrypt") <= 2


async def test_no_prekeys_at_all_fails(world: World) -> None:
    peer = world.server.add(bob((0, 4)))
    world.server.refused_devices = set(peer.jids("lid"))
    async with world.pumping():
        row = await world.until(await world.send("one", peer.pn), "failed")
    assert row.last_error == "no_devices"
    assert world.server.messages() == []


# What the server cannot do now.


@pytest.mark.parametrize("xmlns", ["usync", "encrypt"])
@pytest.mark.parametrize(
    ("error", "reason", "least_s"),
    [
        (RequestError(429, "rate-overlimit"), "429", 30),
        (RequestError(429, "rate-overlimit", 120), "429", 120),
        (RequestError(503, "service-unavailable"), "503", 2),
        (RequestTimeout("usync", 60), "timeout", 2),
        (MalformedReply("no list"), "timeout", 2),
    ],
)
async def test_a_passing_trouble_puts_a_message_off(
    timed: World, clock: MockClock, xmlns: str, error: Exception, reason: str, least_s: int
) -> None:
    peer = timed.server.add(bob())
    timed.server.faults = [(xmlns, error)]
    message_id = await timed.send("one", peer.pn)
    async with timed.pumping():
        row = await timed.until_waiting(message_id)
        assert (row.state, row.last_error) == ("queued", reason)
        assert row.not_before >= START_MS + least_s * 1000
        await timed.until(message_id, "sent")
    assert trio.current_time() >= least_s
    assert peer.texts() == ["one"]
    assert (await timed.row(message_id)).last_error is None


async def test_the_pause_grows_and_order_is_kept(timed: World, clock: MockClock) -> None:
    peer, other = timed.server.add(bob()), timed.server.add(carol())
    timed.server.faults = [("encrypt", RequestError(503, "busy"))] * 4
    first = await timed.send("one", peer.pn)
    second = await timed.send("two", peer.pn)
    async with timed.pumping():
        await timed.until(second, "sent")
        assert trio.current_time() >= 2 + 4 + 8 + 16
        await timed.sent("three", other.pn)
    assert (await timed.row(first)).state == "sent"
    assert peer.texts() == ["one", "two"]


async def test_a_final_refusal_fails(world: World) -> None:
    peer = world.server.add(bob())
    world.server.faults = [("encrypt", RequestError(403, "forbidden"))]
    message_id = await world.send("one", peer.pn)
    async with world.pumping():
        row = await world.until(message_id, "failed")
    assert row.last_error == "403"
    (event,) = [event for event in await world.events() if event.type == "message:status"]
    assert (event.data["code"], event.data["error"]) == (403, "refused")


async def test_a_new_session_waits_for_the_backlog_but_not_for_ever(timed: World, clock: MockClock) -> None:
    peer = timed.server.add(bob())
    timed.offline_done = trio.Event()
    message_id = await timed.send("one", peer.pn)
    async with timed.pumping():
        await timed.until(message_id, "sent")
        waited = trio.current_time()
        assert 10 <= waited < 20
        # With a session nothing waits.
        await timed.sent("two", peer.pn)
        assert trio.current_time() < waited + 1
        timed.offline_done.set()


# Time.


async def test_no_more_than_the_rate_leaves(store: Store, clock: MockClock) -> None:
    world = await make_world(store, settings={"rate_per_s": 5.0})
    peer = world.server.add(bob())
    times: list[float] = []
    world.server.acks = lambda node: times.append(trio.current_time()) or {}
    ids = [await world.send(f"{number}", peer.pn) for number in range(16)]
    async with world.pumping():
        await world.until(ids[-1], "sent")
    assert all(late - early >= 1.0 for early, late in zip(times, times[5:], strict=False))
    assert peer.texts() == [f"{number}" for number in range(16)]


async def test_new_conversations_come_one_at_a_time_and_old_ones_do_not_wait(
    store: Store, clock: MockClock
) -> None:
    world = await make_world(store, settings={"new_chat_interval_s": 10.0})
    people = [
        world.server.add(Person(JID(f"1555000010{n}", "s.whatsapp.net"), JID(f"60000000000010{n}", "lid")))
        for n in range(3)
    ]
    async with world.pumping():
        await world.sent("hello", people[0].pn)
        began = trio.current_time()
        ids = [await world.send("hello", person.pn) for person in people[1:]]
        await world.sent("again", people[0].pn)
        assert trio.current_time() < began + 9
        await world.until(ids[0], "sent")
        assert trio.current_time() >= began + 9
        await world.until(ids[1], "sent")
        assert trio.current_time() >= began + 19
        # Oneself is no stranger.
        before = trio.current_time()
        await world.sent("note", world.me.pn)
        assert trio.current_time() < before + 5


async def test_a_message_for_later_lets_others_pass(timed: World, clock: MockClock) -> None:
    peer = timed.server.add(bob())
    later = await timed.send("later", peer.pn, not_before=START_MS + 3_600_000)
    async with timed.pumping():
        await timed.sent("now", peer.pn)
        await timed.until(later, "sent")
    assert trio.current_time() >= 3600
    assert peer.texts() == ["now", "later"]


async def test_a_message_past_its_time_does_not_leave(timed: World, clock: MockClock) -> None:
    peer = timed.server.add(bob())
    message_id = await timed.send("late", peer.pn, expires_at=START_MS - 1)
    async with timed.pumping():
        await timed.until(message_id, "expired")
        await timed.sent("fresh", peer.pn)
    assert await timed.statuses(message_id) == ["expired"]
    assert peer.texts() == ["fresh"]


# Connections that end, databases that fail.


async def test_what_was_not_acknowledged_goes_out_again_unchanged_and_first(world: World) -> None:
    peer = world.server.add(bob())
    world.server.acks = lambda node: None
    ids = [await world.send(f"{number}", peer.pn) for number in range(3)]
    async with world.pumping():
        before = [encode(node) for node in await world.until_written(3)]
    assert [(await world.row(message_id)).state for message_id in ids] == ["sending"] * 3
    again = restarted(world)
    again.server.acks = lambda node: {}
    later = await again.send("later", peer.pn)
    async with again.pumping():
        await again.until(later, "sent")
    written = [encode(node) for node in again.server.messages()]
    assert written[3:6] == before
    assert len(written) == 7
    assert [await again.statuses(message_id) for message_id in ids] == [["sent"]] * 3
    assert peer.texts() == ["0", "1", "2", "later"]


async def test_a_connection_that_breaks_ends_the_run_and_loses_nothing(world: World) -> None:
    peer = world.server.add(bob())
    ids = [await world.send(f"{number}", peer.pn) for number in range(5)]
    world.server.break_at = 2
    with pytest.raises(Disconnected):
        await world.outbound.run(world.server, world.offline_done)
    again = restarted(world)
    async with again.pumping():
        for message_id in ids:
            await again.until(message_id, "sent")
    assert peer.texts() == [f"{number}" for number in range(5)]
    assert peer.phone.failed == []


async def test_a_connection_that_breaks_while_asking_ends_the_run(world: World) -> None:
    peer = world.server.add(bob())
    message_id = await world.send("one", peer.pn)
    world.server.broken = True
    with pytest.raises(Disconnected):
        await world.outbound.run(world.server, world.offline_done)
    assert (await world.row(message_id)).state == "queued"


async def test_what_cannot_be_stored_is_not_sent(world: World) -> None:
    peer = world.server.add(bob())
    async with world.pumping():
        await world.sent("zero", peer.pn)
    message_id = await world.send("one", peer.pn)
    world.refuse_commit = lambda job: True
    with pytest.raises(StorageUnavailable):
        await world.outbound.run(world.server, world.offline_done)
    assert len(world.server.messages()) == 1
    world.refuse_commit = None
    async with world.pumping():
        await world.until(message_id, "sent")
    assert peer.texts() == ["zero", "one"]


async def test_what_was_learned_and_cannot_be_stored_ends_the_run(world: World) -> None:
    peer = world.server.add(bob())
    await world.send("one", peer.pn)
    world.refuse_commit = lambda job: any(kind == "session" for kind, _ in job.unit.items)
    with pytest.raises(StorageUnavailable):
        await world.outbound.run(world.server, world.offline_done)
    assert world.server.messages() == []


async def test_a_server_that_does_not_answer_gets_a_bounded_number(world: World) -> None:
    peer = world.server.add(bob())
    world.server.acks = lambda node: None
    ids = [await world.send(f"{number}", peer.pn) for number in range(MAX_UNACKED + 20)]
    async with world.pumping():
        await world.until_written(MAX_UNACKED)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert len(world.server.messages()) == MAX_UNACKED
        for node in world.server.messages()[:30]:
            await world.acked(Node("ack", {"class": "message", "id": node.attrs["id"], "from": peer.lid}))
        await world.until(ids[-1], "sending")
    assert len(world.server.messages()) == MAX_UNACKED + 20


async def test_a_damaged_payload_fails_alone(world: World) -> None:
    peer = world.server.add(bob())
    message_id = await world.send("one", peer.pn)
    async with world.ctx.state.lock:
        unit = world.ctx.state.unit()
        unit.update_outbox(message_id, payload={"nonsense": True})
        await world.ctx.state.commit(unit)
    async with world.pumping():
        row = await world.until(message_id, "failed")
        await world.sent("two", peer.pn)
    assert row.last_error == "internal_error"
    assert peer.texts() == ["two"]


async def test_a_damaged_session_record_fails_its_message(world: World) -> None:
    peer = world.server.add(bob())
    async with world.pumping():
        await world.sent("one", peer.pn)
        async with world.ctx.state.lock:
            unit = world.ctx.state.unit()
            unit.put("session", "200000000000002_1.0", b"\x07broken")
            await world.ctx.state.commit(unit)
        row = await world.until(await world.send("two", peer.pn), "failed")
    assert row.last_error == "signal_malformed"


# Quotes and mentions.


async def received(world: World, peer: Person, message_id: str, **more: Any) -> None:
    """A message of a peer in the history, as the inbound part stores it."""
    async with world.ctx.state.lock:
        unit = world.ctx.state.unit()
        values: dict[str, Any] = {
            "chat": str(peer.lid),
            "sender": str(peer.lid),
            "message_id": message_id,
            "from_me": False,
            "ts": START_MS,
            "kind": "text",
            "body": "question",
            **more,
        }
        unit.add_message(MessageRow(**values))
        await world.ctx.state.commit(unit)


async def test_a_quote_carries_the_message_without_what_it_quotes(world: World) -> None:
    peer = world.server.add(bob())
    quoted = Message()
    quoted.extendedTextMessage.text = "question"
    quoted.extendedTextMessage.contextInfo.stanzaId = "OLDER"
    quoted.messageContextInfo.messageSecret = b"s" * 32
    await received(world, peer, "AB12", raw=quoted.SerializeToString())
    async with world.pumping():
        message_id = await world.sent("answer", peer.lid, quote_id="AB12")
        await world.sent("more", peer.lid, quote_id=message_id)
    first, second = (message.extendedTextMessage for _, message in peer.phone.inbox)
    assert (first.text, first.contextInfo.stanzaId) == ("answer", "AB12")
    assert first.contextInfo.participant == str(peer.lid)
    assert first.contextInfo.quotedMessage == Message(
        extendedTextMessage=Message.ExtendedTextMessage(text="question")
    )
    assert second.contextInfo.participant == str(world.me.lid)
    assert second.contextInfo.quotedMessage.extendedTextMessage.text == "answer"
    assert not second.contextInfo.quotedMessage.extendedTextMessage.HasField("contextInfo")
    assert not second.contextInfo.quotedMessage.HasField("messageContextInfo")


async def test_a_quote_names_the_author_in_the_namespace_of_the_chat(store: Store) -> None:
    world = await make_world(store, migrated=False)
    peer = world.server.add(bob())
    async with world.pumping():
        await world.sent("hello", peer.pn)
        await received(world, peer, "AB12")
        await world.sent("answer", peer.pn, quote_id="AB12")
    context = peer.phone.inbox[1][1].extendedTextMessage.contextInfo
    assert context.participant == str(peer.pn)
    assert context.quotedMessage.conversation == "question"


@pytest.mark.parametrize("more", [{"chat": "900000000000009@lid"}, {"body": None}, {"revoked_at": START_MS}])
async def test_what_cannot_be_quoted_is_named(world: World, more: dict[str, Any]) -> None:
    peer = bob()
    revoked = more.pop("revoked_at", None)
    await received(world, peer, "AB12", **more)
    if revoked:
        async with world.ctx.state.lock:
            unit = world.ctx.state.unit()
            unit.update_message(str(peer.lid), str(peer.lid), "AB12", revoked_at=revoked)
            await world.ctx.state.commit(unit)
    with pytest.raises(ContentError, match="AB12") as caught:
        await world.send("answer", peer.lid, quote_id="AB12")
    assert caught.value.code == "unknown_quote"


async def test_mentions_are_in_the_namespace_of_the_chat(world: World) -> None:
    peer, other = world.server.add(bob()), world.server.add(carol())
    async with world.pumping():
        await world.sent("hello", other.pn)
        await world.sent(
            "@300000000000003 look", peer.pn, mentions=(str(other.pn), "15550000003", "15550000009")
        )
    message = peer.phone.inbox[0][1].extendedTextMessage
    assert list(message.contextInfo.mentionedJid) == ["300000000000003@lid", "15550000009@s.whatsapp.net"]
