"""Texts, quotes, mentions, ids and copies for own devices."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waD.messaging import content
from waD.messaging.content import ContentError, check_text, quotable, text_message
from waD.messaging.wrappers import unwrap
from waD.proto.e2e_pb2 import Message
from waD.wire.jid import JID

SECRET = bytes(range(32))
ALICE = JID.parse("100000000000009@lid")


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16))
def test_ids_differ_with_their_randomness(one: bytes, two: bytes) -> None:
    assert (content.message_id(1, "1", one) == content.message_id(1, "1", two)) == (one == two)


def test_a_plain_text_is_a_conversation() -> None:
    message = text_message("hi", SECRET)
    assert message == Message(
        conversation="hi",
        messageContextInfo={"messageSecret": SECRET},  # type: ignore[arg-type]
    )


def test_mentions_make_an_extended_text() -> None:
    message = text_message("@1 hi", SECRET, mentions=[ALICE])
    assert not message.HasField("conversation")
    assert list(message.extendedTextMessage.contextInfo.mentionedJid) == [str(ALICE)]


@pytest.mark.parametrize("text", ["x", " ", "\n", "x" * 10, "\U0001f600" * 10, "\ufffd", "\x01"])
def test_texts_that_are_fine(text: str) -> None:
    check_text(text, 10)


@pytest.mark.parametrize(
    ("text", "code"),
    [("", "empty_text"), ("x" * 11, "text_too_long"), ("\x00", "not_text"), ("a\udfff", "not_text")],
)
def test_texts_that_are_not(text: str, code: str) -> None:
    with pytest.raises(ContentError) as caught:
        check_text(text, 10)
    assert caught.value.code == code


@given(st.text(min_size=1))
def test_what_is_accepted_can_be_sent(text: str) -> None:
    try:
        check_text(text, 65_536)
    except ContentError:
        return
    message = text_message(text, SECRET)
    assert Message.FromString(message.SerializeToString()).conversation == text


def test_a_quote_of_a_wrapped_message_is_its_content() -> None:
    inner = Message()
    inner.imageMessage.caption = "look"
    inner.imageMessage.contextInfo.stanzaId = "OLD"
    outer = Message()
    outer.ephemeralMessage.message.CopyFrom(inner)
    outer.messageContextInfo.messageSecret = SECRET
    quoted = quotable(outer.SerializeToString())
    assert quoted is not None
    assert quoted.imageMessage.caption == "look"
    assert not quoted.imageMessage.HasField("contextInfo")


@pytest.mark.parametrize(
    "raw",
    [b"", b"\xff\xff\xff", Message(messageContextInfo={"messageSecret": SECRET}).SerializeToString()],  # type: ignore[arg-type]
)
def test_there_is_nothing_to_quote(raw: bytes) -> None:
    assert quotable(raw) is None


@given(st.binary(max_size=200))
def test_quoting_hostile_bytes_never_fails(raw: bytes) -> None:
    quotable(raw)


def test_endless_wrappers_are_not_followed() -> None:
    message = Message(conversation="deep")
    for _ in range(50):
        outer = Message()
        outer.viewOnceMessageV2.message.CopyFrom(message)
        message = outer
    opened = unwrap(message)
    assert opened.message.HasField("viewOnceMessageV2")
    assert opened.wrappers == ("viewOnceMessageV2",) * 5
