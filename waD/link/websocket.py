"""Dialing: TCP, proxy, TLS and the websocket upgrade, with every failure translated to a cause in one place.

See chapter 01 §1 for what is sent and chapter 02 §8.2 (transport rows) for the causes.
"""

from __future__ import annotations

import base64
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeAlias
from urllib.parse import unquote, urlsplit

import h11
import trio
import trio_websocket
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection

from waD.link.causes import Cause, cause, http_cause
from waD.link.endpoint import ORIGIN, Endpoint, EndpointError
from waD.link.errors import Disconnected

MAX_MESSAGE_SIZE: Final = 2**24 + 1024
"""The largest frame with its length fits into one websocket message."""
RECEIVE_SIZE: Final = 16 * 1024
MAX_UPGRADE_ANSWER: Final = 64 * 1024
"""Bytes of an answer to the upgrade request, body of a refusal included."""
MAX_PROXY_ANSWER: Final = 16 * 1024
MAX_RETRY_AFTER_S: Final = 86_400

OpenStream: TypeAlias = Callable[[Endpoint], Awaitable[trio.abc.Stream]]


class _ProxyError(Exception):
    """The proxy refused or answered nonsense."""


class _TooLongError(Exception):
    """The answer to the upgrade request is larger than any honest one."""


class WatchedStream(trio.abc.Stream):
    """Passes everything through, remembers what broke, and tells when the stream ended.

    The websocket library forgets why a stream broke and waits for ever when it ends inside the upgrade.

    Attributes:
        failure: the exception that ended the stream, when there was one.
        on_end: called once when the stream ends or is closed.
        allowance: bytes that may still be received, or None for any number.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.failure: BaseException | None = None
        self.on_end: Callable[[], None] | None = None
        self.allowance: int | None = MAX_UPGRADE_ANSWER

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive; an empty result is the end."""
        try:
            data = bytes(await self._stream.receive_some(max_bytes))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._end(error)
            raise
        if self.allowance is not None:
            self.allowance -= len(data)
            if self.allowance < 0:
                self._end(_TooLongError())
                raise trio.BrokenResourceError from self.failure
        if not data:
            self._end(None)
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send."""
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._end(error)
            raise

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until sending makes sense."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close at once: TLS needs no farewell when the frames inside say where the stream ends."""
        self._end(None)
        await trio.aclose_forcefully(self._stream)

    def _end(self, error: BaseException | None) -> None:
        if self.failure is None:
            self.failure = error
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end()


async def open_stream(endpoint: Endpoint) -> trio.abc.Stream:
    """Open TCP to the server, through the proxy when there is one, and TLS on `wss`.

    Raises:
        OSError, ssl.SSLError, trio.BrokenResourceError, EndpointError: see `translate`.
    """
    context = endpoint.ssl_context() if endpoint.tls else None
    if endpoint.proxy is None:
        stream: trio.abc.Stream = await trio.open_tcp_stream(endpoint.host, endpoint.port)
    else:
        stream = await _through_proxy(endpoint, endpoint.proxy)
    if context is None:
        return stream
    tls = trio.SSLStream(stream, context, server_hostname=endpoint.host, https_compatible=True)
    try:
        await tls.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return tls


async def _through_proxy(endpoint: Endpoint, proxy: str) -> trio.abc.Stream:
    parts = urlsplit(proxy)
    assert parts.hostname is not None
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    target = f"{host}:{endpoint.port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(login.encode()).decode()}")
    stream = await trio.open_tcp_stream(parts.hostname, parts.port or 80)
    try:
        await stream.send_all("\r\n".join([*lines, "", ""]).encode())
        await _read_proxy_answer(stream)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def _read_proxy_answer(stream: trio.SocketStream) -> None:
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        # One byte at a time: what follows the header already belongs to the server.
        byte = await stream.receive_some(1)
        answer += byte
        if not byte or len(answer) > MAX_PROXY_ANSWER:
            raise _ProxyError("the proxy closed or did not answer in HTTP")
    fields = answer.split(b"\r\n", 1)[0].split(b" ", 2)
    if len(fields) < 2 or not fields[0].startswith(b"HTTP/1.") or fields[1] != b"200":
        raise _ProxyError(
            f"the proxy answered {fields[1][:3].decode(errors='replace') if len(fields) > 1 else ''}"
        )


