"""wactl check, as Nagios runs it."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wactl.conftest import Run, documents, error_of
from tests.wactl.fake import ID, FakeDaemon, hang_up, refusal, say_nothing, view
from wactl.judging import CRITICAL, LEVELS, OK, UNKNOWN, WARNING, Number, Report, all_sessions, one_session
from waD.control import types as t

OPEN = view(
    "open",
    desired="up",
    paired=True,
    ready=True,
    healthy=True,
    ping_ms=35,
    queued=4,
    unacked=2,
    messages_received=1_234_567,
    messages_sent=12,
    clock_offset_ms=-1500,
)
INFO = t.DaemonInfo(pid=714, version="0.1.0", protocol=1, started_at=1, event_lag=3)
REASON = t.DisconnectView(cause="unlinked", at=1, code=401, message="the device | was\nunlinked")

# The form the plugin guidelines give: text without a bar, then 'label'=value[UOM] with blanks between.
_NUMBER = r"[a-z_]+=-?\d+(\.\d+)?[sc]?"
LINE = re.compile(rf"WAD (OK|WARNING|CRITICAL|UNKNOWN) - [^|\n]+(\|{_NUMBER}( {_NUMBER})*)?\n")


def changed(**facts: Any) -> t.SessionView:
    return msgspec.structs.replace(OPEN, **facts)


@pytest.fixture
def all_well(daemon: FakeDaemon) -> FakeDaemon:
    daemon.script["session.list"] = t.SessionList(sessions=[OPEN, view("stopped", name="old", paired=True)])
    daemon.script["daemon.info"] = INFO
    daemon.script["session.status"] = OPEN
    return daemon


def test_all_is_well(all_well: FakeDaemon, run: Run) -> None:
    result = run("check")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        "WAD OK - 1 of 1 sessions open, 1 down as wanted"
        "|sessions=2 wanted=1 open=1 queued=4 held_messages=0 unacked=2 event_lag=3\n"
    )
    assert all_well.methods() == ["session.list", "daemon.info"]


def test_the_age_of_the_last_backup() -> None:
    """Only who was backed up once is missed; the daemon says from when on."""
    now = time.time_ns() // 1_000_000
    young = changed(last_backup_at=now - 3_600_000, backup_due_at=now + 3_600_000)
    old = changed(last_backup_at=now - 30 * 3_600_000, backup_due_at=now - 4 * 3_600_000)
    for view_, level in ((young, OK), (old, WARNING), (msgspec.structs.replace(old, backup_due_at=None), OK)):
        assert one_session(view_).level == level
        assert all_sessions([view_, OPEN], INFO).level == level
        assert 3600 <= one_session(view_).numbers["backup_age"].value <= 30 * 3600 + 60
    assert (
        "the last backup of alerts is 1 d 6 h old, next: wactl backup-auth alerts" in one_session(old).line()
    )
    assert 30 * 3600 <= all_sessions([young, old], INFO).numbers["backup_age"].value <= 30 * 3600 + 60
    assert "backup_age" not in all_sessions([OPEN], INFO).numbers


def test_one_session_is_well(all_well: FakeDaemon, run: Run) -> None:
    result = run("check", "alerts")
    assert result.exit_code == 0
    assert result.stdout == (
        "WAD OK - alerts is open|open=1 queued=4 held_messages=0 unacked=2 unanswered=0 reconnects=0c "
        "received=1234567c sent=12c decrypt_failures=0c retry_requests=0c ping=0.035s clock_offset=-1.500s\n"
    )
    assert all_well.params("session.status") == {"name": "alerts"}


def test_as_json(all_well: FakeDaemon, run: Run) -> None:
    (document,) = documents(run("check", "alerts", "--json").stdout)
    assert document["level"] == "OK"
    assert document["exit"] == 0
    assert document["messages"] == ["alerts is open"]
    assert document["performance"]["ping"] == 0.035


@pytest.mark.parametrize(
    ("session", "alone", "among_all"),
    [
        (OPEN, OK, OK),
        (changed(ready=False), WARNING, WARNING),
        (changed(healthy=False), WARNING, WARNING),
        (changed(state="connecting"), WARNING, WARNING),
        (changed(state="pairing"), WARNING, WARNING),
        (changed(state="backoff"), WARNING, WARNING),
        (changed(state="needs_pairing"), CRITICAL, CRITICAL),
        (changed(state="failed"), CRITICAL, CRITICAL),
        (changed(state="stopped"), CRITICAL, CRITICAL),
        (changed(state="stopped", held=True), WARNING, OK),
        (changed(state="stopped", desired="down"), WARNING, OK),
        (changed(state="new", desired="down"), WARNING, OK),
        (changed(held_messages=2), WARNING, WARNING),
        (changed(held_messages=2, state="stopped", desired="down"), WARNING, WARNING),
        (changed(clock_offset_ms=61_000), WARNING, WARNING),
        (changed(clock_offset_ms=-61_000), WARNING, WARNING),
        (changed(clock_offset_ms=None, ping_ms=None), OK, OK),
    ],
)
def test_levels(session: t.SessionView, alone: int, among_all: int) -> None:
    assert one_session(session).level == alone
    assert all_sessions([session], INFO).level == among_all


def test_a_subscriber_far_behind_is_a_warning() -> None:
    assert all_sessions([], msgspec.structs.replace(INFO, event_lag=10_001)).level == WARNING
    assert all_sessions([], INFO).level == OK


def test_a_store_that_stands_still_is_critical() -> None:
    report = all_sessions([OPEN], msgspec.structs.replace(INFO, store_stuck_seconds=31))
    assert report.level == CRITICAL
    assert "the store stands still" in report.line()
    assert all_sessions([OPEN], msgspec.structs.replace(INFO, store_stuck_seconds=30)).level == OK


def test_the_worst_comes_first_and_says_what_to_do(daemon: FakeDaemon, run: Run) -> None:
    lost = changed(name="lost", state="needs_pairing", last_disconnect=REASON)
    daemon.script["session.list"] = t.SessionList(sessions=[changed(state="backoff"), lost])
    daemon.script["daemon.info"] = INFO
    result = run("check")
    assert result.exit_code == 2
    assert result.stdout.startswith(
        "WAD CRITICAL - lost is needs_pairing (unlinked: the device / was↵unlinked), "
        "next: wactl connect lost and scan the QR code; alerts is backoff, next: wait"
    )
    assert "|sessions=2 wanted=2 open=0" in result.stdout
    (document,) = documents(run("check", "--json").stdout)
    assert document["messages"][0].startswith("lost is needs_pairing")


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (refusal("no_such_session"), CRITICAL),
        (refusal("storage_unavailable"), CRITICAL),
        (refusal("damaged"), CRITICAL),
        (refusal("internal_error"), CRITICAL),
        (refusal("not_permitted"), UNKNOWN),
        (refusal("shutting_down"), UNKNOWN),
        (refusal("unknown_method"), UNKNOWN),
        (refusal("bad_params"), UNKNOWN),
        ({"name": 3}, UNKNOWN),
        (hang_up, UNKNOWN),
    ],
)
def test_errors_are_levels(daemon: FakeDaemon, run: Run, outcome: Any, status: int) -> None:
    daemon.script["session.status"] = outcome
    result = run("check", "alerts")
    assert (result.exit_code, result.stderr) == (status, "")
    assert result.stdout.startswith(f"WAD {LEVELS[status]} - ")
    assert LINE.fullmatch(result.stdout)


def test_a_daemon_that_does_not_answer_in_time(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["session.list"] = say_nothing
    result = run("check", "--timeout", "0.1")
    assert result.exit_code == 3
    assert "within 0.1 s" in result.stdout


def test_no_daemon(run: Run, tmp_path: Path) -> None:
    result = run("check", "--socket", str(tmp_path / "none"))
    assert (result.exit_code, result.stderr) == (3, "")
    assert result.stdout.startswith("WAD UNKNOWN - no daemon at ")
    assert LINE.fullmatch(result.stdout)
    (document,) = documents(run("check", "--json", "--socket", str(tmp_path / "none")).stdout)
    assert (document["level"], document["performance"]) == ("UNKNOWN", {})


@pytest.mark.parametrize("words", [["--no-such"], ["a", "b"], ["--timeout", "0"], ["--timeout", "x"]])
def test_wrong_usage_is_unknown(run: Run, words: list[str]) -> None:
    result = run("check", *words)
    assert (result.exit_code, result.stdout) == (3, "")
    assert "--help" in result.stderr
    assert error_of(run("check", *words, "--json"))["symbol"] == "usage"


def test_the_help_says_what_the_exit_statuses_mean(run: Run) -> None:
    text = " ".join(run("check", "--help").stdout.split())
    assert "0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN" in text
    assert "exit statuses of their own" in " ".join(run("--help").stdout.split())


@given(
    st.lists(st.text(), min_size=1, max_size=3),
    st.dictionaries(st.sampled_from(["a", "b_c"]), st.floats(-1e9, 1e9) | st.integers(0, 1 << 53)),
)
def test_any_text_makes_one_line(sentences: list[str], numbers: dict[str, float]) -> None:
    line = Report(OK, ["x", *sentences], {name: Number(value) for name, value in numbers.items()}).line()
    assert LINE.fullmatch(line + "\n")


def test_a_session_with_the_name_of_an_id_is_looked_up_as_it_is(all_well: FakeDaemon, run: Run) -> None:
    run("check", ID)
    assert all_well.params("session.status") == {"name": ID}
