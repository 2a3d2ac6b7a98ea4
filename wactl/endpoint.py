"""Whether WhatsApp's end point can be reached from here: name, TCP and TLS, each with a limit of time."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from waD.control.types import Finding, Level

WHATSAPP: Final = "wss://web.whatsapp.com/ws/chat"
PORTS: Final = {"wss": 443, "ws": 80, "https": 443, "http": 80}
PATIENCE_S: Final = 5.0
"""For each of the three steps."""

MAX_ADDRESSES: Final = 4
_NETWORK: Final = "check the network, the route and the firewall"


class Endpoint(NamedTuple):
    """Where the daemon connects to.

    Attributes:
        url: of the websocket.
        proxy: URL of the HTTP proxy in between, if there is one.
        ca_file: whom to trust beside the system's authorities.
    """

    url: str = WHATSAPP
    proxy: str | None = None
    ca_file: str | None = None


Address = tuple[int, int, int, str, Any]


def look(end: Endpoint, patience: float = PATIENCE_S) -> Iterator[Finding]:
    """Look at one end point; of one behind a proxy, at the way to the proxy."""
    url = end.proxy or end.url
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or PORTS.get(parts.scheme)
    except ValueError:
        host = port = None
    if not host or not port:
        yield _finding("dns", "warning", end.url, "its URL names no host", "see network.url in waD.toml(5)")
        return
    subject = f"{host}:{port}"
    try:
        addresses = resolve(host, port, patience)
    except OSError as error:
        hint = "check the name and the resolver: getent hosts " + host
        yield _finding("dns", "warning", host, f"its name cannot be resolved: {reason(error)}", hint)
        return
    yield _finding("dns", "ok", host, f"its name resolves to {_listed(addresses)}")
    yield from _connect(subject, host, addresses, end, patience)


def resolve(host: str, port: int, patience: float) -> list[Address]:
    """The addresses of a host; OSError if there are none within `patience` seconds."""
    outcome: list[list[Address] | OSError] = []

    def ask() -> None:
        try:
            outcome.append(list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
        except OSError as error:
            outcome.append(error)
        except UnicodeError as error:
            outcome.append(OSError(str(error)))

    # The system's resolver has no limit of time of its own; a thread that it holds on to ends with the process.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(patience)
    if not outcome:
        raise OSError(f"no answer within {patience:g} s")
    if isinstance(outcome[0], OSError):
        raise outcome[0]
    return outcome[0]


def _listed(addresses: list[Address]) -> str:
    return ", ".join(dict.fromkeys(str(address[0]) for *_, address in addresses[:MAX_ADDRESSES]))


def _connect(
    subject: str, host: str, addresses: list[Address], end: Endpoint, patience: float
) -> Iterator[Finding]:
    try:
        stream = dial(addresses, patience)
    except OSError as error:
        yield _finding("tcp", "warning", subject, f"no connection: {reason(error)}", _NETWORK)
        return
    with stream:
        if end.proxy is not None:
            yield _finding(
                "tcp", "ok", subject, "the proxy takes connections; what is behind it was not looked at"
            )
            return
        yield _finding("tcp", "ok", subject, "it takes connections")
        if urlsplit(end.url).scheme == "wss":
            yield _tls(stream, subject, host, end.ca_file)


def dial(addresses: list[Address], patience: float) -> socket.socket:
    """Connect to the first address that answers; OSError of the last one."""
    last = OSError("no address")
    for family, kind, protocol, _, address in addresses[:MAX_ADDRESSES]:
        stream = socket.socket(family, kind, protocol)
        stream.settimeout(patience)
        try:
            stream.connect(address)
        except OSError as error:
            stream.close()
            last = error
        else:
            return stream
    raise last


def _tls(stream: socket.socket, subject: str, host: str, ca_file: str | None) -> Finding:
    try:
        context = ssl.create_default_context()
        if ca_file is not None:
            context.load_verify_locations(ca_file)
    except OSError as error:
        hint = "see network.ca_file in waD.toml(5)"
        return _finding("tls", "warning", ca_file or subject, f"it cannot be used: {reason(error)}", hint)
    try:
        with context.wrap_socket(stream, server_hostname=host) as secure:
            return _finding("tls", "ok", subject, f"{secure.version()}, its certificate is valid")
    except ssl.SSLCertVerificationError as error:
        hint = "check the clock, a proxy that intercepts TLS, and network.ca_file"
        text = f"its certificate is not valid: {error.verify_message}"
        return _finding("tls", "warning", subject, text, hint)
    except OSError as error:
        hint = "check a proxy or firewall that intercepts TLS"
        return _finding("tls", "warning", subject, f"TLS failed: {reason(error)}", hint)


def reason(error: OSError) -> str:
    """What an error says, in a few words."""
    return error.strerror or str(error) or type(error).__name__


def _finding(check: str, level: Level, subject: str, message: str, hint: str = "") -> Finding:
    return Finding(check=check, level=level, subject=subject, message=message, hint=hint)
