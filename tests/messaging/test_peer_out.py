"""Questions to the own phone."""

from __future__ import annotations

import pytest

from tests.messaging.accounts import START_MS
from tests.messaging.outbound_helpers import World, bob, make_world, need
from tests.messaging.test_retries import receipt
from waD.link.errors import RequestError
from waD.messaging import kinds
from waD.messaging.peer_out import PeerRequest, request_of
from waD.messaging.reaction import AnswerRetry, AskPhone
from waD.proto.e2e_pb2 import Message
from waD.store.errors import StorageUnavailable
from waD.store.model import MessageRow
from waD.store.store import Store
from waD.wire.node import Node

PEER = bob()


@pytest.fixture
async def clock() -> list[int]:
    return [0]


@pytest.fixture
async def world(store: Store, clock: list[int]) -> World:
    return await make_world(store, companions=(3,), now_ms=lambda: START_MS + clock[0])


def question() -> Message:
    message = Message()
    message.protocolMessage.type = Message.ProtocolMessage.PEER_DATA_OPERATION_REQUEST_MESSAGE
    request = message.protocolMessage.peerDataOperationRequestMessage
    request.peerDataOperationRequestType = Message.PLACEHOLDER_MESSAGE_RESEND
    key = request.placeholderMessageResendRequest.add().messageKey
    key.remoteJid, key.fromMe, key.id = str(PEER.lid), False, "AB12"
    return message


def work(payload: bytes | None = None) -> AskPhone:
    return AskPhone(payload or question().SerializeToString(), 5.0, str(PEER.lid), str(PEER.lid), "AB12")


async def unreadable(world: World, kind: str = "undecryptable") -> None:
    async with world.ctx.state.lock:
        unit = world.ctx.state.unit()
        row = MessageRow(
            chat=str(PEER.lid), sender=str(PEER.lid), message_id="AB12", from_me=False, ts=1, kind=kind
        )
        unit.add_message(row)
        await world.ctx.state.commit(unit)


async def asked(world: World) -> Node:
    await unreadable(world)
    await world.outbound.ask_phone(work(), world.server)
    return world.server.messages()[-1]


async def test_the_phone_is_asked_and_the_question_is_remembered(world: World) -> None:
    node = await asked(world)
    assert node.child("participants") is None
    assert need(node, "meta").attrs == {"appdata": "default"}
    assert need(node, "enc").attrs == {"v": "2", "type": "pkmsg"}
    assert node.child("device-identity") is not None
    wanted = {"to": world.me.lid, "type": "text", "category": "peer", "push_priority": "high_force"}
    assert {name: value for name, value in node.attrs.items() if name != "id"} == wanted
    ((_, message),) = world.me.phone.inbox
    assert message == question()
    assert world.me.texts(3) == []
    wanted_request = PeerRequest(chat=str(PEER.lid), sender=str(PEER.lid), message_id="AB12", at=START_MS)
    assert await request_of(world.ctx, node.text("id", "")) == wanted_request
    assert await request_of(world.ctx, "3EB0OTHER") is None


@pytest.mark.parametrize("kind", ["text", None])
async def test_a_message_that_can_be_read_meanwhile_is_not_asked_for(world: World, kind: str | None) -> None:
    if kind is not None:
        await unreadable(world, kind)
    await world.outbound.ask_phone(work(), world.server)
    assert world.server.sent == []


async def test_a_payload_that_is_no_message_is_not_sent(world: World) -> None:
    await unreadable(world)
    await world.outbound.ask_phone(work(b"\xff\xff"), world.server)
    assert world.server.sent == []


async def test_history_and_keys_have_their_own_priorities(world: World) -> None:
    await unreadable(world)
    history = question()
    request = history.protocolMessage.peerDataOperationRequestMessage
    request.peerDataOperationRequestType = Message.HISTORY_SYNC_ON_DEMAND
    keys = Message()
    keys.protocolMessage.type = Message.ProtocolMessage.APP_STATE_SYNC_KEY_REQUEST
    for message in (history, keys):
        await world.outbound.ask_phone(work(message.SerializeToString()), world.server)
    first, second = world.server.messages()
    assert (first.attrs["push_priority"], first.attrs["privacy_sensitive"]) == ("high_force", "1")
    assert second.attrs["push_priority"] == "high"
    assert "privacy_sensitive" not in second.attrs


async def test_nothing_is_asked_that_was_not_stored(world: World) -> None:
    await unreadable(world)
    world.refuse_commit = lambda job: any(kind == kinds.PEER_REQUEST for kind, _ in job.unit.items)
    with pytest.raises(StorageUnavailable):
        await world.outbound.ask_phone(work(), world.server)
    assert world.server.sent == []


async def test_trouble_of_the_server_is_told(world: World) -> None:
    await unreadable(world)
    world.server.faults = [("encrypt", RequestError(503, "busy"))]
    with pytest.raises(RequestError):
        await world.outbound.ask_phone(work(), world.server)


async def test_without_a_session_nothing_is_asked(world: World) -> None:
    await unreadable(world)
    world.me.phone.reinstall()
    await world.outbound.ask_phone(work(), world.server)
    assert world.server.sent == []


async def test_the_phone_may_have_the_question_again(world: World) -> None:
    node = await asked(world)
    phone = world.me.phone
    phone.record = None
    stanza = receipt(node.text("id", ""), world.me.lid, 1, device=phone, keys=True, category="peer")
    # The own list has to be known for that.
    await world.devices.refresh([world.me.lid], world.server)
    reaction = await world.lane(world.retries.asked, stanza)
    (request,) = reaction.work
    assert isinstance(request, AnswerRetry)
    await world.retries.answer(request, world.server)
    again = world.server.messages()[-1]
    assert (again.attrs["category"], again.attrs["id"]) == ("peer", node.attrs["id"])
    assert need(again, "enc").attrs["count"] == "1"
    assert [message for _, message in phone.inbox] == [question(), question()]
