"""The log pipeline: what is written where, what is never written, and how often."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import socket
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from hypothesis import given
from hypothesis import strategies as st

from waD.logs import flush, session_context, session_logger, set_level, set_up, tear_down
from waD.logs import render as render_module
from waD.logs.journal import JournalSocket, encode, field_name
from waD.logs.limit import IDENTICAL, MAX_TRACKED, SIMILAR, WINDOW_S, Limiter
from waD.logs.redact import MAX_EXCEPTION, MAX_FIELDS, MAX_VALUE, one_line, redact, secret, shorten
from waD.logs.render import MAX_LINE

CONNECTION = "1b4e28ba-2fa1-11d2-883f-001612345678"
PHONE = "15551230002"


class Clock:
    """Monotonic seconds that a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def only_ours() -> Iterator[None]:
    """Without the test runner's own handlers, which take a bad format for a fault of the test."""
    root = logging.getLogger()
    others = [handler for handler in root.handlers if not type(handler).__module__.startswith("waD")]
    for handler in others:
        root.removeHandler(handler)
    yield
    for handler in others:
        root.addHandler(handler)


class Lines:
    """A JSON log in memory."""

    def __init__(self, level: str = "info", environ: Mapping[str, str] | None = None) -> None:
        self.stream = io.StringIO()
        self.clock = Clock()
        set_up(level=level, log_format="json", environ=environ or {}, stream=self.stream, clock=self.clock)  # type: ignore[arg-type]

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    def events(self) -> list[str]:
        return [line["event"] for line in self.read()]


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("waD")
    before = root.level, own.level
    yield
    tear_down()
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.setLevel(before[0])
    own.setLevel(before[1])


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def log() -> logging.Logger:
    return logging.getLogger("waD.link.test")


def test_both_libraries_give_the_same_kind_of_line(lines: Lines, log: logging.Logger) -> None:
    with session_context("alerts", CONNECTION):
        log.warning("went %s", "wrong")
    session_logger("alerts", CONNECTION).warning("went %s", "wrong")
    first, second = lines.read()
    assert (first.pop("logger"), second.pop("logger")) == ("waD.link.test", "waD.session")
    assert first.pop("time").endswith("Z")
    assert second.pop("time").endswith("Z")
    assert (
        first
        == second
        == {
            "level": "warning",
            "session": "alerts",
            "connection_id": CONNECTION,
            "event": "went wrong",
        }
    )


def test_structured_fields_and_extra(lines: Lines, log: logging.Logger) -> None:
    session_logger("alerts", CONNECTION).info(
        "connection ended", cause="eof", code=428, age_s=1.5, tags=("a", None)
    )
    log.info("plain", extra={"cause": "dns"})
    first, second = lines.read()
    assert (first["cause"], first["code"], first["age_s"], first["tags"]) == ("eof", 428, 1.5, ["a", None])
    assert second["cause"] == "dns"


def test_a_percent_sign_in_a_structured_event_is_no_format(lines: Lines) -> None:
    session_logger("a", CONNECTION).info("100% of %s")
    assert lines.events() == ["100% of %s"]


async def test_the_session_is_known_in_tasks_and_only_there(lines: Lines, log: logging.Logger) -> None:
    async def work(text: str) -> None:
        await trio.lowlevel.checkpoint()
        log.info(text)

    async with trio.open_nursery() as nursery:
        for name in ("one", "two"):
            with session_context(name, CONNECTION):
                nursery.start_soon(work, name)
        log.info("outside")
    assert {line["event"]: line.get("session") for line in lines.read()} == {
        "one": "one",
        "two": "two",
        "outside": None,
    }


def test_levels(lines: Lines, log: logging.Logger) -> None:
    log.debug("no")
    log.info("yes")
    logging.getLogger("somebody.else").info("contents of their packets")
    logging.getLogger("somebody.else").warning("loud")
    session_logger("a", CONNECTION).debug("no")
    set_level("error", {})
    log.warning("no")
    log.error("yes again")
    logging.getLogger("somebody.else").warning("no")
    assert lines.events() == ["yes", "loud", "yes again"]


