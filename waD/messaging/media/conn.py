"""`media_conn`: which hosts keep media files, and the credential for uploads (chapter 05 §1.1). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from waD.link.errors import MalformedReply
from waD.link.stanzas import iq, need_child
from waD.wire.node import Node

MAX_HOSTS: Final = 16
MAX_AUTH: Final = 4096
MAX_TTL_S: Final = 7 * 86_400
MAX_PORT: Final = 65_535
MAX_HOSTNAME: Final = 253

_HOSTNAME: Final = re.compile(r"(?P<name>[A-Za-z0-9.-]+)(?::(?P<port>[0-9]{1,5}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Host:
    """One media host.

    Attributes:
        name: host name, perhaps with a port.
        uploads, downloads: media types that it takes and serves; None is all of them.
        fallback: to be asked after the others.
    """

    name: str
    uploads: frozenset[str] | None = None
    downloads: frozenset[str] | None = None
    fallback: bool = False


@dataclass(frozen=True, slots=True)
class MediaConn:
    """What the server answered.

    Attributes:
        auth: credential for uploads.
        ttl_s: seconds for which the hosts are good.
        auth_ttl_s: seconds for which the credential is good.
        hosts: at least one, primary ones first, else in the server's order.
    """

    auth: str = field(repr=False)
    ttl_s: int
    auth_ttl_s: int
    hosts: tuple[Host, ...]

    def serving(self, media_type: str) -> list[str]:
        """Names of the hosts to download from, in order; when none says that it serves the type, all of them."""
        willing = [host.name for host in self.hosts if host.downloads is None or media_type in host.downloads]
        return willing or [host.name for host in self.hosts]


def request() -> Node:
    """Build the question, without id."""
    return iq("set", "w:m", Node("media_conn"))


def parse(reply: Node) -> MediaConn:
    """Read the answer; hosts whose name is not one are left out.

    Raises:
        MalformedReply: there is no credential, no life time, or no host that can be used.
    """
    conn = need_child(reply, "media_conn", "media_conn")
    auth, ttl = conn.text("auth"), conn.int("ttl")
    if not auth or len(auth) > MAX_AUTH or ttl is None:
        raise MalformedReply("the answer to media_conn lacks auth or ttl")
    auth_ttl = conn.int("auth_ttl")
    hosts: dict[str, Host] = {}
    for node in conn.children("host")[:MAX_HOSTS]:
        for host in _hosts(node):
            hosts.setdefault(host.name, host)
    if not hosts:
        raise MalformedReply("the answer to media_conn names no host that can be used")
    ordered = sorted(hosts.values(), key=lambda host: host.fallback)[:MAX_HOSTS]
    return MediaConn(auth, _seconds(ttl), _seconds(ttl if auth_ttl is None else auth_ttl), tuple(ordered))


def is_hostname(text: str) -> bool:
    """Whether a text is a host name, perhaps with a port, and nothing else."""
    match = _HOSTNAME.fullmatch(text)
    if match is None or len(text) > MAX_HOSTNAME or ".." in text or text[0] in ".-":
        return False
    return match["port"] is None or 0 < int(match["port"]) <= MAX_PORT


def _hosts(node: Node) -> Iterator[Host]:
    """A host, and the one that it names to fall back on."""
    uploads, downloads = _types(node, "upload"), _types(node, "download")
    named = ((node.text("hostname"), node.text("type") == "fallback"), (node.text("fallback_hostname"), True))
    for name, fallback in named:
        if name and is_hostname(name):
            yield Host(name.lower(), uploads, downloads, fallback)


def _types(node: Node, tag: str) -> frozenset[str] | None:
    child = node.child(tag)
    return None if child is None else frozenset(one.tag for one in child.children())


def _seconds(value: int) -> int:
    return min(max(value, 1), MAX_TTL_S)
