from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waD.e2ee.interop.common import ConversionError, ValueRefusedError, decode_bytes, unnest
from waD.transfer.baileys import BaileysItems, combine
from waD.transfer.baileys.source import Collector, Unreadable, decode_text, decode_value
from waD.transfer.state import Note

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(JSON, max_size=3)
    | st.dictionaries(st.text().filter(lambda name: name != "$binary"), JSON, max_size=3)
)
def test_objects_are_found_through_four_encodings(value: Any) -> None:
    encoded: Any = value
    for _ in range(4):
        encoded = json.dumps(encoded)
        assert decode_text(encoded) == value
        assert decode_value(encoded) == value
    assert decode_value(value) == value


@pytest.mark.parametrize("text", ["100000000000042", "7", "true", "null", "BfWC3DRM", "1e9", "-1"])
def test_texts_that_look_like_values_stay_texts(text: str) -> None:
    encoded = text
    for _ in range(3):
        encoded = json.dumps(encoded)
        assert decode_text(encoded) == text
        assert decode_value(encoded) == text
    assert decode_value(text) == text
    assert unnest(text) == text


def test_five_encodings_are_too_many() -> None:
    encoded: Any = {"a": 1}
    for _ in range(5):
        encoded = json.dumps(encoded)
    assert isinstance(decode_text(encoded), str)


@pytest.mark.parametrize(
    "value", ["", " ", "{", b"{", b"\xff", bytearray(b"["), memoryview(b""), '"', Unreadable("deep")]
)
def test_what_cannot_be_decoded(value: Any) -> None:
    with pytest.raises(ConversionError) as refusal:
        decode_value(value)
    assert refusal.value.code == "item_unreadable"


def test_too_long_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waD.transfer.baileys.source.MAX_VALUE", 3)
    with pytest.raises(ConversionError):
        decode_text("[1,2]")


DATA = bytes(range(250, 256)) + b"\x05"


@pytest.mark.parametrize(
    "value",
    [
        "+vv8/f7/BQ==", "+vv8/f7/BQ", "-vv8_f7_BQ", [*DATA], {"type": "Buffer", "data": "+vv8/f7/BQ=="},
        {"type": "Buffer", "data": [*DATA]}, {"buffer": True, "data": [*DATA]},
        {"buffer": True, "value": "+vv8/f7/BQ=="},
        {str(index): octet for index, octet in enumerate(DATA)},
        {str(index): octet for index, octet in reversed([*enumerate(DATA)])},
        {"$binary": {"base64": "+vv8/f7/BQ==", "subType": "00"}}, {"$binary": "+vv8/f7/BQ==", "$type": "00"},
        json.dumps({"type": "Buffer", "data": [*DATA]}), json.dumps(json.dumps([*DATA])),
        {"type": "Buffer", "data": {"0": 250}},
    ],
)  # fmt: skip
def test_bytes_in_every_spelling(value: Any) -> None:
    assert decode_bytes(value, "it") in (DATA, DATA[:1])


@pytest.mark.parametrize("value", [None, {"type": "Buffer", "data": None}])
def test_no_bytes(value: Any) -> None:
    assert decode_bytes(value, "it") is None


NESTED = {"type": "Buffer", "data": "AA=="}


@pytest.mark.parametrize(
    "value",
    [
        5, True, "§", "A", [256], [-1], [True], ["1"], {"a": 1}, {"1": 1}, {"0": 1, "2": 1}, 1.5,
        {"type": "Buffer", "data": 5},
        {"buffer": True, "data": {"buffer": True, "data": {"buffer": True, "data": NESTED}}},
    ],
)  # fmt: skip
def test_what_is_no_bytes(value: Any) -> None:
    with pytest.raises(ValueRefusedError) as refusal:
        decode_bytes(value, "it")
    assert str(refusal.value).startswith("it ")


def test_the_first_of_several_parts_counts() -> None:
    lost = Note("error", "creds_unreadable", "creds", "")
    keys = BaileysItems(
        None, {("session", "1.0"): 1, ("session", "2.0"): 1}, {("session", "1.0"): 5}, True, (lost,)
    )
    other = BaileysItems({"a": 1}, {("session", "1.0"): 2}, notes=(Note("warning", "unknown_item", "x", ""),))
    for parts, first in (((keys, other), 1), ((other, keys), 2)):
        both = combine(parts)
        assert (both.creds, both.items["session", "1.0"], both.items["session", "2.0"]) == (
            {"a": 1},
            first,
            1,
        )
        assert (both.keeps_deleted, [note.code for note in both.notes]) == (True, ["unknown_item"])
    assert combine([keys]).notes == (lost,)
    assert combine([]) == BaileysItems(None, {})


def test_two_spellings_of_one_name() -> None:
    for times, kept in (((5, 7), "second"), ((7, 5), "first"), ((0, 0), "second")):
        collector = Collector()
        collector.put_named("pre-key-7", "first", times[0])
        collector.put_named("pre-key-07", "second", times[1])
        items = collector.finish()
        assert items.items == {("pre-key", "7"): kept}
        assert [note.code for note in items.notes] == ["item_repeated"]