def test_the_environment_overrides_the_level(log: logging.Logger) -> None:
    lines = Lines("error", {"WAD_LOG_LEVEL": "DEBUG"})
    log.debug("seen")
    session_logger("a", CONNECTION).debug("seen too")
    set_level("error", {"WAD_LOG_LEVEL": "debug"})
    log.debug("still")
    assert lines.events() == ["seen", "seen too", "still"]


def test_a_wrong_level_in_the_environment_is_said_and_ignored(log: logging.Logger) -> None:
    lines = Lines("info", {"WAD_LOG_LEVEL": "chatty"})
    log.debug("no")
    assert lines.events() == ["WAD_LOG_LEVEL is 'chatty', not one of debug, info, warning, error: ignored"]


def test_before_the_set_up_nothing_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    logger = session_logger("a", CONNECTION)
    logger.info("early")
    assert capsys.readouterr().out == ""
    lines = Lines()
    logger.info("later")
    structlog.get_logger("waD.any").info("through the library's own function")
    assert lines.events() == ["later", "through the library's own function"]


def test_a_second_set_up_replaces_the_first(lines: Lines, log: logging.Logger) -> None:
    other = Lines()
    log.info("once")
    assert (lines.events(), other.events()) == ([], ["once"])


def test_python_warnings_are_logged(lines: Lines) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old way", DeprecationWarning, stacklevel=1)
    assert "old way" in lines.events()[0]


def test_a_traceback_is_in_the_line(lines: Lines, log: logging.Logger) -> None:
    try:
        raise ValueError(f"for {PHONE} with {bytes(32)!r}")
    except ValueError as error:
        log.exception("failed")
        session_logger("a", CONNECTION).error("failed", exc_info=error)
    for line in lines.read():
        assert line["exception"].startswith("Traceback")
        assert line["exception"].endswith("ValueError: for …0002 with <bytes>")


def test_a_line_that_cannot_be_made_is_named_without_its_arguments(lines: Lines, log: logging.Logger) -> None:
    with only_ours():
        log.info("%d", "secret argument")
    (line,) = lines.read()
    assert line["event"].startswith("a log line of waD.link.test:")
    assert line["event"].endswith("was lost: TypeError")
    assert "secret" not in lines.stream.getvalue()


def test_a_closed_stream_is_no_fault_of_the_caller(lines: Lines, log: logging.Logger) -> None:
    lines.stream.close()
    with only_ours():
        log.info("nobody reads this")
        log.info("%d", "nor this")


# ---------------------------------------------------------------------------------------------- redaction


@pytest.mark.parametrize(
    "name",
    [
        "password", "db_password", "noise_key", "identity_keys", "advSecretKey", "token", "csrfToken", "privateKey",
        "text", "message_text", "body", "content", "caption", "qr", "QR", "link_code", "pairingCode",
        "push_name", "pushName", "proxy", "authorization", "creds", "plaintext",
    ],
)  # fmt: skip
def test_fields_named_like_secrets_are_dropped(name: str, lines: Lines) -> None:
    assert secret(name)
    session_logger("a", CONNECTION).info("x", **{name: "hunter2"}, nested={name: "hunter2", "fine": 1})
    assert "hunter2" not in lines.stream.getvalue()
    assert lines.read()[0]["nested"] == {"fine": 1}


@pytest.mark.parametrize(
    "name",
    [
        "session",
        "connection_id",
        "code",
        "cause",
        "key",
        "key_id",
        "message_id",
        "context",
        "monkey",
        "event",
    ],
)
def test_other_fields_stay(name: str) -> None:
    assert not secret(name)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("15551230002", "…0002"),
        ("+15551230002", "…0002"),
        ("+1 (555) 123-0002", "…0002"),
        ("15551230002@s.whatsapp.net", "…0002@s.whatsapp.net"),
        ("15551230002:17@s.whatsapp.net", "…0002:17@s.whatsapp.net"),
        ("123456789012345@lid", "…2345@lid"),
        ("15551230002-1609459200@g.us", "…0002-…9200@g.us"),
        ("user15551230002", "user…0002"),
        ("15551230002_1.3", "…0002_1.3"),
        ("from 15551230002, to 4915112345678.", "from …0002, to …5678."),
        ("120363012345678901@g.us", "120363012345678901@g.us"),
        ("123456", "123456"),
        ("error 404 in 12 ms", "error 404 in 12 ms"),
        ("2026-11-25T13:17:15", "2026-11-25T13:17:15"),
        ("192.168.100.200:8080", "192.168.100.200:8080"),
        (CONNECTION, CONNECTION),
        ("3EB0123456789ABCDEF012", "3EB0123456789ABCDEF012"),
        ("2.3000.1045649367", "2.3000.1045649367"),
        (repr(b"\x00" * 9), "<bytes>"),
        (f"key=bytearray({bytes(32)!r})", "key=<bytes>)"),
    ],
)  # fmt: skip
def test_numbers_of_people_are_reduced_to_four_digits(text: str, wanted: str) -> None:
    assert shorten(text) == wanted


