"""Messages from other devices through the real store: what becomes of them, and what answer they get."""

from __future__ import annotations

import os

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.messaging.accounts import OWN_LID, OWN_PN, START_MS
from tests.messaging.inbound_helpers import (
    ANN_LID,
    ANN_PN,
    BOB_LID,
    GROUP,
    Peer,
    Receiver,
    T,
    answer,
    hostile,
    introduce,
    of_kind,
    our_bundle,
    receiving,
    shapes,
    spoiled,
)
from waD.e2ee import padding, session
from waD.e2ee.record import SessionRecord
from waD.messaging import kinds
from waD.messaging.context import Context
from waD.messaging.reaction import AskPhone, Paced, Reaction
from waD.proto.e2e_pb2 import Message
from waD.store.errors import StorageUnavailable, StoreError
from waD.store.unit import Unit
from waD.wire.jid import JID
from waD.wire.node import Node

STATUS = JID.parse("status@broadcast")


class TestText:
    async def test_row_event_and_receipt(self, receiver: Receiver, ann: Peer) -> None:
        stanza = ann.text("hello", sender_pn=ANN_PN, notify="Ann")
        reaction = await receiver.take(stanza)
        assert shapes(reaction.answers) == [("receipt", None)]
        assert reaction.answers[0].attrs == {"id": stanza.attrs["id"], "to": ANN_LID}
        assert reaction.work == []
        (row,) = await receiver.rows()
        assert (row.chat, row.sender, row.kind, row.body) == (str(ANN_LID), str(ANN_LID), "text", "hello")
        assert (row.ts, row.from_me, row.source, row.status) == (START_MS, False, "live", 3)
        assert Message.FromString(row.raw or b"").conversation == "hello"
        (event,) = await receiver.events()
        assert event.type == "message:new"
        assert event.data == {
            "chat": str(ANN_LID),
            "sender": str(ANN_LID),
            "messageId": stanza.attrs["id"],
            "fromMe": False,
            "time": START_MS,
            "kind": "text",
            "source": "live",
            "body": "hello",
            "pushName": "Ann",
            "senderPn": str(ANN_PN),
            "senderLid": str(ANN_LID),
        }

    async def test_the_session_remembers_when_a_message_came(self, receiver: Receiver, ann: Peer) -> None:
        await receiver.take(ann.text("hello"))
        row = await receiver.ctx.state._store.session("alerts")
        assert row is not None
        assert row.last_message_at == START_MS

    async def test_quotes_and_mentions(self, receiver: Receiver, ann: Peer) -> None:
        content = Message()
        content.extendedTextMessage.text = "@100000000000003 yes"
        context = content.extendedTextMessage.contextInfo
        context.stanzaId, context.participant = "Q1", "100000000000003:5@lid"
        context.quotedMessage.conversation = "ok?"
        context.mentionedJid.append(str(BOB_LID))
        await receiver.take(ann.stanza(ann.enc(content)))
        (row,) = await receiver.rows()
        assert row.content == {
            "quoted": {"messageId": "Q1", "sender": str(BOB_LID), "kind": "text", "body": "ok?"},
            "mentions": [str(BOB_LID)],
        }

    async def test_a_whole_backlog_is_one_unit(self, receiver: Receiver, ann: Peer) -> None:
        await receiver.take(*[ann.text(f"m{n}", offline="1") for n in range(50)])
        assert [row.body for row in await receiver.rows()] == [f"m{n}" for n in range(50)]
        assert {row.source for row in await receiver.rows()} == {"offline"}
        assert [event.data["body"] for event in await receiver.events()] == [f"m{n}" for n in range(50)]

    async def test_the_used_prekey_goes_with_the_session_it_made(
        self, receiver: Receiver, ann: Peer, ctx: Context
    ) -> None:
        before = {key.id for key in await ctx.account.prekeys()}
        await receiver.take(ann.text("hello"))
        assert {key.id for key in await ctx.account.prekeys()} == set()
        assert len(before) == 1
        address = await ctx.addresses.signal_address(ANN_LID)
        assert await ctx.records.identity(address) == ann.local.identity.public

    async def test_out_of_order(self, receiver: Receiver, ann: Peer) -> None:
        first, second, third = (ann.text(str(n)) for n in range(3))
        for stanza in (third, first, second):
            assert shapes((await receiver.take(stanza)).answers) == [("receipt", None)]
        assert [row.body for row in await receiver.rows()] == ["2", "0", "1"]

    async def test_an_inactive_client_says_so(self, ctx: Context) -> None:
        from msgspec import structs

        from waD.messaging.context import make_context

        away = make_context(
            ctx.state,
            settings=structs.replace(ctx.settings, available=False),
            now_ms=lambda: START_MS,
            random=os.urandom,
        )
        peer = Peer(ANN_LID)
        await introduce(away, peer)
        assert shapes((await Receiver(away).take(peer.text("x"))).answers) == [("receipt", "inactive")]