async def upgrade(
    nursery: trio.Nursery, stream: WatchedStream, endpoint: Endpoint, routing_info: bytes | None
) -> WebSocketConnection:
    """Make a websocket of a stream; its reader runs in `nursery` and may end that with ConnectionRejected.

    Raises:
        trio.BrokenResourceError: the stream ended before the upgrade was answered.
    """
    websocket: WebSocketConnection | None = None
    with trio.CancelScope() as scope:
        stream.on_end = scope.cancel
        websocket = await trio_websocket.wrap_client_stream(
            nursery,
            stream,  # type: ignore[arg-type]  # any stream will do
            endpoint.host_header,
            endpoint.target(routing_info),
            extra_headers=[
                (b"Origin", ORIGIN.encode()),
                (b"Cache-Control", b"no-cache"),
                (b"Pragma", b"no-cache"),
            ],
            max_message_size=MAX_MESSAGE_SIZE,
            receive_buffer_size=RECEIVE_SIZE,
        )
    if websocket is None:
        raise trio.BrokenResourceError("the stream ended inside the websocket upgrade") from stream.failure
    stream.on_end = None
    stream.allowance = None
    return websocket


def translate(error: BaseException, endpoint: Endpoint) -> Cause | None:
    """Name the cause of an exception while dialing or on an open websocket; None for what is not ours.

    Groups count as the first of their members that is known.
    """
    if isinstance(error, BaseExceptionGroup):
        return next((found for inner in error.exceptions if (found := translate(inner, endpoint))), None)
    if isinstance(error, Disconnected):
        return error.cause
    if isinstance(error, ConnectionRejected):
        return http_cause(error.status_code, _retry_after(error.headers or ()))
    if isinstance(error, trio.TooSlowError):
        return cause("dial_timeout", f"{_place(endpoint)} did not answer in time")
    if isinstance(error, EndpointError):
        return cause("tls", str(error))
    if isinstance(error, _ProxyError):
        return cause("refused", str(error))
    if isinstance(error, _TooLongError):
        return cause("refused", f"{_place(endpoint)} answered the upgrade with too much data")
    if isinstance(error, h11.ProtocolError):
        # The websocket library stumbles over its own answer to an answer that is not HTTP.
        return cause("refused", f"{_place(endpoint)} did not answer the upgrade in HTTP")
    if isinstance(error, ConnectionClosed):
        return cause("eof", "the websocket closed")
    if isinstance(error, (trio.BrokenResourceError, trio.ClosedResourceError)):
        inner = error.__cause__
        known = None if inner is None else translate(inner, endpoint)
        return known or cause("refused", f"{_place(endpoint)} closed the connection")
    return _translate_os_error(error, endpoint) if isinstance(error, OSError) else None


def _translate_os_error(error: OSError, endpoint: Endpoint) -> Cause | None:
    place = _place(endpoint)
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or error.args[-1]
        return cause(
            "tls",
            f"TLS with {place} failed: {reason}; is the system clock right, and does a proxy intercept the"
            " connection?",
        )
    if isinstance(error, socket.gaierror):
        return cause("dns", f"the name {_host(endpoint)} does not resolve: {error.strerror}")
    if isinstance(error, TimeoutError):
        return cause("dial_timeout", f"{place} did not answer in time")
    if isinstance(error.__cause__, (OSError, BaseExceptionGroup)):
        return translate(error.__cause__, endpoint)
    return cause("refused", f"{place}: {error.strerror or error}")


def _host(endpoint: Endpoint) -> str:
    return endpoint.host if endpoint.proxy is None else urlsplit(endpoint.proxy).hostname or ""


def _place(endpoint: Endpoint) -> str:
    via = "" if endpoint.proxy is None else f" through the proxy {_host(endpoint)}"
    return f"{endpoint.host}:{endpoint.port}{via}"


def _retry_after(headers: Iterable[tuple[bytes, bytes]]) -> float | None:
    for name, value in headers:
        if name.lower() == b"retry-after" and value.strip().isdigit() and len(value) < 8:
            return float(min(int(value), MAX_RETRY_AFTER_S))
    return None
