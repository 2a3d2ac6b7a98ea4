from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waD.e2ee.kdf import MAX_HKDF_LENGTH, hkdf, hmac_sha256


def reference(ikm: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 as it is written."""
    key = hmac.new(salt, ikm, hashlib.sha256).digest()
    block = okm = b""
    counter = 1
    while len(okm) < length:
        block = hmac.new(key, block + info + bytes([counter]), hashlib.sha256).digest()
        okm += block
        counter += 1
    return okm[:length]


@given(st.binary(max_size=100), st.binary(max_size=70), st.binary(max_size=40), st.integers(1, 200))
def test_hkdf_is_rfc_5869(ikm: bytes, salt: bytes, info: bytes, length: int) -> None:
    assert hkdf(ikm, salt, info, length) == reference(ikm, salt, info, length)


def test_hkdf_on_the_first_example_of_the_rfc() -> None:
    okm = hkdf(b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)), 42)
    assert okm.hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )


def test_no_salt_means_zeros() -> None:
    assert hkdf(b"k", None, b"i", 64) == hkdf(b"k", bytes(32), b"i", 64) == hkdf(b"k", b"", b"i", 64)


@pytest.mark.parametrize("length", [0, -1, MAX_HKDF_LENGTH + 1])
def test_hkdf_refuses_other_lengths(length: int) -> None:
    with pytest.raises(ValueError, match=str(length)):
        hkdf(b"k", None, b"", length)


def test_hkdf_reaches_its_maximum() -> None:
    assert hkdf(b"k", None, b"", MAX_HKDF_LENGTH) == reference(b"k", bytes(32), b"", MAX_HKDF_LENGTH)


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_hmac(key: bytes, message: bytes) -> None:
    assert hmac_sha256(key, message) == hmac.new(key, message, hashlib.sha256).digest()
