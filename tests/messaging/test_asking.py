"""Asking for messages that could not be read: counters, keys, pauses, and the way to the phone."""

from __future__ import annotations

import os

import pytest
from msgspec import structs

from tests.messaging.accounts import OWN_LID, OWN_PN, START_MS
from tests.messaging.inbound_helpers import (
    ANN_LID,
    GROUP,
    Peer,
    Receiver,
    T,
    answer,
    introduce,
    of_kind,
    shapes,
    spoiled,
)
from waD.e2ee import adv, session
from waD.e2ee.curve import KeyPair
from waD.link.bundles import parse_retry_keys
from waD.messaging import kinds
from waD.messaging.asking import Asked, retry_receipt
from waD.messaging.context import Context, make_context
from waD.messaging.reaction import AskPhone, Paced, Reaction
from waD.messaging.stanza import Incoming, parse
from waD.proto.e2e_pb2 import Message
from waD.wire.jid import JID
from waD.wire.node import Node, Value


@pytest.fixture
async def ann(ctx: Context) -> Peer:
    """A contact with an answered session, so that its messages are of type `msg`."""
    peer = Peer(ANN_LID)
    await introduce(ctx, peer)
    await Receiver(ctx).take(peer.text("introduction"))
    await answer(ctx, peer)
    return peer


def unreadable(peer: Peer, **attrs: Value) -> Node:
    node = peer.stanza(peer.enc(Message(conversation="x")), **attrs)
    node.content = [spoiled(node.children("enc")[0])]
    return node


def asked(reaction: Reaction) -> Node:
    """The one retry receipt of a reaction, which an ack follows."""
    (paced,) = of_kind(reaction.work, Paced)
    receipt, ack = paced.nodes
    assert reaction.answers == []
    assert (ack.tag, "error" in ack.attrs) == ("ack", False)
    assert receipt.attrs["type"] == "retry"
    return receipt


def retry_of(receipt: Node) -> dict[str, Value]:
    child = receipt.child("retry")
    assert child is not None
    return child.attrs


async def test_first_request(receiver: Receiver, ann: Peer, ctx: Context) -> None:
    stanza = unreadable(ann)
    receipt = asked(await receiver.take(stanza))
    assert receipt.attrs == {"id": stanza.attrs["id"], "to": ANN_LID, "type": "retry"}
    assert retry_of(receipt) == {
        "count": "1",
        "id": stanza.attrs["id"],
        "t": str(T),
        "v": "1",
        "error": "7",
    }
    registration = receipt.child("registration")
    assert registration is not None
    assert registration.data == ctx.account.creds.registration_id.to_bytes(4, "big")
    assert receipt.child("keys") is None


async def test_from_the_second_on_there_are_keys(receiver: Receiver, ann: Peer, ctx: Context) -> None:
    stanza = unreadable(ann)
    asked(await receiver.take(stanza))
    receipt = asked(await receiver.take(stanza))
    assert retry_of(receipt)["count"] == "2"
    bundle = parse_retry_keys(receipt)
    assert bundle is not None
    creds = ctx.account.creds
    assert bundle.identity == creds.identity.public
    assert bundle.signed_prekey_id == creds.signed_prekey.id
    (stored,) = [key for key in await ctx.account.prekeys() if key.state == "direct"]
    assert (stored.id, stored.key.public) == (bundle.prekey_id, bundle.prekey)
    keys = receipt.child("keys")
    assert keys is not None
    blob = keys.child("device-identity")
    assert blob is not None
    assert adv.verify_companion(creds.identity.public, blob.data, creds.account_key).key_index == 7


async def test_a_session_from_those_keys_works(receiver: Receiver, ann: Peer) -> None:
    stanza = unreadable(ann)
    await receiver.take(stanza)
    bundle = parse_retry_keys(asked(await receiver.take(stanza)))
    assert bundle is not None
    pairs = KeyPair.generate(os.urandom), KeyPair.generate(os.urandom)
    ann.record = session.process_bundle(ann.record, ann.local, bundle, *pairs, START_MS)
    again = ann.stanza(
        ann.enc(Message(conversation="at last"), count="2"), message_id=str(stanza.attrs["id"])
    )
    await receiver.events()
    assert shapes((await receiver.take(again)).answers) == [("receipt", None)]
    row = (await receiver.rows())[-1]
    assert (row.kind, row.body, row.message_id) == ("text", "at last", stanza.attrs["id"])
    (event,) = await receiver.events()
    assert (event.type, event.data["reason"]) == ("message:update", "resolved")
    assert event.data["body"] == "at last"


