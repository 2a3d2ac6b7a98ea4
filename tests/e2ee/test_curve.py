from __future__ import annotations

import hashlib
import secrets
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.e2ee.parties import flip, new_pair, seeded
from waD.e2ee import curve

KEYS = st.binary(min_size=32, max_size=32)
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493
LOW_ORDER = [0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 18]


@given(KEYS)
def test_a_private_key_is_kept_clamped(private: bytes) -> None:
    pair = curve.KeyPair.from_private(private)
    assert pair.private[0] & 7 == 0
    assert pair.private[31] & 0xC0 == 0x40
    assert pair.private[1:31] == private[1:31]
    assert pair == curve.KeyPair.from_private(pair.private)
    assert pair.public[31] & 0x80 == 0


@given(KEYS, KEYS)
def test_agreement_is_symmetric_and_ignores_clamping(first: bytes, second: bytes) -> None:
    ours, theirs = curve.KeyPair.from_private(first), curve.KeyPair.from_private(second)
    secret = curve.agree(ours.private, theirs.public)
    assert secret == curve.agree(theirs.private, ours.public)
    assert secret == curve.agree(first, theirs.public)
    assert len(secret) == 32


def test_generate_takes_32_bytes_from_the_source() -> None:
    asked: list[int] = []

    def source(count: int) -> bytes:
        asked.append(count)
        return bytes(range(count))

    pair = curve.KeyPair.generate(source)
    assert asked == [32]
    assert pair == curve.KeyPair.from_private(bytes(range(32)))


def test_bit_255_of_a_public_key_is_ignored() -> None:
    ours, theirs = new_pair(1), new_pair(2)
    marked = flip(theirs.public, 31, 7)
    assert curve.agree(ours.private, marked) == curve.agree(ours.private, theirs.public)
    assert curve.verify(marked, b"m", curve.sign(theirs.private, b"m", seeded(1)))


@pytest.mark.parametrize("number", LOW_ORDER)
def test_low_order_keys_give_no_secret_and_verify_nothing(number: int) -> None:
    public = number.to_bytes(32, "little")
    with pytest.raises(curve.CurveError):
        curve.agree(new_pair(1).private, public)
    identity = (1).to_bytes(32, "little")
    for sign_bit in (0, 0x80):
        signature = identity + bytes(31) + bytes([sign_bit])
        assert not curve.verify(public, b"anything", signature)


@pytest.mark.parametrize(("private", "public"), [(31, 32), (33, 32), (32, 31), (32, 33), (0, 0)])
def test_agreement_refuses_other_lengths(private: int, public: int) -> None:
    with pytest.raises(curve.CurveError):
        curve.agree(b"\x09" * private, b"\x09" * public)


@given(KEYS, st.binary(max_size=200), st.integers(0, 63), st.integers(0, 7))
@settings(max_examples=60)
def test_signatures_verify_and_no_bit_of_them_may_change(
    private: bytes, message: bytes, position: int, bit: int
) -> None:
    pair = curve.KeyPair.from_private(private)
    signature = curve.sign(private, message, secrets.token_bytes)
    assert len(signature) == 64
    assert curve.verify(pair.public, message, signature)
    assert not curve.verify(pair.public, message, flip(signature, position, bit))
    assert not curve.verify(pair.public, message + b"\0", signature)
    assert not curve.verify(flip(pair.public, position % 32, bit % 7), message, signature)


def test_the_sign_bit_of_the_key_is_carried() -> None:
    """About half of all keys have it; a verifier that wants 0 would refuse their signatures."""
    bits = set()
    for seed in range(40):
        pair = new_pair(seed)
        signature = curve.sign(pair.private, b"m", seeded(seed))
        bits.add(signature[63] & 0x80)
        assert curve.verify(pair.public, b"m", signature)
        again = curve.sign(pair.private, b"m", seeded(seed + 1))
        assert again != signature
        assert again[63] & 0x80 == signature[63] & 0x80
    assert bits == {0, 0x80}


def test_s_must_be_below_the_group_order() -> None:
    pair = new_pair(5)
    signature = curve.sign(pair.private, b"m", seeded(5))
    bit = signature[63] & 0x80
    s = int.from_bytes(signature[32:63] + bytes([signature[63] & 0x7F]), "little")
    for multiple in range(1, 8):
        shifted = s + multiple * GROUP_ORDER
        if shifted >> 255:
            break
        forged = bytearray(signature[:32] + shifted.to_bytes(32, "little"))
        forged[63] |= bit
        assert not curve.verify(pair.public, b"m", bytes(forged))


@given(st.binary(max_size=80), st.binary(max_size=80), st.binary(max_size=130))
@settings(max_examples=300)
def test_verify_never_raises(public: bytes, message: bytes, signature: bytes) -> None:
    assert curve.verify(public, message, signature) is False


@given(KEYS, st.binary(max_size=10), st.binary(min_size=64, max_size=64))
@settings(max_examples=300)
def test_verify_takes_any_bytes_of_the_right_length(public: bytes, message: bytes, signature: bytes) -> None:
    assert curve.verify(public, message, signature) is False


def test_signing_refuses_other_key_lengths() -> None:
    for length in (0, 31, 33):
        with pytest.raises(curve.CurveError, match=str(length)):
            curve.sign(bytes(length), b"m", seeded(1))
        with pytest.raises(curve.CurveError):
            curve.KeyPair.from_private(bytes(length))


def test_sign_bits_are_remembered_by_digest_and_not_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curve, "_sign_bits", {})
    monkeypatch.setattr(curve, "_SIGN_BITS_KEPT", 3)
    for seed in range(8):
        pair = new_pair(seed)
        assert curve.verify(pair.public, b"m", curve.sign(pair.private, b"m", seeded(seed)))
        assert pair.private not in curve._sign_bits
        assert hashlib.sha256(pair.private).digest() in curve._sign_bits
        assert len(curve._sign_bits) <= 3


def test_key_serialisation() -> None:
    public = new_pair(1).public
    assert curve.serialize_key(public) == b"\x05" + public
    assert curve.parse_key(b"\x05" + public) == public


@pytest.mark.parametrize("data", [b"", b"\x05", b"\x05" * 32, b"\x05" * 34, b"\x06" + bytes(32), bytes(33)])
def test_key_parsing_is_strict(data: bytes) -> None:
    with pytest.raises(curve.CurveError):
        curve.parse_key(data)


def test_a_key_pair_shows_its_fingerprint_only() -> None:
    pair = new_pair(1)
    assert repr(pair) == f"KeyPair({hashlib.sha256(pair.public).hexdigest()[:8]})"
    assert curve.fingerprint(pair.public) in f"{pair}"
    with pytest.raises(FrozenInstanceError):
        pair.private = bytes(32)  # type: ignore[misc]
    assert not hasattr(pair, "__dict__")
