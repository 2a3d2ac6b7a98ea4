"""What earlier versions stored, byte for byte as they wrote it, in today's form."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.e2ee.parties import NOW, acquainted, new_pair, seeded
from waD.e2ee import groups
from waD.e2ee.groups import SenderKeyRecord
from waD.e2ee.record import SessionRecord
from waD.link.prekeys import OneTimePreKey
from waD.link.usync import ListedDevice
from waD.messaging import kinds
from waD.messaging.device_lists import DeviceRecord
from waD.messaging.peer_out import PeerRequest
from waD.messaging.retries import Answered
from waD.messaging.values import decode_identity, decode_text
from waD.proto.e2e_pb2 import Message
from waD.store.canonical import canonicalise
from waD.transfer.upgrade import BYTES, upgrade_item

KEY = bytes(range(32))
ALL_KINDS = sorted(value for name, value in vars(kinds).items() if name.isupper())


def experienced() -> SessionRecord:
    alice, bob = acquainted()
    alice.send(bob, b"lost")
    bob.receive(alice, alice.send(bob, b"x"))
    return bob.existing("alice")


def msgpack_record(record: SessionRecord | SenderKeyRecord) -> bytes:
    return b"\x01" + msgspec.msgpack.encode(record)


def test_session_records() -> None:
    record = experienced()
    upgraded = upgrade_item(kinds.SESSION, "1.0", msgpack_record(record))
    assert SessionRecord.parse(upgraded) == record
    assert json.loads(upgraded)["v"] == 1


def test_sender_keys() -> None:
    record = groups.create(seeded(3))
    upgraded = upgrade_item(kinds.SENDER_KEY, "1@g.us|1.0", msgpack_record(record))
    assert SenderKeyRecord.parse(upgraded) == record


def test_prekeys_in_hexadecimal() -> None:
    pair = new_pair(4)
    fields = {"v": 1, "priv": pair.private.hex(), "pub": pair.public.hex(), "state": "direct"}
    upgraded = upgrade_item(kinds.PREKEY, "17", json.dumps(fields).encode())
    assert OneTimePreKey.parse(17, upgraded) == OneTimePreKey(17, pair, "direct")
    assert json.loads(upgraded)["priv"] == base64.b64encode(pair.private).decode()


def test_identities() -> None:
    assert decode_identity(upgrade_item(kinds.IDENTITY, "1.0", KEY)) == KEY
    looks_like_json = b'"' + b"a" * 30 + b'"'
    assert decode_identity(upgrade_item(kinds.IDENTITY, "1.0", looks_like_json)) == looks_like_json


@pytest.mark.parametrize("kind", [kinds.LID_OF_PN, kinds.PN_OF_LID, kinds.NUMBER_ALIAS])
def test_numbers_stay_texts(kind: str) -> None:
    assert upgrade_item(kind, "1", b"100000000000007") == b'"100000000000007"'
    assert decode_text(upgrade_item(kind, "1", b"007")) == "007"


def test_identity_changes() -> None:
    assert upgrade_item(kinds.IDENTITY_CHANGE, "1.0", b"told") == b'"told"'
    assert upgrade_item(kinds.IDENTITY_CHANGE, "1.0", b"1700000000000") == b'"1700000000000"'


def test_device_lists() -> None:
    record = DeviceRecord(
        devices=(ListedDevice(0), ListedDevice(7, 3, True)),
        state="provisional",
        hash="2:abc",
        ts=5,
        raw_id=9,
        signed=b"\x00\xff",
        stored_ms=NOW,
    )
    upgraded = upgrade_item(kinds.DEVICES, "1@lid", msgspec.msgpack.encode(record))
    assert msgspec.json.decode(upgraded, type=DeviceRecord) == record
    assert json.loads(upgraded)["devices"][1] == {"id": 7, "key_index": 3, "hosted": True}


def test_keys_of_the_app_state() -> None:
    stored = Message.AppStateSyncKeyData(keyData=KEY, timestamp=NOW)
    stored.fingerprint.rawId, stored.fingerprint.currentIndex = 1, 2
    stored.fingerprint.deviceIndexes.extend([0, 3])
    upgraded = upgrade_item(kinds.APP_STATE_KEY, "00ff", stored.SerializeToString())
    assert json.loads(upgraded) == {
        "data": base64.b64encode(KEY).decode(),
        "fingerprint": {"rawId": 1, "currentIndex": 2, "deviceIndexes": [0, 3]},
        "ts": NOW,
    }
    bare = upgrade_item(
        kinds.APP_STATE_KEY, "00ff", Message.AppStateSyncKeyData(keyData=KEY).SerializeToString()
    )
    assert json.loads(bare)["fingerprint"] is None


def test_notes_that_were_json_in_another_order() -> None:
    assert upgrade_item(kinds.RETRY, "answered|1.0|A", b'{"answers":1,"base_key":null,"at":5}') == (
        b'{"answers":1,"at":5,"base_key":null}'
    )
    asked = b'{"chat":"1@lid","sender":"1@lid","messageId":"A","at":5}'
    upgraded = upgrade_item(kinds.PEER_REQUEST, "Q", asked)
    assert PeerRequest.parse(upgraded) == PeerRequest.parse(asked)
    assert Answered.parse(upgrade_item(kinds.RETRY, "k", Answered(answers=2).serialize())).answers == 2


TODAY: list[tuple[str, bytes]] = [
    (kinds.SESSION, experienced().serialize()),
    (kinds.SENDER_KEY, groups.create(seeded(3)).serialize()),
    (kinds.PREKEY, OneTimePreKey(1, new_pair(4), "new").serialize()),
    (kinds.IDENTITY, upgrade_item(kinds.IDENTITY, "1.0", KEY)),
    (kinds.LID_OF_PN, b'"100000000000007"'),
    (kinds.IDENTITY_CHANGE, b'"told"'),
    (kinds.DEVICES, DeviceRecord(devices=(ListedDevice(0),), state="verified").serialize()),
    (kinds.APP_STATE_KEY, upgrade_item(kinds.APP_STATE_KEY, "00", b"\x0a\x20" + KEY)),
    (kinds.APP_STATE_VERSION, b'{"hash":"","macs":{},"version":0}'),
    (kinds.SENDER_KEY_MEMORY, b'["1:2@lid"]'),
]


@pytest.mark.parametrize(("kind", "document"), TODAY, ids=[kind for kind, _ in TODAY])
def test_todays_documents_stay_as_they_are(kind: str, document: bytes) -> None:
    assert canonicalise(document) == document
    assert upgrade_item(kind, "1", document) == document


@pytest.mark.parametrize("kind", [*ALL_KINDS, "something new"])
@given(value=st.binary(max_size=60) | st.from_regex(rb"[\x01\x80\{\"\x0a].{0,40}", fullmatch=True))
def test_anything_becomes_a_document_and_a_second_time_changes_nothing(kind: str, value: bytes) -> None:
    once = upgrade_item(kind, "1", value)
    assert canonicalise(once) == once
    assert upgrade_item(kind, "1", once) == once


@pytest.mark.parametrize(
    "kind", [kinds.SESSION, kinds.SENDER_KEY, kinds.DEVICES, kinds.PREKEY, "something new"]
)
def test_what_nobody_can_read_is_kept(kind: str) -> None:
    damaged: dict[str, Any] = json.loads(upgrade_item(kind, "1", b"\x01\xff\x00"))
    assert base64.b64decode(damaged[BYTES]) == b"\x01\xff\x00"
