from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.e2ee.parties import flip, new_pair, seeded
from waD.e2ee import adv, curve
from waD.e2ee.curve import KeyPair
from waD.e2ee.limits import MAX_PREKEY_ID, MAX_REGISTRATION_ID
from waD.link.credentials import (
    MAX_CREDENTIALS_SIZE,
    MAX_SIGNED_PREKEYS,
    Credentials,
    CredentialsError,
    SignedPreKey,
    new_credentials,
)
from waD.proto import adv_pb2
from waD.wire.frames import MAX_ROUTING_INFO
from waD.wire.jid import HOSTED, HOSTED_LID, JID, LID, PN

FRESH = new_credentials(seeded(60), now_ms=1_700_000_000_000)
PHONE = new_pair(61)
ME, MY_LID = JID("15550000001", PN, 17), JID("100000000000001", LID, 17)


def account_of(phone: KeyPair) -> bytes:
    outer = adv_pb2.ADVSignedDeviceIdentityHMAC.FromString(
        adv.make_device_identity(phone, FRESH.identity.public, 5, 1, 1_700_000_000, bytes(32), seeded(62))
    )
    return outer.details


PAIRED = FRESH.change(account=account_of(PHONE), me_pn=ME, me_lid=MY_LID)


def refused(data: bytes) -> str:
    with pytest.raises(CredentialsError) as caught:
        Credentials.parse(data)
    return str(caught.value)


def document(credentials: Credentials = PAIRED) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(credentials.serialize())
    return loaded


def changed(path: str, value: object) -> bytes:
    """The document with one value replaced; a path such as `signed_prekeys.0.id`."""
    whole = document(FULL)
    *steps, last = path.split(".")
    inner: Any = whole
    for step in steps:
        inner = inner[int(step) if step.isdecimal() else step]
    inner[int(last) if last.isdecimal() else last] = value
    return json.dumps(whole).encode()


# A fresh identity.


def test_a_fresh_identity() -> None:
    """Chapter 02 §1."""
    assert not FRESH.registered
    assert FRESH.account_key is None
    assert (FRESH.next_prekey_id, FRESH.server_has_prekeys, FRESH.login_counter) == (1, False, 0)
    assert (FRESH.signed_prekey.id, FRESH.signed_prekey.created_ms) == (1, 1_700_000_000_000)
    assert FRESH.signed_prekey.signed_by(FRESH.identity.public)
    assert len(FRESH.adv_secret) == 32
    for pair in (FRESH.noise, FRESH.identity, FRESH.signed_prekey.key):
        assert KeyPair.from_private(pair.private) == pair
    assert FRESH.local_identity().identity == FRESH.identity
    assert FRESH.local_identity().registration_id == FRESH.registration_id


@given(st.integers())
def test_registration_ids(seed: int) -> None:
    assert 1 <= new_credentials(seeded(seed)).registration_id <= MAX_REGISTRATION_ID


def test_every_secret_is_drawn_anew() -> None:
    draws: list[int] = []
    source = seeded(63)

    def random(count: int) -> bytes:
        draws.append(count)
        return source(count)

    made = new_credentials(random)
    secrets = {made.noise.private, made.identity.private, made.signed_prekey.key.private, made.adv_secret}
    assert len(secrets) == 4
    assert draws.count(32) >= 4
    assert made != FRESH


def test_the_signature_covers_the_type_byte() -> None:
    key = FRESH.signed_prekey
    assert curve.verify(FRESH.identity.public, b"\x05" + key.key.public, key.signature)
    assert not curve.verify(FRESH.identity.public, key.key.public, key.signature)


def test_secrets_are_in_no_repr() -> None:
    secrets = [FRESH.noise.private, FRESH.identity.private, FRESH.signed_prekey.key.private, FRESH.adv_secret]
    for credentials in (FRESH, PAIRED.change(routing_info=b"routing", nct_salt=b"salt", push_name="Ann")):
        for text in (repr(credentials), str(credentials), f"{credentials}", repr(credentials.signed_prekey)):
            for secret in secrets:
                assert secret.hex() not in text
                assert base64.b64encode(secret).decode() not in text
                assert repr(secret) not in text
            assert ME.user not in text
            assert "Ann" not in text
        assert credentials.__rich_repr__() == []
    assert repr(FRESH).startswith("Credentials(unregistered")
    assert repr(PAIRED).startswith("Credentials(registered")


