"""Whose message it is and where it belongs: own copies, groups, addresses, companions, identities, channels."""

from __future__ import annotations

import os

from tests.messaging.accounts import OWN_LID, OWN_PN, START_MS, account_blob
from tests.messaging.inbound_helpers import (
    ANN_LID,
    ANN_PN,
    BOB_LID,
    GROUP,
    Peer,
    Receiver,
    T,
    answer,
    introduce,
    of_kind,
    our_bundle,
    own_phone,
    sent_copy,
    shapes,
    spoiled,
)
from waD.e2ee.curve import KeyPair
from waD.e2ee.record import SessionRecord
from waD.link.usync import ListedDevice
from waD.messaging import kinds
from waD.messaging.context import Context
from waD.messaging.device_lists import DeviceRecord
from waD.messaging.reaction import FetchDevices, Paced
from waD.proto.e2e_pb2 import Message
from waD.wire.jid import JID
from waD.wire.node import Node

STATUS = JID.parse("status@broadcast")


class TestOwnMessages:
    async def test_a_copy_becomes_a_message_of_ours(self, receiver: Receiver, ctx: Context) -> None:
        phone = await own_phone(ctx)
        inner = Message(conversation="from my phone")
        node = phone.stanza(phone.enc(sent_copy(inner, ANN_LID)), recipient=ANN_LID)
        reaction = await receiver.take(node)
        (receipt,) = reaction.answers
        assert receipt.attrs == {
            "id": node.attrs["id"],
            "to": OWN_LID.with_device(0),
            "type": "sender",
            "recipient": ANN_LID,
        }
        (row,) = await receiver.rows()
        assert (row.chat, row.sender, row.from_me, row.status) == (
            str(ANN_LID),
            str(OWN_LID.account),
            True,
            2,
        )
        assert row.raw == inner.SerializeToString()
        event = (await receiver.events())[-1]
        assert event.type == "message:new"
        assert event.data["fromMe"] is True

    async def test_outer_context_counts_when_the_inner_has_none(
        self, receiver: Receiver, ctx: Context
    ) -> None:
        phone = await own_phone(ctx)
        copy = sent_copy(Message(conversation="x"), ANN_LID)
        copy.messageContextInfo.messageSecret = bytes(32)
        await receiver.take(phone.stanza(phone.enc(copy), recipient=ANN_LID))
        (row,) = await receiver.rows()
        assert await receiver.secret(row) == bytes(32)

    async def test_forged_by_a_contact(self, receiver: Receiver, ann: Peer) -> None:
        node = ann.stanza(ann.enc(sent_copy(Message(conversation="forged"), BOB_LID)))
        assert shapes((await receiver.take(node)).answers) == [("receipt", None)]
        assert await receiver.rows() == []
        assert await receiver.events() == []

    async def test_without_wrapper(self, receiver: Receiver, ctx: Context) -> None:
        phone = await own_phone(ctx)
        node = phone.stanza(phone.enc(Message(conversation="bare")), recipient=ANN_LID)
        assert shapes((await receiver.take(node)).answers) == [("receipt", "sender")]
        assert await receiver.rows() == []

    async def test_the_stanza_decides_about_the_chat(self, receiver: Receiver, ctx: Context) -> None:
        phone = await own_phone(ctx)
        copy = sent_copy(Message(conversation="x"), BOB_LID)
        await receiver.take(phone.stanza(phone.enc(copy), recipient=ANN_LID))
        assert (await receiver.rows())[0].chat == str(ANN_LID)

    async def test_self_chat(self, receiver: Receiver, ctx: Context) -> None:
        phone = await own_phone(ctx)
        copy = sent_copy(Message(conversation="note"), OWN_LID.account)
        await receiver.take(phone.stanza(phone.enc(copy), recipient=OWN_LID.account))
        (row,) = await receiver.rows()
        assert (row.chat, row.from_me) == (str(OWN_LID.account), True)

    async def test_copies_teach_the_recipients_other_address(self, receiver: Receiver, ctx: Context) -> None:
        phone = await own_phone(ctx)
        copy = sent_copy(Message(conversation="x"), ANN_LID)
        await receiver.take(phone.stanza(phone.enc(copy), recipient=ANN_LID, peer_recipient_pn=ANN_PN))
        assert await ctx.addresses.pn_of(ANN_LID) == ANN_PN

    async def test_an_own_list_is_a_message_to_each(self, receiver: Receiver, ctx: Context) -> None:
        phone = await own_phone(ctx)
        group = JID.parse("7@broadcast")
        listed = Node("participants", {}, [Node("to", {"jid": ANN_LID}), Node("to", {"jid": BOB_LID})])
        node = phone.stanza(phone.enc(sent_copy(Message(conversation="all"), group)), listed, to=group)
        await receiver.take(node)
        assert [row.chat for row in await receiver.rows()] == [str(ANN_LID), str(BOB_LID)]

    async def test_another_phone_is_alarming(self, receiver: Receiver, ctx: Context) -> None:
        impostor = Peer(OWN_LID.with_device(0))
        await introduce(ctx, impostor)
        await receiver.take(
            impostor.stanza(impostor.enc(sent_copy(Message(conversation="x"), ANN_LID)), recipient=ANN_LID)
        )
        kinds_of = [event.type for event in await receiver.events()]
        assert kinds_of == ["alert:raised", "message:new"]


