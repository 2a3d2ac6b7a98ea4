"""repair."""

from __future__ import annotations

import os
import pty
from typing import Any

import msgspec
import pytest

from tests.wactl.conftest import Run, Spawn, error_of
from tests.wactl.fake import PATIENCE_S, FakeDaemon, refusal
from wactl.commands.repair import _SHOWN
from waD.control import types as t

LIST = t.RepairList(
    name="alerts",
    connection_id="c",
    level=3,
    advice=[
        t.RepairAdvice(
            action="drop-session",
            target="200000000000002@lid",
            reasons=[t.NoteView(code="identity_mismatch", item="session/200000000000002_1.0", detail="changed")],
        ),
        t.RepairAdvice(
            action="drop-damaged",
            count=30,
            reasons=[t.NoteView(code="item_unreadable", item=f"prekey/{n}") for n in range(20)],
        ),
        t.RepairAdvice(action="upload-prekeys", possible=False, reasons=[t.NoteView(code="prekeys_low")]),
    ],
    beyond=[],
    choices=[
        t.RepairChoice(
            action=action, target=kind.target, meaning=kind.meaning, connected=kind.connected,
            possible=not kind.connected,
        )
        for action, kind in t.REPAIRS.items()
    ],
)  # fmt: skip
DONE = t.RepairResult(
    name="alerts", connection_id="c", action="drop-session", target="200000000000002@lid", count=2,
    items=["session/200000000000002_1.0", "session/200000000000002_1.3"],
    backup="sealed in the store as version 7",
)  # fmt: skip


@pytest.mark.parametrize("words", [["alerts"], ["alerts", "--list"]])
def test_the_list(daemon: FakeDaemon, run: Run, words: list[str]) -> None:
    daemon.script["repair.list"] = LIST
    result = run("repair", *words)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[:4] == [
        "alerts: advised, after a look at level 3",
        "  wactl repair alerts drop-session 200000000000002@lid",
        "      identity_mismatch session/200000000000002_1.0: changed",
        "  wactl repair alerts drop-damaged",
    ]
    assert lines[4 : 4 + _SHOWN] == [f"      item_unreadable prekey/{n}" for n in range(_SHOWN)]
    assert lines[4 + _SHOWN : 7 + _SHOWN] == [
        "      and 25 more",
        "  wactl repair alerts upload-prekeys  (not possible now)",
        "      prekeys_low",
    ]
    offered = [line.split()[0] for line in lines[lines.index("could be done:") + 1 :]]
    assert offered == list(t.REPAIRS)
    (upload,) = [line for line in lines if line.startswith("  upload-prekeys ")]
    assert upload.endswith("(needs a connection)")
    assert daemon.params("repair.list") == {"name": "alerts"}


def test_a_list_with_nothing_in_it_and_one_beyond_repair(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["repair.list"] = msgspec.structs.replace(LIST, advice=[], level=4)
    assert run("repair", "alerts").stdout.startswith(
        "alerts: nothing is to be repaired, after a look at level 4\n"
    )
    beyond = [t.NoteView(code="noise_key_mismatch", item="creds", detail="\x1b[31mbad")]
    daemon.script["repair.list"] = msgspec.structs.replace(LIST, advice=[], beyond=beyond)
    lines = run("repair", "alerts").stdout.splitlines()
    assert lines[1].startswith("no repair helps against this; restore a backup")
    assert lines[2] == "      noise_key_mismatch creds: [31mbad"


def test_the_list_as_json(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["repair.list"] = LIST
    document = msgspec.json.decode(run("repair", "alerts", "--json").stdout)
    assert msgspec.convert(document, t.RepairList) == LIST


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["drop-damaged", "--yes"], {"action": "drop-damaged", "target": None}),
        (
            ["drop-session", "+15550000002", "--yes"],
            {"action": "drop-session", "target": "+15550000002"},
        ),
        (["reset-sender-key", "1@g.us", "--yes"], {"action": "reset-sender-key", "target": "1@g.us"}),
        (["upload-prekeys"], {"action": "upload-prekeys", "target": None}),
        (["rotate-signed-prekey"], {"action": "rotate-signed-prekey", "target": None}),
        (["refresh-devices", "1@lid"], {"action": "refresh-devices", "target": "1@lid"}),
        (["resync", "regular"], {"action": "resync", "target": "regular"}),
        (["resync"], {"action": "resync", "target": None}),
    ],
)
def test_what_is_asked_of_the_daemon(
    daemon: FakeDaemon, run: Run, words: list[str], asked: dict[str, Any]
) -> None:
    daemon.script["repair.run"] = DONE
    assert run("repair", "alerts", *words).exit_code == 0
    assert daemon.params("repair.run") == {"name": "alerts", **asked}


