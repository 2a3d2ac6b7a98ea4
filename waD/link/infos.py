"""`<ib>`: what the server tells without asking for an answer (chapter 02 §5.4, chapter 01 §7.8). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from waD.wire.frames import MAX_ROUTING_INFO
from waD.wire.jid import SERVER
from waD.wire.node import Node

MAX_CHILDREN: Final = 64
MAX_KIND: Final = 64
ATTESTATION: Final = frozenset({"gpia", "safetynet"})
"""Meant for phones."""


@dataclass(frozen=True, slots=True)
class OfflineEnd:
    """The backlog was delivered; `count` stanzas of it, None when the server did not say."""

    count: int | None


@dataclass(frozen=True, slots=True)
class OfflinePreview:
    """What waits in the backlog: `count` stanzas in all, and some of their kinds."""

    count: int
    message: int = 0
    notification: int = 0
    receipt: int = 0
    call: int = 0
    appdata: int = 0
    status: int = 0


@dataclass(frozen=True, slots=True)
class Dirty:
    """A domain has to be fetched again, then `clean`ed.

    `kind` is such as `account_sync`, `groups`, `communities`, `syncd_app_state`, `newsletter_metadata`; `timestamp` is
    in seconds.
    """

    kind: str
    timestamp: int | None


@dataclass(frozen=True, slots=True)
class EdgeRouting:
    """Routing information for the next connection: store it durably as `Credentials.routing_info`."""

    routing_info: bytes


@dataclass(frozen=True, slots=True)
class ClientExpiration:
    """This version stops working at `at_s` (Unix seconds); None withdraws an earlier announcement."""

    at_s: int | None


@dataclass(frozen=True, slots=True)
class ThreadMetadata:
    """Announced with so many entries; nothing here needs them."""

    entries: int


@dataclass(frozen=True, slots=True)
class Unknown:
    """A child that is not ours to act on; at most worth a line in the debug log."""

    tag: str


Info: TypeAlias = (
    OfflineEnd | OfflinePreview | Dirty | EdgeRouting | ClientExpiration | ThreadMetadata | Unknown
)


def parse(ib: Node) -> list[Info]:
    """Read all children of an `<ib>`; malformed ones and those not from the server are left out.

    `downgrade_webclient` ends the connection and is recognised in `causes.py`.
    """
    if "from" in ib.attrs and ib.jid("from") != SERVER:
        return []
    return [info for child in ib.children()[:MAX_CHILDREN] if (info := _parse_child(child)) is not None]


def _parse_child(child: Node) -> Info | None:
    match child.tag:
        case "offline":
            return OfflineEnd(child.int("count"))
        case "offline_preview":
            return _preview(child)
        case "dirty":
            return _dirty(child)
        case "edge_routing":
            return _edge_routing(child)
        case "client_expiration":
            return _client_expiration(child)
        case "thread_metadata":
            return ThreadMetadata(len(child.children()))
        case tag if tag in ATTESTATION:
            return None
        case tag:
            return Unknown(tag[:MAX_KIND])


def _preview(child: Node) -> OfflinePreview:
    kinds = ("message", "notification", "receipt", "call", "appdata", "status")
    parts = {kind: child.int(kind) or 0 for kind in kinds}
    count = child.int("count")
    return OfflinePreview(count=sum(parts.values()) if count is None else count, **parts)


def _dirty(child: Node) -> Dirty | None:
    kind = child.text("type")
    timestamp = child.int("timestamp")
    if not kind or len(kind) > MAX_KIND or (timestamp is None and "timestamp" in child.attrs):
        return None
    return Dirty(kind, timestamp)


def _edge_routing(child: Node) -> EdgeRouting | None:
    info = child.child("routing_info")
    if info is None or not 0 < len(info.data) <= MAX_ROUTING_INFO:
        return None
    return EdgeRouting(info.data)


def _client_expiration(child: Node) -> ClientExpiration | None:
    at_s = child.int("t")
    return None if at_s is None and "t" in child.attrs else ClientExpiration(at_s)
