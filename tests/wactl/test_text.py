"""Text for people."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wactl.text import address, ago, clean, duration, moment, safe_json


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("", ""),
        ("\x1b]0;title\x07x", "]0;titlex"),
        ("a\r\nb\rc", "a↵bc"),
        ("a\tb\u00a0c", "a b c"),
        ("\u202eevil\u2066", "evil"),
        ("👨\u200d👩", "👨\u200d👩"),
        ("\ud800x", "x"),
        ("\ufeffx\u2028y", "x↵y"),
    ],
)
def test_clean(text: str, shown: str) -> None:
    assert clean(text) == shown


@given(st.text())
def test_cleaned_text_is_one_harmless_line(text: str) -> None:
    shown = clean(text)
    assert all(character.isprintable() or character in "\u200c\u200d" for character in shown)
    assert clean(shown) == shown


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_escaped_json_says_the_same(value: object) -> None:
    document = msgspec.json.encode(value)
    escaped = safe_json(document)
    assert msgspec.json.decode(escaped) == value
    assert all(ord(character) >= 0xA0 or 0x20 <= ord(character) < 0x7F for character in escaped.decode())


@pytest.mark.parametrize(
    ("jid", "shown"),
    [
        ("15550000002@s.whatsapp.net", "+15550000002"),
        ("15550000002:7@s.whatsapp.net", "+15550000002"),
        ("100000012345678@lid", "100000012345678@lid"),
        ("123-456@g.us", "123-456@g.us"),
        ("x@s.whatsapp.net", "x@s.whatsapp.net"),
        ("٣@s.whatsapp.net", "٣@s.whatsapp.net"),
        (None, "-"),
        ("", "-"),
    ],
)
def test_address(jid: str | None, shown: str) -> None:
    assert address(jid) == shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3661, "1 h 1 min"), (90_000, "1 d 1 h"), (86_401, "1 d 1 s")],
)
def test_duration(seconds: int, text: str) -> None:
    assert duration(seconds) == text


def test_moments() -> None:
    assert moment(None) == "-"
    assert moment(1_767_225_660_999) == "2026-01-01 00:01:00"
    assert moment(10**30) == f"@{10**30}"
    assert ago(None) == "never"
    assert ago(1_767_225_660_000, now=1_767_225_725) == "2026-01-01 00:01:00 (1 min 5 s ago)"
    assert ago(1_767_225_660_000, now=1_767_225_600) == "2026-01-01 00:01:00 (in 1 min)"
