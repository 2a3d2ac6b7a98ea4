"""Dialing: TCP, proxy, TLS, the upgrade request, and what each failure is called (chapter 01 §1, chapter 02 §8.2)."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed, ConnectionRejected

from waD.link.causes import cause
from waD.link.endpoint import DEFAULT_URL, Endpoint, EndpointError
from waD.link.errors import Disconnected
from waD.link.websocket import (
    MAX_PROXY_ANSWER,
    MAX_UPGRADE_ANSWER,
    WatchedStream,
    open_stream,
    translate,
    upgrade,
)
from waD.sandbox.identity import make_tls_files
from waD.wire.certs import ROOT_KEY

HERE = Endpoint("ws://127.0.0.1:5222/ws/chat")
Serve = Callable[[trio.SocketStream], Awaitable[None]]


async def listen(nursery: trio.Nursery, serve: Any) -> int:
    """Serve streams on loopback; returns the port."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, serve, listeners)
    port: int = listeners[0].socket.getsockname()[1]
    return port


async def failure_of(endpoint: Endpoint) -> Any:
    """The cause of a dial that must fail."""
    with pytest.raises(Exception) as caught:
        await open_stream(endpoint)
    return translate(caught.value, endpoint)


# Endpoints.


def test_whatsapp_is_the_default() -> None:
    endpoint = Endpoint()
    assert (endpoint.url, endpoint.host, endpoint.port, endpoint.tls) == (
        DEFAULT_URL,
        "web.whatsapp.com",
        443,
        True,
    )
    assert endpoint.root_key == ROOT_KEY
    assert endpoint.host_header == "web.whatsapp.com"
    assert endpoint.target() == "/ws/chat"


@pytest.mark.parametrize(
    ("url", "host", "port", "header", "target"),
    [
        ("ws://127.0.0.1:8080/ws/chat", "127.0.0.1", 8080, "127.0.0.1:8080", "/ws/chat"),
        ("ws://[::1]:8080/ws/chat", "::1", 8080, "[::1]:8080", "/ws/chat"),
        ("ws://localhost", "localhost", 80, "localhost", "/"),
        ("wss://h:443/a?b=c", "h", 443, "h", "/a?b=c"),
        ("wss://h:8443/a", "h", 8443, "h:8443", "/a"),
    ],
)
def test_parts_of_a_url(url: str, host: str, port: int, header: str, target: str) -> None:
    endpoint = Endpoint(url)
    assert (endpoint.host, endpoint.port, endpoint.host_header) == (host, port, header)
    assert endpoint.target() == target


def test_routing_information_is_one_more_query() -> None:
    assert Endpoint("wss://h/a?b=c").target(b"\xfb\xff") == "/a?b=c&ED=-_8="


@pytest.mark.parametrize(
    "options",
    [
        {"url": "https://h/"},
        {"url": "wss:///path"},
        {"url": "wss://h:0/"},
        {"url": "wss://h:99999/"},
        {"url": "wss://h/#x"},
        {"url": "wss://user:hunter2@h/"},
        {"url": "wss://h/ü"},
        {"url": "wss://h/a b"},
        {"url": "wss://[::1/"},
        {"proxy": "socks5://h:1"},
        {"proxy": "http://"},
        {"root_key": b"short"},
    ],
)
def test_nonsense_is_refused_when_it_is_read(options: dict[str, Any]) -> None:
    with pytest.raises(EndpointError) as caught:
        Endpoint(**options)
    assert "hunter2" not in str(caught.value)


def test_a_proxy_password_is_not_shown() -> None:
    endpoint = Endpoint(proxy="http://user:hunter2@proxy.test:3128")
    assert "hunter2" not in repr(endpoint)
    assert "proxy.test" in repr(endpoint)


def test_a_ca_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match="cannot be read"):
        Endpoint(ca_file=tmp_path / "none.pem").ssl_context()
    bad = tmp_path / "bad.pem"
    bad.write_text("nothing")
    with pytest.raises(EndpointError, match="PEM"):
        Endpoint(ca_file=bad).ssl_context()


# TCP and names.


async def test_refused() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    found = await failure_of(Endpoint(f"ws://127.0.0.1:{port}/"))
    assert (found.id, found.code) == ("refused", 408)
    assert f"127.0.0.1:{port}" in found.message


async def test_unknown_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Resolver(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *_: Any, **__: Any) -> Any:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        async def getnameinfo(self, *_: Any) -> Any:
            raise NotImplementedError

    before = trio.socket.set_custom_hostname_resolver(Resolver())
    try:
        found = await failure_of(Endpoint("ws://nowhere.invalid/"))
    finally:
        trio.socket.set_custom_hostname_resolver(before)
    assert (found.id, found.code) == ("dns", 408)
    assert "nowhere.invalid" in found.message


