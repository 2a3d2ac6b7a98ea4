"""Verification of auth states: a sound one has no notes, and every fault has its code."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.e2ee.parties import acquainted
from tests.messaging.accounts import OWN_LID, OWN_PN, account_blob
from tests.transfer.samples import BOB, CAROL, GROUP, NOW, OWN_KEY, PEER_KEY, Sample, a_sample, b64
from waD.e2ee import adv, curve, groups, session
from waD.e2ee.curve import KeyPair
from waD.e2ee.groups import SenderKeyRecord
from waD.e2ee.record import SessionRecord, SessionState
from waD.e2ee.syncd.lthash import EMPTY, lt_hash
from waD.link.credentials import Credentials, SignedPreKey, new_credentials
from waD.link.prekeys import OneTimePreKey
from waD.messaging import kinds
from waD.messaging.values import encode_identity, encode_text
from waD.proto import adv_pb2
from waD.store.canonical import canonical
from waD.transfer.state import AuthState, Report
from waD.transfer.verify import CREDENTIAL_FAULTS, ITEM_FAULTS, STRUCTURE, read_credentials, verify
from waD.transfer.verify_signal import decrypts_itself


@pytest.fixture
def sample() -> Sample:
    return a_sample()


def codes(state: AuthState, level: int = 2) -> list[str]:
    return [note.code for note in verify(state, NOW, level).notes]


def errors(state: AuthState, level: int = 2) -> list[str]:
    return [note.code for note in verify(state, NOW, level).errors]


def test_a_sound_state_has_no_notes_and_does_not_change(sample: Sample) -> None:
    before = dict(sample.state.items)
    assert verify(sample.state, NOW).notes == []
    assert verify(sample.state, NOW, STRUCTURE).notes == []
    assert sample.state.items == before


def test_reports_hold_no_secrets(sample: Sample) -> None:
    items = dict.fromkeys(sample.state.items, b'"broken"')
    text = str(verify(AuthState(sample.state.creds, items), NOW).notes)
    assert "broken" not in text


# ------------------------------------------------------------------------------------------------------- credentials


def other_pair(pair: KeyPair) -> KeyPair:
    return KeyPair(pair.private, KeyPair.generate(os.urandom).public)


def test_pairs_that_do_not_fit(sample: Sample) -> None:
    creds = sample.state.creds
    assert errors(sample.with_creds(noise=other_pair(creds.noise))) == ["noise_key_mismatch"]
    assert "identity_key_mismatch" in errors(sample.with_creds(identity=other_pair(creds.identity)))
    signed = msgspec.structs.replace(
        creds.signed_prekey, key=KeyPair(os.urandom(32), creds.signed_prekey.key.public)
    )
    assert errors(sample.with_creds(signed_prekeys=(signed,))) == ["signed_prekey_mismatch"]
    assert errors(sample.with_creds(noise=KeyPair(b"short", b"short"))) == ["noise_key_mismatch"]
    assert errors(sample.with_creds(noise=other_pair(creds.noise)), STRUCTURE) == []


def test_every_signed_prekey_is_checked(sample: Sample) -> None:
    creds = sample.state.creds
    forged = SignedPreKey.make(2, KeyPair.generate(os.urandom), os.urandom)
    wanted = ["signed_prekey_signature_invalid"]
    assert errors(sample.with_creds(signed_prekeys=(creds.signed_prekey, forged))) == wanted
    assert errors(sample.with_creds(rotation_candidate=forged)) == wanted
    genuine = SignedPreKey.make(2, creds.identity, os.urandom, NOW)
    assert codes(sample.with_creds(signed_prekeys=(genuine, creds.signed_prekey), last_rotation_ms=NOW)) == []
    again = SignedPreKey.make(1, creds.identity, os.urandom)
    assert codes(sample.with_creds(rotation_candidate=again)) == ["signed_prekey_id_repeated"]
    assert codes(sample.with_creds(last_rotation_ms=NOW + 9 * 10**8)) == ["time_in_future"]


def test_an_unpaired_device(sample: Sample) -> None:
    assert "not_paired" in errors(sample.with_creds(account=None))
    assert "not_paired" in errors(AuthState(new_credentials(os.urandom), {}))


def test_signatures_of_the_account(sample: Sample) -> None:
    creds = sample.state.creds
    assert creds.account is not None
    foreign = account_blob(sample.phone, KeyPair.generate(os.urandom))
    assert "account_signature_invalid" in errors(sample.with_creds(account=foreign))
    for field, code in (
        ("accountSignature", "account_signature_invalid"),
        ("deviceSignature", "device_signature_invalid"),
    ):
        signed = adv.parse_signed_identity(creds.account)
        setattr(signed, field, bytes(64))
        assert errors(sample.with_creds(account=signed.SerializeToString())) == [code]
    assert errors(sample.with_creds(account=b"\xff")) == ["account_signature_invalid"]


def test_a_hosted_account(sample: Sample) -> None:
    creds = sample.state.creds
    outer = adv_pb2.ADVSignedDeviceIdentityHMAC.FromString(
        adv.make_device_identity(
            sample.phone, creds.identity.public, 1, 7, 1, bytes(32), os.urandom, hosted=True
        )
    )
    signed = adv_pb2.ADVSignedDeviceIdentity.FromString(outer.details)
    for prefix in (adv.DEVICE_PREFIX, adv.HOSTED_DEVICE_PREFIX):
        message = prefix + signed.details + creds.identity.public + sample.phone.public
        signed.deviceSignature = curve.sign(creds.identity.private, message, os.urandom)
        assert codes(sample.with_creds(account=signed.SerializeToString())) == []
    signed.accountSignature = adv.sign_account_signature(
        sample.phone, signed.details, creds.identity.public, os.urandom
    )
    assert errors(sample.with_creds(account=signed.SerializeToString())) == ["account_signature_invalid"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda document: document["noise"].update(pub=b64(bytes(32))), "noise_key_mismatch"),
        (lambda document: document["identity"].update(pub=b64(bytes(32))), "identity_key_mismatch"),
        (
            lambda document: document["signed_prekeys"][0]["key"].update(pub=b64(bytes(32))),
            "signed_prekey_mismatch",
        ),
        (lambda document: document.pop("noise"), "creds_unreadable"),
        (lambda document: document.update(v=2), "creds_unreadable"),
        (lambda document: document.update(adv_secret="?"), "creds_unreadable"),
    ],
)
def test_documents_of_credentials(
    sample: Sample, change: Callable[[dict[str, Any]], object], code: str
) -> None:
    document = json.loads(sample.state.creds.serialize())
    change(document)
    report = Report()
    assert read_credentials(json.dumps(document).encode(), report) is None
    assert [note.code for note in report.errors] == [code]
    assert code in CREDENTIAL_FAULTS
    assert read_credentials(sample.state.creds.serialize(), report) == sample.state.creds


@pytest.mark.parametrize("document", [b"", b"{}", b"null", b"[1]", b'{"v":1', b"\xff"])
def test_what_is_no_credentials_document(document: bytes) -> None:
    report = Report()
    assert read_credentials(document, report) is None
    assert [note.code for note in report.notes] == ["creds_unreadable"]


# ----------------------------------------------------------------------------------------------------------- prekeys


def test_prekeys(sample: Sample) -> None:
    stored = OneTimePreKey.parse(2, sample.state.items[kinds.PREKEY, "2"])
    broken = OneTimePreKey(2, other_pair(stored.key), "uploaded").serialize()
    assert errors(sample.with_items({(kinds.PREKEY, "2"): broken})) == ["pre_key_mismatch"]
    for key in ("0", "02", "16777216", "-1", "x", "", "٢"):
        assert errors(sample.with_items({(kinds.PREKEY, key): stored.serialize()})) == ["item_unreadable"]
    assert errors(sample.with_items({(kinds.PREKEY, "2"): b"{}"})) == ["item_unreadable"]
    assert {"pre_key_mismatch", "item_unreadable"} <= ITEM_FAULTS


def test_the_counter_of_prekeys(sample: Sample) -> None:
    assert errors(sample.with_creds(next_prekey_id=5)) == ["prekey_counter_behind"]
    assert errors(sample.with_creds(next_prekey_id=6 + 10_000)) == []
    stored = sample.state.items[kinds.PREKEY, "2"]
    wrapped = sample.with_items({(kinds.PREKEY, "16777215"): stored, (kinds.PREKEY, "16777214"): stored})
    assert errors(wrapped) == []
    near = AuthState(wrapped.creds.change(next_prekey_id=16_777_215), wrapped.items)
    assert errors(near) == ["prekey_counter_behind"]


def test_flags_of_prekeys(sample: Sample) -> None:
    key = KeyPair.generate(os.urandom)
    for state, wanted in (("new", ["prekey_flags_mixed"]), ("direct", []), ("stale", []), ("uploaded", [])):
        document = OneTimePreKey(2, key, state).serialize()  # type: ignore[arg-type]
        assert codes(sample.with_items({(kinds.PREKEY, "2"): document})) == wanted


# ---------------------------------------------------------------------------------------------------------- sessions


def test_a_session_that_is_no_record(sample: Sample) -> None:
    for document in (b"", b"{}", b"\x01", b'{"v":9}', b"null", os.urandom(200)):
        assert errors(sample.with_items({(kinds.SESSION, BOB): document})) == ["item_unreadable"]
    moved = {
        (kinds.SESSION, BOB): None,
        (kinds.SESSION, "no address"): sample.state.items[kinds.SESSION, BOB],
    }
    assert errors(sample.with_items(moved)) == ["item_unreadable"]


def damaged(sample: Sample, **changes: Any) -> AuthState:
    record = SessionRecord.parse(sample.state.items[kinds.SESSION, BOB])
    assert record.current is not None
    changed = SessionRecord(replace(record.current, **changes), record.archived, record.oldest_skipped_ms)
    return sample.with_items({(kinds.SESSION, BOB): changed.serialize()})


def current_of(sample: Sample, key: str = BOB) -> SessionState:
    record = SessionRecord.parse(sample.state.items[kinds.SESSION, key])
    assert record.current is not None
    return record.current


def test_faults_of_a_session(sample: Sample) -> None:
    current = current_of(sample)
    sender = replace(current.sender, public=os.urandom(32))
    assert errors(damaged(sample, sender=sender)) == ["session_invalid"]
    assert errors(damaged(sample, sender=sender), STRUCTURE) == []
    chain = current.receivers[-1]
    assert errors(damaged(sample, receivers=(*current.receivers, chain))) == ["session_invalid"]
    pending = current_of(sample, CAROL).pending
    assert errors(damaged(sample, pending=pending)) == ["session_invalid"]
    spent = replace(current.sender, next=2**32 - 1)
    assert codes(damaged(sample, sender=spent)) == ["session_exhausted"]


def test_skipped_keys_out_of_order(sample: Sample) -> None:
    current = current_of(sample)
    chain = current.receivers[-1]
    assert chain.skipped_count == 1, "the sample has one message on its way"
    twice = replace(chain, seeds=chain.seeds * 2)
    document = SessionRecord(replace(current, receivers=(twice,))).serialize()
    assert errors(sample.with_items({(kinds.SESSION, BOB): document})) == ["item_unreadable"]


def test_whose_session_it_is(sample: Sample) -> None:
    assert codes(damaged(sample, local_identity=os.urandom(32))) == ["session_foreign"]
    assert codes(damaged(sample, local_registration_id=77)) == ["session_registration"]
    stranger = encode_identity(KeyPair.generate(os.urandom).public)
    assert codes(sample.with_items({(kinds.IDENTITY, BOB): stranger})) == ["identity_mismatch"]
    assert codes(sample.with_items({(kinds.IDENTITY, BOB): None})) == []
    assert codes(sample.with_items({(kinds.IDENTITY, f"{OWN_LID.user}_1.0"): stranger})) == [
        "primary_identity_mismatch"
    ]
    assert codes(sample.with_items({(kinds.IDENTITY, f"{OWN_PN.user}.0"): stranger})) == [
        "primary_identity_mismatch"
    ]
    assert errors(sample.with_items({(kinds.IDENTITY, BOB): b'"AAAA"'})) == ["item_unreadable"]
    assert errors(sample.with_items({(kinds.IDENTITY, "odd key"): stranger})) == ["item_unreadable"]


def test_restored_sessions_are_sound(sample: Sample) -> None:
    stale = session.mark_stale(SessionRecord.parse(sample.state.items[kinds.SESSION, BOB]))
    assert codes(sample.with_items({(kinds.SESSION, BOB): stale.serialize()})) == []
    archived = session.archive_current(stale, NOW)
    assert codes(sample.with_items({(kinds.SESSION, BOB): archived.serialize()})) == []


def test_the_self_test_encrypts_and_decrypts_on_a_copy() -> None:
    alice, bob = acquainted()
    for device, peer in ((alice, "bob"), (bob, "alice")):
        before = device.existing(peer)
        assert before.current is not None
        assert decrypts_itself(before.current)
        assert device.existing(peer) == before
        assert not decrypts_itself(
            replace(before.current, sender=replace(before.current.sender, next=2**32 - 1))
        )
    assert bob.receive(alice, alice.send(bob, b"still in step")) == b"still in step"


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_damaged_document_is_never_silently_a_crash(data: st.DataObject) -> None:
    sample = SHARED
    kind, key = data.draw(st.sampled_from(sorted(sample.state.items)))
    document = bytearray(sample.state.items[kind, key])
    where = data.draw(st.integers(0, len(document) - 1))
    document[where] ^= 1 << data.draw(st.integers(0, 7))
    verify(sample.with_items({(kind, key): bytes(document)}), NOW)


SHARED = a_sample()


# ------------------------------------------------------------------------------------------------------- sender keys


def test_sender_keys(sample: Sample) -> None:
    own = SenderKeyRecord.parse(sample.state.items[kinds.SENDER_KEY, OWN_KEY])
    broken = SenderKeyRecord((replace(own.states[0], public=os.urandom(32)),)).serialize()
    assert errors(sample.with_items({(kinds.SENDER_KEY, OWN_KEY): broken})) == ["sender_key_invalid"]
    assert errors(sample.with_items({(kinds.SENDER_KEY, OWN_KEY): broken}), STRUCTURE) == []
    for document in (b"", b"{}", b'{"v":1,"states":3}'):
        assert errors(sample.with_items({(kinds.SENDER_KEY, PEER_KEY): document})) == ["item_unreadable"]
    for key in ("", "x", f"{GROUP}|", f"{GROUP}|no address", f"|{BOB}", f"no group|{BOB}"):
        document = groups.create(os.urandom).serialize()
        assert errors(sample.with_items({(kinds.SENDER_KEY, key): document})) == ["item_unreadable"], key


# ------------------------------------------------------------------------------------------------------- other items


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        (kinds.APP_STATE_KEY, "0001a2b3c4d5", {"data": b64(bytes(31)), "fingerprint": None, "ts": 1}),
        (kinds.APP_STATE_KEY, "0001a2b3c4d5", {"data": b64(bytes(32)), "fingerprint": None}),
        (kinds.APP_STATE_KEY, "XYZ", {"data": b64(bytes(32)), "fingerprint": None, "ts": 1}),
        (kinds.APP_STATE_KEY, "00", {"data": b64(bytes(32)), "fingerprint": {"rawId": -1}, "ts": 1}),
        (kinds.APP_STATE_VERSION, "regular", {"version": 1, "hash": b64(bytes(127)), "macs": {}}),
        (kinds.APP_STATE_VERSION, "regular", {"version": -1, "hash": b64(bytes(128)), "macs": {}}),
        (
            kinds.APP_STATE_VERSION,
            "regular",
            {"version": 1, "hash": b64(bytes(128)), "macs": {"AAAA": b64(bytes(32))}},
        ),
        (
            kinds.APP_STATE_VERSION,
            "regular",
            {"version": 1, "hash": b64(bytes(128)), "macs": {"?": b64(bytes(32))}},
        ),
        (kinds.APP_STATE_VERSION, "No Name", {"version": 1, "hash": b64(bytes(128)), "macs": {}}),
        (kinds.SENDER_KEY_MEMORY, GROUP, ["b@lid", "a@lid"]),
        (kinds.SENDER_KEY_MEMORY, GROUP, ["a@lid", "a@lid"]),
        (kinds.SENDER_KEY_MEMORY, GROUP, ["no@where@at all"]),
        (kinds.SENDER_KEY_MEMORY, GROUP, {"a@lid": True}),
        (kinds.TRUSTED_CONTACT, "200000000000002@lid", {"token": "?", "ts": 1, "sent": None}),
        (kinds.TRUSTED_CONTACT, "200000000000002@lid", {"token": "", "ts": "1", "sent": None}),
        (kinds.DEVICES, "200000000000002@lid", [1]),
        (kinds.LID_OF_PN, "15550000009", 5),
        (kinds.LID_OF_PN, "15550000009", ""),
        (kinds.NUMBER_ALIAS, "not/digits", "1"),
        (kinds.IDENTITY_CHANGE, "no address", "told"),
        (kinds.IDENTITY_CHANGE, BOB, 17),
    ],
)
def test_items_of_a_wrong_form(sample: Sample, kind: str, key: str, value: Any) -> None:
    assert "item_unreadable" in errors(sample.with_items({(kind, key): canonical(value)}), STRUCTURE)


def test_documents_that_are_no_json(sample: Sample) -> None:
    for kind, key in (("retry", "a|b|c"), ("x-new", "k"), ("tc-token", "1@lid")):
        assert "item_unreadable" in errors(sample.with_items({(kind, key): b"\x01\x02"}))
        assert "item_unreadable" in errors(sample.with_items({(kind, key): b"[" * 100_000}))


def test_unknown_kinds_are_told_once(sample: Sample) -> None:
    report = verify(sample.with_items({("x-new", str(n)): b"[]" for n in range(9)}), NOW)
    assert [(note.severity, note.code, note.item) for note in report.notes] == [
        ("warning", "unknown_item", "x-new")
    ]


def test_the_hash_of_a_collection(sample: Sample) -> None:
    version = json.loads(sample.state.items[kinds.APP_STATE_VERSION, "regular"])
    version["macs"].popitem()
    changed = sample.with_items({(kinds.APP_STATE_VERSION, "regular"): canonical(version)})
    assert codes(changed) == ["app_state_hash_mismatch"]
    assert codes(changed, STRUCTURE) == []
    empty = {"version": 0, "hash": b64(EMPTY), "macs": {}}
    assert codes(sample.with_items({(kinds.APP_STATE_VERSION, "regular"): canonical(empty)})) == []


def test_the_hash_is_a_sum() -> None:
    macs = [os.urandom(32) for _ in range(50)]
    assert lt_hash(macs) == lt_hash(macs[::-1])
    whole, part, rest = (
        [int.from_bytes(lt_hash(some)[place : place + 2], "little") for place in range(0, 128, 2)]
        for some in (macs, macs[:20], macs[20:])
    )
    assert whole == [(one + other) % 65536 for one, other in zip(part, rest, strict=True)]
    assert lt_hash([]) == EMPTY


def test_the_lid_map(sample: Sample) -> None:
    text = encode_text
    one_way = sample.with_items({(kinds.LID_OF_PN, "15550000009"): text("900")})
    assert codes(one_way) == ["lid_map_conflict"]
    two = sample.with_items({(kinds.LID_OF_PN, "15550000009"): text("200000000000002")})
    assert codes(two) == ["lid_map_conflict"]
    other = {(kinds.LID_OF_PN, OWN_PN.user): text("77"), (kinds.PN_OF_LID, "77"): text(OWN_PN.user)}
    own = sample.with_items({**other, (kinds.PN_OF_LID, OWN_LID.user): None})
    assert codes(own) == ["own_pair_conflict"]
    gone = sample.with_items({(kinds.LID_OF_PN, OWN_PN.user): None, (kinds.PN_OF_LID, OWN_LID.user): None})
    assert codes(gone) == []
    assert codes(AuthState(gone.creds.change(me_lid=None), gone.items)) == ["own_pair_missing"]


def test_credentials_round_trip_through_the_document(sample: Sample) -> None:
    again = Credentials.parse(sample.state.creds.serialize())
    assert codes(AuthState(again, sample.state.items)) == []
