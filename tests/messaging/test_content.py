"""Texts, quotes, mentions, ids and copies for own devices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waD.messaging import content
from waD.messaging.content import ContentError, Quote, check_text, device_sent, quotable, text_message, unwrap
from waD.messaging.phash import contact_hash, device_hash
from waD.proto.e2e_pb2 import Message
from waD.wire.jid import JID

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "messages_crypto.json").read_text())["cases"]
SECRET = bytes(range(32))
ALICE = JID.parse("100000000000009@lid")


def cases(kind: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in VECTORS if case["kind"] == kind]


@pytest.mark.parametrize("case", cases("quote"))
def test_quotes_are_what_others_write(case: dict[str, Any]) -> None:
    wanted = Message.FromString(bytes.fromhex(case["expect"]["proto"]))
    context = wanted.extendedTextMessage.contextInfo
    quoted = quotable(context.quotedMessage.SerializeToString())
    assert quoted is not None
    ours = text_message(
        case["input"]["text"],
        wanted.messageContextInfo.messageSecret,
        quote=Quote(context.stanzaId, JID.parse(context.participant), quoted),
    )
    # What belongs to another chat or to a disappearing one is not ours to add.
    for name in ("remoteJid", "expiration"):
        context.ClearField(name)
    assert ours == wanted


@pytest.mark.parametrize("case", cases("device_sent"))
def test_copies_for_own_devices(case: dict[str, Any]) -> None:
    message = Message.FromString(bytes.fromhex(case["input"]["message"]))
    copy = device_sent(message, JID.parse(case["input"]["destination"]))
    assert copy == Message.FromString(bytes.fromhex(case["expect"]["proto"]))
    assert unwrap(copy) == message


@pytest.mark.parametrize("case", cases("unwrap"))
def test_wrappers_are_opened_five_deep(case: dict[str, Any]) -> None:
    inner = unwrap(Message.FromString(bytes.fromhex(case["input"]["proto"])))
    assert [field.name for field, _ in inner.ListFields()] == [case["expect"]["content_type"]]


@pytest.mark.parametrize("case", cases("contact_hash"))
def test_contact_hashes(case: dict[str, Any]) -> None:
    assert contact_hash(case["input"]["user"]) == case["expect"]["hash"]


@pytest.mark.parametrize("case", cases("phash"))
def test_device_hashes(case: dict[str, Any]) -> None:
    devices = [
        JID.parse_any_server(text) if "@" in text else JID("", text) for text in case["input"]["devices"]
    ]
    assert device_hash(devices) == device_hash(reversed(devices)) == case["expect"]["phash"]


@pytest.mark.parametrize("case", cases("message_id"))
def test_ids_look_like_those_of_other_companions(case: dict[str, Any]) -> None:
    values = case["input"]
    own_user = JID.parse(values["me"]).user if values["me"] else ""
    made = content.message_id(values["unix_seconds"], own_user, bytes.fromhex(values["random16"]))
    assert len(made) == len(case["expect"]["id"]) == 22
    assert made.startswith("3EB0")
    assert int(made, 16)
    assert made == made.upper()


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
    quoted = quotable(device_sent(outer, ALICE).SerializeToString())
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
    assert unwrap(message).HasField("viewOnceMessageV2")