# TLS.


async def tls_port(nursery: trio.Nursery, directory: Path) -> tuple[int, Path]:
    ca_file, cert_file, key_file = make_tls_files(directory)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert_file, key_file)

    async def serve(stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        try:
            await tls.do_handshake()
            await tls.send_all(b"hello")
            await tls.receive_some()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    return await listen(nursery, serve), ca_file


async def test_tls_with_an_authority_of_ones_own(nursery: trio.Nursery, tmp_path: Path) -> None:
    port, ca_file = await tls_port(nursery, tmp_path)
    stream = await open_stream(Endpoint(f"wss://127.0.0.1:{port}/", ca_file=ca_file))
    assert await stream.receive_some() == b"hello"
    await trio.aclose_forcefully(stream)


async def test_tls_with_an_unknown_authority(nursery: trio.Nursery, tmp_path: Path) -> None:
    port, _ = await tls_port(nursery, tmp_path)
    found = await failure_of(Endpoint(f"wss://127.0.0.1:{port}/"))
    assert (found.id, found.code) == ("tls", 495)
    assert "clock" in found.message
    assert "proxy" in found.message


async def test_tls_for_another_name(nursery: trio.Nursery, tmp_path: Path) -> None:
    port, ca_file = await tls_port(nursery, tmp_path)
    other = socket.getaddrinfo("127.0.0.2", port)[0][4][0]
    endpoint = Endpoint(f"wss://{other}:{port}/", ca_file=ca_file)
    found = await failure_of(endpoint)
    assert found.id in ("tls", "refused")


async def test_a_server_without_tls(nursery: trio.Nursery) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await stream.aclose()

    found = await failure_of(Endpoint(f"wss://127.0.0.1:{await listen(nursery, serve)}/"))
    assert found.id == "tls"


async def test_a_missing_ca_file_is_a_tls_fault(tmp_path: Path) -> None:
    found = await failure_of(Endpoint("wss://127.0.0.1:1/", ca_file=tmp_path / "none.pem"))
    assert found.id == "tls"
    assert "none.pem" in found.message


# Proxy.


async def proxy_port(nursery: trio.Nursery, answer: bytes, requests: list[bytes]) -> int:
    async def serve(stream: trio.SocketStream) -> None:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += await stream.receive_some()
        requests.append(request)
        await stream.send_all(answer)
        await stream.aclose()

    return await listen(nursery, serve)


async def test_through_a_proxy(nursery: trio.Nursery) -> None:
    requests: list[bytes] = []
    port = await proxy_port(
        nursery, b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\nserver!", requests
    )
    endpoint = Endpoint("ws://web.test:7000/", proxy=f"http://me:a%40b@127.0.0.1:{port}")
    stream = await open_stream(endpoint)
    assert await stream.receive_some() == b"server!"
    await stream.aclose()
    lines = requests[0].decode().split("\r\n")
    assert lines[:2] == ["CONNECT web.test:7000 HTTP/1.1", "Host: web.test:7000"]
    assert lines[2] == "Proxy-Authorization: Basic bWU6YUBi"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"",
        b"SSH-2.0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x" * MAX_PROXY_ANSWER,
    ],
)
async def test_a_proxy_that_does_not_want_us(nursery: trio.Nursery, answer: bytes) -> None:
    port = await proxy_port(nursery, answer, [])
    found = await failure_of(Endpoint("ws://web.test/", proxy=f"http://u:hunter2@127.0.0.1:{port}"))
    assert (found.id, found.code) == ("refused", 408)
    assert "proxy" in found.message
    assert "hunter2" not in found.message


# The upgrade.


async def upgraded(answer: bytes | None, endpoint: Endpoint = HERE) -> tuple[Any, bytes]:
    """Send the upgrade request to a peer that gives this answer; returns the outcome and the request."""
    ours, theirs = trio.testing.memory_stream_pair()
    outcome: Any = None
    request = b""

    async def peer() -> None:
        nonlocal request
        while not request.endswith(b"\r\n\r\n"):
            request += bytes(await theirs.receive_some())
        if answer is not None:
            await theirs.send_all(answer)
        await theirs.aclose()

    try:
        with trio.fail_after(5.0):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer)
                outcome = await upgrade(nursery, WatchedStream(ours), endpoint, b"\x08\x02")
                nursery.cancel_scope.cancel()
    except BaseException as error:
        outcome = translate(error, endpoint)
    assert outcome is not None
    return outcome, request


