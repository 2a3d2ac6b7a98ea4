from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.e2ee.parties import flip, new_pair, seeded
from waD.e2ee import adv, curve
from waD.e2ee.limits import MAX_ADV_BLOB_SIZE, MAX_KEY_INDEXES
from waD.proto import adv_pb2

PHONE = new_pair(1)
COMPANION = new_pair(2)
STRANGER = new_pair(3)
SECRET = bytes(range(32))
RANDOM = seeded(4)
RAW_ID, KEY_INDEX, TIME = 305419896, 3, 1_764_814_148


def link(*, hosted: bool = False) -> adv_pb2.ADVSignedDeviceIdentityHMAC:
    """What the phone uploads for the companion."""
    blob = adv.make_device_identity(
        PHONE, COMPANION.public, RAW_ID, KEY_INDEX, TIME, SECRET, RANDOM, hosted=hosted
    )
    return adv_pb2.ADVSignedDeviceIdentityHMAC.FromString(blob)


def device_identity(*, hosted: bool = False, with_key: bool = True) -> adv_pb2.ADVSignedDeviceIdentity:
    """What the companion sends to others."""
    signed = adv.parse_signed_identity(link(hosted=hosted).details)
    signed.deviceSignature = adv.sign_device_signature(
        COMPANION, signed.details, signed.accountSignatureKey, RANDOM
    )
    if not with_key:
        signed.ClearField("accountSignatureKey")
    return signed


def refused(blob: bytes, stored: bytes | None = PHONE.public, identity: bytes = COMPANION.public) -> str:
    with pytest.raises(adv.AdvError) as caught:
        adv.verify_companion(identity, blob, stored)
    return caught.value.code


# The phone's side.


@pytest.mark.parametrize("hosted", [False, True])
def test_what_the_phone_signs(hosted: bool) -> None:
    outer = link(hosted=hosted)
    assert adv.verify_account_hmac(SECRET, outer.details, outer.hmac, hosted=hosted)
    assert not adv.verify_account_hmac(SECRET, outer.details, outer.hmac, hosted=not hosted)
    assert not adv.verify_account_hmac(SECRET, outer.details, b"", hosted=hosted)
    signed = adv.parse_signed_identity(outer.details)
    assert signed.accountSignatureKey == PHONE.public
    assert not signed.HasField("deviceSignature")
    arguments = (PHONE.public, signed.details, COMPANION.public, signed.accountSignature)
    assert adv.verify_account_signature(*arguments, hosted=hosted)
    assert adv.verify_account_signature(*arguments)
    assert not adv.verify_account_signature(*arguments, hosted=not hosted)
    assert not adv.verify_account_signature(*arguments[:2], STRANGER.public, arguments[3])
    statement = adv.parse_identity(signed.details)
    assert (statement.rawId, statement.keyIndex, statement.timestamp) == (RAW_ID, KEY_INDEX, TIME)
    assert (outer.accountType == adv_pb2.HOSTED) is hosted


def test_signed_bytes_are_those_of_a_real_phone() -> None:
    """A pairing made by other software: statement, account signature and MAC."""
    primary = bytes.fromhex("69cd6a3177766e37e8195b3be17a7fc70eb7dd1b42d4cb262b23a2f2fb90c24f")
    companion = bytes.fromhex("fac1cc17d4d8fe2569d80fbaf8e6b53a10f1254d4350974ddecfb2cf306c9552")
    secret = bytes.fromhex("ea7cff4c12c0eac09e1d46f265d8c912ce6a4bc4b0473a9dd91f73fafd40e453")
    outer = adv_pb2.ADVSignedDeviceIdentityHMAC.FromString(
        bytes.fromhex(
            "0a740a0e08f8acd1910110c4dac3c9061801122069cd6a3177766e37e8195b3be17a7fc70eb7dd1b42d4cb262b23a2f2"
            "fb90c24f1a408f220bca0372e488eb9eb8866702ed3b2637268dd35378b622836f7155317b72a60fe1eca01c9f703392"
            "b4c8ddc2e9cc831a40f40cab8337b085179c9aaea0071220b13caacdaf042fe00dbfb0268ea9a7a9cc92108d3f27b56d"
            "66a7892d6b7c91aa"
        )
    )
    assert adv.verify_account_hmac(secret, outer.details, outer.hmac)
    signed = adv.parse_signed_identity(outer.details)
    assert signed.accountSignatureKey == primary
    assert adv.verify_account_signature(
        primary, signed.details, companion, signed.accountSignature, hosted=False
    )
    ours = adv.make_device_identity(new_pair(1), companion, 305419896, 1, 1764814148, secret, RANDOM)
    assert adv.parse_signed_identity(
        adv_pb2.ADVSignedDeviceIdentityHMAC.FromString(ours).details
    ).details == bytes.fromhex("08f8acd1910110c4dac3c9061801")


