"""`wactl send`: what is checked before anything is sent, and what a script can rely on after it."""

from __future__ import annotations

import signal
import subprocess
from typing import Any

import pytest

from tests.wactl.conftest import Run, Spawn, documents, error_of
from tests.wactl.fake import MESSAGE, PATIENCE_S, FakeDaemon, hang_up, refusal, say_nothing, sent
from wactl import client as client_module
from waD.control import types as t


def waited(state: t.MessageState = "delivered") -> t.WaitResult:
    return t.WaitResult(session="alerts", message_id=MESSAGE, state=state)


def test_everything_is_passed_on(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["message.send"] = sent()
    options = [
        "--idempotency-key",
        "k1",
        "--quote",
        "Q1",
        "--mention",
        "+1 555 000 0003",
        "--mention",
        "9@lid",
    ]
    assert run("send", "alerts", "+1 (555) 000-0002", "@15550000003 hi", *options).exit_code == 0
    assert daemon.params("message.send") == {
        "session": "alerts",
        "to": "15550000002",
        "text": "@15550000003 hi",
        "idempotencyKey": "k1",
        "quote": "Q1",
        "mentions": ["15550000003", "9@lid"],
    }


@pytest.mark.parametrize(
    ("words", "stdin", "text"),
    [
        (["-"], "from a pipe\n", "from a pipe"),
        ([], "two\nlines\n\n", "two\nlines\n"),
        (["-"], "wörld ☎".encode(), "wörld ☎"),
        (["-"], "dos\r\n", "dos"),
        (["--", "-5 °C"], None, "-5 °C"),
    ],
)
def test_where_the_text_comes_from(
    daemon: FakeDaemon, run: Run, words: list[str], stdin: str | bytes | None, text: str
) -> None:
    daemon.script["message.send"] = sent()
    assert run("send", "alerts", "15550000002", *words, stdin=stdin).exit_code == 0
    assert daemon.params("message.send")["text"] == text


@pytest.mark.parametrize(
    ("words", "stdin", "complaint"),
    [
        (["15550000002"], b"caf\xe9", "not valid UTF-8 (byte 3)"),
        (["15550000002", "-"], b"", "the text is empty"),
        (["15550000002", " \n\t"], None, "the text is empty"),
        (["15550000002"], b"x" * (t.MAX_LINE + 1), "longer than"),
        (["15550000002", "caf\udce9"], None, "not valid UTF-8"),
        (["0155", "hi"], None, "starts with 0"),
        (["123", "hi"], None, "7 to 15 digits"),
        (["bob", "hi"], None, "neither a phone number nor an address"),
        (["@x", "hi"], None, "not an address"),
        (["15550000002", "hi", "--mention", "me"], None, "neither a phone number"),
        (["15550000002", "hi", "--wait", "seen"], None, "seen"),
        (["15550000002", "hi", "--timeout", "0"], None, "--timeout"),
        (["15550000002", "hi", "there"], None, "unexpected extra argument"),
        ([], None, "Missing argument"),
    ],
)
def test_nothing_is_sent_if_the_command_is_wrong(
    daemon: FakeDaemon, run: Run, words: list[str], stdin: bytes | None, complaint: str
) -> None:
    result = run("send", "alerts", *words, stdin=stdin)
    assert (result.exit_code, result.stdout) == (2, "")
    assert complaint in result.stderr
    assert error_of(run("send", "alerts", *words, "--json", stdin=stdin))["symbol"] == "usage"
    assert daemon.requests == []


def test_each_call_without_a_key_gets_its_own(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["message.send"] = sent()
    for _ in range(2):
        run("send", "alerts", "15550000002", "hi")
    keys = [one["params"]["idempotencyKey"] for one in daemon.requests]
    assert len(set(keys)) == 2
    assert all(0 < len(key) <= t.MAX_IDEMPOTENCY_KEY for key in keys)


def test_a_duplicate_is_told(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["message.send"] = sent("delivered", duplicate=True)
    result = run("send", "alerts", "15550000002", "hi", "--idempotency-key", "k")
    assert result.stdout == f"{MESSAGE}\n"
    assert "used before" in result.stderr


def test_waits_for_the_state(daemon: FakeDaemon, run: Run) -> None:
    daemon.script |= {"message.send": sent(), "message.wait": waited("read")}
    words = ["send", "alerts", "15550000002", "hi", "--wait", "delivered", "--timeout", "7"]
    result = run(*words)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{MESSAGE}\n", "read\n")
    assert daemon.params("message.wait") == {
        "session": "alerts",
        "messageId": MESSAGE,
        "state": "delivered",
        "timeout": 7.0,
    }
    (document,) = documents(run(*words, "--json").stdout)
    assert (document["messageId"], document["state"], document["seq"]) == (MESSAGE, "read", 17)


@pytest.mark.parametrize(
    ("outcome", "exit_status", "state"),
    [
        (refusal("timeout", "not delivered in 7 s", state="sent"), 5, "sent"),
        (refusal("timeout", "not delivered in 7 s"), 5, "queued"),
        (refusal("refused", "failed: 479", state="failed", code=479), 1, "failed"),
        (refusal("not_on_whatsapp", "nobody"), 1, "queued"),
        (refusal("shutting_down", "stopping"), 3, "queued"),
        (hang_up, 3, "queued"),
    ],
)
def test_the_id_is_printed_whatever_becomes_of_the_waiting(
    daemon: FakeDaemon, run: Run, outcome: Any, exit_status: int, state: str
) -> None:
    daemon.script |= {"message.send": sent(), "message.wait": outcome}
    words = ["send", "alerts", "15550000002", "hi", "--wait", "delivered"]
    result = run(*words)
    assert (result.exit_code, result.stdout) == (exit_status, f"{MESSAGE}\n")
    assert result.stderr.startswith("wactl: ")
    result = run(*words, "--json")
    (document,) = documents(result.stdout)
    assert (document["messageId"], document["state"]) == (MESSAGE, state)
    error = error_of(result)
    assert (error["exit"], error["data"]["messageId"]) == (exit_status, MESSAGE)


def test_a_daemon_gone_while_waiting_has_the_message(daemon: FakeDaemon, run: Run) -> None:
    daemon.script |= {"message.send": sent(), "message.wait": hang_up}
    assert "do not send it again" in run("send", "alerts", "15550000002", "hi", "--wait", "sent").stderr


def test_a_lost_answer_names_the_key_that_makes_it_safe(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["message.send"] = hang_up
    result = run("send", "alerts", "15550000002", "hi", "--json")
    error = error_of(result)
    key = daemon.params("message.send")["idempotencyKey"]
    assert (result.exit_code, result.stdout) == (3, "")
    assert error["data"]["idempotencyKey"] == key
    assert f"--idempotency-key {key}" in error["message"]
    result = run("send", "alerts", "15550000002", "hi", "--idempotency-key", "mine")
    assert "--idempotency-key mine" in result.stderr


def test_no_answer_in_time_names_the_key(
    daemon: FakeDaemon, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module.Client.ask, "__kwdefaults__", {"timeout": 0.05})
    daemon.script["message.send"] = say_nothing
    error = error_of(run("send", "alerts", "15550000002", "hi", "--json"))
    assert (error["symbol"], error["exit"]) == ("timeout", 5)
    assert "idempotencyKey" in error["data"]


@pytest.mark.parametrize("as_json", [False, True])
def test_interrupted_while_waiting_the_id_is_out(daemon: FakeDaemon, spawn: Spawn, as_json: bool) -> None:
    daemon.script |= {"message.send": sent(), "message.wait": say_nothing}
    words = ["send", "alerts", "15550000002", "hi", "--wait", "read"]
    process = spawn(*words, *(["--json"] if as_json else []))
    daemon.await_request("message.wait")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert MESSAGE.encode() in out
    assert b"Traceback" not in err
    if as_json:
        assert documents(out)[0]["state"] == "queued"


def test_standard_input_that_is_closed(daemon: FakeDaemon, spawn: Spawn) -> None:
    process = spawn("send", "alerts", "15550000002", stdin=subprocess.DEVNULL)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, daemon.requests) == (2, [])
    assert b"the text is empty" in err