class TestKinds:
    async def test_media_keep_their_kind_caption_and_protobuf(self, receiver: Receiver, ann: Peer) -> None:
        content = Message()
        content.imageMessage.caption = "look"
        content.imageMessage.mimetype = "image/jpeg"
        await receiver.take(ann.stanza(ann.enc(content)))
        (row,) = await receiver.rows()
        assert (row.kind, row.body, row.content) == ("image", "look", {"mimetype": "image/jpeg"})
        assert row.raw == content.SerializeToString()
        assert (await receiver.events())[0].data["kind"] == "image"

    async def test_unknown_content_is_kept(self, receiver: Receiver, ann: Peer) -> None:
        raw = b"\xfa\x7f\x03abc"
        await receiver.take(ann.stanza(ann.enc(padding.pad(raw, 1))))
        (row,) = await receiver.rows()
        assert (row.kind, row.raw) == ("unsupported", raw)

    async def test_a_reaction_names_its_target_from_our_view(self, receiver: Receiver, ann: Peer) -> None:
        content = Message()
        content.reactionMessage.key.remoteJid = str(OWN_LID.account)
        content.reactionMessage.key.id = "MINE"
        content.reactionMessage.text = "👍"
        await receiver.take(ann.stanza(ann.enc(content)))
        (row,) = await receiver.rows()
        assert (row.kind, row.body) == ("reaction", "👍")
        assert row.content == {
            "target": {"messageId": "MINE", "sender": str(OWN_LID.account), "fromMe": True}
        }

    async def test_several_ciphertexts_are_one_message(self, receiver: Receiver, ann: Peer) -> None:
        secret = Message()
        secret.messageContextInfo.messageSecret = bytes(32)
        encs = [ann.enc(Message(conversation="a")), ann.enc(secret)]
        reaction = await receiver.take(ann.stanza(*encs))
        assert shapes(reaction.answers) == [("receipt", None)]
        (row,) = await receiver.rows()
        assert row.body == "a"
        assert await receiver.secret(row) == bytes(32)
        assert len(await receiver.events()) == 1

    async def test_text_that_is_not_utf8(self, receiver: Receiver, ann: Peer) -> None:
        await receiver.take(ann.stanza(ann.enc(padding.pad(b"\x0a\x04\xffa\x00b", 1))))
        (row,) = await receiver.rows()
        assert row.body == "\ufffda\ufffdb"

    async def test_no_content_no_row(self, receiver: Receiver, ann: Peer) -> None:
        empty = Message()
        empty.messageContextInfo.messageSecret = bytes(32)
        for content in (empty, Message()):
            reaction = await receiver.take(ann.stanza(ann.enc(content)))
            assert shapes(reaction.answers) == [("receipt", None)]
        assert await receiver.rows() == []
        assert await receiver.events() == []


