"""Each command that asks one thing: its answer for people, its JSON, what it asks."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.wactl.conftest import Run, documents, error_of
from tests.wactl.fake import CHAT, ID, MESSAGE, FakeDaemon, in_turn, refusal, sent, view
from waD.control import types as t

OPEN = view(
    "open",
    desired="up",
    paired=True,
    ready=True,
    healthy=True,
    me="100000012345678@lid",
    me_pn="15550000001:3@s.whatsapp.net",
    push_name="Ops",
    last_connected_at=1_767_225_600_000,
    last_message_at=1_767_225_660_000,
    reconnect_count=3,
)
BACKOFF = view(
    "backoff",
    name="jobs",
    desired="up",
    paired=True,
    reconnect_attempt=2,
    next_attempt_at=1_767_225_604_000,
    queued=4,
    last_disconnect=t.DisconnectView(
        cause="eof", at=1_767_225_600_000, code=428, message="it ended without a word"
    ),
)


def message(seq: int, body: str | None = "on my way", **more: Any) -> t.MessageView:
    facts: dict[str, Any] = {
        "chat": CHAT,
        "sender": CHAT,
        "from_me": False,
        "kind": "text",
        "status": "received",
    }
    return t.MessageView(seq=seq, message_id=f"ID{seq}", time=1_767_225_661_000, body=body, **(facts | more))


ANSWERS: list[tuple[list[str], str, Any, dict[str, Any]]] = [
    (["list"], "session.list", t.SessionList(sessions=[OPEN, BACKOFF]), {}),
    (["status"], "session.list", t.SessionList(sessions=[OPEN]), {}),
    (["status", "alerts"], "session.status", OPEN, {"name": "alerts"}),
    (["connect", "alerts", "--no-wait"], "session.connect", view("connecting"), {"name": "alerts"}),
    (["disconnect", "alerts"], "session.disconnect", view("stopped", paired=True), {"name": "alerts"}),
    (
        ["logout", "alerts", "--yes"],
        "session.logout",
        t.LogoutResult(session=view("stopped"), unlinked=False, backup="/backups/a"),
        {"name": "alerts"},
    ),
    (
        ["remove", "alerts", "--yes"],
        "session.remove",
        t.RemoveResult(name="alerts", connection_id=ID, backup="/backups/a"),
        {"name": "alerts"},
    ),
    (["ping"], "daemon.ping", t.Pong(pid=714, version="0.1.0", protocol=1, role="operator"), {}),
    (
        ["info"],
        "daemon.info",
        t.DaemonInfo(
            pid=714, version="0.1.0", protocol=1, started_at=1, store="sqlite:/x", states={"open": 1}
        ),
        {},
    ),
    (["daemon", "reload"], "daemon.reload", t.ReloadResult(applied=["log.level"], restart_needed=["x"]), {}),
    (["daemon", "stop"], "daemon.stop", t.Done(), {}),
    (
        ["messages", "alerts", "--chat", "+1 555 000 0002", "--limit", "2", "--before", "9"],
        "message.list",
        t.MessageList(session="alerts", messages=[message(8), message(7)], next=7),
        {"session": "alerts", "chat": "15550000002", "before": 9, "limit": 2},
    ),
    (
        ["read", "alerts", "+15550000002", "A", "B"],
        "message.read",
        t.ReadResult(session="alerts", marked=2),
        {"session": "alerts", "chat": "15550000002", "ids": ["A", "B"]},
    ),
]


@pytest.mark.parametrize(("words", "method", "answer", "params"), ANSWERS, ids=lambda value: str(value)[:30])
@pytest.mark.parametrize("before", [True, False], ids=["json-before", "json-after"])
def test_json_is_the_answer_of_the_daemon(
    daemon: FakeDaemon,
    run: Run,
    words: list[str],
    method: str,
    answer: Any,
    params: dict[str, Any],
    before: bool,
) -> None:
    daemon.script[method] = answer
    result = run("--json", *words) if before else run(*words, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert documents(result.stdout) == [msgspec.to_builtins(answer)]
    assert daemon.params(method) == params


@pytest.mark.parametrize(("words", "method", "answer", "params"), ANSWERS, ids=lambda value: str(value)[:30])
def test_for_people_there_is_no_json_and_no_escape(
    daemon: FakeDaemon, run: Run, words: list[str], method: str, answer: Any, params: dict[str, Any]
) -> None:
    daemon.script[method] = answer
    result = run(*words)
    assert result.exit_code == 0
    assert result.stdout
    assert "{" not in result.stdout
    assert "\x1b" not in result.stdout + result.stderr


def test_status_says_everything_an_operator_needs(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["session.status"] = OPEN
    text = run("status", "alerts").stdout
    for word in ("alerts  open", "+15550000001", "100000012345678@lid", "Ops", "2026-01-01 00:00:00", ID):
        assert word in text
    assert "reconnects      3" in text
    daemon.script["session.status"] = BACKOFF
    text = run("status", "jobs").stdout
    assert "2026-01-01 00:00:00 eof 428: it ended without a word" in text
    assert "2 failed in a row" in text
    assert "next attempt" in text
    assert "queued           4" in text
    assert "wait: it reconnects by itself; wactl connect jobs tries at once" in text


@pytest.mark.parametrize(
    ("session", "word"),
    [
        (view("open", paired=True), "starting"),
        (view("open", paired=True, ready=True, healthy=False), "does not answer"),
        (view("stopped", paired=True, held=True), "held"),
        (view("new"), "not paired"),
        (view("stopped", paired=True, held=True), "wactl release alerts"),
        (view("failed", paired=True, hint="check the clock"), "check the clock"),
        (view("open", paired=True, last_message_at=None), "last message    never"),
    ],
)
def test_status_shows_flags_and_hints(
    daemon: FakeDaemon, run: Run, session: t.SessionView, word: str
) -> None:
    daemon.script["session.status"] = session
    assert word in run("status", "alerts").stdout


def test_list_is_a_table(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["session.list"] = t.SessionList(sessions=[OPEN, BACKOFF])
    head, first, second = run("list").stdout.splitlines()
    assert head.split() == ["NAME", "STATE", "NUMBER", "LAST", "CONNECTED", "NEXT"]
    assert first.split() == ["alerts", "open", "+15550000001", "2026-01-01", "00:00:00"]
    assert second.startswith("jobs    backoff  -")
    assert head.index("STATE") == first.index("open") == second.index("backoff")


def test_an_empty_list_says_what_to_do(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["session.list"] = t.SessionList(sessions=[])
    result = run("list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "wactl connect NAME" in result.stderr


def test_logout_that_whatsapp_has_not_confirmed(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["session.logout"] = t.LogoutResult(session=view("stopped"), unlinked=False, backup="/b/x")
    result = run("logout", "alerts", "--yes")
    assert "/b/x" in result.stderr
    assert "on the phone too" in result.stderr
    assert result.stdout == "alerts  stopped\n"


@pytest.mark.parametrize("command", ["logout", "remove"])
def test_what_destroys_needs_yes_without_a_terminal(daemon: FakeDaemon, run: Run, command: str) -> None:
    result = run(command, "alerts", stdin="y\n")
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert daemon.requests == []
    result = run(command, "alerts", "--json")
    assert error_of(result)["symbol"] == "usage"


def test_ping_warns_of_a_newer_protocol(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["daemon.ping"] = t.Pong(pid=1, version="9", protocol=2, role="admin")
    assert "upgrade wactl" in run("ping").stderr


def test_reload_says_what_needs_a_restart(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["daemon.reload"] = t.ReloadResult(applied=[], restart_needed=["control.socket"])
    text = run("daemon", "reload").stdout
    assert "nothing has changed" in text
    assert "after a restart: control.socket" in text


def test_messages_are_shown_the_latest_last(daemon: FakeDaemon, run: Run) -> None:
    rows = [
        message(8, "second", edited_at=1),
        message(7, None, kind="image", sender="222@lid"),
        message(6, "own", from_me=True, status="delivered"),
    ]
    daemon.script["message.list"] = t.MessageList(session="alerts", messages=rows, next=6)
    result = run("messages", "alerts", "--limit", "3")
    assert result.stdout.splitlines() == [
        "2026-01-01 00:01:01  → +15550000002  ID6 (delivered)  own",
        "2026-01-01 00:01:01  ← +15550000002 222@lid  ID7 (received)  [image]",
        "2026-01-01 00:01:01  ← +15550000002  ID8 (received edited)  second",
    ]
    assert "--before 6" in result.stderr


def test_messages_fetches_as_many_pages_as_it_takes(daemon: FakeDaemon, run: Run) -> None:
    first = t.MessageList(session="alerts", messages=[message(seq) for seq in range(900, 400, -1)], next=401)
    second = t.MessageList(session="alerts", messages=[message(seq) for seq in range(400, 300, -1)], next=301)
    daemon.script["message.list"] = in_turn(first, second)
    (found,) = documents(run("messages", "alerts", "--limit", "600", "--json").stdout)
    assert [row["seq"] for row in found["messages"]] == list(range(900, 300, -1))
    assert found["next"] == 301
    asked = [one["params"] for one in daemon.requests]
    assert [(one["limit"], one["before"]) for one in asked] == [(500, None), (100, 401)]


def test_read_splits_what_is_too_much_for_one_request(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["message.read"] = in_turn(
        t.ReadResult(session="alerts", marked=256), t.ReadResult(session="alerts", marked=3)
    )
    ids = [f"ID{n}" for n in range(300)]
    assert run("read", "alerts", "15550000002", *ids).stdout == "259 marked as read\n"
    assert [id_ for one in daemon.requests for id_ in one["params"]["ids"]] == ids


def test_remote_text_cannot_steer_the_terminal(daemon: FakeDaemon, run: Run) -> None:
    evil = "a\x1b[31mb\x07c\x9b2Jd\u202ee\rf\ng\x00\x7f"
    daemon.script["message.list"] = t.MessageList(session="alerts", messages=[message(1, evil, chat=evil)])
    daemon.script["session.status"] = view("open", push_name=evil, hint=evil, me=evil, platform=evil)
    daemon.script["session.list"] = t.SessionList(sessions=[view("open", me=evil, hint=evil)])
    daemon.script["daemon.ping"] = refusal("refused", evil)
    for words in (["messages", "alerts"], ["status", "alerts"], ["list"], ["ping"]):
        result = run(*words)
        shown = result.stdout + result.stderr
        assert not {c for c in shown if c != "\n" and not c.isprintable()}, words
        assert "a[31mbc2Jdef↵g" in shown
    (document,) = documents(run("status", "alerts", "--json").stdout)
    assert document["pushName"] == evil


def test_json_holds_no_control_character_either(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["session.status"] = view("open", push_name="a\x9bb\x7fc\x1b")
    text = run("status", "alerts", "--json").stdout
    assert not {c for c in text if c != "\n" and not c.isprintable()}


def test_fields_of_a_newer_daemon_are_passed_on_and_do_not_hurt(daemon: FakeDaemon, run: Run) -> None:
    newer = msgspec.to_builtins(OPEN) | {"brandNew": [1]}
    daemon.script["session.status"] = newer
    assert documents(run("status", "alerts", "--json").stdout) == [newer]
    assert run("status", "alerts").exit_code == 0


@pytest.mark.parametrize("symbol", list(t.ERRORS))
def test_every_error_of_the_table_has_its_exit_status(daemon: FakeDaemon, run: Run, symbol: t.Symbol) -> None:
    daemon.script["session.status"] = refusal(symbol, "that will not do", state="x")
    result = run("status", "alerts", "--json")
    assert result.exit_code == t.ERRORS[symbol].exit
    assert error_of(result) == {
        "symbol": symbol,
        "code": t.ERRORS[symbol].code,
        "message": "that will not do",
        "exit": t.ERRORS[symbol].exit,
        "data": {"state": "x"},
    }
    assert result.stdout == ""
    plain = run("status", "alerts")
    assert (plain.exit_code, plain.stdout) == (t.ERRORS[symbol].exit, "")
    assert plain.stderr == "wactl: that will not do\n"


def test_an_error_of_a_newer_daemon_is_a_failure(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["daemon.ping"] = t.ErrorBody(code=-32099, message="moon phase", data={"symbol": "moon"})
    assert error_of(run("ping", "--json"))["symbol"] == "moon"
    daemon.script["daemon.ping"] = t.ErrorBody(code=-32099, message="moon phase")
    assert run("ping").exit_code == 1
    daemon.script["daemon.ping"] = t.ErrorBody(code=-32002, message="without a symbol")
    assert run("ping").exit_code == 4


def test_the_socket_may_be_named_before_and_after(
    daemon: FakeDaemon, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAD_SOCKET", "/nonexistent/socket")
    daemon.script["daemon.ping"] = t.Pong(pid=1, version="9", protocol=1, role="admin")
    assert run("ping").exit_code == 3
    assert run("--socket", str(daemon.path), "ping").exit_code == 0
    assert run("ping", "--socket", str(daemon.path)).exit_code == 0
    assert run("--socket", "/nonexistent/2", "ping", "--socket", str(daemon.path)).exit_code == 0


def test_sending_prints_the_id_alone(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["message.send"] = sent()
    result = run("send", "alerts", "+15550000002", "disk full")
    assert (result.stdout, result.stderr, result.exit_code) == (f"{MESSAGE}\n", "", 0)


def test_info_says_when_the_store_waits(daemon: FakeDaemon, run: Run) -> None:
    facts = t.DaemonInfo(pid=714, version="0.1.0", protocol=1, started_at=1, store="sqlite:/x")
    daemon.script["daemon.info"] = facts
    assert "waits" not in run("info").stdout
    daemon.script["daemon.info"] = msgspec.structs.replace(facts, store_stuck_seconds=42)
    assert "store waits" in run("info").stdout
    assert "42 s" in run("info").stdout
