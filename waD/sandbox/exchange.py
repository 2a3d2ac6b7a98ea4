"""One HTTP request and its answer, both as streams."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Final

import h11
import trio

CHUNK: Final = 65_536
IDLE_S: Final = 30.0
"""Longest silence of a client inside a request."""
DRAINED: Final = 16 * 1024 * 1024
"""Bytes of an unwanted body that are read, so that the client listens to the answer."""
DRAIN_S: Final = 2.0


class Exchange:
    """A request whose body is read when somebody wants it.

    Attributes:
        method: in capitals.
        target: as the client wrote it.
    """

    def __init__(self, stream: trio.abc.Stream, connection: h11.Connection, request: h11.Request) -> None:
        self.method = request.method.decode()
        self.target = request.target.decode("latin-1")
        self._stream = stream
        self._connection = connection
        self._headers = {bytes(name): bytes(value) for name, value in request.headers}
        self._read = False

    def header(self, name: str) -> str | None:
        """A header by its name in small letters."""
        value = self._headers.get(name.encode())
        return None if value is None else value.decode("latin-1")

    @property
    def length(self) -> int | None:
        """Announced bytes of the body."""
        text = self.header("content-length")
        return int(text) if text is not None else None

    async def body(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes; trio.BrokenResourceError when it does not end properly."""
        if self._connection.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[])
            await self._stream.send_all(self._connection.send(go_on) or b"")
        while True:
            event = await next_event(self._stream, self._connection)
            if isinstance(event, h11.EndOfMessage):
                self._read = True
                return
            if not isinstance(event, h11.Data):
                raise trio.BrokenResourceError("the request ended in its body")
            yield bytes(event.data)

    async def respond(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        """Answer with a body that is at hand; an unread body of the request is dealt with."""
        close = not await self.drained()
        fields = {"content-length": str(len(body)), **headers}
        if close:
            fields["connection"] = "close"
        await self.begin(status, fields)
        if self.method != "HEAD":
            await self.send(body)
        await self.end()
        if close:
            with trio.move_on_after(DRAIN_S):
                while await self._stream.receive_some(CHUNK):
                    pass

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the head of an answer."""
        fields = [(name.encode(), value.encode()) for name, value in headers.items()]
        head = self._connection.send(h11.Response(status_code=status, headers=fields))
        await self._stream.send_all(head or b"")

    async def send(self, data: bytes) -> None:
        """Send a piece of the answer's body."""
        await self._stream.send_all(self._connection.send(h11.Data(data=data)) or b"")

    async def end(self) -> None:
        """The answer is complete."""
        await self._stream.send_all(self._connection.send(h11.EndOfMessage()) or b"")

    async def cut(self) -> None:
        """End the connection without a word."""
        await trio.aclose_forcefully(self._stream)
        raise trio.ClosedResourceError("cut by order")

    async def drained(self) -> bool:
        """Read what nobody wants, within reason; whether that was all."""
        if self._read:
            return True
        if self._connection.they_are_waiting_for_100_continue or (self.length or 0) > DRAINED:
            return False
        count = 0
        async with aclosing(self.body()) as body:
            async for piece in body:
                count += len(piece)
                if count > DRAINED:
                    return False
        return True


async def next_event(stream: trio.abc.Stream, connection: h11.Connection) -> Any:
    """The next event of the client; trio.BrokenResourceError when it is silent for too long."""
    while (event := connection.next_event()) is h11.NEED_DATA:
        with trio.move_on_after(IDLE_S) as scope:
            connection.receive_data(bytes(await stream.receive_some(CHUNK)))
        if scope.cancelled_caught:
            raise trio.BrokenResourceError("the client says nothing")
    return event