# Peers' companions.


@pytest.mark.parametrize("hosted", [False, True])
@pytest.mark.parametrize("with_key", [False, True])
def test_a_genuine_companion(hosted: bool, with_key: bool) -> None:
    blob = device_identity(hosted=hosted, with_key=with_key).SerializeToString()
    assert adv.verify_companion(COMPANION.public, blob, PHONE.public) == adv.AdvResult(
        PHONE.public, False, RAW_ID, TIME, KEY_INDEX, hosted, hosted
    )


def test_a_companion_that_signed_with_the_hosted_prefix() -> None:
    signed = device_identity(hosted=True)
    message = adv.HOSTED_DEVICE_PREFIX + signed.details + COMPANION.public + PHONE.public
    signed.deviceSignature = curve.sign(COMPANION.private, message, RANDOM)
    assert adv.verify_companion(COMPANION.public, signed.SerializeToString(), None).hosted_device


def test_without_any_account_key_nothing_can_be_said() -> None:
    assert refused(device_identity(with_key=False).SerializeToString(), None) == "no_account_key"
    result = adv.verify_companion(COMPANION.public, device_identity().SerializeToString(), None)
    assert (result.account_key, result.account_changed) == (PHONE.public, False)


def test_another_account_key_in_the_blob_is_a_changed_account() -> None:
    blob = device_identity().SerializeToString()
    assert adv.verify_companion(COMPANION.public, blob, STRANGER.public).account_changed
    without = device_identity(with_key=False).SerializeToString()
    assert refused(without, STRANGER.public) == "account_signature"


def test_a_key_index_may_be_missing() -> None:
    details = adv_pb2.ADVDeviceIdentity(rawId=1, timestamp=2).SerializeToString()
    signed = adv_pb2.ADVSignedDeviceIdentity(
        details=details,
        accountSignature=adv.sign_account_signature(PHONE, details, COMPANION.public, RANDOM),
        deviceSignature=adv.sign_device_signature(COMPANION, details, PHONE.public, RANDOM),
    )
    result = adv.verify_companion(COMPANION.public, signed.SerializeToString(), PHONE.public)
    assert result.key_index is None


def test_forgeries() -> None:
    assert refused(device_identity().SerializeToString(), identity=STRANGER.public) == "account_signature"
    for name, code in (("accountSignature", "account_signature"), ("deviceSignature", "device_signature")):
        for value in (b"", bytes(64), flip(getattr(device_identity(), name), 5)):
            forged = device_identity()
            setattr(forged, name, value)
            assert refused(forged.SerializeToString()) == code
        missing = device_identity()
        missing.ClearField(name)  # type: ignore[arg-type]
        assert refused(missing.SerializeToString()) == code
    other = device_identity()
    other.details = adv_pb2.ADVDeviceIdentity(rawId=1, timestamp=2, keyIndex=9).SerializeToString()
    assert refused(other.SerializeToString()) == "account_signature"
    swapped = device_identity()
    swapped.accountSignatureKey = STRANGER.public
    assert refused(swapped.SerializeToString()) == "account_signature"


def test_signatures_of_one_purpose_do_not_serve_another() -> None:
    signed = device_identity()
    as_list = curve.sign(PHONE.private, adv.KEY_INDEX_LIST_PREFIX + signed.details + COMPANION.public, RANDOM)
    signed.accountSignature = as_list
    assert refused(signed.SerializeToString()) == "account_signature"


def test_malformed_blobs() -> None:
    short_key = device_identity()
    short_key.accountSignatureKey = bytes(31)
    bad_details = device_identity()
    bad_details.details = b"\xff"
    no_details = device_identity()
    no_details.ClearField("details")
    padded = device_identity()
    padded.details = bytes(MAX_ADV_BLOB_SIZE)
    for blob in (
        b"",
        b"\xff",
        *(m.SerializeToString() for m in (short_key, bad_details, no_details, padded)),
    ):
        assert refused(blob) == "malformed"


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_any_bytes_are_refused_with_a_typed_error(data: bytes) -> None:
    for action in (
        lambda: adv.verify_companion(COMPANION.public, data, PHONE.public),
        lambda: adv.verify_key_index_list(data, PHONE.public),
    ):
        with pytest.raises(adv.AdvError):
            action()