class TestGroups:
    async def test_key_and_message(self, receiver: Receiver, ann: Peer, ctx: Context) -> None:
        node = ann.group_text(GROUP, "hi all", participant_pn=ANN_PN)
        reaction = await receiver.take(node)
        (receipt,) = reaction.answers
        assert receipt.attrs == {"id": node.attrs["id"], "to": GROUP, "participant": ANN_LID}
        (row,) = await receiver.rows()
        assert (row.chat, row.sender, row.body) == (str(GROUP), str(ANN_LID), "hi all")
        assert b"enderKey" not in (row.raw or b"")
        assert row.raw == Message(conversation="hi all").SerializeToString()
        await receiver.take(ann.group_text(GROUP, "again", share=False))
        assert [row.body for row in await receiver.rows()] == ["hi all", "again"]

    async def test_the_key_comes_first_whatever_the_order(self, receiver: Receiver, ann: Peer) -> None:
        node = ann.group_text(GROUP, "hi")
        assert isinstance(node.content, list)
        node.content.reverse()
        assert shapes((await receiver.take(node)).answers) == [("receipt", None)]

    async def test_a_key_alone_is_no_message(self, receiver: Receiver, ann: Peer) -> None:
        node = ann.stanza(ann.enc(ann.distribution(GROUP)), to=GROUP)
        assert shapes((await receiver.take(node)).answers) == [("receipt", None)]
        assert await receiver.rows() == []

    async def test_a_key_for_another_group_is_not_taken(
        self, receiver: Receiver, ann: Peer, ctx: Context
    ) -> None:
        other = JID.parse("120363999999999999@g.us")
        node = ann.stanza(ann.enc(ann.distribution(GROUP, named=str(other))), to=GROUP)
        assert shapes((await receiver.take(node)).answers) == [("receipt", None)]
        assert await ctx.state.all_items(kinds.SENDER_KEY) == {}

    async def test_a_key_in_a_direct_chat_or_in_a_group_ciphertext_is_not_taken(
        self, receiver: Receiver, ann: Peer, ctx: Context
    ) -> None:
        await receiver.take(ann.stanza(ann.enc(ann.distribution(GROUP))))
        assert await ctx.state.all_items(kinds.SENDER_KEY) == {}
        await receiver.take(ann.group_text(GROUP, "hi"))
        before = dict(await ctx.state.all_items(kinds.SENDER_KEY))
        bob = Peer(BOB_LID)
        smuggled = bob.distribution(GROUP)
        smuggled.conversation = "look"
        await receiver.take(ann.stanza(ann.group_enc(GROUP, smuggled), to=GROUP))
        assert before.keys() == (await ctx.state.all_items(kinds.SENDER_KEY)).keys()
        row = (await receiver.rows())[-1]
        assert row.body == "look"
        assert row.raw == Message(conversation="look").SerializeToString()

    async def test_a_failed_key_means_one_retry_for_both(self, receiver: Receiver, ann: Peer) -> None:
        await receiver.take(ann.text("introduction"))
        await answer(receiver.ctx, ann)
        node = ann.group_text(GROUP, "hi")
        first, second = node.children("enc")
        node.content = [spoiled(first), second]
        reaction = await receiver.take(node)
        (paced,) = of_kind(reaction.work, Paced)
        assert [one.attrs.get("type") for one in paced.nodes] == ["retry", "text"]
        assert paced.nodes[0].child("retry").attrs["error"] == "7"

    async def test_a_missing_key(self, receiver: Receiver, ann: Peer) -> None:
        ann.distribution(GROUP)
        node = ann.group_text(GROUP, "hi", share=False)
        (paced,) = of_kind((await receiver.take(node)).work, Paced)
        receipt = paced.nodes[0]
        assert receipt.attrs == {
            "id": node.attrs["id"],
            "to": GROUP,
            "participant": ANN_LID,
            "type": "retry",
        }
        assert receipt.child("retry").attrs["error"] == "1"

    async def test_the_key_is_found_under_the_number(self, receiver: Receiver, ctx: Context) -> None:
        ann = Peer(ANN_PN)
        await introduce(ctx, ann)
        await receiver.take(ann.group_text(GROUP, "by number"))
        reaction = await receiver.take(
            ann.group_text(GROUP, "by lid", share=False, participant=ANN_LID, participant_pn=ANN_PN)
        )
        assert shapes(reaction.answers) == [("receipt", None)]
        assert list(await ctx.state.all_items(kinds.SENDER_KEY)) == [f"{GROUP}|{ANN_LID.user}_1.0"]

    async def test_the_key_is_found_at_another_device(self, receiver: Receiver, ctx: Context) -> None:
        companion = Peer(ANN_LID.with_device(4))
        await introduce(ctx, companion)
        await receiver.take(companion.group_text(GROUP, "one"))
        reaction = await receiver.take(companion.group_text(GROUP, "two", share=False, participant=ANN_LID))
        assert shapes(reaction.answers) == [("receipt", None)]

    async def test_a_message_from_before_the_key_is_no_success(self, receiver: Receiver, ann: Peer) -> None:
        """The key that came first begins later: what was never read must not look delivered."""
        early, late = ann.group_text(GROUP, "early"), ann.group_text(GROUP, "late")
        await receiver.take(late)
        reaction = await receiver.take(early)
        assert shapes(reaction.answers) == [("ack", "text")]
        assert [row.body for row in await receiver.rows()] == ["late"]

    async def test_own_messages_in_groups_need_no_wrapper(self, receiver: Receiver, ctx: Context) -> None:
        phone = await own_phone(ctx)
        reaction = await receiver.take(phone.group_text(GROUP, "mine"))
        (receipt,) = reaction.answers
        assert receipt.attrs["type"] == "sender"
        assert receipt.attrs["participant"] == OWN_LID.with_device(0)
        assert (await receiver.rows())[0].from_me

    async def test_status_gets_receipt_and_ack(self, receiver: Receiver, ann: Peer) -> None:
        reaction = await receiver.take(ann.group_text(STATUS, "story"))
        assert shapes(reaction.answers) == [("receipt", None), ("ack", "text")]
        assert reaction.answers[0].attrs["context"] == "status"
        assert (await receiver.rows())[0].chat == str(STATUS)

    async def test_a_status_of_its_own_tag_is_a_message_too(self, receiver: Receiver, ann: Peer) -> None:
        node = ann.group_text(STATUS, "story")
        node.tag = "status"
        reaction = await receiver.take(node)
        assert [one.tag for one in reaction.answers] == ["receipt", "ack"]
        assert reaction.answers[1].attrs["class"] == "status"
        assert (await receiver.rows())[0].body == "story"

    async def test_a_list_of_a_contact_is_a_direct_chat(self, receiver: Receiver, ann: Peer) -> None:
        group = JID.parse("7@broadcast")
        await receiver.take(ann.group_text(group, "to many"))
        (row,) = await receiver.rows()
        assert (row.chat, row.wire_chat) == (str(ANN_LID), str(group))