async def test_five_requests_and_no_more(receiver: Receiver, ann: Peer) -> None:
    stanza = unreadable(ann)
    counts = [retry_of(asked(await receiver.take(stanza)))["count"] for _ in range(5)]
    assert counts == ["1", "2", "3", "4", "5"]
    for _ in range(2):
        reaction = await receiver.take(stanza)
        assert shapes(reaction.answers) == [("ack", "text")]
        assert of_kind(reaction.work, Paced) == []
    assert len([row for row in await receiver.rows() if row.kind == "undecryptable"]) == 1
    assert [event.data["kind"] for event in await receiver.events()] == ["text", "undecryptable"]


async def test_the_senders_count_goes_on(receiver: Receiver, ann: Peer) -> None:
    node = ann.stanza(ann.enc(Message(conversation="x"), count="3"))
    node.content = [spoiled(node.children("enc")[0])]
    assert retry_of(asked(await receiver.take(node)))["count"] == "4"


async def test_counters_survive_a_restart(receiver: Receiver, ann: Peer, ctx: Context) -> None:
    stanza = unreadable(ann)
    await receiver.take(stanza)
    ctx.state._cache.clear()
    assert retry_of(asked(await Receiver(ctx).take(stanza)))["count"] == "2"


async def test_resolving_drops_the_counter(receiver: Receiver, ann: Peer, ctx: Context) -> None:
    stanza = unreadable(ann)
    await receiver.take(stanza)
    assert len(await ctx.state.all_items(kinds.RETRY)) == 1
    await receiver.take(ann.text("here", message_id=str(stanza.attrs["id"])))
    assert await ctx.state.all_items(kinds.RETRY) == {}


async def test_resolved_within_one_unit(receiver: Receiver, ann: Peer) -> None:
    stanza = unreadable(ann)
    await receiver.events()
    await receiver.take(stanza, ann.text("here", message_id=str(stanza.attrs["id"])))
    assert [event.type for event in await receiver.events()] == ["message:new", "message:update"]
    assert (await receiver.rows())[-1].body == "here"


async def test_the_backlog_is_answered_at_once(receiver: Receiver, ann: Peer) -> None:
    reaction = await receiver.take(unreadable(ann, offline="1"))
    assert shapes(reaction.answers) == [("receipt", "retry"), ("ack", "text")]
    assert of_kind(reaction.work, Paced) == []


async def test_the_number_of_requests_is_a_setting(ctx: Context, ann: Peer) -> None:
    fewer = make_context(
        ctx.state,
        settings=structs.replace(ctx.settings, retries=1),
        now_ms=lambda: START_MS,
        random=os.urandom,
    )
    receiver, stanza = Receiver(fewer), unreadable(ann)
    asked(await receiver.take(stanza))
    assert shapes((await receiver.take(stanza)).answers) == [("ack", "text")]


class TestPhone:
    async def test_asked_after_the_first_failure_and_once_more_at_the_end(
        self, receiver: Receiver, ann: Peer
    ) -> None:
        stanza = unreadable(ann)
        delays = []
        for _ in range(8):
            questions = of_kind((await receiver.take(stanza)).work, AskPhone)
            delays.append([question.delay_s for question in questions])
        assert delays == [[5.0], [], [], [], [], [0.0], [], []]

    async def test_what_is_asked(self, receiver: Receiver, ann: Peer) -> None:
        stanza = unreadable(ann)
        (question,) = of_kind((await receiver.take(stanza)).work, AskPhone)
        assert (question.chat, question.sender) == (str(ANN_LID), str(ANN_LID))
        assert question.message_id == stanza.attrs["id"]
        protocol = Message.FromString(question.payload).protocolMessage
        assert protocol.type == protocol.PEER_DATA_OPERATION_REQUEST_MESSAGE
        request = protocol.peerDataOperationRequestMessage
        assert request.peerDataOperationRequestType == Message.PLACEHOLDER_MESSAGE_RESEND
        key = request.placeholderMessageResendRequest[0].messageKey
        assert (key.remoteJid, key.fromMe, key.id) == (str(ANN_LID), False, stanza.attrs["id"])

    async def test_groups_name_the_author(self, receiver: Receiver, ann: Peer) -> None:
        ann.distribution(GROUP)
        node = ann.group_text(GROUP, "x", share=False)
        (question,) = of_kind((await receiver.take(node)).work, AskPhone)
        request = Message.FromString(question.payload).protocolMessage.peerDataOperationRequestMessage
        key = request.placeholderMessageResendRequest[0].messageKey
        assert (key.remoteJid, key.participant) == (str(GROUP), str(ANN_LID))

    async def test_not_for_what_is_too_old(self, receiver: Receiver, ann: Peer) -> None:
        node = unreadable(ann, t=str(T - 15 * 86_400))
        reaction = await receiver.take(node)
        asked(Reaction(work=list(reaction.work)))
        assert of_kind(reaction.work, AskPhone) == []


