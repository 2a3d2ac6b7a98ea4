"""Copies of own messages from own devices, and people inside content as rows and events name them."""

from __future__ import annotations

import pytest

from tests.messaging.accounts import OWN_LID, OWN_PN
from tests.messaging.inbound_helpers import (
    ANN_LID,
    ANN_PN,
    GROUP,
    Peer,
    Receiver,
    answer,
    own_phone,
    sent_copy,
    spoiled,
)
from waD.messaging.context import Context
from waD.proto.e2e_pb2 import Message
from waD.wire.jid import JID


@pytest.fixture
async def phone(ctx: Context, receiver: Receiver) -> Peer:
    """The own phone, with an answered session."""
    peer = await own_phone(ctx)
    hello = sent_copy(Message(conversation="introduction"), ANN_LID)
    await receiver.take(peer.stanza(peer.enc(hello), recipient=ANN_LID))
    await answer(ctx, peer)
    await receiver.events()
    return peer


async def test_repeated_for_this_device_only_it_still_belongs_to_its_chat(
    receiver: Receiver, phone: Peer
) -> None:
    """Some devices repeat a copy without saying in the stanza of which chat it is."""
    content = sent_copy(Message(conversation="second try"), ANN_LID)
    broken = phone.stanza(spoiled(phone.enc(content)), message_id="3EB0C0", recipient=ANN_LID)
    await receiver.take(broken)
    for recipient in (None, OWN_LID.bare):
        await receiver.take(phone.stanza(phone.enc(content), message_id="3EB0C0", recipient=recipient))
    told = [(event.type, event.data["chat"], event.data["kind"]) for event in await receiver.events()]
    assert told == [
        ("message:new", str(ANN_LID), "undecryptable"),
        ("message:update", str(ANN_LID), "text"),
    ]
    (row,) = [row for row in await receiver.rows() if row.message_id == "3EB0C0"]
    assert (row.body, row.chat, row.wire_chat, row.from_me) == (
        "second try",
        str(ANN_LID),
        str(ANN_LID),
        True,
    )


@pytest.mark.parametrize("named", [OWN_LID.bare, OWN_PN.bare, GROUP])
async def test_a_note_to_oneself_stays_one(receiver: Receiver, phone: Peer, named: JID) -> None:
    content = sent_copy(Message(conversation="note"), named)
    await receiver.take(phone.stanza(phone.enc(content), recipient=OWN_LID.bare))
    (event,) = await receiver.events()
    assert event.data["chat"] == str(OWN_LID.bare)


async def test_the_stanza_counts_where_it_names_a_chat(receiver: Receiver, phone: Peer) -> None:
    content = sent_copy(Message(conversation="hm"), JID.parse("100000000000009@lid"))
    await receiver.take(phone.stanza(phone.enc(content), recipient=ANN_LID))
    (event,) = await receiver.events()
    assert event.data["chat"] == str(ANN_LID)


async def test_people_in_a_quote_and_mentions_go_by_their_canonical_address(
    receiver: Receiver, ann: Peer, ctx: Context
) -> None:
    unknown, odd = "15550000009@s.whatsapp.net", str(GROUP)
    message = Message()
    message.extendedTextMessage.text = "see above"
    context = message.extendedTextMessage.contextInfo
    context.stanzaId, context.participant, context.remoteJid = "Q1", str(ANN_PN.with_device(3)), str(ANN_PN)
    context.mentionedJid.extend([str(ANN_PN), unknown, odd])
    await receiver.take(ann.stanza(ann.enc(message), sender_pn=ANN_PN))
    (event,) = await receiver.events()
    assert event.data["content"] == {
        "quoted": {"messageId": "Q1", "sender": str(ANN_LID), "chat": str(ANN_LID)},
        "mentions": [str(ANN_LID), unknown, odd],
    }
