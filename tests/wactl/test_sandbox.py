"""`wactl sandbox`: what it asks of the admin API, against a server that records it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.wactl.conftest import Run, Spawn, documents, error_of
from tests.wactl.fake import PATIENCE_S
from wactl.child import command_line
from wactl.sandbox import run as run_module

PHONE: dict[str, Any] = {
    "number": "15550000002",
    "name": "B\x1bob",
    "lid": "222@lid",
    "devices": [
        {"id": 0, "online": True, "platform": None},
        {"id": 1, "online": True, "platform": "android"},
        {"id": 2, "online": False, "platform": None},
    ],
    "online": True,
    "autoRead": True,
    "autoReply": "you said {text}",
    "messages": 3,
}
NUMBER = "15550000002"
OTHER = "15550000001"
HERE = f"/admin/phones/{NUMBER}"


class FakeSandbox:
    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], tuple[int, Any]] = {}
        self.requests: list[tuple[str, str, Any]] = []
        self.query: dict[str, list[str]] = {}
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                parts = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                fake.requests.append((self.command, parts.path, json.loads(body) if body else None))
                fake.query = parse_qs(parts.query)
                known = (404, {"error": f"nothing at {parts.path}"})
                status, answer = fake.answers.get((self.command, parts.path), known)
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - names the library calls

            def log_message(self, *_: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def last(self) -> tuple[str, str, Any]:
        return self.requests[-1]


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSandbox]:
    fake = FakeSandbox()
    monkeypatch.setenv("WAD_SANDBOX_URL", fake.url)
    thread = threading.Thread(target=fake.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield fake
    fake.server.shutdown()
    thread.join()
    fake.server.server_close()


MESSAGES = [
    {"id": "M1", "chat": OTHER, "sender": f"{OTHER}:1", "fromMe": False, "text": "hi\x07", "kind": "text",
     "t": 1767225660},
    {"id": "M2", "chat": OTHER, "sender": NUMBER, "fromMe": True, "text": None, "kind": "image", "t": 0, "status": 3},
    {"id": "M3", "chat": OTHER, "sender": NUMBER, "fromMe": True, "text": "x", "kind": "text", "t": 0, "status": 9},
]  # fmt: skip

ORDERS: list[tuple[list[str], str, str, Any, Any, str]] = [
    (
        ["info"],
        "GET",
        "/admin/info",
        None,
        {"url": "ws://x", "rootKey": "ab", "faults": {"now": ["close"]}},
        "root key",
    ),
    (["phones"], "GET", "/admin/phones", None, [PHONE], "1 online, 2 offline"),
    (["phone", NUMBER], "POST", "/admin/phones", {"number": NUMBER}, PHONE, "15550000002  Bob"),
    (
        ["scan", NUMBER, "2@code"],
        "POST",
        f"{HERE}/scan",
        {"qr": "2@code"},
        {"jid": f"{NUMBER}:1@x"},
        "linked as 1555",
    ),
    (
        ["send", NUMBER, OTHER, "hi"],
        "POST",
        f"{HERE}/send",
        {"to": OTHER, "text": "hi"},
        {"id": "M9"},
        "M9\n",
    ),
    (
        ["send", NUMBER, OTHER, "hi {n}", "--count", "2"],
        "POST",
        f"{HERE}/send",
        {"to": OTHER, "count": 2, "textTemplate": "hi {n}"},
        {"count": 2, "ids": ["A", "B"]},
        "A\nB\n",
    ),
    (
        ["send", NUMBER, OTHER, "hi", "--id", "I", "--quote", "Q"],
        "POST",
        f"{HERE}/send",
        {"to": OTHER, "text": "hi", "id": "I", "quote": "Q"},
        {"id": "I"},
        "I\n",
    ),
    (
        ["read", NUMBER, OTHER, "A", "B"],
        "POST",
        f"{HERE}/read",
        {"chat": OTHER, "ids": ["A", "B"]},
        {"read": 2},
        "2 read",
    ),
    (["messages", NUMBER], "GET", f"{HERE}/messages", None, MESSAGES, "M1 from 15550000001:1  hi\n"),
    (["unlink", NUMBER, "1"], "POST", f"{HERE}/unlink", {"device": 1}, PHONE, "unlinked 15550000002:1"),
    (["drop-sessions", NUMBER], "POST", f"{HERE}/drop-sessions", {}, {"dropped": 2}, "2 dropped"),
    (
        ["drop-sessions", NUMBER, "--other", OTHER],
        "POST",
        f"{HERE}/drop-sessions",
        {"other": OTHER},
        {"dropped": 1},
        "1",
    ),
    (
        ["faults"],
        "GET",
        "/admin/faults",
        None,
        [{"id": 4, "kind": "noise", "mode": "silent"}],
        "noise  id=4 mode=silent",
    ),
    (["faults", "--clear"], "DELETE", "/admin/faults", None, {"cleared": 3}, "3 cleared"),
    (["faults", "4", "--clear"], "DELETE", "/admin/faults/4", None, {"cleared": 1}, "1 cleared"),
    (
        ["drop", "15550000001:1"],
        "POST",
        "/admin/drop",
        {"jid": "15550000001:1", "frame": False},
        {"dropped": []},
        "none",
    ),
    (["complaints"], "GET", "/admin/complaints", None, [{"rule": "x"}], '"rule"'),
]


@pytest.mark.parametrize(
    ("words", "method", "path", "body", "answer", "text"), ORDERS, ids=lambda v: str(v)[:24]
)
def test_orders(
    sandbox: FakeSandbox,
    run: Run,
    words: list[str],
    method: str,
    path: str,
    body: Any,
    answer: Any,
    text: str,
) -> None:
    sandbox.answers = {("POST", "/admin/phones"): (201, PHONE), (method, path): (200, answer)}
    result = run("sandbox", *words)
    assert (result.exit_code, result.stderr) == (0, "")
    assert text in result.stdout
    assert not {c for c in result.stdout if c != "\n" and not c.isprintable()}
    assert sandbox.last() == (method, path, body)
    for line in (["sandbox", *words, "--json"], ["--json", "sandbox", *words], ["sandbox", "--json", *words]):
        assert documents(run(*line).stdout) == [answer]


def test_habits_of_a_phone(sandbox: FakeSandbox, run: Run) -> None:
    sandbox.answers = {("POST", "/admin/phones"): (201, PHONE), ("POST", HERE): (200, PHONE)}
    options = ["--name", "Bobby", "--auto-reply", "", "--no-auto-read", "--offline", "--addressing", "pn"]
    assert run("sandbox", "phone", "+1 555 000 0002", *options).exit_code == 0
    assert sandbox.requests == [
        ("POST", "/admin/phones", {"number": NUMBER, "name": "Bobby"}),
        (
            "POST",
            HERE,
            {"name": "Bobby", "autoReply": "", "autoRead": False, "online": False, "addressing": "pn"},
        ),
    ]
    sandbox.requests.clear()
    run("sandbox", "phone", NUMBER, "--name", PHONE["name"])
    assert len(sandbox.requests) == 1, "a phone that is made with its name needs no change"


def test_everything_a_fault_may_say(sandbox: FakeSandbox, run: Run) -> None:
    sandbox.answers["POST", "/admin/faults"] = (
        201,
        {"kind": "iq", "id": 7, "count": 0, "code": 503, "attrs": {}},
    )
    words = (
        "--target 15550000001:1 --count 0 --code 503 --mode m --conflict replaced --child c --attr a=1 --attr b=x=y "
        "--collection regular --xmlns encrypt --backoff 5 --delay 100 --never --no-frame"
    )
    result = run("sandbox", "fault", "iq", *words.split())
    assert result.stdout == "iq  id=7 count=0 code=503\n"
    assert sandbox.last()[2] == {
        "kind": "iq",
        "target": "15550000001:1",
        "count": 0,
        "code": 503,
        "mode": "m",
        "collection": "regular",
        "conflict": "replaced",
        "child": "c",
        "attrs": {"a": "1", "b": "x=y"},
        "xmlns": "encrypt",
        "backoffS": 5,
        "delayMs": 100,
        "never": True,
        "frame": False,
    }
    run("sandbox", "fault", "close")
    assert sandbox.last()[2] == {"kind": "close"}


def test_messages_of_one_chat(sandbox: FakeSandbox, run: Run) -> None:
    sandbox.answers["GET", f"{HERE}/messages"] = (200, MESSAGES)
    text = run("sandbox", "messages", NUMBER, "--chat", OTHER, "--limit", "5").stdout
    assert sandbox.query == {"chat": [OTHER], "limit": ["5"]}
    assert text.splitlines() == [
        "2026-01-01 00:01:00  ← 15550000001  M1 from 15550000001:1  hi",
        "1970-01-01 00:00:00  → 15550000001  M2 (delivered)  [image]",
        "1970-01-01 00:00:00  → 15550000001  M3 (9)  x",
    ]


@pytest.mark.parametrize(
    ("words", "path"),
    [(["phones"], "/admin/phones"), (["faults"], "/admin/faults"), (["complaints"], "/admin/complaints"),
     (["messages", NUMBER], f"{HERE}/messages")],
)  # fmt: skip
def test_nothing_there_is_a_note(sandbox: FakeSandbox, run: Run, words: list[str], path: str) -> None:
    sandbox.answers["GET", path] = (200, [])
    result = run("sandbox", *words)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr
    assert documents(run("sandbox", *words, "--json").stdout) == [[]]


def test_texts_from_standard_input(sandbox: FakeSandbox, run: Run) -> None:
    sandbox.answers = {
        ("POST", "/admin/phones"): (201, PHONE),
        ("POST", f"{HERE}/scan"): (200, {"jid": "x"}),
        ("POST", f"{HERE}/send"): (200, {"id": "x"}),
    }
    run("sandbox", "scan", NUMBER, "-", stdin="2@a,b,c\n")
    assert sandbox.last()[2] == {"qr": "2@a,b,c"}
    run("sandbox", "scan", NUMBER, stdin="2@a,b,c\n")
    assert sandbox.last()[2] == {"qr": "2@a,b,c"}
    run("sandbox", "send", NUMBER, OTHER, "-", stdin="one\ntwo\n")
    assert sandbox.last()[2]["text"] == "one\ntwo"


@pytest.mark.parametrize(
    ("words", "stdin"),
    [
        (["scan", NUMBER], b""),
        (["scan", NUMBER, "-"], b"\xff"),
        (["scan", NUMBER], b"x" * (1 << 21)),
        (["send", NUMBER, "bob", "hi"], None),
        (["send", NUMBER, OTHER, "hi", "--count", "2", "--id", "x"], None),
        (["fault", "iq", "--attr", "novalue"], None),
        (["fault", "iq", "--attr", "=x"], None),
        (["faults", "4"], None),
        (["unlink", NUMBER, "0"], None),
        (["send", NUMBER, OTHER, "caf\udce9"], None),
        (["info", "--url", "ftp://x"], None),
        (["info", "--url", "http://x:99999"], None),
        (["info", "--url", "https://127.0.0.1:1", "--ca-file", "/nonexistent"], None),
    ],
)
def test_wrong_usage_is_2_and_orders_nothing(
    sandbox: FakeSandbox, run: Run, words: list[str], stdin: bytes | None
) -> None:
    sandbox.answers["POST", "/admin/phones"] = (201, PHONE)
    result = run("sandbox", *words, stdin=stdin)
    assert (result.exit_code, result.stdout) == (2, "")
    assert [one for one in sandbox.requests if one[1] != "/admin/phones"] == []


@pytest.mark.parametrize(
    ("status", "exit_status", "symbol"),
    [(400, 2, "bad_params"), (404, 4, "no_such_session"), (409, 4, "wrong_state"), (500, 1, "refused")],
)
def test_refusals(sandbox: FakeSandbox, run: Run, status: int, exit_status: int, symbol: str) -> None:
    sandbox.answers["GET", "/admin/phones"] = (status, {"error": "there is no phone"})
    result = run("sandbox", "phones", "--json")
    error = error_of(result)
    assert (result.exit_code, error["symbol"], error["data"]) == (exit_status, symbol, {"status": status})
    assert "there is no phone" in error["message"]


@pytest.mark.parametrize("answer", [(200, b"<html>"), (404, b"\xff"), (502, b"")])
def test_something_else_answers(sandbox: FakeSandbox, run: Run, answer: tuple[int, bytes]) -> None:
    sandbox.answers["GET", "/admin/info"] = answer
    assert error_of(run("sandbox", "info", "--json"))["symbol"] == "protocol"


def test_no_sandbox_is_3(run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        result = run("sandbox", "phones", "--url", url, "--json")
    error = error_of(result)
    assert (result.exit_code, error["symbol"], error["data"]) == (3, "unreachable", {"url": url})
    assert "wactl sandbox run" in error["message"]


def test_the_option_wins_over_the_environment(
    sandbox: FakeSandbox, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAD_SANDBOX_URL", "http://127.0.0.1:1")
    sandbox.answers["GET", "/admin/phones"] = (200, [])
    assert run("sandbox", "phones").exit_code == 3
    assert run("sandbox", "phones", "--url", sandbox.url).exit_code == 0


# ------------------------------------------------------------------------------------------------------------ run


def test_run_becomes_the_sandbox(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(run_module.os, "execv", lambda path, words: became.append((path, words)))
    words = "--host ::1 --port 0 --tls --state /tmp/s --seed -3 --chat-state-ttl 1.5 --snapshots --quiet"
    assert run("sandbox", "run", *words.split(), "--json").exit_code == 0
    ((path, argv),) = became
    assert path == argv[0] == sys.executable
    at = argv.index("-m")
    assert argv[1:at] in ([], ["-P"])
    assert argv[at:] == [
        "-m", "waD.sandbox", "run", "--host=::1", "--port=0", "--state=/tmp/s", "--seed=-3", "--chat-state-ttl=1.5",
        "--tls", "--snapshots", "--quiet", "--json",
    ]  # fmt: skip
    became.clear()
    run("sandbox", "run")
    assert became[0][1][-3:] == ["-m", "waD.sandbox", "run"]


def test_the_working_directory_is_no_place_for_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["/usr/bin", "/usr/lib/python3"])
    assert command_line("-m", "x") == [sys.executable, "-P", "-m", "x"]
    monkeypatch.setattr(sys, "path", ["", "/usr/lib/python3"])
    assert command_line("-m", "x") == [sys.executable, "-m", "x"]


@pytest.mark.parametrize("stop", ["SIGINT", "SIGTERM"])
def test_a_real_sandbox_runs_and_stops(spawn: Spawn, run: Run, stop: str) -> None:
    process = spawn("sandbox", "run", "--port", "0", "--json")
    assert process.stdout is not None
    facts = json.loads(process.stdout.readline())
    assert set(facts) == {"url", "adminUrl", "rootKey", "caFile"}
    assert run("sandbox", "phone", NUMBER, "--name", "Bob", "--url", facts["adminUrl"]).exit_code == 0
    (found,) = json.loads(run("sandbox", "phones", "--url", facts["adminUrl"], "--json").stdout)
    assert (found["number"], found["name"]) == (NUMBER, "Bob")
    process.send_signal(getattr(signal, stop))
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err) == (0, b"", b"")


def test_a_real_sandbox_with_tls(spawn: Spawn, run: Run) -> None:
    process = spawn("sandbox", "run", "--port", "0", "--json", "--tls", stderr=subprocess.PIPE)
    assert process.stdout is not None
    facts = json.loads(process.stdout.readline())
    where = ["--url", facts["adminUrl"]]
    assert run("sandbox", "phones", *where, "--ca-file", facts["caFile"], "--json").stdout == "[]\n"
    assert run("sandbox", "phones", *where).exit_code == 3


def test_run_refuses_what_cannot_be(run: Run) -> None:
    assert run("sandbox", "run", "--port", "70000").exit_code == 2
    line = [sys.executable, "-m", "waD.sandbox", "run", "--port", "0", "--snapshots"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (done.returncode, "needs --tls" in done.stderr) == (2, True)
