"""The phone's proof: every way it can be wrong, and our signature (chapter 02 §3.4)."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.link.phone import ACCOUNT, LID, PN, RAW_ID, TIME_S, Blob, check_sign, pair_success, props
from waD.e2ee import adv
from waD.e2ee.curve import KeyPair
from waD.link.credentials import Credentials, new_credentials
from waD.link.errors import PairingRefused
from waD.link.pair_success import MAX_IDENTITY_BLOB, Paired, verify
from waD.proto.adv_pb2 import ADVSignedDeviceIdentity, ADVSignedDeviceIdentityHMAC
from waD.wire.jid import JID
from waD.wire.node import Node

IDENTITY = KeyPair.generate(os.urandom)
SECRET = os.urandom(32)
OTHER = KeyPair.generate(os.urandom)


def blob(**options: Any) -> Blob:
    return Blob(IDENTITY.public, SECRET, **options)


def check(stanza: Node) -> Paired:
    return verify(stanza, SECRET, IDENTITY, os.urandom)


def refused(stanza: Node) -> tuple[int, str, str]:
    with pytest.raises(PairingRefused) as caught:
        check(stanza)
    assert SECRET.hex() not in str(caught.value)
    return caught.value.code, caught.value.text, caught.value.cause_id


HMAC = (401, "hmac-mismatch", "pair_hmac")
SIGNATURE = (401, "signature-mismatch", "pair_sig")
MALFORMED = (500, "internal-error", "pair_refused")


# Right ones.


def test_everything_a_proof_says() -> None:
    extra = (Node("biz", {"name": "Corner Shop"}), props(isChatDbLidMigrated=True))
    paired = check(pair_success(blob(key_index=19).build(), extra=extra, t=str(TIME_S)))
    assert (paired.jid, paired.lid) == (PN, LID)
    assert (paired.business_name, paired.platform, paired.lid_migrated) == ("Corner Shop", "android", True)
    assert (paired.raw_id, paired.timestamp, paired.key_index) == (RAW_ID, TIME_S, 19)
    assert (paired.account_key, paired.hosted, paired.server_time_s) == (ACCOUNT.public, False, TIME_S)


def test_the_answer_is_signed_and_leaves_the_accounts_key_out() -> None:
    data = blob(key_index=3).build()
    answer = check(pair_success(data)).answer
    assert (answer.attrs["type"], answer.attrs["id"], str(answer.attrs["to"])) == (
        "result",
        "P1",
        "s.whatsapp.net",
    )
    assert check_sign(answer, IDENTITY.public, data) == "3"


def test_what_is_kept_is_a_full_companion_identity() -> None:
    paired = check(pair_success(blob(key_index=3).build()))
    found = adv.verify_companion(IDENTITY.public, paired.account, ACCOUNT.public)
    assert (found.key_index, found.account_changed) == (3, False)


def test_credentials_after_pairing() -> None:
    before = new_credentials(os.urandom).change(
        login_counter=9, server_has_prekeys=True, push_name="me", identity=IDENTITY
    )
    paired = check(pair_success(blob().build()))
    after = paired.apply(before)
    assert after.registered
    assert (after.me_pn, after.me_lid, after.platform) == (PN, LID, "android")
    assert (after.login_counter, after.server_has_prekeys, after.lid_migrated) == (0, False, False)
    assert (after.push_name, after.adv_secret, after.identity) == ("me", before.adv_secret, IDENTITY)
    assert after.account_key == ACCOUNT.public
    assert Credentials.parse(after.serialize()) == after


@pytest.mark.parametrize(
    ("account", "device"),
    [(True, True), (True, False), (False, False), (False, True)],
)
def test_hosted_prefixes_mac_by_the_outer_type_signature_by_the_inner(account: bool, device: bool) -> None:
    data = blob(hosted_account=account, hosted_device=device).build()
    paired = check(pair_success(data))
    assert paired.hosted is device
    check_sign(paired.answer, IDENTITY.public, data)
    signed = ADVSignedDeviceIdentity.FromString(paired.account)
    plain = adv.DEVICE_PREFIX + signed.details + IDENTITY.public + ACCOUNT.public
    assert adv.curve.verify(IDENTITY.public, plain, signed.deviceSignature)


def test_without_a_lid() -> None:
    assert check(pair_success(blob().build(), device={"jid": PN})).lid is None


@pytest.mark.parametrize(
    "lid", [PN, JID("1000", "lid"), "nonsense", JID("1", "newsletter", 3), JID("", "lid", 4)]
)
def test_a_wrong_lid_counts_as_none(lid: Any) -> None:
    assert check(pair_success(blob().build(), device={"jid": PN, "lid": lid})).lid is None


@pytest.mark.parametrize(
    "extra",
    [
        Node("client-props", {}, b"\xff\xff"),
        Node("client-props", {}, b"\x08\x01" * 3000),
        Node("client-props"),
        props(isChatDbLidMigrated=False),
    ],
)
def test_strange_client_props_do_not_stop_a_pairing(extra: Node) -> None:
    assert check(pair_success(blob().build(), extra=(extra,))).lid_migrated is False


def test_a_name_that_is_too_long_is_left_out() -> None:
    paired = check(pair_success(blob().build(), extra=(Node("biz", {"name": "ü" * 600}),)))
    assert paired.business_name == ""


def test_unknown_children_do_not_matter() -> None:
    extra = (Node("jurisdiction", {"iso": "DE"}), Node("encryption-metadata", {}, [Node("nonce", {}, b"x")]))
    assert check(pair_success(blob().build(), extra=extra)).jid == PN


# Wrong MACs.


def test_the_secret_of_another_code() -> None:
    assert refused(pair_success(Blob(IDENTITY.public, os.urandom(32)).build())) == HMAC


def test_a_flipped_bit_in_the_mac() -> None:
    outer = ADVSignedDeviceIdentityHMAC.FromString(blob().build())
    outer.hmac = bytes([outer.hmac[0] ^ 1]) + outer.hmac[1:]
    assert refused(pair_success(outer.SerializeToString())) == HMAC


def test_a_shortened_mac() -> None:
    outer = ADVSignedDeviceIdentityHMAC.FromString(blob().build())
    outer.hmac = outer.hmac[:16]
    assert refused(pair_success(outer.SerializeToString())) == HMAC


@pytest.mark.parametrize("hosted", [True, False])
def test_the_prefix_of_the_other_kind_of_account(hosted: bool) -> None:
    assert refused(pair_success(blob(hosted_account=hosted, hosted_mac=not hosted).build())) == HMAC


def test_the_hosted_flag_is_inside_the_mac() -> None:
    outer = ADVSignedDeviceIdentityHMAC.FromString(blob().build())
    outer.accountType = 1
    assert refused(pair_success(outer.SerializeToString())) == HMAC


def test_a_replay_after_the_secret_changed() -> None:
    stanza = pair_success(blob().build())
    check(stanza)
    with pytest.raises(PairingRefused, match="hmac-mismatch"):
        verify(stanza, os.urandom(32), IDENTITY, os.urandom)


# Wrong signatures.


@pytest.mark.parametrize("signature", [bytes(64), b"\xff" * 64])
def test_no_signature_at_all(signature: bytes) -> None:
    wrong = blob()
    wrong.signature = signature
    assert refused(pair_success(wrong.build())) == SIGNATURE


@pytest.mark.parametrize("place", [0, 31, 32, 62])
def test_a_flipped_bit_in_the_signature(place: int) -> None:
    wrong = blob()
    wrong.signature = bytes(
        byte ^ (1 if number == place else 0) for number, byte in enumerate(wrong.signature)
    )
    assert refused(pair_success(wrong.build())) == SIGNATURE


def test_signed_by_somebody_else() -> None:
    wrong = blob()
    wrong.account_key = OTHER.public
    assert refused(pair_success(wrong.build())) == SIGNATURE


def test_signed_for_another_companion() -> None:
    assert refused(pair_success(Blob(OTHER.public, SECRET).build())) == SIGNATURE


def test_details_changed_after_signing() -> None:
    wrong = blob()
    wrong.details = blob(key_index=2).details
    assert refused(pair_success(wrong.build())) == SIGNATURE


@pytest.mark.parametrize("hosted", [True, False])
def test_the_prefix_of_the_other_kind_of_device(hosted: bool) -> None:
    wrong = blob(hosted_device=hosted, hosted_signature=not hosted)
    assert refused(pair_success(wrong.build())) == SIGNATURE


def test_a_device_signature_instead_of_an_accounts() -> None:
    wrong = blob()
    wrong.signature = adv.sign_device_signature(ACCOUNT, wrong.details, IDENTITY.public, os.urandom)
    assert refused(pair_success(wrong.build())) == SIGNATURE


# Malformed ones.


@pytest.mark.parametrize(
    "device",
    [
        {"lid": LID},
        {"jid": "nonsense"},
        {"jid": PN.bare},
        {"jid": LID},
        {"jid": JID("1", "g.us", 3)},
        {"jid": JID("", "s.whatsapp.net")},
        {"jid": JID("letters", "s.whatsapp.net", 4)},
        {"note": "no address"},
    ],
)
def test_wrong_devices(device: Any) -> None:
    assert refused(pair_success(blob().build(), device=device)) == MALFORMED


def test_missing_parts() -> None:
    assert refused(pair_success(None)) == MALFORMED
    assert refused(pair_success(b"")) == MALFORMED
    assert refused(pair_success(blob().build(), device={})) == MALFORMED
    assert refused(Node("iq", {"id": "1"})) == MALFORMED
    assert refused(Node("iq", {"id": "1"}, [Node("pair-success")])) == MALFORMED


def test_a_huge_blob_is_not_even_read() -> None:
    assert refused(pair_success(bytes(MAX_IDENTITY_BLOB + 1))) == MALFORMED


@pytest.mark.parametrize("key_index", [None, 0])
def test_a_key_index_that_is_the_phones_own(key_index: int | None) -> None:
    assert refused(pair_success(blob(key_index=key_index).build())) == MALFORMED


@pytest.mark.parametrize("signed", [b"\xff\xff", b"\x00", b"\x0a\x05ab"])
def test_an_inner_blob_that_is_not_protobuf_but_has_a_good_mac(signed: bytes) -> None:
    assert refused(pair_success(blob().wrap(signed))) == MALFORMED


@pytest.mark.parametrize(
    ("field", "value"),
    [("account_key", b""), ("account_key", bytes(31)), ("signature", bytes(63)), ("details", b"\xff")],
)
def test_inner_parts_of_a_wrong_length(field: str, value: bytes) -> None:
    wrong = blob()
    setattr(wrong, field, value)
    assert refused(pair_success(wrong.build())) == MALFORMED


def test_a_truncated_blob_is_refused_at_every_length() -> None:
    whole = blob().build()
    for length in range(len(whole)):
        assert refused(pair_success(whole[:length])) in (HMAC, MALFORMED)


@settings(max_examples=150)
@given(st.binary(max_size=MAX_IDENTITY_BLOB + 10))
def test_any_bytes_are_refused_and_nothing_else_happens(data: bytes) -> None:
    assert refused(pair_success(data)) in (HMAC, MALFORMED)


@settings(max_examples=100)
@given(st.data())
def test_any_change_of_one_byte_is_refused(data: st.DataObject) -> None:
    whole = bytearray(blob().build())
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    assert refused(pair_success(bytes(whole))) in (HMAC, MALFORMED, SIGNATURE)


def test_addresses_are_not_in_the_repr() -> None:
    text = repr(check(pair_success(blob().build())))
    assert PN.user not in text
    assert LID.user not in text
