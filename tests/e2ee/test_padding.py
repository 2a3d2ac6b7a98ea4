from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waD.e2ee.padding import PaddingError, pad, unpad


@given(st.binary(max_size=100), st.integers(0, 255))
def test_padding_comes_off_again(plaintext: bytes, random_byte: int) -> None:
    padded = pad(plaintext, random_byte)
    assert 1 <= len(padded) - len(plaintext) <= 16
    assert unpad(padded) == plaintext


def test_every_length_from_1_to_16_occurs() -> None:
    assert {len(pad(b"", byte)) for byte in range(256)} == set(range(1, 17))


@given(st.binary(max_size=40))
def test_any_bytes_are_unpadded_exactly_or_refused(data: bytes) -> None:
    try:
        plaintext = unpad(data)
    except PaddingError:
        return
    tail = data[len(plaintext) :]
    assert data.startswith(plaintext)
    assert set(tail) == {len(tail)}


@pytest.mark.parametrize("data", [b"", b"a\0", b"\x02", b"abc\x03\x02\x03", bytes(16)])
def test_inconsistent_padding_is_refused(data: bytes) -> None:
    with pytest.raises(PaddingError):
        unpad(data)


def test_the_error_does_not_quote_the_message() -> None:
    with pytest.raises(PaddingError) as caught:
        unpad(b"attack at dawn\0")
    assert "attack" not in str(caught.value)
