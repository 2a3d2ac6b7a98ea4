"""Secrets of messages: which are kept, under which addresses, for how long, and that nobody else gets to see them."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from tests.messaging.accounts import OWN_LID, START_MS
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
    own_phone,
    sent_copy,
    spoiled,
)
from tests.messaging.outbound_helpers import bob, make_world
from tests.messaging.test_protocol import edit_of
from waD.messaging import message_secrets
from waD.messaging.context import Context
from waD.proto.e2e_pb2 import Message
from waD.store.model import SecretRow
from waD.store.store import Store

SECRET = bytes(range(100, 132))


def with_secret(message: Message, secret: bytes = SECRET) -> Message:
    message.messageContextInfo.messageSecret = secret
    return message


def poll() -> Message:
    message = Message()
    message.pollCreationMessageV3.name = "Lunch?"
    for name in ("yes", "no"):
        message.pollCreationMessageV3.options.add(optionName=name)
    return with_secret(message)


async def secrets_of(ctx: Context) -> list[SecretRow]:
    engine = ctx.state._store.engine
    found, _ = await ctx.state._store.read(engine.secrets, ctx.state.session_id, ("", "", ""), 100)
    return found


class TestReceived:
    async def test_a_text(self, receiver: Receiver, ann: Peer, ctx: Context) -> None:
        await receiver.take(ann.stanza(ann.enc(with_secret(Message(conversation="a"))), message_id="A"))
        assert await secrets_of(ctx) == [
            SecretRow(
                chat=str(ANN_LID),
                sender=str(ANN_LID),
                message_id="A",
                wire_sender=str(ANN_LID),
                secret=SECRET,
                message_ts=T * 1000,
                expires_at=T * 1000 + 30 * message_secrets.DAY_MS,
            )
        ]

    async def test_a_poll_is_kept_for_longer(self, receiver: Receiver, ann: Peer, ctx: Context) -> None:
        await receiver.take(ann.stanza(ann.enc(poll())))
        (kept,) = await secrets_of(ctx)
        assert kept.expires_at == T * 1000 + 90 * message_secrets.DAY_MS

    async def test_the_author_as_the_stanza_spells_it(self, receiver: Receiver, ctx: Context) -> None:
        ann = Peer(ANN_PN)
        await introduce(ctx, ann)
        content = with_secret(Message(conversation="a"))
        await receiver.take(ann.stanza(ann.enc(content), sender_lid=ANN_LID))
        (kept,) = await secrets_of(ctx)
        assert (kept.chat, kept.sender, kept.wire_sender) == (str(ANN_LID), str(ANN_LID), str(ANN_PN))

    async def test_in_a_group(self, receiver: Receiver, ann: Peer, ctx: Context) -> None:
        shared = ann.enc(ann.distribution(GROUP))
        await receiver.take(ann.stanza(shared, ann.group_enc(GROUP, poll()), to=GROUP))
        (kept,) = await secrets_of(ctx)
        assert (kept.chat, kept.sender, kept.secret) == (str(GROUP), str(ANN_LID), SECRET)

    async def test_inside_of_a_wrapper(self, receiver: Receiver, ann: Peer, ctx: Context) -> None:
        content = Message()
        content.ephemeralMessage.message.CopyFrom(poll())
        await receiver.take(ann.stanza(ann.enc(content)))
        (kept,) = await secrets_of(ctx)
        assert kept.secret == SECRET
        (row,) = await receiver.rows()
        assert SECRET not in (row.raw or b"")

    async def test_an_own_message_of_the_phone(self, receiver: Receiver, ctx: Context) -> None:
        phone = await own_phone(ctx)
        await receiver.take(phone.stanza(phone.enc(sent_copy(poll(), ANN_LID)), recipient=ANN_LID))
        (kept,) = await secrets_of(ctx)
        assert (kept.chat, kept.sender) == (str(ANN_LID), str(OWN_LID.account))

    @pytest.mark.parametrize("length", [0, 31, 33, 64])
    async def test_another_length_is_none(
        self, receiver: Receiver, ann: Peer, ctx: Context, length: int
    ) -> None:
        await receiver.take(ann.stanza(ann.enc(with_secret(Message(conversation="a"), bytes(length)))))
        assert await secrets_of(ctx) == []
        (row,) = await receiver.rows()
        assert row.body == "a"

    async def test_a_forwarded_one_is_the_originals(
        self, receiver: Receiver, ann: Peer, ctx: Context
    ) -> None:
        content = with_secret(Message())
        content.extendedTextMessage.text = "read this"
        content.extendedTextMessage.contextInfo.isForwarded = True
        await receiver.take(ann.stanza(ann.enc(content)))
        assert await secrets_of(ctx) == []
        (row,) = await receiver.rows()
        assert SECRET not in (row.raw or b"")

    async def test_a_message_past_the_life_of_its_secret(
        self, receiver: Receiver, ann: Peer, ctx: Context
    ) -> None:
        old = T - 31 * 86_400
        await receiver.take(ann.stanza(ann.enc(with_secret(Message(conversation="a"))), t=str(old)))
        assert await secrets_of(ctx) == []

    async def test_a_message_from_the_future_is_from_now(
        self, receiver: Receiver, ann: Peer, ctx: Context
    ) -> None:
        far = T + 10_000 * 86_400
        await receiver.take(ann.stanza(ann.enc(with_secret(Message(conversation="a"))), t=str(far)))
        (kept,) = await secrets_of(ctx)
        assert (kept.message_ts, kept.expires_at) == (START_MS, START_MS + message_secrets.LIFE_MS)

    async def test_the_first_one_counts(self, receiver: Receiver, ann: Peer, ctx: Context) -> None:
        for secret in (SECRET, bytes(32)):
            content = with_secret(Message(conversation="a"), secret)
            await receiver.take(ann.stanza(ann.enc(content), message_id="A"))
        (kept,) = await secrets_of(ctx)
        assert kept.secret == SECRET

    async def test_an_edit_has_none_of_its_own(self, receiver: Receiver, ann: Peer, ctx: Context) -> None:
        edit = edit_of("A", "second")
        edit.protocolMessage.editedMessage.messageContextInfo.messageSecret = SECRET
        await receiver.take(ann.stanza(ann.enc(edit)))
        assert await secrets_of(ctx) == []
        (row,) = await receiver.rows()
        assert (row.body, SECRET in (row.raw or b"")) == ("second", False)

    async def test_one_that_a_retry_brings(self, receiver: Receiver, ann: Peer, ctx: Context) -> None:
        await receiver.take(ann.text("first"))
        await answer(ctx, ann)
        content = with_secret(Message(conversation="a"))
        await receiver.take(ann.stanza(spoiled(ann.enc(content)), message_id="A"))
        assert await secrets_of(ctx) == []
        await receiver.take(ann.stanza(ann.enc(content), message_id="A"))
        (kept,) = await secrets_of(ctx)
        assert (kept.message_id, kept.secret) == ("A", SECRET)


class TestSent:
    async def test_what_the_recipient_gets(self, store: Store) -> None:
        world = await make_world(store)
        peer = world.server.add(bob())
        async with world.pumping():
            message_id = await world.sent("hello", peer.pn)
        (kept,) = await secrets_of(world.ctx)
        ((_, got),) = peer.devices[0].inbox
        assert kept.secret == got.messageContextInfo.messageSecret
        row = await world.message(message_id)
        assert (kept.chat, kept.sender, kept.message_id) == (row.chat, row.sender, row.message_id)
        (left,) = [node for node in world.server.sent if node.tag == "message"]
        assert kept.wire_sender == str(world.me.lid if left.jid("to") == peer.lid else world.me.pn)
        assert kept.secret not in (row.raw or b"")

    async def test_nothing_is_kept_of_what_has_not_left(self, store: Store) -> None:
        world = await make_world(store)
        await world.send("hello", bob().pn)
        assert await secrets_of(world.ctx) == []


class TestReading:
    async def test_by_any_spelling(self, receiver: Receiver, ann: Peer, ctx: Context) -> None:
        await receiver.take(ann.stanza(ann.enc(poll()), message_id="A"))
        forms = [str(ANN_PN), str(ANN_LID)]
        found = await ctx.state.message_secret(forms, forms, "A")
        assert found is not None
        assert found.secret == SECRET
        assert await ctx.state.message_secret([str(BOB_LID)], forms, "A") is None
        assert await ctx.state.message_secret(forms, [str(BOB_LID)], "A") is None
        assert await ctx.state.message_secret(forms, forms, "B") is None

    async def test_in_the_unit_that_brings_it(self, receiver: Receiver, ann: Peer, ctx: Context) -> None:
        async with ctx.state.lock:
            unit = ctx.state.unit()
            await receiver.handle(ann.stanza(ann.enc(poll()), message_id="A"), unit)
            forms = [str(ANN_LID)]
            found = await ctx.state.message_secret(forms, forms, "A", unit)
            assert found is not None
            assert found.secret == SECRET
            assert await ctx.state.message_secret(forms, forms, "A") is None

    async def test_a_person_whose_lid_is_learned(self, receiver: Receiver, ctx: Context) -> None:
        ann = Peer(ANN_PN)
        await introduce(ctx, ann)
        await receiver.take(ann.stanza(ann.enc(poll()), message_id="A"))
        (kept,) = await secrets_of(ctx)
        assert (kept.chat, kept.sender) == (str(ANN_PN), str(ANN_PN))
        async with ctx.state.lock:
            unit = ctx.state.unit()
            await ctx.addresses.learn(unit, ANN_PN, ANN_LID, "live")
            await ctx.state.commit(unit)
        (moved,) = await secrets_of(ctx)
        assert (moved.chat, moved.sender, moved.wire_sender) == (str(ANN_LID), str(ANN_LID), str(ANN_PN))
        assert moved.secret == SECRET


class TestSecrecy:
    async def test_neither_event_nor_log_nor_database_shows_it(
        self, receiver: Receiver, ann: Peer, ctx: Context, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("DEBUG")
        await receiver.take(ann.stanza(ann.enc(poll())))
        (kept,) = await secrets_of(ctx)
        shown = json.dumps([event.data for event in await receiver.events()]) + caplog.text + repr(kept)
        for form in (SECRET.hex(), "ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1+f4CBgoM"):
            assert form not in shown
        with sqlite3.connect(tmp_path / "state" / "waD.db") as db:
            (stored,) = db.execute("SELECT secret FROM wa_message_secrets").fetchone()
            (raw,) = db.execute("SELECT raw FROM whatsapp_messages").fetchone()
        assert SECRET not in stored
        assert SECRET not in raw
        assert len(stored) == 12 + 32 + 16