class TestAddresses:
    async def test_the_mapping_is_learned_before_decrypting(self, receiver: Receiver, ctx: Context) -> None:
        ann = Peer(ANN_PN)
        await introduce(ctx, ann)
        await receiver.take(ann.text("by number"))
        reaction = await receiver.take(ann.text("by lid", **{"from": ANN_LID, "sender_pn": ANN_PN}))
        assert shapes(reaction.answers) == [("receipt", None)]
        assert [row.chat for row in await receiver.rows()] == [str(ANN_LID)] * 2
        assert list(await ctx.state.all_items(kinds.SESSION)) == [f"{ANN_LID.user}_1.0"]

    async def test_a_session_left_under_the_number_is_found(
        self, receiver: Receiver, ann: Peer, ctx: Context
    ) -> None:
        await receiver.take(ann.text("first", sender_pn=ANN_PN))
        async with ctx.state.lock:
            unit = ctx.state.unit()
            lid_key, pn_key = f"{ANN_LID.user}_1.0", f"{ANN_PN.user}.0"
            left = await ctx.state.item(kinds.SESSION, lid_key, unit)
            assert left is not None
            unit.put(kinds.SESSION, pn_key, SessionRecord.parse(left))
            unit.delete(kinds.SESSION, lid_key)
            await ctx.state.commit(unit)
        reaction = await receiver.take(ann.text("second"))
        assert shapes(reaction.answers) == [("receipt", None)]
        assert list(await ctx.state.all_items(kinds.SESSION)) == [lid_key]

    async def test_a_conflict_asks_the_server(self, receiver: Receiver, ann: Peer, ctx: Context) -> None:
        await receiver.take(ann.text("x", sender_pn=ANN_PN))
        other = JID.parse("15559999999@s.whatsapp.net")
        reaction = await receiver.take(ann.text("y", sender_pn=other))
        assert of_kind(reaction.work, FetchDevices) == [FetchDevices((other,))]
        assert await ctx.addresses.pn_of(ANN_LID) == ANN_PN

    async def test_an_address_that_cannot_have_sessions_is_not_learned(
        self, receiver: Receiver, ctx: Context
    ) -> None:
        ann = Peer(ANN_PN)
        await introduce(ctx, ann)
        await receiver.take(ann.text("x"))
        reaction = await receiver.take(ann.text("y", sender_lid=JID("1_1", "lid")))
        assert shapes(reaction.answers) == [("receipt", None)]
        assert await ctx.addresses.lid_of(ANN_PN) is None

    async def test_nobody_else_gets_the_own_number(self, receiver: Receiver, ann: Peer, ctx: Context) -> None:
        await receiver.take(ann.text("x", sender_pn=OWN_PN.account))
        assert await ctx.addresses.lid_of(OWN_PN) in (None, OWN_LID.account)
        assert await ctx.addresses.pn_of(ANN_LID) is None


