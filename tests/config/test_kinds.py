"""Each kind of value: what it accepts, what it refuses, and that what it writes it reads again."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waD.config.kinds import Choice, Duration, Kind, Number, Problem, Switch, Whole, shown, span
from waD.config.strings import Command, File, Mode, PublicKey, Text, Texts, Url, Version

SECONDS = Duration("s", 0, 1e6)


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [
        (25, 25),
        (2.5, 2.5),
        (0, 0),
        ("25s", 25),
        ("25 s", 25),
        ("250ms", 0.25),
        ("15min", 900),
        ("1h 30min", 5400),
        ("1h30min", 5400),
        ("1.5h", 5400),
        ("2d", 172_800),
        ("1w", 604_800),
        (" 3s ", 3),
    ],
)
def test_durations(raw: object, seconds: float) -> None:
    assert SECONDS.parse(raw) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "25",
        "s",
        "25 sec",
        "-1s",
        "1e3s",
        "5m",
        "1s,2s",
        "１s",
        "9" * 100 + "s",
        True,
        None,
        [],
        {},
        "1s" * 40,
        "1..5s",
    ],
)
def test_what_is_not_a_duration(raw: object) -> None:
    with pytest.raises(Problem, match='must be a number of seconds or a duration such as "25s"'):
        SECONDS.parse(raw)


@pytest.mark.parametrize("raw", [-1, 1e7, "12d", -0.001])
def test_durations_out_of_range_name_the_range(raw: object) -> None:
    with pytest.raises(Problem, match="must be from 0 to 1000000s"):
        SECONDS.parse(raw)


@pytest.mark.parametrize("raw", [float("nan"), float("inf"), 10**400])
def test_numbers_that_are_none(raw: object) -> None:
    with pytest.raises(Problem):
        SECONDS.parse(raw)
    with pytest.raises(Problem):
        Number(0, 1e9).parse(raw)


def test_the_unit_of_plain_numbers() -> None:
    assert Duration("ms", 0, 5000).parse(1500) == 1.5
    assert Duration("min", 1, 60).parse(15) == 900
    assert Duration("d", 1, 60, bare=True).parse(30) == 30
    assert Duration("d", 1, 60, bare=True).parse("2w") == 14


def test_durations_are_written_with_their_unit() -> None:
    assert Duration("ms", 0, 5000).toml(1.5) == '"1500ms"'
    assert Duration("d", 0, 60, bare=True).toml(30) == "30"
    assert SECONDS.toml(0) == "0"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0"), (0.001, "1ms"), (5, "5s"), (90, "90s"), (600, "10min"), (3600, "1h"), (86400, "1d")],
)
def test_spans_in_their_largest_whole_unit(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("kind", "raw", "value"),
    [
        (Switch(), True, True),
        (Whole(1, 3), 3, 3),
        (Number(0, 5), 2, 2.0),
        (Choice(("a", "b")), "b", "b"),
        (Text("[a-z]+", "letters"), "abc", "abc"),
        (Texts("@?[a-z]+", "names"), ["a", "@b"], ("a", "@b")),
        (Texts("@?[a-z]+", "names"), [], ()),
        (Command(), [], ()),
        (Command(), ["/bin/x", "", "a\nb"], ("/bin/x", "", "a\nb")),
        (File(), "/a/b", Path("/a/b")),
        (Url(("wss", "ws")), "wss://[::1]:8/ws?x=1", "wss://[::1]:8/ws?x=1"),
        (Url(("http",), user=True), "http://u:p@h", "http://u:p@h"),
        (PublicKey(), "0f" * 32, b"\x0f" * 32),
        (PublicKey(), "A" * 43 + "=", bytes(32)),
        (Version(), "2.3000.1045649367", (2, 3000, 1045649367)),
        (Mode(), "0660", 0o660),
        (Mode(), "600", 0o600),
    ],
)
def test_accepted_and_written_again(kind: Kind[Any], raw: object, value: object) -> None:
    parsed = kind.parse(raw)
    assert parsed == value
    assert type(parsed) is type(value)
    assert kind.parse(tomllib.loads(f"x = {kind.toml(parsed)}")["x"]) == value


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (Switch(), 1),
        (Switch(), "true"),
        (Whole(1, 3), 0),
        (Whole(1, 3), 4),
        (Whole(1, 3), 2.0),
        (Whole(0, 3), True),
        (Number(0, 5), "2"),
        (Number(0, 5), True),
        (Number(0, 5), 5.1),
        (Choice(("a", "b")), "A"),
        (Choice(("a", "b")), ["a"]),
        (Text("[a-z]+", "letters"), "ab1"),
        (Text("[a-z]+", "letters"), "ab\n"),
        (Text("[a-z]+", "letters"), 3),
        (Text(".+", "x"), "a\x1bb"),
        (Texts("[a-z]+", "names"), "a"),
        (Texts("[a-z]+", "names"), ["a", 1]),
        (Texts("[a-z]+", "names"), ["a"] * 257),
        (Command(), "/bin/x"),
        (Command(), ["x"]),
        (Command(), [""]),
        (Command(), ["/bin/x", 1]),
        (Command(), ["/bin/x", "\x00"]),
        (File(), "relative"),
        (File(), ""),
        (File(), "/a\x00b"),
        (File(), "~nobody-of-this-name/x"),
        (Url(("wss",)), "ws://h"),
        (Url(("wss",)), "wss://"),
        (Url(("wss",)), "wss://h:0"),
        (Url(("wss",)), "wss://u@h"),
        (Url(("wss",)), "wss://h#x"),
        (Url(("wss",)), "wss://a b"),
        (PublicKey(), "00"),
        (PublicKey(), "zz" * 32),
        (PublicKey(), "A" * 44),
        (PublicKey(), 5),
        (Version(), "2.3000"),
        (Version(), "2.3000.1.1"),
        (Version(), 2.3),
        (Mode(), 660),
        (Mode(), "0888"),
        (Mode(), "0770"),
        (Mode(), "0060"),
        (Mode(), "01660"),
    ],
)
def test_refused(kind: Kind[Any], raw: object) -> None:
    with pytest.raises(Problem):
        kind.parse(raw)


def test_the_home_directory_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    assert File().parse("~/x") == Path("/home/u/x")


def test_passwords_are_masked() -> None:
    kind = Url(("http",), user=True)
    assert kind.masked("http://user:p%40ss@host:1/") == '"http://***@host:1/"'
    assert kind.masked("http://host:1") == '"http://host:1"'


@given(
    st.integers()
    | st.floats()
    | st.text()
    | st.booleans()
    | st.lists(st.text())
    | st.integers(min_value=10**4400)
)
def test_a_value_in_an_error_is_one_short_line(raw: object) -> None:
    text = shown(raw)
    assert len(text) <= 60
    assert len(text.splitlines()) <= 1


@given(st.integers(min_value=0, max_value=1_000_000_000))
def test_durations_survive_being_written(milliseconds: int) -> None:
    kind = Duration("ms", 0, 1e9)
    value = kind.parse(milliseconds)
    assert kind.parse(tomllib.loads(f"x = {kind.toml(value)}")["x"]) == pytest.approx(value, abs=1e-8)


@given(st.text(max_size=30).filter(lambda text: not any(0xD800 <= ord(c) < 0xE000 for c in text)))
def test_any_text_is_quoted_so_that_toml_reads_it(text: str) -> None:
    assert tomllib.loads(f"x = {Text().toml(text)}")["x"] == text