class TestDuplicates:
    async def test_a_redelivered_stanza_gets_the_same_receipt_and_no_event(
        self, receiver: Receiver, ann: Peer
    ) -> None:
        stanza = ann.text("once")
        first = await receiver.take(stanza)
        again = await receiver.take(stanza)
        assert again.answers == first.answers
        assert len(await receiver.events()) == 1
        assert len(await receiver.rows()) == 1

    async def test_twice_in_one_unit(self, receiver: Receiver, ann: Peer) -> None:
        stanza = ann.text("once")
        reaction = await receiver.take(stanza, stanza)
        assert reaction.answers[0] == reaction.answers[1]
        assert len(await receiver.events()) == 1

    async def test_not_in_the_journal(self, receiver: Receiver, ann: Peer) -> None:
        """The record is newer than the journal, as after an import."""
        stanza = ann.text("once")
        await receiver.take(stanza)
        stanza.attrs["id"] = "ANOTHER"
        reaction = await receiver.take(stanza)
        assert shapes(reaction.answers) == [("ack", "text")]
        assert reaction.work == []
        assert len(await receiver.rows()) == 1

    async def test_encrypted_again_under_the_same_id(self, receiver: Receiver, ann: Peer) -> None:
        await receiver.take(ann.text("once", message_id="SAME"))
        reaction = await receiver.take(ann.text("once", message_id="SAME"))
        assert shapes(reaction.answers) == [("receipt", None)]
        assert len(await receiver.events()) == 1

    async def test_one_id_of_two_people_is_two_messages(
        self, receiver: Receiver, ann: Peer, ctx: Context
    ) -> None:
        bob = Peer(BOB_LID)
        await introduce(ctx, bob)
        await receiver.take(ann.text("a", message_id="SAME"), bob.text("b", message_id="SAME"))
        assert [row.body for row in await receiver.rows()] == ["a", "b"]

    async def test_group_duplicates(self, receiver: Receiver, ann: Peer) -> None:
        stanza = ann.group_text(GROUP, "hi")
        first = await receiver.take(stanza)
        assert (await receiver.take(stanza)).answers == first.answers
        assert len(await receiver.events()) == 1


