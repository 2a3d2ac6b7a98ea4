"""hold, release, reset and undo; and how status shows a session's health."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.e2e.daemon import WAIT_S, running
from tests.wactl.conftest import Run, documents, error_of
from tests.wactl.fake import FakeDaemon, refusal, view
from tests.wactl.test_with_daemon import Wactl
from waD.control import types as t
from waD.sandbox import run_sandbox

UNDONE = t.UndoResult(
    session=view("stopped", paired=True),
    restored="sealed in the store as version 25",
    sealed_at=1_767_225_600_000,
    backup="sealed in the store as version 28",
    receive_only=4,
    sender_keys=2,
    stale_prekeys=812,
    held=1,
)
ANSWERS: list[tuple[str, t.SessionView | t.UndoResult]] = [
    ("hold", view("stopped", paired=True, held=True, desired="up")),
    ("release", view("connecting", paired=True, desired="up")),
    ("reset", view("stopped", paired=True)),
    ("undo", UNDONE),
]


def words(command: str) -> list[str]:
    return [command, "alerts", *(["--yes"] if command == "undo" else [])]


@pytest.mark.parametrize(("command", "answer"), ANSWERS)
def test_the_daemon_is_asked_and_its_answer_shown(
    daemon: FakeDaemon, run: Run, command: str, answer: t.SessionView | t.UndoResult
) -> None:
    daemon.script[f"session.{command}"] = answer
    result = run(*words(command), "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert documents(result.stdout) == [msgspec.to_builtins(answer)]
    assert daemon.params(f"session.{command}") == {"name": "alerts"}
    session = answer.session if isinstance(answer, t.UndoResult) else answer
    assert run(*words(command)).stdout == f"alerts  {session.state}\n"


@pytest.mark.parametrize(("command", "answer"), ANSWERS)
@pytest.mark.parametrize(
    ("symbol", "status"), [("no_such_session", 4), ("not_permitted", 7), ("lease_held", 4)]
)
def test_a_refusal_has_its_exit_status(
    daemon: FakeDaemon, run: Run, command: str, answer: Any, symbol: t.Symbol, status: int
) -> None:
    daemon.script[f"session.{command}"] = refusal(symbol, "so not")
    result = run(*words(command), "--json")
    assert (result.exit_code, result.stdout) == (status, "")
    assert error_of(result)["symbol"] == symbol


def test_hold_says_how_it_ends(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["session.hold"] = ANSWERS[0][1]
    assert "wactl release alerts" in run("hold", "alerts").stderr


def test_undo_asks_first(daemon: FakeDaemon, run: Run) -> None:
    result = run("undo", "alerts", stdin="y\n")
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert daemon.requests == []


def test_undo_says_what_follows_from_it(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["session.undo"] = UNDONE
    said = run("undo", "alerts", "--yes").stderr
    for text in (
        "version 25",
        "2026-01-01 00:00:00",
        "version 28",
        "they send: 4",
        "message: 2",
        "held: 1",
        "connect",
    ):
        assert text in said, text
    daemon.script["session.undo"] = msgspec.structs.replace(UNDONE, receive_only=0, sender_keys=0, held=0)
    said = run("undo", "alerts", "--yes").stderr
    assert "held" not in said
    assert "key" not in said


def test_undo_names_the_reason_when_there_is_nothing_to_undo(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["session.undo"] = refusal("wrong_state", "no credentials were cleared", state="open")
    result = run("undo", "alerts", "--yes")
    assert (result.exit_code, result.stdout) == (4, "")
    assert "no credentials were cleared" in result.stderr


HEALTHY = view(
    "open",
    paired=True,
    ready=True,
    healthy=True,
    healthy_since=1_767_225_600_000,
    ping_ms=35,
    unacked=2,
    unanswered=1,
    clock_offset_ms=-1234,
    messages_received=12,
    messages_sent=4,
    decrypt_failures=3,
)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "health          answers since 2026-01-01 00:00:00, ping 35 ms, 2 unacked, 1 unanswered"),
        ({"ping_ms": None, "unacked": 0, "unanswered": 0}, "answers since 2026-01-01 00:00:00\n"),
        (
            {"healthy": False, "healthy_since": None, "unacked": 0},
            "does not answer, ping 35 ms, 1 unanswered",
        ),
        ({}, "clock           1.2 s ahead of WhatsApp's"),
        ({"clock_offset_ms": 61_000}, "clock           61.0 s behind WhatsApp's"),
        ({"clock_offset_ms": 0}, "clock           equal to WhatsApp's"),
        ({}, "messages        12 received, 4 sent, 3 failures to decrypt"),
    ],
)
def test_status_shows_health(daemon: FakeDaemon, run: Run, changes: dict[str, Any], line: str) -> None:
    daemon.script["session.status"] = msgspec.structs.replace(HEALTHY, **changes)
    assert line in run("status", "alerts").stdout


def test_status_is_silent_about_what_is_not_known(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["session.status"] = view("stopped", paired=True)
    text = run("status", "alerts").stdout
    for word in ("health", "clock", "messages  "):
        assert word not in text


def test_status_in_json_has_every_number(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["session.status"] = HEALTHY
    (document,) = documents(run("status", "alerts", "--json").stdout)
    assert document["pingMs"] == 35
    assert document["clockOffsetMs"] == -1234
    assert document["decryptFailures"] == 3


async def test_a_real_session_is_held_released_logged_out_and_put_back(tmp_path: Path) -> None:
    async with run_sandbox() as sandbox, running(tmp_path, sandbox) as daemon:
        wactl = Wactl(daemon, sandbox)
        await daemon.pair(sandbox)
        assert (await wactl.document("hold", "alerts"))["state"] == "stopped"
        await daemon.stop()
        await daemon.start()
        await wactl("ready", "alerts", exit_status=1)
        assert b"held" in (await wactl("check", "alerts", exit_status=1)).stdout
        assert (await wactl("check")).stdout.startswith(b"WAD OK")
        await wactl("release", "alerts")
        await wactl("ready", "--wait", "--timeout", str(WAIT_S), "alerts")
        assert b"health" in (await wactl("status", "alerts")).stdout

        await wactl("undo", "alerts", "--yes", exit_status=4)
        await wactl("undo", "alerts", exit_status=2)
        await wactl("logout", "alerts", "--yes")
        undone = await wactl.document("undo", "alerts", "--yes")
        assert undone["session"]["paired"] is True
        assert undone["restored"]
        assert (await wactl.document("reset", "alerts"))["lastDisconnect"] is None