# A paired one.


def test_registered_needs_account_and_address() -> None:
    assert PAIRED.registered
    assert not PAIRED.change(account=None).registered
    assert not PAIRED.change(me_pn=None).registered
    assert PAIRED.change(me_lid=None).registered
    assert PAIRED.account_key == PHONE.public


def test_an_account_without_key_has_none() -> None:
    signed = adv.parse_signed_identity(account_of(PHONE))
    signed.ClearField("accountSignatureKey")
    assert PAIRED.change(account=signed.SerializeToString()).account_key is None


def test_a_change_is_a_new_object() -> None:
    before = PAIRED.serialize()
    after = PAIRED.change(login_counter=5)
    assert (after.login_counter, PAIRED.login_counter) == (5, 0)
    assert PAIRED.serialize() == before
    with pytest.raises(AttributeError):
        PAIRED.login_counter = 9  # type: ignore[misc]


def prekey(number: int) -> SignedPreKey:
    return SignedPreKey.make(number, FRESH.identity, seeded(number), number)


def test_the_two_signed_prekeys_before_the_current_stay() -> None:
    credentials = FRESH.change(rotation_candidate=prekey(2))
    for number in (2, 3, 4):
        credentials = credentials.with_new_signed_prekey(prekey(number), number * 10)
    assert [key.id for key in credentials.signed_prekeys] == [4, 3, 2]
    assert (credentials.last_rotation_ms, credentials.rotation_candidate) == (40, None)
    assert [credentials.find_signed_prekey(number) is not None for number in (1, 2, 3, 4, 5)] == [
        False, True, True, True, False,
    ]  # fmt: skip


def test_a_candidate_the_server_may_have_is_found() -> None:
    credentials = FRESH.change(rotation_candidate=prekey(2))
    assert credentials.find_signed_prekey(2) == prekey(2)
    assert credentials.signed_prekey.id == 1


# Repair on load.


def test_a_badly_signed_prekey_of_an_unregistered_identity_is_replaced() -> None:
    old = FRESH.signed_prekey
    for signature in (flip(old.signature, 3), bytes(64)):
        bad = SignedPreKey(id=7, key=old.key, signature=signature)
        repaired = FRESH.change(signed_prekeys=(bad,)).repaired(seeded(64))
        assert repaired.signed_prekey.signed_by(FRESH.identity.public)
        assert repaired.signed_prekey.id == 1
        assert repaired.signed_prekey.key != old.key
        assert (repaired.identity, repaired.noise) == (FRESH.identity, FRESH.noise)


def test_what_is_sound_or_registered_is_left_alone() -> None:
    def random(count: int) -> bytes:
        raise AssertionError("nothing is drawn")

    assert FRESH.repaired(random) is FRESH
    bad = SignedPreKey(id=1, key=FRESH.signed_prekey.key, signature=bytes(64))
    registered = PAIRED.change(signed_prekeys=(bad,))
    assert registered.repaired(random) is registered


# Documents.

FULL = PAIRED.change(
    signed_prekeys=(prekey(3), prekey(2), prekey(1)),
    rotation_candidate=prekey(4),
    routing_info=b"\x08\x0d\x08\x05",
    nct_salt=b"salt",
    app_state_key_id=bytes(6),
    push_name="Zoë ✓",
    business_name="Corner Shop",
    platform="android",
    props_hash="h",
    props_refresh_id="r",
    props_abprops="10",
    companion_enc_static="c",
    login_counter=3,
    next_prekey_id=813,
    server_has_prekeys=True,
    lid_migrated=True,
    last_rotation_ms=5,
)


@pytest.mark.parametrize("credentials", [FRESH, PAIRED, FULL])
def test_round_trip(credentials: Credentials) -> None:
    data = credentials.serialize()
    assert Credentials.parse(data) == credentials
    assert Credentials.parse(data).serialize() == data
    json.loads(data)