async def test_what_is_asked() -> None:
    _, request = await upgraded(None)
    lines = request.decode().split("\r\n")
    assert lines[0] == "GET /ws/chat?ED=CAI= HTTP/1.1"
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    assert headers["host"] == "127.0.0.1:5222"
    assert headers["origin"] == "https://web.whatsapp.com"
    assert headers["upgrade"].lower() == "websocket"
    assert headers["sec-websocket-version"] == "13"
    assert "sec-websocket-protocol" not in headers
    assert "sec-websocket-extensions" not in headers


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
async def test_a_refusal_is_http(status: int) -> None:
    answer = f"HTTP/1.1 {status} No\r\nContent-Length: 2\r\nRetry-After: 9\r\n\r\nno".encode()
    found, _ = await upgraded(answer)
    assert (found.id, found.code, found.retry_after_s) == ("http", 1000 + status, 9.0)


async def test_the_stream_ends_before_the_answer() -> None:
    found, _ = await upgraded(None)
    assert found.id == "refused"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 503 No\r\nX: " + b"x" * (MAX_UPGRADE_ANSWER + 10),
        b"HTTP/1.1 503 No\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000,
        b"SSH-2.0-OpenSSH_9\r\n\r\n",
        b"HTTP/1.1 many\r\n\r\n",
        b"\x16\x03\x01\x00\x05hello" * 20,
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: AAAA\r\n\r\n"
        ),
    ],
)
async def test_answers_that_are_no_websocket(answer: bytes) -> None:
    found, _ = await upgraded(answer)
    assert (found.id, found.code) == ("refused", 408)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"30", 30.0),
        (b" 5 ", 5.0),
        (b"999999", 86_400.0),
        (b"-5", None),
        (b"Wed, 21 Oct 2015 07:28:00 GMT", None),
        (b"9" * 40, None),
    ],
)
def test_retry_after(value: bytes, seconds: float | None) -> None:
    found = translate(ConnectionRejected(503, [(b"retry-after", value)], None), HERE)
    assert found is not None
    assert found.retry_after_s == seconds


# Names of failures.


@pytest.mark.parametrize(
    ("error", "cause_id"),
    [
        (trio.TooSlowError(), "dial_timeout"),
        (TimeoutError(110, "timed out"), "dial_timeout"),
        (ConnectionResetError(104, "reset"), "refused"),
        (OSError(113, "No route to host"), "refused"),
        (socket.gaierror(-2, "unknown"), "dns"),
        (ssl.SSLCertVerificationError(1, "expired"), "tls"),
        (ssl.SSLError(1, "wrong version"), "tls"),
        (EndpointError("bad"), "tls"),
        (trio.BrokenResourceError(), "refused"),
        (trio.ClosedResourceError(), "refused"),
        (ConnectionClosed(None), "eof"),  # type: ignore[arg-type]
        (Disconnected(cause("deaf", "x")), "deaf"),
        (BaseExceptionGroup("g", [trio.Cancelled._create(source="unknown"), OSError(111, "no")]), "refused"),
    ],
)
def test_translation(error: BaseException, cause_id: str) -> None:
    found = translate(error, HERE)
    assert found is not None
    assert found.id == cause_id


def test_a_broken_stream_has_the_cause_of_what_broke_it() -> None:
    broken = trio.BrokenResourceError()
    broken.__cause__ = ssl.SSLCertVerificationError(1, "self-signed")
    found = translate(broken, HERE)
    assert found is not None
    assert found.id == "tls"


def test_all_attempts_of_a_name_failing_is_one_failure() -> None:
    error = OSError("all attempts to connect failed")
    error.__cause__ = ExceptionGroup("", [ConnectionRefusedError(111, "a"), ConnectionRefusedError(111, "b")])
    found = translate(error, HERE)
    assert found is not None
    assert found.id == "refused"


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("x"), BaseExceptionGroup("g", [KeyError("x")])])
def test_what_is_not_ours_stays_what_it_is(error: BaseException) -> None:
    assert translate(error, HERE) is None


def test_a_proxy_is_named() -> None:
    through = Endpoint("ws://web.test/", proxy="http://u:hunter2@proxy.test:3128")
    for error in (socket.gaierror(-2, "unknown"), OSError(111, "no"), trio.TooSlowError()):
        found = translate(error, through)
        assert found is not None
        assert "proxy.test" in found.message
        assert "hunter2" not in found.message


# The stream that remembers.


async def test_watched_stream_passes_on_and_tells_the_end_once() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    watched = WatchedStream(ours)
    ends: list[int] = []
    watched.on_end = lambda: ends.append(1)
    await watched.send_all(b"abc")
    assert await theirs.receive_some() == b"abc"
    await theirs.send_all(b"def")
    assert await watched.receive_some() == b"def"
    await theirs.aclose()
    assert await watched.receive_some() == b""
    await watched.aclose()
    assert ends == [1]
    assert watched.failure is None


async def test_watched_stream_remembers_what_broke() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    watched = WatchedStream(ours)
    await theirs.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await watched.send_all(b"x")
    assert isinstance(watched.failure, trio.BrokenResourceError)