class TestCompanions:
    async def test_signed_by_its_account(self, receiver: Receiver, ctx: Context) -> None:
        phone_key = KeyPair.generate(os.urandom)
        companion = Peer(ANN_LID.with_device(3), phone_key)
        await introduce(ctx, companion)
        assert shapes((await receiver.take(companion.text("x"))).answers) == [("receipt", None)]

    async def test_not_signed_by_its_account(self, receiver: Receiver, ctx: Context) -> None:
        companion = Peer(ANN_LID.with_device(3), KeyPair.generate(os.urandom))
        await introduce(ctx, companion)
        other = KeyPair.generate(os.urandom)
        companion.identity_blob = account_blob(KeyPair.generate(os.urandom), other, 3)
        (paced,) = of_kind((await receiver.take(companion.text("x"))).work, Paced)
        assert paced.nodes[0].child("retry").attrs["error"] == "12"
        assert await ctx.state.all_items(kinds.SESSION) == {}
        assert len(await ctx.account.prekeys()) == 1

    async def test_another_account_key_is_an_identity_change(
        self, receiver: Receiver, ann: Peer, ctx: Context
    ) -> None:
        await receiver.take(ann.text("from the phone"))
        companion = Peer(ANN_LID.with_device(3), KeyPair.generate(os.urandom))
        await introduce(ctx, companion)
        reaction = await receiver.take(companion.text("x"))
        assert shapes(reaction.answers) == [("receipt", None)]
        changes = [event for event in await receiver.events() if event.type == "identity:changed"]
        assert [event.data for event in changes] == [{"user": str(ANN_LID), "implicit": True}]

    async def test_nobody_is_an_own_companion_by_another_key(self, receiver: Receiver, ctx: Context) -> None:
        stranger = Peer(OWN_LID.with_device(9), KeyPair.generate(os.urandom))
        await introduce(ctx, stranger)
        node = stranger.stanza(stranger.enc(sent_copy(Message(conversation="x"), ANN_LID)), recipient=ANN_LID)
        (paced,) = of_kind((await receiver.take(node)).work, Paced)
        assert paced.nodes[0].child("retry").attrs["error"] == "12"


async def list_devices(ctx: Context, user: JID, *devices: int) -> None:
    """Store a device list."""
    async with ctx.state.lock:
        unit = ctx.state.unit()
        listed = tuple(ListedDevice(number, number) for number in devices)
        record = DeviceRecord(devices=listed, state="verified", stored_ms=START_MS)
        unit.put(kinds.DEVICES, str(user), record)
        await ctx.state.commit(unit)


