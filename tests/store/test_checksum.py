"""Checksums of items, and their sum under every order of changes (chapter 08 §6.4)."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waD.store.canonical import as_it_is, canonical, canonicalise
from waD.store.checksum import LENGTH, changed, creds_checksum, item_checksum, total

CREDS = "a211bab5efd511a40c96327250ef79c20ae111050dcf6d77d1e6437909b7e2d4"
SESSION = "6fa67da9e300988ac8035286c01a7fb3b182d5ce00dd4ab5ae58c7e17f9dc8a3"
SUM = "11b8385fd2d5aa2ed49984f91109f975bc63e6d30eacb82d803f0b5a8955ab77"
"""The examples of the chapter."""
sums = st.binary(min_size=LENGTH, max_size=LENGTH)


def test_the_examples_of_the_chapter() -> None:
    creds = creds_checksum(0, canonical({"a": 1}))
    session = item_checksum("session", "5511999999999.0", 2, canonical({"s": "é", "n": 2}))
    assert creds.hex() == CREDS
    assert creds == item_checksum("creds", "", 0, b'{"a":1}')
    assert session.hex() == SESSION
    assert total([creds, session]).hex() == total([session, creds]).hex() == SUM
    assert changed(changed(bytes(LENGTH), None, session), None, creds).hex() == SUM


def test_the_message_is_made_of_what_the_chapter_says() -> None:
    document = b'{"x":"y"}'
    message = (
        b"wad-item-1\0"
        + (4).to_bytes(4, "big") + b"kind"
        + (3).to_bytes(4, "big") + "ké".encode()
        + (7).to_bytes(8, "big")
        + hashlib.sha256(document).digest()
    )  # fmt: skip
    assert item_checksum("kind", "ké", 7, document) == hashlib.sha256(message).digest()
    key = b"k" * 32
    assert item_checksum("kind", "ké", 7, document, key) == hmac.new(key, message, "sha256").digest()


@pytest.mark.parametrize("key", [None, b"k" * 32])
@given(
    one=st.tuples(st.text(), st.text(), st.integers(0, 2**64 - 1), st.binary()),
    other=st.tuples(st.text(), st.text(), st.integers(0, 2**64 - 1), st.binary()),
)
def test_everything_counts(
    key: bytes | None, one: tuple[str, str, int, bytes], other: tuple[str, str, int, bytes]
) -> None:
    assert (item_checksum(*one, key) == item_checksum(*other, key)) == (one == other)


def test_kind_and_key_do_not_flow_into_each_other() -> None:
    assert item_checksum("ab", "c", 1, b"") != item_checksum("a", "bc", 1, b"")
    assert item_checksum("a", "b", 1, b"", b"k" * 32) != item_checksum("a", "b", 1, b"")


@given(st.lists(st.tuples(st.integers(0, 8), st.none() | sums), max_size=40))
def test_the_sum_follows_every_change(changes: list[tuple[int, bytes | None]]) -> None:
    parts: dict[int, bytes] = {}
    root = bytes(LENGTH)
    for name, new in changes:
        root = changed(root, parts.get(name), new)
        if new is None:
            parts.pop(name, None)
        else:
            parts[name] = new
        assert root == total(parts.values())
        assert len(root) == LENGTH


@given(sums, sums)
def test_it_wraps_around(one: bytes, other: bytes) -> None:
    assert changed(changed(one, None, other), other, None) == one
    assert changed(changed(one, other, None), None, other) == one


def test_limits_of_the_sum() -> None:
    most = b"\xff" * LENGTH
    assert total([]) == bytes(LENGTH)
    assert total([most, bytes(31) + b"\1"]) == bytes(LENGTH)
    assert changed(bytes(LENGTH), bytes(31) + b"\1", None) == most


# The documents that are summed.

documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(documents)
def test_one_form_for_one_document(value: object) -> None:
    made = canonical(value)
    assert canonicalise(made) == canonicalise(made.decode()) == made
    assert as_it_is("kind", "key", made) == made


@given(st.binary(max_size=60) | st.sampled_from([b"[" * 100_000, b"1e999", b'"\\ud800"', b"\xff", b"nul"]))
def test_whatever_an_earlier_program_stored_becomes_a_document(value: bytes) -> None:
    made = as_it_is("kind", "key", value)
    assert canonicalise(made) == made
