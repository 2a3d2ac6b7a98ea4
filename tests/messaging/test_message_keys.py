"""Keys inside content, turned to our view."""

from __future__ import annotations

import pytest

from waD.messaging.message_keys import Key, author_of, parse_jid, read_key
from waD.proto.e2e_pb2 import MessageKey
from waD.wire.jid import JID

OWN_LID = JID.parse("156469901574963@lid")
ANN, BOB = JID.parse("100000000000002@lid"), JID.parse("100000000000003@lid")
GROUP = JID.parse("120363000000000001@g.us")


@pytest.mark.parametrize(
    ("key", "sender", "from_me", "author"),
    [
        (Key(GROUP, "A", True), ANN.with_device(3), False, ANN),
        (Key(GROUP, "A", False, BOB), ANN, False, BOB),
        (Key(GROUP, "A", False), ANN, False, None),
        (Key(OWN_LID, "A", False), ANN, False, OWN_LID),
        (Key(ANN, "A", False), OWN_LID.with_device(7), True, ANN),
        (Key(ANN, "A", True), OWN_LID.with_device(7), True, OWN_LID),
        (Key(None, "A", False), ANN, False, None),
    ],
)
def test_authors(key: Key, sender: JID, from_me: bool, author: JID | None) -> None:
    assert author_of(key, sender, from_me, OWN_LID) == author


@pytest.mark.parametrize("message_id", ["", "x" * 256, "a\nb"])
def test_ids_that_are_none(message_id: str) -> None:
    assert read_key(MessageKey(id=message_id)) is None


def test_reading() -> None:
    key = MessageKey(id="A", fromMe=True, remoteJid="1:2@hosted", participant="garbage")
    assert read_key(key) == Key(JID("1", "s.whatsapp.net"), "A", True)
    assert read_key(MessageKey.FromString(b"\x1a\x02\xff\xfe")) is None


@pytest.mark.parametrize("text", [None, "", "garbage", "x" * 200, b"\xff", "1_1@lid"])
def test_addresses_that_are_none(text: str | bytes | None) -> None:
    assert parse_jid(text) is None