class TestUnlistedDevices:
    async def test_a_new_companion_makes_us_ask(self, receiver: Receiver, ctx: Context) -> None:
        await list_devices(ctx, ANN_LID, 0, 4)
        for device, work in ((4, []), (5, [FetchDevices((ANN_LID,))])):
            companion = Peer(ANN_LID.with_device(device))
            await introduce(ctx, companion)
            assert (await receiver.take(companion.text("x"))).work == work

    async def test_its_key_is_asked_for_with_a_reason_of_its_own(
        self, receiver: Receiver, ctx: Context
    ) -> None:
        await list_devices(ctx, ANN_LID, 0)
        companion = Peer(ANN_LID.with_device(5))
        companion.distribution(GROUP)
        node = companion.stanza(companion.group_enc(GROUP, Message(conversation="x")), to=GROUP)
        reaction = await receiver.take(node)
        (paced,) = of_kind(reaction.work, Paced)
        assert paced.nodes[0].child("retry").attrs["error"] == "11"
        assert FetchDevices((ANN_LID,)) in reaction.work


class TestIdentities:
    async def test_a_new_identity_is_announced_once(
        self, receiver: Receiver, ann: Peer, ctx: Context
    ) -> None:
        await receiver.take(ann.text("old"))
        reinstalled = Peer(ANN_LID)
        reinstalled.sent = 100
        reinstalled.start(await our_bundle(ctx, 555))
        reaction = await receiver.take(reinstalled.text("new"), reinstalled.text("newer"))
        events = await receiver.events()
        assert [event.type for event in events] == [
            "message:new",
            "identity:changed",
            "message:new",
            "message:new",
        ]
        assert events[1].data == {"user": str(ANN_LID), "implicit": True}
        assert of_kind(reaction.work, FetchDevices) == [FetchDevices((ANN_LID,))]
        address = await ctx.addresses.signal_address(ANN_LID)
        assert await ctx.records.identity(address) == reinstalled.local.identity.public

    async def test_an_old_message_does_not_bring_the_old_identity_back(
        self, receiver: Receiver, ann: Peer, ctx: Context
    ) -> None:
        await receiver.take(ann.text("old"))
        late = ann.text("late")
        reinstalled = Peer(ANN_LID)
        reinstalled.sent = 100
        reinstalled.start(await our_bundle(ctx, 555))
        await receiver.take(reinstalled.text("new"))
        assert shapes((await receiver.take(late)).answers) == [("receipt", None)]
        address = await ctx.addresses.signal_address(ANN_LID)
        assert await ctx.records.identity(address) == reinstalled.local.identity.public

    async def test_a_claim_without_proof_changes_nothing(
        self, receiver: Receiver, ann: Peer, ctx: Context
    ) -> None:
        await receiver.take(ann.text("x"))
        stranger = Peer(ANN_LID)
        stranger.sent = 100
        stranger.start(await our_bundle(ctx, 555))
        node = stranger.text("forged")
        enc = node.children("enc")[0]
        node.content = [Node("enc", enc.attrs, enc.data[:-20] + bytes(20))]
        await receiver.take(node)
        address = await ctx.addresses.signal_address(ANN_LID)
        assert await ctx.records.identity(address) == ann.local.identity.public


class TestChannels:
    CHANNEL = JID.parse("120363000000000111@newsletter")

    def post(self, text: str, edit: str | None = None, t: int = T) -> Node:
        content = Node("plaintext", {}, Message(conversation=text).SerializeToString() if text else b"")
        attrs = {"id": "POST", "from": self.CHANNEL, "t": str(t), "type": "text", "server_id": "117"}
        return Node("message", attrs | ({"edit": edit} if edit else {}), [content])

    async def test_posts_edits_and_revokes(self, receiver: Receiver) -> None:
        for node in (
            self.post("news"),
            self.post("news"),
            self.post("news!", "3", T + 1),
            self.post("", "8", T + 2),
        ):
            assert shapes((await receiver.take(node)).answers) == [("ack", "text")]
        events = await receiver.events()
        assert [(event.type, event.data.get("reason")) for event in events] == [
            ("message:new", None),
            ("message:update", "edited"),
            ("message:update", "revoked"),
        ]
        assert events[0].data["content"] == {"serverId": 117}
        (row,) = await receiver.rows()
        assert (row.body, row.raw) == (None, None)
        assert row.revoked_at == (T + 2) * 1000

    async def test_reactions_and_rubbish_are_acked(self, receiver: Receiver) -> None:
        node = self.post("x")
        node.content = [Node("reaction", {"code": "👍"})]
        assert shapes((await receiver.take(node)).answers) == [("ack", "text")]
        node.content = [Node("plaintext", {}, b"\xff\xff")]
        assert shapes((await receiver.take(node)).answers) == [("ack", "text")]
        assert await receiver.rows() == []
