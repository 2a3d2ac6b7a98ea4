"""One port for everything: HTTP requests for the admin API, upgrades for clients (chapter 07 §1)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import h11
import msgspec
import trio

from waD.sandbox.exchange import Exchange, next_event
from waD.sandbox.media_host import MediaHost
from waD.sandbox.websocket import Websocket

MAX_HEAD: Final = 65_536
MAX_BODY: Final = 4 * 1024 * 1024
REQUEST_S: Final = 30.0
CHAT_PATH: Final = "/ws/chat"
_BROKEN: Final = (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError)


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request with its body; `path` is decoded."""

    method: str
    path: str
    query: dict[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A status and a JSON document, or text."""

    status: int
    payload: Any = None

    def encode(self) -> tuple[bytes, bytes]:
        """Content type and body."""
        if isinstance(self.payload, str):
            return b"text/plain; charset=utf-8", self.payload.encode()
        return b"application/json", msgspec.json.encode(self.payload) + b"\n"


Answer = Callable[[HttpRequest], Awaitable[HttpResponse]]
Serve = Callable[[Websocket], Awaitable[None]]
Gate = Callable[[], int | None]
"""Before an upgrade: None to go on, an HTTP status to refuse with, 0 to cut the connection."""


class HttpServer:
    """Speaks HTTP/1.1 on a stream until it ends or becomes a websocket."""

    def __init__(self, answer: Answer, media: MediaHost, serve_client: Serve, gate: Gate) -> None:
        self._answer = answer
        self._media = media
        self._serve_client = serve_client
        self._gate = gate

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serve one connection; never raises for what the peer does."""
        try:
            await self._requests(stream)
        except _BROKEN:
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async def _requests(self, stream: trio.abc.Stream) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        while True:
            with trio.move_on_after(REQUEST_S) as scope:
                request = await next_event(stream, connection)
            if scope.cancelled_caught or not isinstance(request, h11.Request):
                return
            if _is_upgrade(request):
                await self._upgrade(stream, connection, request)
                return
            if self._media.owns(request):
                await self._media.serve(Exchange(stream, connection, request))
            else:
                with trio.move_on_after(REQUEST_S) as scope:
                    body = await _read_body(stream, connection)
                if scope.cancelled_caught:
                    return
                await self._respond(stream, connection, request, body)
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return
            connection.start_next_cycle()

    async def _respond(
        self, stream: trio.abc.Stream, connection: h11.Connection, request: h11.Request, body: bytes | None
    ) -> None:
        if body is None:
            response = HttpResponse(413, {"error": f"a body has at most {MAX_BODY} bytes"})
        else:
            target = urlsplit(request.target.decode("latin-1"))
            query = dict(parse_qsl(target.query))
            response = await self._answer(
                HttpRequest(request.method.decode(), unquote(target.path), query, body)
            )
        await _send(stream, connection, response, head=request.method == b"HEAD", close=body is None)

    async def _upgrade(
        self, stream: trio.abc.Stream, connection: h11.Connection, request: h11.Request
    ) -> None:
        path = request.target.decode("latin-1")
        status = self._gate()
        if status == 0:
            return
        if status is None and urlsplit(path).path != CHAT_PATH:
            status = 404
        if status is not None:
            await _send(stream, connection, HttpResponse(status, {"error": "refused"}), close=True)
            return
        websocket = Websocket(stream)
        headers = [(bytes(name), bytes(value)) for name, value in request.headers]
        more, _ = connection.trailing_data
        if not await websocket.accept(headers, path, more):
            await _send(
                stream, connection, HttpResponse(400, {"error": "not a websocket request"}), close=True
            )
            return
        await self._serve_client(websocket)


async def _read_body(stream: trio.abc.Stream, connection: h11.Connection) -> bytes | None:
    """The request's body; None when it is too long."""
    body = bytearray()
    while True:
        event = await next_event(stream, connection)
        if isinstance(event, h11.EndOfMessage):
            return bytes(body)
        if not isinstance(event, h11.Data):
            raise trio.BrokenResourceError("the request ended in its body")
        body += event.data
        if len(body) > MAX_BODY:
            return None


async def _send(
    stream: trio.abc.Stream,
    connection: h11.Connection,
    response: HttpResponse,
    *,
    head: bool = False,
    close: bool = False,
) -> None:
    kind, body = response.encode()
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    if close:
        headers.append((b"connection", b"close"))
    data = connection.send(h11.Response(status_code=response.status, headers=headers)) or b""
    if not head:
        data += connection.send(h11.Data(data=body)) or b""
    data += connection.send(h11.EndOfMessage()) or b""
    await stream.send_all(data)


def _is_upgrade(request: h11.Request) -> bool:
    return any(name == b"upgrade" and value.lower() == b"websocket" for name, value in request.headers)
