"""A daemon that says what a test tells it to, in threads over a real Unix socket.

Nothing here sleeps: a test waits for a request to arrive, a client's end, or a process's end, each with a limit.
"""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from waD.control import types as t

PATIENCE_S = 30.0
ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
MESSAGE = "3EB0A1B2C3D4E5F60718A9"
CHAT = "15550000002@s.whatsapp.net"


def view(state: t.State = "open", name: str = "alerts", **more: Any) -> t.SessionView:
    return t.SessionView(name=name, connection_id=ID, state=state, **more)


def event(cursor: int, kind: str, data: dict[str, Any], session: str | None = "alerts") -> t.EventView:
    return t.EventView(
        cursor=cursor, time=1_767_225_660_000, type=kind, connection_id=ID, session=session, data=data
    )


def status(cursor: int, state: str, **more: Any) -> t.EventView:
    return event(cursor, "connection:status", {"status": state, **more})


def sent(state: t.MessageState = "queued", **more: Any) -> t.SendResult:
    return t.SendResult(session="alerts", message_id=MESSAGE, chat=CHAT, state=state, seq=17, **more)


def refusal(symbol: t.Symbol, message: str = "no", **data: Any) -> t.ErrorBody:
    return t.ErrorBody(code=t.ERRORS[symbol].code, message=message, data={"symbol": symbol, **data})


class Connection:
    """The server's end of one client."""

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream
        self._lock = threading.Lock()

    def raw(self, data: bytes) -> None:
        with self._lock:
            try:
                self.stream.sendall(data)
            except OSError:
                return  # the client has gone; what it did is for the test to judge

    def send(self, document: dict[str, Any]) -> None:
        self.raw(msgspec.json.encode({"jsonrpc": "2.0", **document}) + b"\n")

    def answer(self, request: dict[str, Any], outcome: Any) -> None:
        key = "error" if isinstance(outcome, t.ErrorBody) else "result"
        self.send({"id": request["id"], key: outcome})

    def event(self, one: t.EventView) -> None:
        self.send({"method": "event", "params": t.EventNotice(subscription=1, event=one)})

    def end(self, reason: Any, cursor: int, error: t.ErrorBody | None = None) -> None:
        notice = t.EndNotice(subscription=1, reason=reason, cursor=cursor, error=error)
        self.send({"method": "events.end", "params": notice})

    def hang_up(self) -> None:
        try:
            self.stream.shutdown(socket.SHUT_RDWR)
        except OSError:
            return


Handler = Callable[[Connection, dict[str, Any]], None]


class FakeDaemon:
    """Answers by `script`: a method's answer or error, or a function that does what it likes with the connection.

    Attributes:
        requests: as they came, also from connections before a restart.
        greet: called with each new connection, if set.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.script: dict[str, Any] = {}
        self.greet: Callable[[Connection], None] | None = None
        self.requests: list[dict[str, Any]] = []
        self.arrived: queue.Queue[dict[str, Any]] = queue.Queue()
        self.closed: queue.Queue[Connection] = queue.Queue()
        self._connections: list[Connection] = []
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None

    def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(16)
        self._spawn(self._accept, self._listener)

    def stop(self) -> None:
        """Go as a killed daemon does: everybody is cut off, nobody listens."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for connection in self._connections:
            connection.hang_up()
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
        for connection in self._connections:
            connection.stream.close()
        self._threads, self._connections = [], []

    def await_request(self, method: str) -> dict[str, Any]:
        """Wait until a request of this method has come; earlier ones are passed over."""
        while True:
            request = self.arrived.get(timeout=PATIENCE_S)
            if request["method"] == method:
                return request

    def params(self, method: str) -> dict[str, Any]:
        """Parameters of the last request of a method."""
        return next(one["params"] for one in reversed(self.requests) if one["method"] == method)

    def methods(self) -> list[str]:
        return [one["method"] for one in self.requests]

    def _spawn(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                stream, _ = listener.accept()
            except OSError:
                return
            connection = Connection(stream)
            self._connections.append(connection)
            self._spawn(self._serve, connection)

    def _serve(self, connection: Connection) -> None:
        if self.greet is not None:
            self.greet(connection)
        buffer = b""
        while True:
            try:
                data = connection.stream.recv(65_536)
            except OSError:
                data = b""
            if not data:
                self.closed.put(connection)
                return
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                self._take(connection, msgspec.json.decode(line))

    def _take(self, connection: Connection, request: dict[str, Any]) -> None:
        assert request["jsonrpc"] == "2.0"
        self.requests.append(request)
        outcome = self.script.get(request["method"], refusal("unknown_method", request["method"]))
        if callable(outcome):
            outcome(connection, request)
        else:
            connection.answer(request, outcome)
        self.arrived.put(request)


def subscription(
    *events: t.EventView, then: Callable[[Connection], None] | None = None, last: int = 4720
) -> Handler:
    """Answer `events.subscribe`, send these events, and do what follows."""

    def handle(connection: Connection, request: dict[str, Any]) -> None:
        connection.answer(request, t.Subscription(subscription=1, oldest=1, last=last))
        for one in events:
            connection.event(one)
        if then is not None:
            then(connection)

    return handle


def in_turn(*outcomes: Any) -> Handler:
    """Answer one after the other, the last one again and again."""
    left = list(outcomes)

    def handle(connection: Connection, request: dict[str, Any]) -> None:
        outcome = left.pop(0) if len(left) > 1 else left[0]
        if callable(outcome):
            outcome(connection, request)
        else:
            connection.answer(request, outcome)

    return handle


def hang_up(connection: Connection, _request: dict[str, Any]) -> None:
    connection.hang_up()


def say_nothing(_connection: Connection, _request: dict[str, Any]) -> None:
    return
