"""Documents to rows of Baileys 7 and back: exactly, and what a Node service changed since then wins."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.e2ee.parties import NOW, Device, new_pair, seeded
from tests.e2ee.test_groups import RECORDS as SENDER_KEYS
from tests.e2ee.test_record import RECORDS as SESSIONS
from tests.link.test_credentials import FULL, PAIRED
from tests.transfer.samples import a_sample
from waD.e2ee import groups, session, skipped
from waD.e2ee.groups import SenderKeyRecord
from waD.e2ee.interop import node
from waD.e2ee.record import SessionRecord
from waD.link.prekeys import OneTimePreKey, State
from waD.link.usync import ListedDevice
from waD.messaging import kinds
from waD.messaging.device_lists import DeviceRecord
from waD.messaging.values import encode_identity, encode_text
from waD.store.canonical import canonical, canonicalise
from waD.store.codec import Codec, LegacyKey
from waD.store.errors import StoreDamaged
from waD.transfer.baileys.credentials import import_credentials
from waD.transfer.legacy import LegacyCodec
from waD.transfer.legacy.codec import CREDS_EXTRA, CREDS_ROW
from waD.transfer.state import Report

CODEC: Codec = LegacyCodec()
SAMPLE = a_sample()
CREDS = CODEC.creds_rows(SAMPLE.state.creds.serialize())
ADDRESS = "200000000000002_1.4"
GROUP = "120363000000000001@g.us"
SENDER_KEY = f"{GROUP}|{ADDRESS}"
BYTES_32 = st.binary(min_size=32, max_size=32)
DIGITS = st.from_regex(r"[1-9][0-9]{5,14}", fullmatch=True)
TIMES = st.integers(0, 2**53)
SOME_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text("abc$é", max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abv$", max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)

Rows = dict[LegacyKey, bytes]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def rows_of(kind: str, key: str, document: bytes) -> Rows:
    """What a database holds after the item was written, the credentials included."""
    rows = CODEC.item_rows(kind, key, document)
    assert all(canonicalise(value) == value for value in rows.values() if value is not None)
    assert {*rows} | {CREDS_ROW} >= {*CODEC.names(kind, key)} >= {*rows}
    assert {name[0] for name in rows} <= {*CODEC.types(kind)}
    kept = {name: value for name, value in rows.items() if value is not None}
    assert {CODEC.native(name) for name in kept} - {None} == {(kind, key)}
    return {name: value for name, value in CREDS.items() if value is not None} | kept


def read(kind: str, key: str, rows: Mapping[LegacyKey, bytes]) -> bytes | None:
    return CODEC.item(kind, key, {name: rows[name] for name in CODEC.names(kind, key) if name in rows})


def round_trip(kind: str, key: str, document: bytes) -> Rows:
    """Write and read; the rows hold the document exactly."""
    rows = rows_of(kind, key, document)
    assert read(kind, key, rows) == document
    assert set(CODEC.item_rows(kind, key, None).items()) == {
        (name, None) for name in CODEC.names(kind, key) if name != CREDS_ROW
    }
    return rows


def value_of(rows: Rows, kind: str, text: str) -> Any:
    return json.loads(rows[kind, text])


# Exactly.


@given(SESSIONS)
@settings(max_examples=80)
def test_sessions(record: SessionRecord) -> None:
    round_trip(kinds.SESSION, ADDRESS, record.serialize())


@given(SENDER_KEYS)
@settings(max_examples=80)
def test_sender_keys(record: SenderKeyRecord) -> None:
    round_trip(kinds.SENDER_KEY, SENDER_KEY, record.serialize())


@pytest.mark.parametrize("state", ["new", "uploaded", "direct", "stale"])
@given(number=st.integers(1, 2**24 - 1), seed=st.integers(0, 99))
def test_prekeys(state: State, number: int, seed: int) -> None:
    rows = round_trip(kinds.PREKEY, str(number), OneTimePreKey(number, new_pair(seed), state).serialize())
    assert (("x-wad-prekey", str(number)) in rows) == (state != "uploaded")


@given(BYTES_32)
def test_identities(key: bytes) -> None:
    rows = round_trip(kinds.IDENTITY, ADDRESS, encode_identity(key))
    assert value_of(rows, "identity-key", ADDRESS) == {"type": "Buffer", "data": b64(b"\x05" + key)}
    assert ("x-wad-identity", ADDRESS) not in rows


@given(DIGITS, DIGITS)
def test_the_lid_map(pn: str, lid: str) -> None:
    rows = round_trip(kinds.LID_OF_PN, pn, encode_text(lid))
    assert rows.keys() - CREDS.keys() == {("lid-mapping", pn)}
    assert value_of(rows, "lid-mapping", pn) == lid
    rows = round_trip(kinds.PN_OF_LID, lid, encode_text(pn))
    assert rows.keys() - CREDS.keys() == {("lid-mapping", f"{lid}_reverse")}
    assert value_of(rows, "lid-mapping", f"{lid}_reverse") == pn


FINGERPRINTS = st.fixed_dictionaries(
    {
        "rawId": st.integers(0, 2**32 - 1),
        "currentIndex": st.integers(0, 2**32 - 1),
        "deviceIndexes": st.lists(st.integers(0, 2**32 - 1), max_size=4),
    }
)


@given(st.binary(min_size=1, max_size=64), BYTES_32, st.none() | FINGERPRINTS, TIMES)
def test_keys_of_the_app_state(
    key_id: bytes, data: bytes, fingerprint: dict[str, Any] | None, ts: int
) -> None:
    document = canonical({"data": data, "fingerprint": fingerprint, "ts": ts})
    rows = round_trip(kinds.APP_STATE_KEY, key_id.hex(), document)
    written = value_of(rows, "app-state-sync-key", b64(key_id))
    assert (written["keyData"], written["timestamp"]) == (b64(data), str(ts))
    assert len(rows.keys() - CREDS.keys()) == 1


@given(TIMES, st.binary(min_size=128, max_size=128), st.dictionaries(BYTES_32, BYTES_32, max_size=3))
def test_versions_of_the_app_state(version: int, digest: bytes, macs: dict[bytes, bytes]) -> None:
    named = {b64(index): b64(mac) for index, mac in macs.items()}
    document = canonical({"version": version, "hash": digest, "macs": named})
    rows = round_trip(kinds.APP_STATE_VERSION, "regular_high", document)
    written = value_of(rows, "app-state-sync-version", "regular_high")
    assert written["hash"] == {"type": "Buffer", "data": b64(digest)}
    assert written["indexValueMap"].keys() == named.keys()
    assert len(rows.keys() - CREDS.keys()) == 1


@given(st.sets(st.integers(0, 99), max_size=5))
def test_sender_key_memory(devices: set[int]) -> None:
    jids = sorted({f"1000{number}:{number}@lid" if number else "1000@lid" for number in devices})
    rows = round_trip(kinds.SENDER_KEY_MEMORY, GROUP, canonical(jids))
    assert value_of(rows, "sender-key-memory", GROUP) == dict.fromkeys(jids, True)
    assert len(rows.keys() - CREDS.keys()) == 1


@given(st.binary(min_size=1, max_size=40), TIMES, st.none() | TIMES)
def test_privacy_tokens(token: bytes, ts: int, sent: int | None) -> None:
    document = canonical({"token": token, "ts": ts, "sent": sent})
    rows = round_trip(kinds.TRUSTED_CONTACT, "200000000000002@lid", document)
    written = value_of(rows, "tctoken", "200000000000002@lid")
    assert (written["token"]["data"], written["timestamp"]) == (b64(token), str(ts))
    assert len(rows.keys() - CREDS.keys()) == 1


def test_device_lists() -> None:
    record = DeviceRecord(devices=(ListedDevice(0), ListedDevice(7, 3)), state="verified", hash="2:abc")
    rows = round_trip(kinds.DEVICES, "200000000000002@lid", record.serialize())
    assert value_of(rows, "device-list", "200000000000002") == ["0", "7"]
    assert CODEC.native(("device-list", "200000000000002")) is None


@pytest.mark.parametrize(
    "kind", [kinds.RETRY, kinds.PEER_REQUEST, kinds.NUMBER_ALIAS, kinds.IDENTITY_CHANGE, "new"]
)
@given(key=st.text(min_size=1, max_size=20), value=SOME_JSON)
def test_items_that_baileys_does_not_know(kind: str, key: str, value: object) -> None:
    rows = round_trip(kind, key, canonical(value))
    assert rows.keys() - CREDS.keys() == {(f"x-wad-{kind}", key)}
    assert rows[f"x-wad-{kind}", key] == canonical(value)


ALL_KINDS = sorted(value for name, value in vars(kinds).items() if name.isupper())


@pytest.mark.parametrize("kind", ALL_KINDS)
@given(key=st.sampled_from(["1", ADDRESS, SENDER_KEY, GROUP, "00ff", "odd", "1_reverse"]), value=SOME_JSON)
def test_damaged_documents_are_kept_as_they_are(kind: str, key: str, value: object) -> None:
    round_trip(kind, key, canonical(value))


@pytest.mark.parametrize("kind", ALL_KINDS)
@given(key=st.text(max_size=20))
def test_odd_keys_keep_their_documents(kind: str, key: str) -> None:
    round_trip(kind, key, b'{"$bytes":"AAE="}')


def test_a_whole_state() -> None:
    rows: Rows = {name: value for name, value in CREDS.items() if value is not None}
    for (kind, key), document in SAMPLE.state.items.items():
        rows |= rows_of(kind, key, document)
    found = {name for name in map(CODEC.native, rows) if name is not None}
    assert found == set(SAMPLE.state.items)
    assert {name: read(*name, rows) for name in found} == dict(SAMPLE.state.items)
    assert CODEC.creds({name: rows[name] for name in CODEC.creds_names()}) == SAMPLE.state.creds.serialize()


# Credentials.


@pytest.mark.parametrize("creds", [PAIRED, FULL, PAIRED.change(account=None, me_pn=None, me_lid=None)])
def test_credentials(creds: Any) -> None:
    document = creds.serialize()
    rows = CODEC.creds_rows(document)
    assert list(rows) == list(CODEC.creds_names())
    assert all(value is not None and canonicalise(value) == value for value in rows.values())
    assert CODEC.creds({name: value for name, value in rows.items() if value is not None}) == document
    assert CODEC.creds({}) is None
    assert CODEC.native(CREDS_ROW) is CODEC.native(CREDS_EXTRA) is None


def test_baileys_would_take_the_credentials() -> None:
    value = json.loads(CREDS[CREDS_ROW] or b"")
    creds, report = SAMPLE.state.creds, Report()
    imported = import_credentials(value, report, NOW)
    assert imported is not None
    assert report.notes == []
    assert (imported.creds.me_pn, imported.creds.me_lid) == (creds.me_pn, creds.me_lid)
    assert (imported.creds.account, imported.creds.adv_secret) == (creds.account, creds.adv_secret)
    assert (imported.creds.noise, imported.creds.identity) == (creds.noise, creds.identity)
    assert imported.next_prekey_id == imported.first_unuploaded == creds.next_prekey_id
    assert value["signalIdentities"][0]["identifierKey"]["data"] == b64(b"\x05" + (creds.account_key or b""))


def changed_creds(**changes: Any) -> Rows:
    value = json.loads(CREDS[CREDS_ROW] or b"") | changes
    return {CREDS_ROW: canonical(value), CREDS_EXTRA: CREDS[CREDS_EXTRA] or b""}


def test_changed_credentials_win_and_the_rest_stays() -> None:
    before = SAMPLE.state.creds.change(nct_salt=b"salt", login_counter=7, lid_migrated=True)
    written = CODEC.creds_rows(before.serialize())
    value = json.loads(written[CREDS_ROW] or b"")
    value |= {"nextPreKeyId": 900, "routingInfo": {"type": "Buffer", "data": b64(b"near")}}
    value["me"]["name"] = "New name"
    rows = {CREDS_ROW: canonical(value), CREDS_EXTRA: written[CREDS_EXTRA] or b""}
    found = type(before).parse(CODEC.creds(rows) or b"")
    assert found == before.change(next_prekey_id=900, routing_info=b"near", push_name="New name")


def test_a_rotation_by_baileys_keeps_the_prekey_before_it() -> None:
    creds = SAMPLE.state.creds
    fresh = type(creds.signed_prekey).make(creds.signed_prekey.id + 1, creds.identity, os.urandom, NOW)
    other = CODEC.creds_rows(creds.with_new_signed_prekey(fresh, NOW).serialize())[CREDS_ROW]
    rows = changed_creds(signedPreKey=json.loads(other or b"")["signedPreKey"])
    found = type(creds).parse(CODEC.creds(rows) or b"")
    assert [key.id for key in found.signed_prekeys] == [fresh.id, creds.signed_prekey.id]
    assert found.signed_prekey.key == fresh.key


def test_credentials_without_their_document_are_an_import() -> None:
    found = CODEC.creds({CREDS_ROW: CREDS[CREDS_ROW] or b""})
    creds = type(SAMPLE.state.creds).parse(found or b"")
    assert (creds.identity, creds.me_pn) == (SAMPLE.state.creds.identity, SAMPLE.state.creds.me_pn)
    assert creds.next_prekey_id == SAMPLE.state.creds.next_prekey_id


@pytest.mark.parametrize("value", [b"null", b"{}", b"[]", b'{"me":{"id":"1:1@s.whatsapp.net"}}'])
def test_credentials_that_cannot_be_used_are_an_error(value: bytes) -> None:
    with pytest.raises(StoreDamaged, match="restore a backup"):
        CODEC.creds({CREDS_ROW: value, CREDS_EXTRA: CREDS[CREDS_EXTRA] or b""})


# What a Node service changed wins.


def talked() -> tuple[Device, Device]:
    me, peer = SAMPLE.me, Device("dora", 77)
    me.stored.pop("dora", None)
    peer.receive(me, me.send(peer, b"one"))
    me.receive(peer, peer.send(me, b"two"))
    return me, peer


def test_a_changed_session_wins_and_the_conversation_goes_on() -> None:
    me, peer = talked()
    rows = rows_of(kinds.SESSION, ADDRESS, me.existing("dora").serialize())
    at_node = node.import_session(rows["session", ADDRESS], me.local).record
    sent = session.encrypt(at_node, me.local, b"from node")
    rows["session", ADDRESS] = canonical(node.export_session(sent.record).value)
    found = SessionRecord.parse(read(kinds.SESSION, ADDRESS, rows) or b"")
    assert found.current is not None
    assert found.current.sender.next == sent.record.current.sender.next  # type: ignore[union-attr]
    assert found.current.local_identity == SAMPLE.state.creds.identity.public
    assert found.current.local_registration_id == SAMPLE.state.creds.registration_id
    me.stored["dora"] = found.serialize()
    assert peer.receive(me, (sent.kind, sent.data)) == b"from node"
    assert peer.receive(me, me.send(peer, b"from here")) == b"from here"
    assert me.receive(peer, peer.send(me, b"back")) == b"back"


def test_a_row_that_is_only_spelt_differently_is_the_same() -> None:
    document = SAMPLE.me.existing("bob").serialize()
    rows = rows_of(kinds.SESSION, ADDRESS, document)
    rows["session", ADDRESS] = json.dumps(json.loads(rows["session", ADDRESS]), indent=1).encode()
    assert read(kinds.SESSION, ADDRESS, rows) == document


def test_a_session_that_only_a_node_service_wrote() -> None:
    me, _ = talked()
    rows = rows_of(kinds.SESSION, ADDRESS, me.existing("dora").serialize())
    del rows["x-wad-session", ADDRESS]
    found = SessionRecord.parse(read(kinds.SESSION, ADDRESS, rows) or b"")
    assert found.current is not None
    assert found.current.local_identity == SAMPLE.state.creds.identity.public
    del rows[CREDS_ROW]
    assert read(kinds.SESSION, ADDRESS, rows) is None


def test_stale_states_are_closed_for_baileys_and_stay_stale() -> None:
    me, _ = talked()
    current = me.existing("dora").current
    assert current is not None
    stale = SessionRecord(replace(current, stale=True))
    rows = round_trip(kinds.SESSION, ADDRESS, stale.serialize())
    (entry,) = value_of(rows, "session", ADDRESS)["_sessions"].values()
    assert entry["indexInfo"]["closed"] > 0
    entry["indexInfo"]["used"] = NOW + 5
    rows["session", ADDRESS] = canonical(
        {"_sessions": {entry["indexInfo"]["baseKey"]: entry}, "version": "v1"}
    )
    found = SessionRecord.parse(read(kinds.SESSION, ADDRESS, rows) or b"")
    assert [(state.stale, state.used_ms) for state in found.states()] == [(True, NOW + 5)]


def test_triples_are_left_out_of_the_row_and_come_back() -> None:
    me, _ = talked()
    current = me.existing("dora").current
    assert current is not None
    chain = replace(current.receivers[-1], next=9, triples=skipped.pack([(5, 0, bytes(80))]))
    record = SessionRecord(replace(current, receivers=(chain,)))
    rows = round_trip(kinds.SESSION, ADDRESS, record.serialize())
    (entry,) = value_of(rows, "session", ADDRESS)["_sessions"].values()
    assert all(chain["messageKeys"] == {} for chain in entry["_chains"].values())


CHANGES: list[tuple[str, str, bytes, LegacyKey, object, object]] = [
    (
        kinds.PREKEY,
        "4",
        OneTimePreKey(4, new_pair(1), "direct").serialize(),
        ("pre-key", "4"),
        {
            "private": {"type": "Buffer", "data": b64(new_pair(2).private)},
            "public": {"type": "Buffer", "data": b64(new_pair(2).public)},
        },
        json.loads(OneTimePreKey(4, new_pair(2), "uploaded").serialize()),
    ),
    (
        kinds.IDENTITY,
        ADDRESS,
        encode_identity(bytes(32)),
        ("identity-key", ADDRESS),
        {"type": "Buffer", "data": b64(b"\x05" + b"x" * 32)},
        b64(b"\x05" + b"x" * 32),
    ),
    (kinds.LID_OF_PN, "15550000001", b'"100000000000001"', ("lid-mapping", "15550000001"), "7", "7"),
    (kinds.PN_OF_LID, "100000000000001", b'"1"', ("lid-mapping", "100000000000001_reverse"), "2", "2"),
    (
        kinds.TRUSTED_CONTACT,
        "1@lid",
        b'{"sent":null,"token":"AAAA","ts":5}',
        ("tctoken", "1@lid"),
        {"token": {"type": "Buffer", "data": "AAEC"}, "timestamp": "9", "senderTimestamp": 8},
        {"sent": 8, "token": "AAEC", "ts": 9},
    ),
    (
        kinds.SENDER_KEY_MEMORY,
        GROUP,
        b'["1:2@lid"]',
        ("sender-key-memory", GROUP),
        {"1:3@lid": True, "1:2@lid": True, "1:4@lid": False},
        ["1:2@lid", "1:3@lid"],
    ),
    (
        kinds.APP_STATE_KEY,
        "0001",
        b'{"data":"AA==","fingerprint":null,"ts":0}',
        ("app-state-sync-key", "AAE="),
        {"keyData": "AAE=", "fingerprint": {"rawId": 3}, "timestamp": "12"},
        {"data": "AAE=", "fingerprint": {"currentIndex": 0, "deviceIndexes": [], "rawId": 3}, "ts": 12},
    ),
    (
        kinds.APP_STATE_VERSION,
        "regular",
        b'{"hash":"AA==","macs":{},"version":1}',
        ("app-state-sync-version", "regular"),
        {
            "version": 2,
            "hash": {"type": "Buffer", "data": "AAE="},
            "indexValueMap": {"AA==": {"valueMac": "AQ=="}},
        },
        {"hash": "AAE=", "macs": {"AA==": "AQ=="}, "version": 2},
    ),
]


@pytest.mark.parametrize(
    ("kind", "key", "document", "row", "value", "expected"), CHANGES, ids=[change[0] for change in CHANGES]
)
def test_a_changed_row_wins(
    kind: str, key: str, document: bytes, row: LegacyKey, value: object, expected: object
) -> None:
    rows = round_trip(kind, key, document)
    rows[row] = canonical(value)
    found = read(kind, key, rows)
    assert found is not None
    assert json.loads(found) == expected
    assert canonicalise(found) == found
    del rows[row]
    assert read(kind, key, rows) is None, "deleted there is deleted"


def test_a_changed_sender_key_wins() -> None:
    own = groups.create(seeded(5))
    member = groups.process_distribution(None, groups.distribution(own))
    letter = b""
    for number in range(4):
        own, letter = groups.encrypt(own, b"%d" % number, seeded(number))
    member, _ = groups.decrypt(member, letter, NOW)
    rows = round_trip(kinds.SENDER_KEY, SENDER_KEY, member.serialize())
    name = ("sender-key", f"{GROUP}::200000000000002_1::4")
    own, letter = groups.encrypt(own, b"next", seeded(9))
    at_node, _ = groups.decrypt(node.import_sender_key(json.loads(rows[name])).record, letter)
    rows[name] = canonicalise(node.export_sender_key(at_node))
    assert SenderKeyRecord.parse(read(kinds.SENDER_KEY, SENDER_KEY, rows) or b"") == at_node


def test_inner_bytes_of_sender_keys_have_the_form_every_release_reads() -> None:
    rows = rows_of(kinds.SENDER_KEY, SENDER_KEY, groups.create(seeded(5)).serialize())
    outer = value_of(rows, "sender-key", f"{GROUP}::200000000000002_1::4")
    (state,) = json.loads(base64.b64decode(outer["data"]))
    assert outer["type"] == state["senderChainKey"]["seed"]["type"] == "Buffer"
    assert isinstance(state["senderSigningKey"]["private"]["data"], str)


def test_a_changed_device_list_is_fetched_anew() -> None:
    record = DeviceRecord(devices=(ListedDevice(0),), state="verified")
    rows = round_trip(kinds.DEVICES, "200000000000002@lid", record.serialize())
    rows["device-list", "200000000000002"] = b'["0","9"]'
    assert read(kinds.DEVICES, "200000000000002@lid", rows) is None


# Names.


@pytest.mark.parametrize(
    "row",
    [
        ("session", "1.0x"),
        ("session", "1.00"),
        ("pre-key", "0"),
        ("pre-key", "007"),
        ("pre-key", "x"),
        ("sender-key", "1@g.us::1"),
        ("sender-key", "1@g.us::1::2::3::4"),
        ("app-state-sync-key", "AAE"),
        ("lid-mapping", "x"),
        ("tctoken", "__index"),
        ("device-list", "1"),
        ("creds", ""),
        ("x-wad-creds", ""),
        ("something", "1"),
        ("x-wad-", "1"),
    ],
)
def test_rows_of_nobody(row: LegacyKey) -> None:
    assert CODEC.native(row) is None


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_name_is_of_somebody_or_nobody(kind: str, key: str) -> None:
    for name in [
        (kind, key),
        *((known, key) for known in ("session", "sender-key", "lid-mapping", "tctoken")),
    ]:
        native = CODEC.native(name)
        assert native is None or name in CODEC.names(*native)


@pytest.mark.parametrize("kind", ALL_KINDS)
@given(value=SOME_JSON)
def test_hostile_rows_are_nothing_or_a_document(kind: str, value: object) -> None:
    for key in ("1", ADDRESS, SENDER_KEY, GROUP, "00ff"):
        rows = {name: canonical(value) for name in CODEC.names(kind, key)}
        found = CODEC.item(kind, key, rows)
        assert found is None or canonicalise(found) == found