@given(
    st.text(alphabet=" :@_-/.,()<>'=ghijxyz", max_size=6),
    st.from_regex(r"[1-9][0-9]{6,14}", fullmatch=True),
    st.text(alphabet=" :@_-/.,()<>'=ghijxyz", max_size=6),
)
def test_no_number_survives_whatever_stands_around_it(before: str, number: str, after: str) -> None:
    assert number not in shorten(before + number + after)


def test_numbers_are_shortened_in_every_kind_of_value(lines: Lines, log: logging.Logger) -> None:
    class Jid:
        def __str__(self) -> str:
            return f"{PHONE}@s.whatsapp.net"

    log.info("to %s", Jid())
    session_logger("alerts", CONNECTION).info(
        f"for {PHONE}", a=PHONE, b=int(PHONE), c=[PHONE], d={PHONE: {"x": int(PHONE)}}, e=Jid(), f={Jid()}
    )
    assert PHONE not in lines.stream.getvalue()
    assert lines.stream.getvalue().count("…0002") == 9


def test_counts_and_labels_stay_whole() -> None:
    event = {
        "cursor": 123456789,
        "free_bytes": 10**12,
        "session": PHONE,
        "code": 428,
        "connection_id": CONNECTION,
    }
    assert redact(event) == event


def test_bytes_are_never_logged() -> None:
    assert redact({"a": b"secret!", "b": [bytearray(3)], "c": memoryview(b"xy")}) == {
        "a": "<7 bytes>",
        "b": ["<3 bytes>"],
        "c": "<2 bytes>",
    }


def test_control_characters_cannot_forge_lines_or_move_the_cursor() -> None:
    assert one_line("a\nb\x1b[31m\r\u202e\x9b") == "a\\nb\\x1b[31m\\r\\u202e\\x9b"
    assert redact({"session": "a\nb"}) == {"session": "a\\nb"}


def test_an_object_that_cannot_be_printed_costs_only_itself() -> None:
    class Bad:
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert redact({"a": Bad(), "b": 1}) == {"a": "<Bad>", "b": 1}


def test_everything_is_bounded(lines: Lines, log: logging.Logger) -> None:
    deep: list[Any] = []
    for _ in range(1000):
        deep = [deep]
    fields = {f"f{i}": "x" * 5000 for i in range(100)}
    session_logger("alerts", CONNECTION).info("y" * 100_000, deep=deep, many=list(range(10_000)), **fields)
    (text,) = lines.stream.getvalue().splitlines()
    assert len(text) < MAX_LINE + 1000
    assert json.loads(text)["session"] == "alerts"
    assert len(redact(fields)) == MAX_FIELDS
    assert len(str(redact({"a": "x" * 10**6})["a"])) == MAX_VALUE
    assert len(str(redact({"exception": "x" * 10**6})["exception"])) == MAX_EXCEPTION


@given(st.dictionaries(st.text(max_size=12), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
), max_size=6))  # fmt: skip
def test_any_fields_become_one_line_of_json(event: dict[str, Any]) -> None:
    text = json.dumps(redact(event), ensure_ascii=False)
    text.encode()
    assert "\n" not in text


# ----------------------------------------------------------------------------------------------- repetition