@given(st.data())
@settings(max_examples=100)
def test_mutated_blobs_are_verified_or_refused(data: st.DataObject) -> None:
    blob = bytearray(device_identity().SerializeToString())
    position = data.draw(st.integers(0, len(blob) - 1))
    blob[position] ^= data.draw(st.integers(1, 255))
    try:
        result = adv.verify_companion(COMPANION.public, bytes(blob), PHONE.public)
    except adv.AdvError:
        return
    # Only the tag of the redundant key may change without harm.
    assert (result.account_key, result.raw_id, result.key_index) == (PHONE.public, RAW_ID, KEY_INDEX)


# Key-index lists.


def key_list(*, hosted: bool = False, signer: curve.KeyPair = PHONE) -> bytes:
    return adv.make_key_index_list(signer, RAW_ID, TIME, 5, [0, 1, 4], RANDOM, hosted=hosted)


@pytest.mark.parametrize("hosted", [False, True])
def test_key_index_list(hosted: bool) -> None:
    listed = adv.verify_key_index_list(key_list(hosted=hosted), PHONE.public)
    assert listed == adv.KeyIndexList(RAW_ID, TIME, 5, frozenset({0, 1, 4}), hosted, True)
    assert listed.keep([(0, None), (3, 1), (7, 4), (8, 2), (9, 6), (12, None), (13, 5), (3, 1)]) == [
        0,
        3,
        7,
        9,
    ]


def test_the_list_has_the_bytes_of_a_real_phone() -> None:
    blob = adv.make_key_index_list(PHONE, 305419896, 1764814148, 3, [0, 1, 3], RANDOM)
    details = adv_pb2.ADVSignedKeyIndexList.FromString(blob).details
    assert details == bytes.fromhex("08f8acd1910110c4dac3c90618032203000103")


def test_a_list_is_provisional_while_the_phone_is_unknown() -> None:
    listed = adv.verify_key_index_list(key_list(), None)
    assert not listed.verified
    assert listed.allows(3, 1)


def test_a_list_signed_by_someone_else_is_refused() -> None:
    for blob in (key_list(signer=STRANGER), key_list(signer=STRANGER, hosted=True)):
        with pytest.raises(adv.AdvError) as caught:
            adv.verify_key_index_list(blob, PHONE.public)
        assert caught.value.code == "list_signature"


def test_an_embedded_key_counts_for_hosted_accounts_only() -> None:
    for hosted, code in ((True, None), (False, "list_signature")):
        signed = adv_pb2.ADVSignedKeyIndexList.FromString(key_list(signer=STRANGER, hosted=hosted))
        signed.accountSignatureKey = STRANGER.public
        if code is None:
            assert adv.verify_key_index_list(signed.SerializeToString(), PHONE.public).verified
            continue
        with pytest.raises(adv.AdvError) as caught:
            adv.verify_key_index_list(signed.SerializeToString(), PHONE.public)
        assert caught.value.code == code


@pytest.mark.parametrize("missing", ["rawId", "timestamp"])
def test_a_list_without_its_facts_is_malformed(missing: str) -> None:
    signed = adv_pb2.ADVSignedKeyIndexList.FromString(key_list())
    details = adv_pb2.ADVKeyIndexList.FromString(signed.details)
    details.ClearField(missing)  # type: ignore[arg-type]
    signed.details = details.SerializeToString()
    signed.accountSignature = curve.sign(PHONE.private, adv.KEY_INDEX_LIST_PREFIX + signed.details, RANDOM)
    with pytest.raises(adv.AdvError) as caught:
        adv.verify_key_index_list(signed.SerializeToString(), PHONE.public)
    assert caught.value.code == "malformed"


def test_unsigned_and_overlong_lists_are_malformed() -> None:
    unsigned = adv_pb2.ADVSignedKeyIndexList.FromString(key_list())
    unsigned.ClearField("accountSignature")
    many = adv.make_key_index_list(PHONE, 1, 1, 1, range(MAX_KEY_INDEXES + 1), RANDOM)
    for blob in (unsigned.SerializeToString(), many):
        with pytest.raises(adv.AdvError) as caught:
            adv.verify_key_index_list(blob, None)
        assert caught.value.code == "malformed"