class TestReceipt:
    """Addresses of a retry receipt (chapter 04 §7.1)."""

    def build(self, **attrs: Value) -> Node:
        node = Node("message", {"id": "A1", "t": "5", "type": "text"} | attrs)
        found = parse(node, OWN_PN, OWN_LID)
        assert isinstance(found, Incoming)
        return retry_receipt(found, count=1, reason=0, registration_id=5)

    def test_group(self) -> None:
        device = ANN_LID.with_device(3)
        attrs = self.build(**{"from": GROUP, "participant": device}).attrs
        assert attrs == {"id": "A1", "to": GROUP, "participant": device, "type": "retry"}

    def test_direct_goes_to_the_device(self) -> None:
        device = ANN_LID.with_device(3)
        assert self.build(**{"from": device}).attrs == {"id": "A1", "to": device, "type": "retry"}

    def test_own_copy_names_the_chat(self) -> None:
        phone = OWN_LID.with_device(0)
        attrs = self.build(**{"from": phone, "recipient": ANN_LID}).attrs
        assert attrs == {"id": "A1", "to": phone, "recipient": ANN_LID, "type": "retry"}

    def test_peer(self) -> None:
        phone = OWN_LID.with_device(0)
        attrs = self.build(**{"from": phone, "category": "peer"}).attrs
        assert attrs == {"id": "A1", "to": phone, "category": "peer", "type": "retry"}

    def test_no_reason_no_attribute(self) -> None:
        assert retry_of(self.build(**{"from": ANN_LID})) == {"count": "1", "id": "A1", "t": "5", "v": "1"}

    def test_registration_ids_have_four_bytes(self) -> None:
        registration = self.build(**{"from": ANN_LID}).child("registration")
        assert registration is not None
        assert registration.data == b"\x00\x00\x00\x05"


async def test_hosted_senders_get_keys_at_once(receiver: Receiver, ctx: Context) -> None:
    hosted = Peer(JID.parse("100000000000009:99@hosted.lid"))
    await introduce(ctx, hosted)
    await receiver.take(hosted.text("introduction"))
    await answer(ctx, hosted)
    assert asked(await receiver.take(unreadable(hosted))).child("keys") is not None


async def test_a_damaged_counter_starts_anew(receiver: Receiver, ann: Peer, ctx: Context) -> None:
    stanza = unreadable(ann)
    await receiver.take(stanza)
    (key,) = await ctx.state.all_items(kinds.RETRY)
    async with ctx.state.lock:
        unit = ctx.state.unit()
        unit.put(kinds.RETRY, key, b'"rubbish"')
        await ctx.state.commit(unit)
    assert retry_of(asked(await receiver.take(stanza)))["count"] == "1"
    assert Asked() == Asked(0, 0, 0)


async def test_the_own_exact_device_is_not_asked(receiver: Receiver, ctx: Context) -> None:
    self = Peer(OWN_LID)
    await introduce(ctx, self)
    node = self.stanza(Node("enc", {"v": "2", "type": "msg"}, self.enc(Message()).data), recipient=ANN_LID)
    reaction = await receiver.take(node)
    assert of_kind(reaction.work, Paced) == []
    assert len(reaction.answers) == 1
