"""outbox list, release and cancel."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.wactl.conftest import Run, documents, error_of
from tests.wactl.fake import FakeDaemon, refusal, say_nothing, view
from wactl.completing import held_messages
from waD.control import types as t

HELD = t.OutboxView(
    seq=3,
    message_id="ID3",
    chat="15550000002@s.whatsapp.net",
    state="held",
    created_at=1_767_225_600_000,
    body="disk\nfull \x1b[31m",
    attempts=1,
    written_at=1_767_225_661_000,
    last_error="timeout",
)
QUEUED = t.OutboxView(
    seq=4, message_id="ID4", chat="100000000000002@lid", state="queued", created_at=1_767_225_600_000
)
LISTED = t.OutboxList(session="alerts", messages=[HELD, QUEUED], total=9)
DONE = t.DecideResult(session="alerts", count=2, message_ids=["A", "B"])


def test_the_list_for_people(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["outbox.list"] = LISTED
    result = run("outbox", "list", "alerts")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "MESSAGE  STATE           TO                   SUBMITTED            ENCRYPTED            TEXT",
        "ID3      held (timeout)  +15550000002         2026-01-01 00:00:00  2026-01-01 00:01:01  disk↵full [31m",
        "ID4      queued          100000000000002@lid  2026-01-01 00:00:00  -",
    ]
    assert "there are 9" in result.stderr
    assert daemon.params("outbox.list") == {
        "session": "alerts",
        "states": ["queued", "held", "sending"],
        "limit": 50,
    }


@pytest.mark.parametrize(
    ("words", "states"),
    [
        (["--state", "held"], ["held"]),
        (["--state", "held", "--state", "failed"], ["held", "failed"]),
        (["--ended"], ["queued", "held", "sending", "sent", "failed", "expired", "cancelled"]),
    ],
)
def test_the_states_are_asked_for(daemon: FakeDaemon, run: Run, words: list[str], states: list[str]) -> None:
    daemon.script["outbox.list"] = msgspec.structs.replace(LISTED, total=2)
    result = run("outbox", "list", "alerts", *words, "--limit", "7", "--json")
    assert documents(result.stdout) == [msgspec.to_builtins(msgspec.structs.replace(LISTED, total=2))]
    assert daemon.params("outbox.list") == {"session": "alerts", "states": states, "limit": 7}


def test_an_empty_list_says_so(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["outbox.list"] = t.OutboxList(session="alerts", messages=[], total=0)
    result = run("outbox", "list", "alerts")
    assert (result.stdout, result.stderr) == ("", "no such messages\n")


@pytest.mark.parametrize("command", ["release", "cancel"])
@pytest.mark.parametrize(
    ("words", "params"),
    [
        (["A", "B"], {"session": "alerts", "ids": ["A", "B"], "all": False}),
        (["--all"], {"session": "alerts", "ids": None, "all": True}),
    ],
)
def test_a_decision_is_handed_on(
    daemon: FakeDaemon, run: Run, command: str, words: list[str], params: dict[str, Any]
) -> None:
    daemon.script[f"outbox.{command}"] = DONE
    yes = ["--yes"] if command == "cancel" else []
    result = run("outbox", command, "alerts", *words, *yes)
    assert (result.exit_code, result.stdout) == (0, f"2 {command.rstrip('e').rstrip('l')}{_tail(command)}\n")
    assert daemon.params(f"outbox.{command}") == params
    result = run("outbox", command, "alerts", *words, *yes, "--json")
    assert documents(result.stdout) == [msgspec.to_builtins(DONE)]


def _tail(command: str) -> str:
    return {"release": "ed", "cancel": "lled"}[command]


@pytest.mark.parametrize("command", ["release", "cancel"])
@pytest.mark.parametrize("words", [[], ["A", "--all"]])
def test_a_decision_names_what_it_is_about(
    daemon: FakeDaemon, run: Run, command: str, words: list[str]
) -> None:
    result = run("outbox", command, "alerts", *words)
    assert result.exit_code == 2
    assert "--all" in result.stderr
    assert daemon.requests == []


def test_the_list_takes_one_way_to_choose(daemon: FakeDaemon, run: Run) -> None:
    assert run("outbox", "list", "alerts", "--ended", "--state", "held").exit_code == 2
    assert run("outbox", "list", "alerts", "--state", "read").exit_code == 2
    assert daemon.requests == []


def test_cancel_asks_first(daemon: FakeDaemon, run: Run) -> None:
    result = run("outbox", "cancel", "alerts", "A", stdin="y\n")
    assert result.exit_code == 2
    assert "Cancel 1 message of alerts?" in result.stderr
    assert daemon.requests == []


def test_many_ids_take_several_requests(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["outbox.release"] = DONE
    result = run("outbox", "release", "alerts", *(f"ID{n}" for n in range(300)))
    assert result.stdout == "4 released\n"
    assert daemon.methods() == ["outbox.release"] * 2


@pytest.mark.parametrize("words", [["list"], ["release", "--all"], ["cancel", "--all", "--yes"]])
@pytest.mark.parametrize(
    ("symbol", "status"),
    [("no_such_session", 4), ("wrong_state", 4), ("not_permitted", 7), ("lease_held", 4)],
)
def test_a_refusal_has_its_exit_status(
    daemon: FakeDaemon, run: Run, words: list[str], symbol: t.Symbol, status: int
) -> None:
    daemon.script[f"outbox.{words[0]}"] = refusal(symbol, "so not")
    result = run("outbox", words[0], "alerts", *words[1:], "--json")
    assert (result.exit_code, result.stdout) == (status, "")
    assert error_of(result)["symbol"] == symbol


def test_status_shows_what_is_held(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["session.status"] = view("open", queued=1, held_messages=2)
    text = run("status", "alerts").stdout
    assert "held            2; wactl outbox list alerts\n" in text
    assert "queued          1\n" in text
    daemon.script["session.status"] = view("open")
    assert "  held" not in run("status", "alerts").stdout


def test_held_messages_are_completed(daemon: FakeDaemon) -> None:
    daemon.script["outbox.list"] = LISTED
    assert held_messages(daemon.path, "alerts", "ID") == ["ID3", "ID4"]
    assert daemon.params("outbox.list") == {"session": "alerts", "states": ["held"], "limit": t.MAX_PAGE}
    assert held_messages(daemon.path, "alerts", "X") == []
    daemon.script["outbox.list"] = refusal("not_permitted")
    assert held_messages(daemon.path, "alerts", "") == []
    daemon.script["outbox.list"] = say_nothing
    assert held_messages(daemon.path, "alerts", "") == []
