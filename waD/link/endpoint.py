"""Where to connect and whom to believe there (chapter 01 §1.1, §1.4)."""

from __future__ import annotations

import base64
import ssl
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from waD.wire.certs import ROOT_KEY

DEFAULT_URL: Final = "wss://web.whatsapp.com/ws/chat"
ORIGIN: Final = "https://web.whatsapp.com"
ROOT_KEY_LENGTH: Final = 32
_DEFAULT_PORTS: Final = {"ws": 80, "wss": 443}


class EndpointError(ValueError):
    """An endpoint setting makes no sense; the message names it."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A chat server.

    Attributes:
        url: `wss://` or `ws://`, host, optional port, path.
        root_key: 32-byte public key that must have signed the server's Noise certificate.
        ca_file: PEM file with certificate authorities to trust beside the system's own, or None.
        proxy: `http://[user:password@]host:port` of a CONNECT proxy, or None.

    Raises:
        EndpointError: the URL, key or proxy is not of this form.
    """

    url: str = DEFAULT_URL
    root_key: bytes = ROOT_KEY
    ca_file: Path | None = None
    proxy: str | None = None

    def __post_init__(self) -> None:
        _check_url("endpoint URL", self.url, ("ws", "wss"))
        if "@" in urlsplit(self.url).netloc:
            raise EndpointError("the endpoint URL must not hold a user name or password")
        if len(self.root_key) != ROOT_KEY_LENGTH:
            raise EndpointError(
                f"the endpoint's root key has {len(self.root_key)} bytes, not {ROOT_KEY_LENGTH}"
            )
        if self.proxy is not None:
            _check_url("proxy", self.proxy, ("http",))

    def __repr__(self) -> str:
        via = f", proxy={urlsplit(self.proxy).hostname}" if self.proxy else ""
        return f"Endpoint({self.url}{via})"

    @property
    def host(self) -> str:
        """Host name or address."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """TCP port."""
        parts = urlsplit(self.url)
        return parts.port or _DEFAULT_PORTS[parts.scheme]

    @property
    def tls(self) -> bool:
        """Whether the URL is `wss`."""
        return urlsplit(self.url).scheme == "wss"

    @property
    def host_header(self) -> str:
        """Value of the Host header: the port only when it is not the scheme's own."""
        parts = urlsplit(self.url)
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[parts.scheme] else f"{host}:{self.port}"

    def target(self, routing_info: bytes | None = None) -> str:
        """Path and query of the upgrade request; routing information goes along as `ED` (chapter 01 §1.1)."""
        parts = urlsplit(self.url)
        target = parts.path or "/"
        query = [parts.query] if parts.query else []
        if routing_info:
            query.append("ED=" + base64.urlsafe_b64encode(routing_info).decode())
        return f"{target}?{'&'.join(query)}" if query else target

    def ssl_context(self, use: str = "chat") -> ssl.SSLContext:
        """The TLS settings: system roots plus `ca_file`; one object for all connections of a process.

        Args:
            use: a library that changes the settings it is given needs an object of its own.

        Raises:
            EndpointError: `ca_file` cannot be read as PEM certificates.
        """
        if self.ca_file is None:
            return _ssl_context(None, 0, use)
        try:
            changed = self.ca_file.stat().st_mtime_ns
        except OSError as error:
            raise EndpointError(f"the CA file {self.ca_file} cannot be read: {error.strerror}") from None
        return _ssl_context(self.ca_file, changed, use)


@lru_cache(maxsize=8)
def _ssl_context(
    ca_file: Path | None,
    changed: int,  # noqa: ARG001 - part of the cache key
    use: str,  # noqa: ARG001 - likewise
) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except (OSError, ssl.SSLError):
            raise EndpointError(f"the CA file {ca_file} does not hold PEM certificates") from None
    return context


def _check_url(name: str, url: str, schemes: tuple[str, ...]) -> None:
    if not url.isascii() or not url.isprintable() or " " in url:
        raise EndpointError(f"the {name} must be ASCII without blanks and control characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise EndpointError(f"the {name} is not a URL: its host or port cannot be read") from None
    if parts.scheme not in schemes or not parts.hostname or port == 0:
        raise EndpointError(
            f"the {name} must start with {' or '.join(f'{s}://' for s in schemes)} and name a host"
        )
    if parts.fragment:
        raise EndpointError(f"the {name} must not have a fragment")
