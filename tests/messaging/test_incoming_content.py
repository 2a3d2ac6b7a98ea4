"""What messages say: every kind, whatever it is wrapped in, and text that is none."""

from __future__ import annotations

import msgspec
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from waD.messaging.incoming_content import NO_CONTENT, Description, describe, text_of
from waD.messaging.message_keys import Key
from waD.proto.e2e_pb2 import Message
from waD.wire.jid import JID

ANN = JID.parse("100000000000002@lid")


def said(message: Message) -> Description:
    found = describe(message)
    assert found is not None
    return found


@pytest.mark.parametrize("name", [field.name for field in Message.DESCRIPTOR.fields])
def test_every_field_has_a_kind(name: str) -> None:
    message = Message()
    if name == "conversation":
        message.conversation = "x"
    else:
        getattr(message, name).SetInParent()
    found = describe(message)
    if name in NO_CONTENT:
        assert found is None
        return
    if found is None:
        wrapped = getattr(message, name)
        assert wrapped.DESCRIPTOR is Message.FutureProofMessage.DESCRIPTOR
        return
    assert found.kind == found.kind.lower()
    assert " " not in found.kind
    assert "message" not in found.kind or found.kind.startswith("message_history")


class TestKinds:
    def test_link(self) -> None:
        message = Message()
        text = message.extendedTextMessage
        text.text, text.matchedText, text.title = "see https://e.org", "https://e.org", "T"
        found = said(message)
        assert (found.kind, found.body) == ("text", "see https://e.org")
        assert found.content == {"link": {"url": "https://e.org", "title": "T"}}

    def test_video_gif_and_voice(self) -> None:
        message = Message()
        message.videoMessage.caption = "c"
        assert (said(message).kind, said(message).body) == ("video", "c")
        message.videoMessage.gifPlayback = True
        assert said(message).kind == "gif"
        audio = Message()
        audio.audioMessage.seconds = 3
        assert (said(audio).kind, said(audio).content) == ("audio", {"seconds": 3})
        audio.audioMessage.ptt = True
        assert said(audio).kind == "voice"

    def test_document_in_its_wrapper(self) -> None:
        message = Message()
        document = message.documentWithCaptionMessage.message.documentMessage
        document.fileName, document.caption = "a.pdf", "read this"
        found = said(message)
        assert (found.kind, found.body) == ("document", "read this")
        assert found.content == {"fileName": "a.pdf"}

    def test_location(self) -> None:
        message = Message()
        message.locationMessage.degreesLatitude = 48.1
        message.locationMessage.degreesLongitude = 11.5
        message.locationMessage.name = "Here"
        found = said(message)
        assert (found.kind, found.body) == ("location", "Here")
        assert found.content == {"degreesLatitude": 48.1, "degreesLongitude": 11.5}

    def test_poll_and_vote(self) -> None:
        message = Message()
        message.pollCreationMessageV3.name = "Q"
        message.pollCreationMessageV3.options.add().optionName = "a"
        assert said(message).content == {"options": ["a"], "selectable": 0}
        vote = Message()
        vote.pollUpdateMessage.pollCreationMessageKey.id = "P1"
        vote.pollUpdateMessage.pollCreationMessageKey.participant = f"{ANN.user}:4@lid"
        found = said(vote)
        assert (found.kind, found.target) == ("poll_vote", Key(None, "P1", False, ANN))

    def test_reactions(self) -> None:
        message = Message()
        message.reactionMessage.key.id = "A"
        message.reactionMessage.key.fromMe = True
        message.reactionMessage.senderTimestampMs = 5
        found = said(message)
        assert (found.kind, found.body, found.target) == ("reaction", None, Key(None, "A", True))
        assert found.content == {"removed": True, "reactedAt": 5}
        message.reactionMessage.text = "👍"
        assert said(message).body == "👍"

    def test_contacts(self) -> None:
        message = Message()
        message.contactsArrayMessage.displayName = "two"
        for name in ("a", "b"):
            message.contactsArrayMessage.contacts.add(displayName=name, vcard="BEGIN:VCARD")
        found = said(message)
        assert (found.kind, found.body) == ("contacts", "two")
        assert [card["name"] for card in found.content["contacts"]] == ["a", "b"]

    def test_pins(self) -> None:
        message = Message()
        message.pinInChatMessage.key.id = "A"
        message.pinInChatMessage.type = Message.PinInChatMessage.UNPIN_FOR_ALL
        assert said(message).content == {"pinned": False}

    def test_flags_of_wrappers(self) -> None:
        message = Message()
        inner = message.ephemeralMessage.message.viewOnceMessageV2.message
        inner.imageMessage.caption = "look"
        found = said(message)
        assert (found.kind, found.body) == ("image", "look")
        assert found.content == {"ephemeral": True, "viewOnce": True}

    def test_forwarded_in_a_chat_that_forgets(self) -> None:
        message = Message()
        message.extendedTextMessage.text = "x"
        context = message.extendedTextMessage.contextInfo
        context.isForwarded, context.forwardingScore, context.expiration = True, 5, 604_800
        assert said(message).content == {"forwardingScore": 5, "expiresAfter": 604_800}

    def test_mentions_that_are_no_addresses_are_left_out(self) -> None:
        message = Message()
        message.extendedTextMessage.text = "x"
        mentioned = message.extendedTextMessage.contextInfo.mentionedJid
        mentioned.extend([f"{ANN.user}:3@lid", "garbage", "", "x" * 500, "1_1@lid"])
        assert said(message).content == {"mentions": [str(ANN)]}

    def test_a_key_with_content_is_that_content(self) -> None:
        message = Message(conversation="x")
        message.senderKeyDistributionMessage.groupId = "g"
        message.messageContextInfo.messageSecret = bytes(32)
        assert said(message).kind == "text"


def test_no_content() -> None:
    empty = Message()
    assert describe(empty) is None
    empty.messageContextInfo.messageSecret = bytes(32)
    assert describe(empty) is None


def test_text() -> None:
    assert text_of(b"\xffa") == "\ufffda"
    assert text_of("a\x00b") == "a\ufffdb"
    assert text_of("ä") == "ä"


@given(st.binary(max_size=200))
def test_any_protobuf(data: bytes) -> None:
    try:
        message = Message.FromString(data)
    except DecodeError:
        return
    found = describe(message)
    if found is not None:
        assert isinstance(found.body, str | None)
        msgspec.json.encode(found.content)
