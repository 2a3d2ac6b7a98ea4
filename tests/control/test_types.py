"""The words shared with the command line."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waD.control import types as t


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("15550000002", "15550000002"),
        (" +1 (555) 000-0002 ", "15550000002"),
        ("+49.30/1234567", "49301234567"),
        ("+33\u00a01\u202f23 45 67", "331234567"),
        ("15550000002@s.whatsapp.net", "15550000002@s.whatsapp.net"),
        ("120363000000000000@g.us", "120363000000000000@g.us"),
    ],
)
def test_recipients(text: str, expected: str) -> None:
    assert t.parse_recipient(text) == expected
    assert t.parse_recipient(expected) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "neither"),
        ("+", "neither"),
        ("++15550000002", "neither"),
        ("mother", "neither"),
        ("١٥٥٥٠٠٠٠٠٠٢", "neither"),
        ("1555000000²", "neither"),
        ("0155500000", "starts with 0"),
        ("0049301234567", "starts with 0"),
        ("123456", "has 6"),
        ("1234567890123456", "has 16"),
        ("@g.us", "not an address"),
        ("1555@", "not an address"),
        ("a@b@c", "not an address"),
        ("a b@g.us", "not an address"),
        ("a\n@g.us", "not an address"),
        ("1" * 200 + "@g.us", "not an address"),
    ],
)
def test_what_is_no_recipient_is_refused_with_the_reason(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        t.parse_recipient(text)


@given(st.text(max_size=200))
def test_a_recipient_is_digits_or_an_address_and_stays_what_it_is(text: str) -> None:
    try:
        recipient = t.parse_recipient(text)
    except ValueError:
        return
    assert t.parse_recipient(recipient) == recipient
    assert "@" in recipient or (t.MIN_DIGITS <= len(recipient) <= t.MAX_DIGITS and recipient.isdecimal())


def test_progress_goes_to_the_right_only() -> None:
    for earlier, later in itertools.combinations(t.PROGRESS, 2):
        assert t.reached(later, earlier)
        assert not t.reached(earlier, later)
    assert all(t.reached(state, state) for state in t.PROGRESS)
    assert not any(t.reached(dead, "sent") for dead in t.DEAD_ENDS | {"held", "nonsense"})


def test_every_state_has_a_next_step() -> None:
    assert set(t.NEXT_STEP) == set(t.State.__args__)  # type: ignore[attr-defined]


def test_every_symbol_has_its_row_and_every_code_one_symbol() -> None:
    assert set(t.ERRORS) == set(t.Symbol.__args__)  # type: ignore[attr-defined]
    assert all(t.ERRORS[symbol].code == code for code, symbol in t.SYMBOL_OF_CODE.items())


def test_what_people_write_is_in_no_repr() -> None:
    shown = [
        t.SendRequest(session="alerts", to="15550000002", text="secret"),
        t.MessageView(
            seq=1,
            chat="15550000002@s.whatsapp.net",
            sender="15550000002@s.whatsapp.net",
            message_id="A",
            from_me=False,
            time=1,
            kind="text",
            status="received",
            body="secret",
        ),
        t.EventView(cursor=1, time=1, type="message:new", data={"body": "secret", "chat": "15550000002"}),
        t.QrView(session="alerts", qr="secret", number=1, of=6, expires_at=1),
    ]
    for struct in shown:
        assert "secret" not in repr(struct)
        assert "5550000002" not in repr(struct)