def test_the_document_is_canonical() -> None:
    data = FULL.serialize()
    assert (
        data
        == json.dumps(json.loads(data), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    )
    assert json.loads(data)["v"] == 1
    assert len(base64.b64decode(json.loads(data)["noise"]["pub"])) == 32


texts = st.text(max_size=30)
maybe_bytes = st.none() | st.binary(max_size=64)
numbers = st.from_regex(r"[1-9][0-9]{6,14}", fullmatch=True)


@settings(max_examples=50)
@given(
    st.fixed_dictionaries(
        {
            "registration_id": st.integers(0, 0xFFFFFFFF),
            "signed_prekeys": st.lists(
                st.integers(1, 50).map(prekey), min_size=1, max_size=MAX_SIGNED_PREKEYS
            ).map(tuple),
            "adv_secret": st.binary(min_size=32, max_size=32),
            "account": st.none() | st.just(account_of(PHONE)),
            "me_pn": st.none() | st.builds(JID, numbers, st.sampled_from([PN, HOSTED]), st.integers(0, 99)),
            "me_lid": st.none()
            | st.builds(JID, numbers, st.sampled_from([LID, HOSTED_LID]), st.integers(0, 99)),
            "push_name": texts,
            "business_name": texts,
            "platform": texts,
            "next_prekey_id": st.integers(1, MAX_PREKEY_ID),
            "server_has_prekeys": st.booleans(),
            "rotation_candidate": st.none() | st.integers(1, 50).map(prekey),
            "last_rotation_ms": st.integers(0, 2**53),
            "login_counter": st.integers(0, 2**31 - 1),
            "routing_info": st.none() | st.binary(max_size=MAX_ROUTING_INFO),
            "lid_migrated": st.booleans(),
            "props_hash": texts,
            "companion_enc_static": texts,
            "nct_salt": maybe_bytes,
            "app_state_key_id": maybe_bytes,
        }
    )
)
def test_any_credentials_survive(fields: dict[str, Any]) -> None:
    credentials = FRESH.change(**fields)
    assert Credentials.parse(credentials.serialize()) == credentials


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_the_one_error(data: bytes) -> None:
    refused(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
PATHS = [
    *document(FULL),
    "noise.priv",
    "noise.pub",
    "identity.priv",
    "identity.pub",
    "signed_prekeys.0",
    "signed_prekeys.0.id",
    "signed_prekeys.0.key",
    "signed_prekeys.2.key.priv",
    "signed_prekeys.1.signature",
    "signed_prekeys.1.created_ms",
    "rotation_candidate.id",
    "rotation_candidate.key.pub",
]


@settings(max_examples=400)
@given(st.sampled_from(PATHS), json_values)
def test_a_document_with_any_value_anywhere(path: str, value: object) -> None:
    """It is refused, or read to something that can be written and read again."""
    try:
        data = changed(path, value)
        read = Credentials.parse(data)
    except CredentialsError:
        return
    assert Credentials.parse(read.serialize()) == read


@given(st.data())
def test_a_damaged_document(data: st.DataObject) -> None:
    whole = bytearray(FULL.serialize())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = Credentials.parse(bytes(whole))
    except CredentialsError:
        return
    assert Credentials.parse(read.serialize()) == read


@given(st.integers(0, 3000))
def test_a_truncated_document(length: int) -> None:
    whole = FULL.serialize()
    refused(whole[: min(length, len(whole) - 1)])


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("v", 2, "v"),
        ("v", True, "v"),
        ("v", "1", "v"),
        ("noise", None, "noise"),
        ("noise.priv", "", "noise.priv"),
        ("noise.priv", "AAAA", "noise.priv"),
        ("noise.priv", "not base64!", "noise.priv"),
        ("noise.pub", base64.b64encode(bytes(32)).decode(), "noise"),
        ("identity.pub", base64.b64encode(PHONE.public).decode(), "identity"),
        ("registration_id", -1, "registration_id"),
        ("registration_id", 2**32, "registration_id"),
        ("registration_id", True, "registration_id"),
        ("registration_id", 1.0, "registration_id"),
        ("signed_prekeys", [], "signed prekeys"),
        ("signed_prekeys", {}, "signed_prekeys"),
        ("signed_prekeys", [{}] * 4, "4 signed prekeys"),
        ("signed_prekeys.0", 5, "signed_prekeys[0]"),
        ("signed_prekeys.1.id", 0, "signed_prekeys[1].id"),
        ("signed_prekeys.1.id", MAX_PREKEY_ID + 1, "signed_prekeys[1].id"),
        ("signed_prekeys.2.signature", "AAAA", "signed_prekeys[2].signature"),
        ("signed_prekeys.2.key.pub", "AAAA", "signed_prekeys[2].key.pub"),
        ("signed_prekeys.0.created_ms", -5, "signed_prekeys[0].created_ms"),
        ("adv_secret", None, "adv_secret"),
        ("adv_secret", base64.b64encode(bytes(31)).decode(), "adv_secret"),
        ("account", base64.b64encode(b"\xff\xff").decode(), "account"),
        ("account", "", "account"),
        ("account", base64.b64encode(bytes(5000)).decode(), "account"),
        ("me_pn", "nobody", "me_pn"),
        ("me_pn", "100000000000001:17@lid", "me_pn"),
        ("me_pn", "120363000000000001@g.us", "me_pn"),
        ("me_pn", "s.whatsapp.net", "me_pn"),
        ("me_pn", "ann@s.whatsapp.net", "me_pn"),
        ("me_pn", "9" * 30 + "@s.whatsapp.net", "me_pn"),
        ("me_lid", "15550000001:17@s.whatsapp.net", "me_lid"),
        ("me_lid", 5, "me_lid"),
        ("push_name", None, "push_name"),
        ("push_name", "\ud800", "push_name"),
        ("next_prekey_id", 0, "next_prekey_id"),
        ("next_prekey_id", MAX_PREKEY_ID + 1, "next_prekey_id"),
        ("server_has_prekeys", 1, "server_has_prekeys"),
        ("rotation_candidate", 5, "rotation_candidate"),
        ("rotation_candidate.id", "4", "rotation_candidate.id"),
        ("login_counter", 2**31, "login_counter"),
        ("routing_info", base64.b64encode(bytes(MAX_ROUTING_INFO + 1)).decode(), "routing_info"),
        ("nct_salt", base64.b64encode(bytes(1025)).decode(), "nct_salt"),
        ("app_state_key_id", base64.b64encode(bytes(65)).decode(), "app_state_key_id"),
    ],
)
def test_the_error_names_the_field_and_shows_no_value(path: str, value: object, named: str) -> None:
    text = refused(changed(path, value))
    assert named in text
    for pair in (FULL.noise, FULL.identity):
        assert base64.b64encode(pair.private).decode() not in text
    assert ME.user not in text