def test_identical_lines_beyond_the_limit_become_one_summary(lines: Lines, log: logging.Logger) -> None:
    for _ in range(IDENTICAL + 5):
        log.error("again")
    log.error("other")
    lines.clock.now += WINDOW_S
    log.error("again")
    assert lines.events() == [
        *["again"] * IDENTICAL,
        "other",
        "not logged 5 more times within a minute: again",
        "again",
    ]


def test_lines_that_differ_are_not_identical(lines: Lines, log: logging.Logger) -> None:
    for number in range(IDENTICAL + 5):
        log.info("number %d", number)
    for name in ("a", "b"):
        for _ in range(IDENTICAL):
            session_logger(name, CONNECTION).info("same words")
    assert len(lines.events()) == 3 * IDENTICAL + 5


def test_a_flood_of_similar_lines_is_limited_too(lines: Lines, log: logging.Logger) -> None:
    for number in range(SIMILAR + 7):
        log.warning("stanza %d is malformed", number)
    flush()
    assert len(lines.events()) == SIMILAR + 1
    assert lines.events()[-1] == "not logged 7 more times within a minute: stanza 0 is malformed"


def test_what_is_pending_is_written_at_the_end(lines: Lines, log: logging.Logger) -> None:
    for _ in range(IDENTICAL + 1):
        log.error("again")
    tear_down()
    assert lines.events()[-1] == "not logged 1 more time within a minute: again"


def test_the_limiter_remembers_a_bounded_number_of_lines() -> None:
    limiter = Limiter()
    summaries = 0
    for number in range(3 * MAX_TRACKED):
        for _ in range(IDENTICAL + 1 if number == 0 else 1):
            found, _passed = limiter.admit(number, ("s", number), "x", 0.0)
            summaries += len(found)
    assert len(limiter._windows) <= MAX_TRACKED
    assert summaries == 1


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, 40)), max_size=200))
def test_every_line_is_written_or_counted(steps: list[tuple[int, float]]) -> None:
    limiter = Limiter()
    now, written, counted = 0.0, 0, 0
    for line, pause in steps:
        now += pause
        summaries, passed = limiter.admit(line, "all", str(line), now)
        written += passed
        counted += sum(summary.left_out for summary in summaries)
    counted += sum(summary.left_out for summary in limiter.flush())
    assert written + counted == len(steps)


# -------------------------------------------------------------------------------------------------- formats


def _text(log_format: str, say: Callable[[], None], environ: Mapping[str, str] | None = None) -> str:
    stream = io.StringIO()
    set_up(level="info", log_format=log_format, environ=environ or {}, stream=stream)  # type: ignore[arg-type]
    say()
    return stream.getvalue()


def _say() -> None:
    session_logger("alerts", CONNECTION).warning("connection ended", cause="eof", note="a b")


@pytest.mark.parametrize("log_format", ["auto", "human"])
def test_for_people(log_format: str) -> None:
    text = _text(log_format, _say)
    assert text.endswith(" [warning  ] connection ended [waD.session] session=alerts cause=eof note='a b'\n")
    assert "\x1b" not in text


def test_with_severity_prefixes_when_the_journal_does_not_read_the_stream() -> None:
    def say() -> None:
        _say()
        try:
            raise ValueError("x")
        except ValueError:
            logging.getLogger("waD.x").exception("failed")
        logging.getLogger("waD.x").critical("worst")

    text = _text("journal", say, {"JOURNAL_STREAM": "1:2"}).splitlines()
    assert text[0] == f'<4>connection ended session=alerts connection_id={CONNECTION} cause=eof note="a b"'
    assert text[1:3] == ["<3>failed", "<3>Traceback (most recent call last):"]
    assert all(line.startswith("<3>") for line in text[1:-1])
    assert text[-1] == "<2>worst"


