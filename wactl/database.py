"""Whether a database server can be reached from here; the daemon alone logs in."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Final, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from wactl.endpoint import PATIENCE_S, dial, reason, resolve
from waD.control.types import Finding, Level

PORT: Final = 5432
SOCKET_DIRECTORY: Final = "/var/run/postgresql"
MAX_HOSTS: Final = 8
_HINT: Final = "see whether the server runs (pg_isready), and check the network, the route and the firewall"


class Host(NamedTuple):
    """One of the places a URL names: a host name or address, or the directory of a Unix socket."""

    name: str
    port: int

    def __str__(self) -> str:
        return (
            f"{self.name}/.s.PGSQL.{self.port}" if self.name.startswith("/") else f"{self.name}:{self.port}"
        )


def hosts(url: str) -> list[Host]:
    """The places that libpq would try, in order; passwords are not looked at."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    named = query.get("host", [parts.netloc.rpartition("@")[2]])[-1]
    ports = query.get("port", [""])[-1].split(",")
    found = []
    for number, one in enumerate(named.split(",")):
        name, port = _split(unquote(one))
        other = ports[min(number, len(ports) - 1)]
        found.append(Host(name or SOCKET_DIRECTORY, int(port or other or PORT)))
    return found[:MAX_HOSTS]


def _split(text: str) -> tuple[str, str]:
    if text.startswith("["):
        name, _, port = text[1:].partition("]")
        return name, port.lstrip(":")
    name, _, port = text.partition(":")
    return name, port


def look_at_database(url: str, patience: float = PATIENCE_S) -> Iterator[Finding]:
    """Look at the way to each server of a URL; nobody logs in. Bad only if none takes connections."""
    try:
        places = hosts(url)
    except ValueError:
        yield _finding("warning", "store.url", "it names no host", "see store.url in waD.toml(5)")
        return
    faults = {place: _fault(place, patience) for place in places}
    worst: Level = "warning" if None in faults.values() else "critical"
    for place, fault in faults.items():
        if fault is None:
            yield _finding("ok", str(place), "the database server takes connections; nobody logged in")
        else:
            yield _finding(worst, str(place), f"no connection: {fault}", _HINT)


def _finding(level: Level, subject: str, message: str, hint: str = "") -> Finding:
    return Finding(check="store", level=level, subject=subject, message=message, hint=hint)


def _fault(place: Host, patience: float) -> str | None:
    try:
        if place.name.startswith("/"):
            with socket.socket(socket.AF_UNIX) as stream:
                stream.settimeout(patience)
                stream.connect(str(place))
        else:
            dial(resolve(place.name, place.port, patience), patience).close()
    except OSError as error:
        return reason(error)
    return None
