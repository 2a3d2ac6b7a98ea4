"""A control client of the simplest kind, and a server to point it at.

All over a real Unix socket under tmp_path; no test sleeps, each waits for what it is about.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio
import trio.testing

from tests.control.fakes import FakeDaemon, FakeSessions
from waD.control.peers import Peer
from waD.control.server import ControlServer
from waD.control.settings import ControlSettings, Limits
from waD.control.sockets import bind_socket

PATIENCE_S = 30.0


class Refused(Exception):  # noqa: N818
    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.symbol = error["data"]["symbol"]
        self.code = error["code"]
        self.data = error["data"]


class Client:
    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.notices: list[dict[str, Any]] = []
        self._buffer = bytearray()
        self._count = 0

    async def raw(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def read(self) -> dict[str, Any] | None:
        """The next document, None at the end of the connection."""
        with trio.fail_after(PATIENCE_S):
            while (end := self._buffer.find(b"\n")) < 0:
                try:
                    data = await self.stream.receive_some(65_536)
                except trio.BrokenResourceError:
                    return None
                if not data:
                    assert not self._buffer, "the connection ended within a line"
                    return None
                self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        document: dict[str, Any] = msgspec.json.decode(line)
        assert document["jsonrpc"] == "2.0"
        return document

    async def post(self, method: str, /, **params: Any) -> int:
        """Send a request and return its id."""
        self._count += 1
        await self.raw(request(self._count, method, params))
        return self._count

    async def answer(self, request_id: int | str | None) -> dict[str, Any]:
        """Read until the answer with this id; notifications on the way are kept."""
        while (document := await self.read()) is not None:
            if "method" in document:
                self.notices.append(document)
            elif document["id"] == request_id:
                return document
        raise EOFError("the connection ended without the answer")

    async def call(self, method: str, /, **params: Any) -> Any:
        document = await self.answer(await self.post(method, **params))
        if "error" in document:
            raise Refused(document["error"])
        return document["result"]

    async def notice(self) -> dict[str, Any]:
        """The next notification."""
        if self.notices:
            return self.notices.pop(0)
        document = await self.read()
        assert document is not None
        assert "method" in document, document
        return document


def request(request_id: Any, method: str, params: dict[str, Any] | None = None) -> bytes:
    document = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params or {}}
    return msgspec.json.encode(document) + b"\n"


class Running:
    """A server under test.

    Set `peer` before connecting to be somebody else than the process that runs the tests.
    """

    def __init__(self, path: Path, settings: ControlSettings) -> None:
        self.path = path
        self.sessions = FakeSessions()
        self.daemon = FakeDaemon()
        self.peer = Peer(os.getpid(), os.geteuid(), frozenset())
        self.fault: Exception | None = None
        self.ended = trio.Event()
        self._scope = trio.CancelScope()
        self.server = ControlServer(
            self.sessions, self.daemon, settings, version="9.9", credentials=self._credentials
        )
        self._seen = trio.Event()

    def _credentials(self, _sock: object) -> Peer:
        self._seen.set()
        if self.fault:
            raise self.fault
        return self.peer

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """Connect as `peer`, and wait until the server has seen that."""
        self._seen = trio.Event()
        async with await trio.open_unix_socket(str(self.path)) as stream:
            with trio.fail_after(PATIENCE_S):
                await self._seen.wait()
            yield Client(stream)

    async def serve(self, *, task_status: trio.TaskStatus[Any]) -> None:
        try:
            with self._scope:
                await self.server.serve([bind_socket(self.path)], task_status=task_status)
        finally:
            self.ended.set()

    def cancel(self) -> None:
        self._scope.cancel()

    async def emptied(self, but: int = 0) -> None:
        """Wait until no more than so many clients are left."""
        with trio.fail_after(PATIENCE_S):
            while self.server.clients > but:
                await trio.lowlevel.checkpoint()


@asynccontextmanager
async def serving(
    tmp_path: Path, settings: ControlSettings | None = None, **limits: Any
) -> AsyncIterator[Running]:
    settings = settings or ControlSettings(limits=Limits(**limits))
    running = Running(tmp_path / "control.sock", settings)
    async with trio.open_nursery() as nursery:
        await nursery.start(running.serve)
        yield running
        nursery.cancel_scope.cancel()
