"""What can happen between `wactl` and the socket."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import msgspec
import pytest

from tests.wactl.conftest import Run, error_of
from tests.wactl.fake import Connection, FakeDaemon, event, hang_up, refusal, say_nothing
from wactl import client as client_module
from wactl.client import Client, Gone, candidates
from wactl.failure import Failure
from waD.control import types as t
from waD.control.paths import SYSTEM_SOCKET

PONG = t.Pong(pid=1, version="9", protocol=1, role="admin")


def test_which_sockets_are_tried() -> None:
    chosen = Path("/chosen")
    assert candidates(chosen, {"XDG_RUNTIME_DIR": "/run/user/1"}) == [chosen]
    assert candidates(None, {"XDG_RUNTIME_DIR": "/run/user/1"}) == [
        Path("/run/user/1/waD/control.sock"),
        SYSTEM_SOCKET,
    ]
    assert candidates(None, {}) == [SYSTEM_SOCKET]
    assert candidates(None, {"RUNTIME_DIRECTORY": "/run/waD"}) == [SYSTEM_SOCKET]


def test_the_next_socket_is_tried_if_nobody_listens(daemon: FakeDaemon, tmp_path: Path) -> None:
    daemon.script["daemon.ping"] = PONG
    stale = tmp_path / "stale"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(stale))
    with Client.connect([tmp_path / "none", stale, daemon.path]) as client:
        assert client.ask("daemon.ping", t.Pong) == PONG
        assert client.path == daemon.path


def test_no_daemon_is_3_and_names_every_place(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(client_module, "SYSTEM_SOCKET", tmp_path / "system.sock")
    result = run("status", "--json")
    error = error_of(result)
    assert (result.exit_code, error["symbol"], result.stdout) == (3, "unreachable", "")
    assert error["data"]["sockets"] == [str(tmp_path / "waD/control.sock"), str(tmp_path / "system.sock")]
    assert "--socket" in run("status").stderr


def test_a_socket_that_may_not_be_used_is_7(
    run: Run, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed(socket.socket):
        def connect(self, _address: object) -> None:  # root, who may run this, is let in everywhere
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(client_module.socket, "socket", Closed)
    assert error_of(run("ping", "--json"))["symbol"] == "not_permitted"
    assert run("ping").exit_code == 7


def test_a_path_that_cannot_be_a_socket_is_2(run: Run) -> None:
    result = run("--socket", f"/tmp/{'x' * 200}", "ping")
    assert result.exit_code == 2
    assert "cannot be a socket" in result.stderr


def test_a_file_that_is_no_socket_is_3(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert run("--socket", str(tmp_path / "file"), "ping").exit_code == 3
    assert run("--socket", str(tmp_path / "file" / "below"), "ping").exit_code == 3
    assert run("--socket", str(tmp_path), "ping").exit_code == 3


def test_notices_and_strangers_between_request_and_answer(daemon: FakeDaemon) -> None:
    def chat(connection: Connection, request: dict[str, object]) -> None:
        connection.event(event(1, "a", {}))
        connection.send({"id": 99, "result": "of somebody else"})
        connection.event(event(2, "b", {}))
        connection.answer(request, PONG)
        connection.event(event(3, "c", {}))

    daemon.script["daemon.ping"] = chat
    with Client.connect([daemon.path]) as client:
        assert client.ask("daemon.ping", t.Pong) == PONG
        notices = [client.notice(10.0) for _ in range(3)]
        kinds = [client.decode(one.params, t.EventNotice).event.type for one in notices if one is not None]
        assert kinds == ["a", "b", "c"]
        assert client.notice(0.0) is None


def test_an_answer_in_pieces_and_a_huge_one(daemon: FakeDaemon) -> None:
    long = t.Pong(pid=1, version="v" * 3_000_000, protocol=1, role="admin")

    def pieces(connection: Connection, request: dict[str, object]) -> None:
        line = msgspec.json.encode({"jsonrpc": "2.0", "id": request["id"], "result": PONG}) + b"\n"
        for start in range(0, len(line), 7):
            connection.raw(line[start : start + 7])

    with Client.connect([daemon.path]) as client:
        daemon.script["daemon.ping"] = pieces
        assert client.ask("daemon.ping", t.Pong) == PONG
        daemon.script["daemon.ping"] = long
        assert client.ask("daemon.ping", t.Pong) == long


def test_an_endless_answer_is_refused(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_ANSWER", 1000)
    daemon.script["daemon.ping"] = lambda connection, _: connection.raw(b"x" * 100_000)
    with Client.connect([daemon.path]) as client, pytest.raises(Failure) as failure:
        client.call("daemon.ping")
    assert failure.value.symbol == "protocol"


@pytest.mark.parametrize(
    "line", [b"HTTP/1.1 400 Bad Request\n", b"\xff\xfe\n", b"[]\n", b'{"id":{}}\n', b"\n"]
)
def test_something_else_answers(daemon: FakeDaemon, run: Run, line: bytes) -> None:
    daemon.script["daemon.ping"] = lambda connection, _: connection.raw(line)
    result = run("ping", "--json")
    assert error_of(result)["symbol"] == "protocol"
    assert result.exit_code == 1


@pytest.mark.parametrize("answer", [{"pid": "x"}, [], None, {"sessions": 3}])
def test_an_answer_of_another_shape(daemon: FakeDaemon, run: Run, answer: object) -> None:
    daemon.script["session.list"] = answer
    result = run("list")
    assert result.exit_code == 1
    assert "does not speak this protocol" in result.stderr


def test_an_error_with_id_null_is_the_answer(daemon: FakeDaemon, run: Run) -> None:
    def refuse(connection: Connection, _request: dict[str, object]) -> None:
        connection.send({"id": None, "error": refusal("invalid_request", "too long")})

    daemon.script["daemon.ping"] = refuse
    error = error_of(run("ping", "--json"))
    assert (error["symbol"], error["message"]) == ("invalid_request", "too long")


def test_what_the_daemon_said_before_it_hung_up_is_read(daemon: FakeDaemon, run: Run) -> None:
    """Over its limit of connections it refuses and closes, maybe before the request is written."""

    def over_the_limit(connection: Connection) -> None:
        connection.send({"id": None, "error": refusal("refused", "too many connections")})
        connection.hang_up()

    daemon.greet = over_the_limit
    for _ in range(20):
        result = run("ping")
        assert (result.exit_code, result.stderr) == (1, "wactl: too many connections\n")


def test_a_request_that_cannot_be_written_is_still_answered() -> None:
    ours, theirs = socket.socketpair()
    refused = msgspec.json.encode({"jsonrpc": "2.0", "id": None, "error": refusal("refused", "enough")})
    theirs.sendall(refused + b"\n")
    theirs.close()
    with Client(ours, Path("/x")) as client:
        with pytest.raises(Failure) as first:
            client.call("daemon.ping")
        assert first.value.message == "enough"
        with pytest.raises(Gone) as second:
            client.call("daemon.ping")
    assert "before the request was taken" in second.value.message


def test_the_daemon_goes_in_the_middle(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["session.status"] = hang_up
    result = run("status", "alerts")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "hung up without an answer" in result.stderr
    daemon.script["session.status"] = lambda connection, _: (
        connection.raw(b'{"jsonrpc":'),
        connection.hang_up(),
    )
    assert run("status", "alerts").exit_code == 3


def test_a_daemon_that_does_not_answer_is_5(daemon: FakeDaemon) -> None:
    daemon.script["daemon.ping"] = say_nothing
    with Client.connect([daemon.path]) as client, pytest.raises(Failure) as failure:
        client.call("daemon.ping", timeout=0.05)
    assert (failure.value.symbol, failure.value.exit) == ("timeout", 5)


def test_a_daemon_that_takes_nothing_is_5() -> None:
    ours, theirs = socket.socketpair()
    request = t.SendRequest(session="a", to="15550000002", text="x" * 900_000)
    with theirs, Client(ours, Path("/x")) as client, pytest.raises(Failure) as failure:
        client.call("message.send", request, timeout=0.05)
    assert failure.value.symbol == "timeout"
    assert "has not taken" in failure.value.message


def test_a_request_over_the_limit_is_not_sent(daemon: FakeDaemon) -> None:
    with Client.connect([daemon.path]) as client, pytest.raises(Failure) as failure:
        client.call("message.send", t.SendRequest(session="a", to="15550000002", text="x" * t.MAX_LINE))
    assert (failure.value.symbol, daemon.requests) == ("usage", [])


def test_arguments_that_are_not_utf8(daemon: FakeDaemon, run: Run) -> None:
    bad = os.fsdecode(b"caf\xe9")
    result = run("status", bad)
    assert result.exit_code == 2
    assert "UTF-8" in result.stderr
    assert daemon.requests == []
