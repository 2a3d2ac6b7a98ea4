"""Keys inside content, turned to our view."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from waD.messaging.message_keys import Key, author_of, clean_key, normalize_key, parse_jid, read_key
from waD.proto.e2e_pb2 import MessageKey
from waD.wire.jid import JID

VECTORS = Path(__file__).parent.parent / "vectors" / "stanzas_in.json"
OWN, OWN_LID = JID.parse("15551799738@s.whatsapp.net"), JID.parse("156469901574963@lid")
ANN, BOB = JID.parse("100000000000002@lid"), JID.parse("100000000000003@lid")
GROUP = JID.parse("120363000000000001@g.us")


def key_of(fields: dict[str, Any]) -> Key:
    return Key(
        JID.parse(fields["remoteJid"]),
        fields["id"],
        fields.get("fromMe", False),
        JID.parse(fields["participant"]) if fields.get("participant") else None,
    )


def find_key(message: dict[str, Any]) -> dict[str, Any] | None:
    for value in message.values():
        if isinstance(value, dict):
            for name in ("key", "pollCreationMessageKey"):
                if name in value:
                    found: dict[str, Any] = value[name]
                    return found
            inner = find_key(value)
            if inner is not None:
                return inner
    return None


@pytest.mark.parametrize(
    "case",
    [one for one in json.loads(VECTORS.read_text())["cases"] if one["kind"] == "normalize_key"],
    ids=lambda case: case["name"],
)
def test_vectors(case: dict[str, Any]) -> None:
    given, wanted = case["input"], case["expect"]
    carrier = clean_key(key_of(given["key"]))
    assert carrier == key_of(wanted["key"])
    inner = find_key(given["message"])
    if wanted["target_key"] is None:
        assert inner is None
        return
    assert inner is not None
    found = normalize_key(key_of(inner), carrier, JID.parse(given["me"]), JID.parse(given["me_lid"]))
    assert found == key_of(wanted["target_key"])


def test_the_digits_of_the_own_number_are_not_the_own_lid() -> None:
    carrier = Key(ANN, "C", False)
    named = Key(JID(OWN.user, "lid"), "A", False)
    assert not normalize_key(named, carrier, OWN, OWN_LID).from_me
    assert not normalize_key(Key(OWN_LID, "A", False), carrier, OWN, None).from_me


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