class TestCommitFailure:
    async def test_redelivery_decrypts(
        self, receiver: Receiver, ann: Peer, ctx: Context, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await receiver.take(ann.text("before"))
        stanza = ann.text("lost?")
        with monkeypatch.context() as broken:

            async def fail(_job: object) -> None:
                raise StorageUnavailable("the disk is full")

            broken.setattr(ctx.state._store, "write", fail)
            with pytest.raises(StoreError):
                await receiver.take(stanza)
        assert [row.body for row in await receiver.rows()] == ["before"]
        assert shapes((await receiver.take(stanza)).answers) == [("receipt", None)]
        assert [row.body for row in await receiver.rows()] == ["before", "lost?"]
        assert [event.data["body"] for event in await receiver.events()] == ["before", "lost?"]

    async def test_nothing_is_answered_when_the_state_cannot_be_read(
        self, receiver: Receiver, ann: Peer, ctx: Context, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def fail(*_: object) -> None:
            raise StorageUnavailable("gone")

        monkeypatch.setattr(ctx.state._store, "read", fail)
        with pytest.raises(StoreError):
            await receiver.handle(ann.text("x"), Unit())


class TestFailures:
    """The table of chapter 04 §6.4."""

    async def ask(self, reaction_work: list[object]) -> list[Node]:
        (paced,) = of_kind(reaction_work, Paced)  # type: ignore[arg-type]
        return list(paced.nodes)

    async def test_bad_mac(self, receiver: Receiver, ann: Peer) -> None:
        await receiver.take(ann.text("first"))
        await answer(receiver.ctx, ann)
        stanza = ann.text("second")
        stanza.content = [spoiled(stanza.children("enc")[0])]
        reaction = await receiver.take(stanza)
        assert reaction.answers == []
        receipt, ack = await self.ask(list(reaction.work))
        assert receipt.attrs["type"] == "retry"
        assert "error" not in ack.attrs
        assert ack.attrs["class"] == "message"
        row = (await receiver.rows())[-1]
        assert row.kind == "undecryptable"
        assert row.raw is None
        assert [event.data["kind"] for event in await receiver.events()] == ["text", "undecryptable"]

    async def test_a_failure_changes_no_record(self, receiver: Receiver, ann: Peer, ctx: Context) -> None:
        await receiver.take(ann.text("first"))
        await answer(ctx, ann)
        address = await ctx.addresses.signal_address(ANN_LID)
        before = await ctx.state.item(kinds.SESSION, address.text)
        stanza = ann.text("second")
        good = stanza.content
        stanza.content = [spoiled(stanza.children("enc")[0])]
        await receiver.take(stanza)
        assert await ctx.state.item(kinds.SESSION, address.text) == before
        stanza.content = good
        await receiver.take(stanza)
        assert (await receiver.rows())[-1].body == "second"

    async def test_malformed_ciphertext(self, receiver: Receiver, ann: Peer) -> None:
        node = ann.stanza(Node("enc", {"v": "2", "type": "msg"}, b"\x33rubbish"))
        reaction = await receiver.take(node)
        assert shapes(reaction.answers) == [("ack", "487")]
        assert reaction.work == []
        assert [event.data["kind"] for event in await receiver.events()] == ["undecryptable"]

    @pytest.mark.parametrize(
        "plaintext", [b"", b"\x00", b"abc\x02\x03", b"\x0a\x05ab\x01", b"\xff\xff\xff\x01"]
    )
    async def test_padding_and_protobuf(self, receiver: Receiver, ann: Peer, plaintext: bytes) -> None:
        reaction = await receiver.take(ann.stanza(ann.enc(plaintext)))
        assert shapes(reaction.answers) == [("ack", "491")]
        assert reaction.work == []
        await receiver.take(ann.text("goes on"))
        assert (await receiver.rows())[-1].body == "goes on"

    async def test_too_deep_protobuf(self, receiver: Receiver, ann: Peer) -> None:
        content = Message(conversation="x")
        for _ in range(60):
            outer = Message()
            outer.ephemeralMessage.message.CopyFrom(content)
            content = outer
        reaction = await receiver.take(ann.stanza(ann.enc(content)))
        assert shapes(reaction.answers) == [("ack", "491")]

    async def test_deep_wrappers_are_unsupported(self, receiver: Receiver, ann: Peer) -> None:
        content = Message(conversation="x")
        for _ in range(6):
            outer = Message()
            outer.ephemeralMessage.message.CopyFrom(content)
            content = outer
        await receiver.take(ann.stanza(ann.enc(content)))
        assert (await receiver.rows())[0].kind == "unsupported"

    @pytest.mark.parametrize(
        ("enc", "code"),
        [
            ({"type": "msmsg"}, "495"),
            ({"type": "new"}, "490"),
            ({"type": "msg", "v": "3"}, "490"),
            ({"type": "skmsg"}, "490"),
        ],
    )
    async def test_types_that_are_not_read(
        self, receiver: Receiver, ann: Peer, enc: dict[str, str], code: str
    ) -> None:
        node = ann.stanza(Node("enc", dict(enc), b"x" * 80))
        assert shapes((await receiver.take(node)).answers) == [("ack", code)]

    @pytest.mark.parametrize("children", [[], [Node("enc", {"type": "msg"})], [Node("meta")]])
    async def test_nothing_enclosed(self, receiver: Receiver, ann: Peer, children: list[Node]) -> None:
        assert shapes((await receiver.take(ann.stanza(*children))).answers) == [("ack", "488")]
        assert (await receiver.rows())[0].kind == "undecryptable"

    async def test_rejected_stanzas(self, receiver: Receiver) -> None:
        node = Node("message", {"id": "A", "from": GROUP, "t": str(T)})
        (nack,) = (await receiver.take(node)).answers
        assert nack.attrs == {"class": "message", "id": "A", "to": GROUP, "from": OWN_PN, "error": "487"}
        assert (await receiver.take(Node("message", {"t": "1"}))).answers == []

    async def test_hosted_device_in_a_group(self, receiver: Receiver, ctx: Context) -> None:
        hosted = Peer(JID.parse("100000000000009:99@hosted.lid"))
        await introduce(ctx, hosted)
        hosted.distribution(GROUP)
        node = hosted.stanza(hosted.group_enc(GROUP, Message(conversation="x")), to=GROUP)
        assert shapes((await receiver.take(node)).answers) == [("ack", "493")]

    async def test_status_posts_of_yesterday(self, receiver: Receiver, ann: Peer) -> None:
        ann.distribution(STATUS)
        enc = ann.group_enc(STATUS, Message(conversation="x"))
        node = ann.stanza(enc, to=STATUS, t=str(T - 86_401))
        reaction = await receiver.take(node)
        assert shapes(reaction.answers) == [("ack", "text")]
        assert reaction.work == []
        assert await receiver.rows() == []

    async def test_hidden_failures_leave_no_placeholder(self, receiver: Receiver, ctx: Context) -> None:
        stranger = Peer(ANN_LID)
        stranger.start(await our_bundle(ctx, 900))
        node = stranger.stanza(
            Node("enc", {"v": "2", "type": "skmsg", "decrypt-fail": "hide"}, b"x"), to=GROUP
        )
        first = stranger.distribution(GROUP)
        assert first is not None
        node.content = [stranger.group_enc(GROUP, Message(conversation="x"), **{"decrypt-fail": "hide"})]
        reaction = await receiver.take(node)
        receipt, _ack = await self.ask(list(reaction.work))
        assert receipt.attrs["type"] == "retry"
        assert of_kind(reaction.work, AskPhone) == []
        assert await receiver.rows() == []
        assert await receiver.events() == []


class TestUnavailable:
    async def test_view_once(self, receiver: Receiver, ann: Peer) -> None:
        node = ann.stanza(Node("unavailable", {"type": "view_once"}))
        reaction = await receiver.take(node)
        assert shapes(reaction.answers) == [("receipt", None)]
        assert reaction.work == []
        (row,) = await receiver.rows()
        assert (row.kind, row.content) == ("undecryptable", {"reason": "unavailable", "type": "view_once"})

    async def test_the_phone_is_asked_at_once_and_once(self, receiver: Receiver, ann: Peer) -> None:
        node = ann.stanza(Node("unavailable", {}))
        reaction = await receiver.take(node)
        (question,) = of_kind(reaction.work, AskPhone)
        assert question.delay_s == 0
        request = Message.FromString(question.payload).protocolMessage.peerDataOperationRequestMessage
        key = request.placeholderMessageResendRequest[0].messageKey
        assert (key.remoteJid, key.fromMe, key.id) == (str(ANN_LID), False, node.attrs["id"])
        assert not key.HasField("participant")
        again = await receiver.take(node)
        assert again.work == []
        assert shapes(again.answers) == [("receipt", None)]

    async def test_too_old_to_ask_for(self, receiver: Receiver, ann: Peer) -> None:
        node = ann.stanza(Node("unavailable", {}), t=str(T - 15 * 86_400))
        reaction = await receiver.take(node)
        assert reaction.work == []
        assert len(await receiver.rows()) == 1


def check_answer(node: Node, reaction: Reaction) -> None:
    """One ack at the most, one receipt at the most, and something whenever the stanza can be answered."""
    answers = reaction.answers + [one for work in of_kind(reaction.work, Paced) for one in work.nodes]
    assert [one.tag for one in answers].count("ack") <= 1
    assert [one.tag for one in answers].count("receipt") <= 1
    assert bool(answers) == (bool(node.attrs.get("id")) and bool(node.attrs.get("from")))
    for one in answers:
        assert one.attrs["id"] == node.attrs["id"]
        assert one.attrs["to"] == node.attrs["from"]


@settings(max_examples=25)
@given(st.lists(hostile("message"), min_size=1, max_size=30))
def test_no_stanza_is_too_much(nodes: list[Node]) -> None:
    async def scenario() -> None:
        async with receiving() as receiver:
            for node in nodes:
                check_answer(node, await receiver.take(node))

    trio.run(scenario)


async def test_answered_sessions_stop_introducing_themselves(
    receiver: Receiver, ann: Peer, ctx: Context
) -> None:
    assert ann.text("x").children("enc")[0].attrs["type"] == "pkmsg"
    await receiver.take(ann.text("y"))
    await answer(ctx, ann)
    node = ann.text("z")
    assert node.children("enc")[0].attrs["type"] == "msg"
    await receiver.take(node)
    assert [row.body for row in await receiver.rows()] == ["y", "z"]
    assert isinstance(ann.record, SessionRecord)
    assert session.archive_current(ann.record).current is None