@pytest.mark.parametrize(("environ", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_only_on_a_terminal_that_wants_them(environ: dict[str, str], *, coloured: bool) -> None:
    ours, theirs = pty.openpty()
    try:
        with open(theirs, "w", closefd=False) as stream:
            set_up(level="info", log_format="auto", environ=environ, stream=stream)
            _say()
            tear_down()
        assert (b"\x1b[" in os.read(ours, 4096)) is coloured
    finally:
        os.close(ours)
        os.close(theirs)


class Journal:
    """A journal's socket, and a file that it reads as a service's standard error."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = directory / "socket"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.socket.settimeout(5)
        self.stderr = (directory / "stderr").open("w+")
        status = os.fstat(self.stderr.fileno())
        self.environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        monkeypatch.setattr(render_module, "JournalSocket", lambda: JournalSocket(self.path))

    def received(self) -> dict[str, str]:
        return decode(self.socket.recv(1 << 20))

    def written(self) -> str:
        self.stderr.seek(0)
        return self.stderr.read()


def decode(data: bytes) -> dict[str, str]:
    """Read the journal's format independently of `encode`."""
    fields: dict[str, str] = {}
    while data:
        line, _, rest = data.partition(b"\n")
        if b"=" in line:
            name, _, value = line.partition(b"=")
        else:
            name, (length,) = line, struct.unpack("<Q", rest[:8])
            value, rest = rest[8 : 8 + length], rest[8 + length + 1 :]
        fields[name.decode()] = value.decode(errors="replace")
        data = rest
    return fields


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journal]:
    found = Journal(tmp_path, monkeypatch)
    yield found
    tear_down()
    found.socket.close()
    found.stderr.close()


@pytest.mark.parametrize("log_format", ["auto", "journal"])
def test_fields_reach_the_journal(log_format: str, journal: Journal) -> None:
    set_up(level="info", log_format=log_format, environ=journal.environ, stream=journal.stderr)  # type: ignore[arg-type]
    session_logger("alerts", CONNECTION).warning("connection ended", cause="eof", code=428, to=PHONE)
    logging.getLogger("waD.link").error("no answer from %s", PHONE)
    assert journal.received() == {
        "MESSAGE": "connection ended cause=eof code=428 to=…0002",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "waD",
        "EVENT": "connection ended",
        "SESSION": "alerts",
        "CONNECTION_ID": CONNECTION,
        "CODE": "428",
        "WAD_CAUSE": "eof",
        "WAD_TO": "…0002",
        "WAD_LOGGER": "waD.session",
    }
    second = journal.received()
    assert (second["MESSAGE"], second["EVENT"], second["PRIORITY"]) == (
        "no answer from …0002",
        "no answer from %s",
        "3",
    )
    assert journal.written() == ""


def test_a_traceback_reaches_the_journal_as_one_field(journal: Journal) -> None:
    set_up(level="info", log_format="auto", environ=journal.environ, stream=journal.stderr)
    try:
        raise ValueError("x")
    except ValueError:
        logging.getLogger("waD.x").exception("failed")
    fields = journal.received()
    assert fields["MESSAGE"].startswith("failed\nTraceback")
    assert fields["WAD_EXCEPTION"].endswith("ValueError: x")


def test_without_a_journal_lines_go_to_the_stream(journal: Journal) -> None:
    set_up(level="info", log_format="auto", environ=journal.environ, stream=journal.stderr)
    journal.path.unlink()
    logging.getLogger("waD.x").info("still here")
    assert journal.written() == "<6>still here\n"


def test_a_journal_that_does_not_keep_up_loses_lines_but_holds_up_nobody(journal: Journal) -> None:
    set_up(level="info", log_format="auto", environ=journal.environ, stream=journal.stderr)
    for number in range(SIMILAR - 1):
        logging.getLogger("waD.x").info("line %d", number)
    taken = 0
    journal.socket.setblocking(False)
    while True:
        try:
            journal.received()
        except BlockingIOError:
            break
        taken += 1
    assert taken < SIMILAR - 1
    logging.getLogger("waD.x").info("the end")
    last = journal.received()
    assert last["MESSAGE"] == "the end"
    assert int(last["WAD_LOST_BEFORE"]) == SIMILAR - 1 - taken
    assert journal.written() == ""


@given(st.dictionaries(st.text(min_size=1, max_size=70), st.text(max_size=50), max_size=5))
def test_any_fields_are_encoded_so_that_the_journal_reads_them(fields: dict[str, str]) -> None:
    named = {field_name(name): value for name, value in fields.items()}
    assert all(name.replace("_", "").isalnum() and name.isascii() and len(name) <= 64 for name in named)
    assert decode(encode(named)) == {
        name: value.encode(errors="backslashreplace").decode() for name, value in named.items()
    }
