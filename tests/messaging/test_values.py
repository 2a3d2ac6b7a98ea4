from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waD.link.usync import ListedDevice
from waD.messaging import asking
from waD.messaging.asking import Asked
from waD.messaging.device_lists import DeviceRecord
from waD.messaging.peer_out import PeerRequest
from waD.messaging.retries import Answered, Recreated
from waD.messaging.values import (
    MAX_TEXT,
    ValueDamaged,
    decode_identity,
    decode_text,
    encode_app_state_key,
    encode_identity,
    encode_text,
)
from waD.proto.e2e_pb2 import Message
from waD.store.canonical import canonicalise

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)


@given(TEXTS)
def test_texts(text: str) -> None:
    document = encode_text(text)
    assert decode_text(document) == json.loads(document) == text
    assert canonicalise(document) == document


@given(st.binary(min_size=32, max_size=32))
def test_identities(key: bytes) -> None:
    document = encode_identity(key)
    assert decode_identity(document) == key
    assert base64.b64decode(json.loads(document)) == b"\x05" + key


DAMAGED = [b"", b"1", b'""', b'"', b"null", b'["a"]', b"\xff", b'"\xff"', b'"' + b"x" * (MAX_TEXT + 1) + b'"']


@pytest.mark.parametrize("document", DAMAGED)
def test_damaged_texts(document: bytes) -> None:
    with pytest.raises(ValueDamaged):
        decode_text(document)


@pytest.mark.parametrize(
    "document",
    [*DAMAGED, b'"AAAA"', b'"\xc3\xa9"', b'"!"', b'"' + base64.b64encode(bytes(33)) + b'"'],
)
def test_damaged_identities(document: bytes) -> None:
    with pytest.raises(ValueDamaged) as caught:
        decode_identity(document)
    assert "AAAA" not in str(caught.value)


def test_keys_of_the_app_state() -> None:
    key = Message.AppStateSyncKeyData(keyData=bytes(32), timestamp=-1)
    key.fingerprint.deviceIndexes.append(4)
    document = encode_app_state_key(key)
    assert json.loads(document)["fingerprint"] == {"currentIndex": 0, "deviceIndexes": [4], "rawId": 0}
    assert json.loads(document)["ts"] == 0
    assert canonicalise(document) == document


@pytest.mark.parametrize(
    "record",
    [
        DeviceRecord(devices=(ListedDevice(0), ListedDevice(7, 3, True)), state="verified", signed=b"\xff"),
        PeerRequest(chat="1@lid", sender="2@lid", message_id="A", at=1),
        Answered(answers=1, base_key=bytes(32), at=2),
        Recreated(3),
    ],
    ids=lambda record: type(record).__name__,
)
def test_records_are_canonical(record: DeviceRecord | PeerRequest | Answered | Recreated) -> None:
    document = record.serialize()
    assert canonicalise(document) == document


def test_notes_about_questions_are_canonical() -> None:
    document = asking._encode(Asked(1, 2, 3))
    assert canonicalise(document) == document == b'{"at":2,"count":1,"phone":3}'
