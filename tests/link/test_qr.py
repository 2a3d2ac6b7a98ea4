"""What a phone scans, and for how long (chapter 02 §3.2, §3.3)."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waD.link.errors import PairingRefused
from waD.link.qr import MAX_QR_TEXT, MAX_REF, MAX_REFS, QrCode, QrRound, parse_refs, qr_text
from waD.sandbox.qr import parse_qr
from waD.wire.node import Node

KEYS = (bytes(32), bytes(range(32)), b"\xff" * 32)


def offer(*refs: bytes) -> Node:
    return Node("pair-device", {}, [Node("ref", {}, ref) for ref in refs])


def test_text_of_a_code() -> None:
    text = qr_text("2@abc", *KEYS, "7")
    head, fields = text.split("#")
    assert head == "https://wa.me/settings/linked_devices"
    assert fields.split(",")[0] == "2@abc"
    assert [len(field) for field in fields.split(",")] == [5, 44, 44, 44, 1]


def test_a_phone_reads_it_back_even_with_commas_in_the_reference() -> None:
    keys = [os.urandom(32) for _ in range(3)]
    code = parse_qr(qr_text("a,b,c", *keys, "1"))
    assert (code.ref, code.noise_key, code.identity, code.adv_secret) == ("a,b,c", *keys)


def test_the_longest_reference_fits() -> None:
    assert len(qr_text("r" * MAX_REF, *KEYS, "9")) <= MAX_QR_TEXT


def test_a_code_is_not_shown_in_logs() -> None:
    assert "secret" not in repr(QrCode("secret", 1, 6, 60.0))


def test_references_in_order() -> None:
    assert parse_refs(offer(b"2@a", b"2@b")) == ("2@a", "2@b")


@pytest.mark.parametrize(
    "refs",
    [
        [],
        [b""],
        [b"x" * (MAX_REF + 1)],
        [b"ok", b"\xff\xfe"],
        [b"with blank "],
        [b"line\n"],
        [b"\x00"],
        ["ü".encode()],
        [b"r"] * (MAX_REFS + 1),
    ],
)
def test_bad_references_refuse_the_whole_offer(refs: list[bytes]) -> None:
    with pytest.raises(PairingRefused) as caught:
        parse_refs(offer(*refs))
    assert (caught.value.code, caught.value.text) == (500, "internal-error")
    assert caught.value.cause_id == "pair_refused"


def test_a_reference_without_content() -> None:
    with pytest.raises(PairingRefused):
        parse_refs(Node("pair-device", {}, [Node("ref")]))


def lifetimes(count: int) -> list[float]:
    now = 1000.0
    shown = QrRound([str(n) for n in range(count)], now)
    found = [shown.deadline - now]
    while shown.advance(now := shown.deadline):
        found.append(shown.deadline - now)
    return found


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (6, [60.0, 20.0, 20.0, 20.0, 20.0, 20.0]),
        (1, [20.0]),
        (5, [20.0] * 5),
        (7, [20.0, 60.0, 20.0, 20.0, 20.0, 20.0, 20.0]),
    ],
)
def test_a_minute_while_six_are_left_else_twenty_seconds(count: int, expected: list[float]) -> None:
    assert lifetimes(count) == expected


def test_six_references_last_160_seconds() -> None:
    assert sum(lifetimes(6)) == 160.0


@given(st.integers(1, MAX_REFS))
def test_every_reference_is_shown_once(count: int) -> None:
    shown = QrRound([str(n) for n in range(count)], 0.0)
    seen = [(shown.ref, shown.number)]
    while shown.advance(shown.deadline):
        seen.append((shown.ref, shown.number))
    assert seen == [(str(n), n + 1) for n in range(count)]
    assert (shown.of, shown.number) == (count, count)
    assert not shown.advance(1e9)
    assert shown.ref == str(count - 1)