def test_what_was_done(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["repair.run"] = DONE
    result = run("repair", "alerts", "drop-session", "1@lid", "--yes")
    assert result.stdout == "alerts  2 sessions dropped\n"
    assert result.stderr.splitlines() == [
        "removed: session/200000000000002_1.0",
        "removed: session/200000000000002_1.3",
        "backup of the state before it: sealed in the store as version 7",
    ]
    result = run("repair", "alerts", "drop-session", "1@lid", "--yes", "--json")
    assert msgspec.json.decode(result.stdout, type=t.RepairResult) == DONE
    for action, count, said in (
        ("upload-prekeys", 812, "812 prekeys uploaded"),
        ("rotate-signed-prekey", 1, "signed prekey replaced"),
        ("drop-damaged", 1, "1 items repaired"),
    ):
        changed = msgspec.structs.replace(DONE, action=action, count=count, items=["creds"])
        daemon.script["repair.run"] = changed
        result = run("repair", "alerts", action, "--yes")
        assert result.stdout == f"alerts  {said}\n"
        assert "put right: the prekey counter" in result.stderr
    daemon.script["repair.run"] = msgspec.structs.replace(DONE, count=0, items=[], backup=None)
    result = run("repair", "alerts", "drop-damaged", "--yes")
    assert (result.stdout, result.stderr) == ("alerts  nothing to repair; nothing was changed\n", "")


@pytest.mark.parametrize(
    "words",
    [
        ["magic"],
        ["drop-session"],
        ["drop-damaged", "15550000002"],
        ["upload-prekeys", "--list"],
        ["drop-damaged"],
        ["drop-session", "1@lid"],
        ["reset-sender-key", "1@g.us"],
    ],
)
def test_what_is_no_order(daemon: FakeDaemon, run: Run, words: list[str]) -> None:
    """Also what destroys something, where nobody can be asked."""
    result = run("repair", "alerts", *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert error_of(run("repair", "alerts", *words, "--json"))["symbol"] == "usage"
    assert daemon.requests == []


@pytest.mark.parametrize(
    ("symbol", "status"),
    [
        ("wrong_state", 4),
        ("no_such_session", 4),
        ("refused", 1),
        ("damaged", 6),
        ("timeout", 5),
        ("not_permitted", 7),
    ],
)
def test_how_it_ends(daemon: FakeDaemon, run: Run, symbol: t.Symbol, status: int) -> None:
    daemon.script["repair.run"] = daemon.script["repair.list"] = refusal(symbol, "this is why")
    for words in (["upload-prekeys"], []):
        result = run("repair", "alerts", *words)
        assert (result.exit_code, result.stdout) == (status, "")
        assert "this is why" in result.stderr


@pytest.mark.parametrize(("answer", "status"), [(b"y\n", 0), (b"n\n", 1)])
def test_it_asks_on_a_terminal(daemon: FakeDaemon, spawn: Spawn, answer: bytes, status: int) -> None:
    daemon.script["repair.run"] = DONE
    ours, theirs = pty.openpty()
    process = spawn("repair", "alerts", "drop-session", "1@lid", stdin=theirs)
    os.close(theirs)
    os.write(ours, answer)
    _, errors = process.communicate(timeout=PATIENCE_S)
    os.close(ours)
    assert process.returncode == status
    assert b"Repair alerts by drop-session 1@lid? The state is sealed first." in errors
    assert len(daemon.requests) == (status == 0)


def test_every_action_is_explained(run: Run) -> None:
    shown = run("repair", "--help").stdout
    for action, kind in t.REPAIRS.items():
        assert f"{action} {kind.target}".strip() in shown