@pytest.mark.parametrize("name", [name for name in document(FULL) if name != "v"])
def test_a_field_that_is_not_there_is_named(name: str) -> None:
    whole = document(FULL)
    del whole[name]
    data = json.dumps(whole).encode()
    optional = {
        "account",
        "me_pn",
        "me_lid",
        "rotation_candidate",
        "routing_info",
        "nct_salt",
        "app_state_key_id",
    }
    if name in optional:
        assert getattr(Credentials.parse(data), name) is None
    else:
        assert name in refused(data)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"null", b"1", b'"x"', b"\xff", b"[" * 50_000, b"{" * 50_000, b"9" * 6000]
)
def test_what_is_no_document(data: bytes) -> None:
    refused(data)


def test_fields_of_a_later_program_are_ignored() -> None:
    whole = {**document(FULL), "later": {"x": 1}}
    assert Credentials.parse(json.dumps(whole).encode()) == FULL


def test_a_private_key_that_is_not_clamped_means_the_same() -> None:
    whole = document(FULL)
    private = bytearray(FULL.noise.private)
    private[0] |= 7
    whole["noise"]["priv"] = base64.b64encode(private).decode()
    assert Credentials.parse(json.dumps(whole).encode()) == FULL


def test_the_size_is_limited_in_both_directions() -> None:
    """What could not be read again is never written."""
    assert "bytes" in refused(b" " * (MAX_CREDENTIALS_SIZE + 1))
    with pytest.raises(CredentialsError, match="is the most"):
        FULL.change(push_name="x" * MAX_CREDENTIALS_SIZE).serialize()
    large: Callable[[int], Credentials] = lambda size: FULL.change(push_name="x" * size)  # noqa: E731
    room = MAX_CREDENTIALS_SIZE - len(large(0).serialize())
    assert Credentials.parse(large(room).serialize()) == large(room)
    with pytest.raises(CredentialsError):
        large(room + 1).serialize()
