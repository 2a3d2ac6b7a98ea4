"""wactl ready, as scripts and the service manager run it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.wactl.conftest import Run, Spawn, documents, error_of
from tests.wactl.fake import PATIENCE_S, FakeDaemon, hang_up, in_turn, refusal, say_nothing, view
from waD.control import types as t

OPEN = view("open", desired="up", paired=True, ready=True)
STARTING = view("open", desired="up", paired=True)
PONG = t.Pong(pid=714, version="0.1.0", protocol=1, role="observer")


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (OPEN, 0),
        (STARTING, 1),
        *(
            (view(state, desired="up"), 1)
            for state in ("new", "stopped", "connecting", "pairing", "backoff", "failed")
        ),
        (view("needs_pairing"), 1),
        (view("stopped", held=True), 1),
        (refusal("no_such_session"), 1),
        (refusal("shutting_down"), 1),
        (refusal("storage_unavailable"), 1),
        (refusal("not_permitted"), 1),
        (refusal("internal_error"), 1),
        (hang_up, 2),
        ({"name": 3}, 2),
        (refusal("bad_params"), 3),
    ],
)
def test_the_exit_status_is_the_answer(daemon: FakeDaemon, run: Run, outcome: Any, status: int) -> None:
    daemon.script["session.status"] = outcome
    result = run("ready", "alerts")
    word = ("accepting", "rejecting", "no answer", "not attempted")[status]
    assert (result.exit_code, result.stderr) == (status, "")
    assert result.stdout.startswith(f"alerts - {word}: ")
    (document,) = documents(run("ready", "alerts", "--json").stdout)
    assert document["status"] == word.replace(" ", "_")
    assert document["exit"] == status
    assert document["session"] == "alerts"
    assert document["state"] == (outcome.state if isinstance(outcome, t.SessionView) else None)


def test_the_daemon_itself(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["daemon.ping"] = PONG
    result = run("ready")
    assert (result.exit_code, result.stdout) == (0, "waD - accepting: waD 0.1.0 (pid 714) answers\n")
    daemon.script["daemon.ping"] = refusal("shutting_down", "the daemon is stopping")
    assert run("ready").exit_code == 1


def test_it_says_what_to_do_next(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["session.status"] = view("needs_pairing", hint="scan the code")
    assert run("ready", "alerts").stdout == "alerts - rejecting: needs_pairing; next: scan the code\n"


def test_no_answer_in_time(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["daemon.ping"] = say_nothing
    assert run("ready", "--timeout", "0.1").exit_code == 2


def test_nobody_listens(run: Run, tmp_path: Path) -> None:
    assert run("ready", "--socket", str(tmp_path / "none")).exit_code == 2


@pytest.mark.parametrize(
    "words",
    [["--no-such"], ["a", "b"], ["--timeout", "0"], ["--timeout", "90000"], ["--wait", "--timeout", "x"]],
)
def test_wrong_usage_is_not_attempted(daemon: FakeDaemon, run: Run, words: list[str]) -> None:
    result = run("ready", *words)
    assert (result.exit_code, result.stdout) == (3, "")
    assert "--help" in result.stderr
    assert error_of(run("ready", *words, "--json"))["exit"] == 3
    assert daemon.requests == []


def test_a_socket_that_cannot_be_is_not_attempted_and_not_waited_for(run: Run, tmp_path: Path) -> None:
    assert run("ready", "--wait", "--socket", str(tmp_path / ("x" * 200))).exit_code == 3


def test_permission_denied_is_not_attempted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("socket.socket.connect", refuse)
    result = run("ready", "--wait")
    assert result.exit_code == 3
    assert "you may not use the socket" in result.stdout


# ------------------------------------------------------------------------------------------------------------- wait


def test_wait_goes_through_every_state(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["session.status"] = in_turn(
        refusal("no_such_session"), view("connecting", desired="up"), hang_up, STARTING, OPEN
    )
    result = run("ready", "alerts", "--wait")
    assert (result.exit_code, result.stdout) == (0, "alerts - accepting: open\n")
    assert len(daemon.requests) == 5


def test_wait_ends_with_the_state_of_then(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["session.status"] = view("backoff", desired="up")
    assert run("ready", "alerts", "--wait", "--timeout", "0.2").exit_code == 1
    assert len(daemon.requests) >= 2


def test_wait_without_a_daemon_ends_with_no_answer(run: Run, tmp_path: Path) -> None:
    assert run("ready", "--wait", "--timeout", "0.2", "--socket", str(tmp_path / "none")).exit_code == 2


def test_wait_for_a_daemon_that_comes(daemon: FakeDaemon, spawn: Spawn) -> None:
    daemon.script["session.status"] = say_nothing
    process = spawn("ready", "--wait", "--timeout", str(PATIENCE_S), "alerts")
    daemon.await_request("session.status")
    daemon.stop()
    daemon.script["session.status"] = OPEN
    daemon.start()
    out, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, errors) == (0, b"alerts - accepting: open\n", b"")


def test_the_help_says_what_the_exit_statuses_mean(run: Run) -> None:
    text = " ".join(run("ready", "--help").stdout.split())
    assert "0 accepting, 1 rejecting, 2 no answer, 3 not attempted" in text
