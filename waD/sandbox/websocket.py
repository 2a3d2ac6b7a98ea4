"""The server's end of one websocket over any trio stream: binary data in chunks, both ways (chapter 01 §1.3)."""

from __future__ import annotations

from typing import Final

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    Request,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

CHUNK: Final = 65_536
CLOSE_WAIT_S: Final = 2.0
ABNORMAL: Final = 1006


class Websocket:
    """Carries binary data; text messages are ignored, pings answered, no extensions.

    Messages are not put together: the frames inside are a byte stream anyway, and a message may be larger than
    anything that should be held in memory.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._protocol = WSConnection(ConnectionType.SERVER)
        self._sending = trio.Lock()
        self._inbox: list[bytes] = []
        self._ended = False

    async def accept(self, headers: list[tuple[bytes, bytes]], path: str, more: bytes) -> bool:
        """Answer the upgrade request; False when it is not one. `more` is what came after it."""
        try:
            self._protocol.initiate_upgrade_connection(headers, path)
        except RemoteProtocolError:
            return False
        if not any(isinstance(event, Request) for event in self._protocol.events()):
            return False
        await self._send(AcceptConnection())
        if more:
            self._protocol.receive_data(more)
            await self._process()
        return True

    async def receive(self) -> bytes | None:
        """The next chunk of binary data; None when the peer closed or vanished."""
        while not self._inbox:
            if self._ended:
                return None
            await self._read()
        chunks, self._inbox = self._inbox, []
        return b"".join(chunks)

    async def send(self, data: bytes) -> None:
        """Send one binary message; raises trio.BrokenResourceError when the peer is gone."""
        await self._send(BytesMessage(data=data))

    async def close(self, code: int) -> None:
        """Say goodbye, wait a moment for the answer, and close the stream."""
        with trio.move_on_after(CLOSE_WAIT_S):
            try:
                await self._send(CloseConnection(code=code))
                while not self._ended:
                    await self._read()
            except (
                LocalProtocolError,
                trio.BrokenResourceError,
                trio.ClosedResourceError,
                trio.BusyResourceError,
            ):
                pass  # it is over already, or the other side said goodbye first
        await trio.aclose_forcefully(self._stream)

    async def abort(self) -> None:
        """Cut the stream without a word."""
        await trio.aclose_forcefully(self._stream)

    async def _read(self) -> None:
        try:
            data = await self._stream.receive_some(CHUNK)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        if not data:
            self._ended = True
            return
        try:
            self._protocol.receive_data(bytes(data))
            await self._process()
        except RemoteProtocolError:
            self._ended = True

    async def _process(self) -> None:
        for event in self._protocol.events():
            if isinstance(event, BytesMessage):
                self._inbox.append(bytes(event.data))
            elif isinstance(event, Ping):
                await self._send(event.response())
            elif isinstance(event, CloseConnection):
                self._ended = True
                if event.code != ABNORMAL:
                    await self._answer_close(event)

    async def _answer_close(self, event: CloseConnection) -> None:
        try:
            await self._send(event.response())
        except (LocalProtocolError, trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async def _send(self, event: Event) -> None:
        async with self._sending:
            try:
                data = self._protocol.send(event)
            except LocalProtocolError:
                if isinstance(event, Message):
                    raise trio.BrokenResourceError("the websocket is closing") from None
                raise
            await self._stream.send_all(data)
