"""What the engine tells its driver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from waD.link.causes import Cause
from waD.wire.node import Node


@dataclass(frozen=True, slots=True)
class Established:
    """The handshake is complete: WhatsApp proved who it is and knows who we are."""


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """The `<success>` stanza."""

    node: Node


@dataclass(frozen=True, slots=True)
class Stanza:
    """A stanza for the rooms above; everything that is not a reply, a ping or stream control."""

    node: Node


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a request, result or error."""

    request_id: str
    node: Node


@dataclass(frozen=True, slots=True)
class TimedOut:
    """A request got no answer in time."""

    request_id: str
    subject: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Health:
    """The connection became healthy or unhealthy."""

    healthy: bool


@dataclass(frozen=True, slots=True)
class Closing:
    """The server said that it ends the connection; no stanza follows, nothing more is sent."""

    cause: Cause


@dataclass(frozen=True, slots=True)
class Ended:
    """The connection is over; the last event."""

    cause: Cause


Event: TypeAlias = Established | LoggedIn | Stanza | Reply | TimedOut | Health | Closing | Ended
