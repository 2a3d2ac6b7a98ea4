from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waD.e2ee.address import DOMAINS, MAX_USER_LENGTH, AddressError, SignalAddress

ADDRESSES = st.builds(
    SignalAddress,
    st.text("0123456789", min_size=1, max_size=20),
    st.sampled_from(sorted(DOMAINS)),
    st.integers(0, 255),
)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (("15550001", 0, 5), "15550001.5"),
        (("15550001", 0, 0), "15550001.0"),
        (("100000000000042", 1, 5), "100000000000042_1.5"),
        (("15550001", 128, 99), "15550001_128.99"),
        (("100000000000042", 129, 99), "100000000000042_129.99"),
    ],
)
def test_text_form(address: tuple[str, int, int], text: str) -> None:
    made = SignalAddress(*address)
    assert made.text == str(made) == text
    assert SignalAddress.parse(text) == made


@given(ADDRESSES, ADDRESSES)
def test_text_is_unique_and_reads_back(first: SignalAddress, second: SignalAddress) -> None:
    assert SignalAddress.parse(first.text) == first
    assert (first.text == second.text) == (first == second)
    assert len({first, second}) == len({first.text, second.text})


MALFORMED = [
    *("", ".", "1", "1.", ".1", "1.1.1"),
    *("1.256", "1.01", "1.-1", "1.\u0661"),
    *("1_0.1", "1_2.1", "1_130.1", "1_01.1", "1__1.1"),
    *("1 .1", "1.1 ", "1.1\n", "\u00e4.1"),
    *("1:1", "1_1:5", "1@lid.0", "1" * (MAX_USER_LENGTH + 1) + ".0"),
]


@pytest.mark.parametrize("text", MALFORMED)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(AddressError):
        SignalAddress.parse(text)


@given(st.text(max_size=30))
def test_parsing_raises_nothing_else(text: str) -> None:
    try:
        address = SignalAddress.parse(text)
    except AddressError:
        return
    assert address.text == text


@pytest.mark.parametrize(
    ("user", "domain", "device"), [("", 0, 0), ("1.2", 0, 0), ("1_1", 0, 0), ("1", 2, 0)]
)
def test_impossible_parts_are_refused(user: str, domain: int, device: int) -> None:
    with pytest.raises(AddressError):
        SignalAddress(user, domain, device)


@pytest.mark.parametrize("device", [-1, 256])
def test_impossible_devices_are_refused(device: int) -> None:
    with pytest.raises(AddressError, match=str(device)):
        SignalAddress("1", 0, device)


def test_hosted_domains() -> None:
    hosted = {domain for domain in DOMAINS if SignalAddress("1", domain, 99).hosted}
    assert hosted == {128, 129}
