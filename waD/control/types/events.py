"""The event log: pages, subscriptions and their notifications."""

from __future__ import annotations

from typing import Any, Literal

from waD.control.types.base import Answer, CursorParam, NameParam, PageParam, Params, TypesParam
from waD.control.types.errors import ErrorBody
from waD.control.types.words import DEFAULT_PAGE


class EventView(Answer, frozen=True, kw_only=True):
    """One entry of the durable event log; the envelope of an `event` notification."""

    cursor: int
    time: int
    type: str
    connection_id: str | None = None
    session: str | None = None
    data: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"EventView(cursor={self.cursor}, type={self.type!r}, session={self.session!r})"


class EventsParams(Params, frozen=True, kw_only=True):
    """Parameters of `events.list`: entries with a cursor above `since`, of these types, of this session."""

    since: CursorParam = 0
    types: TypesParam = []
    session: NameParam | None = None
    limit: PageParam = DEFAULT_PAGE


class EventList(Answer, frozen=True, kw_only=True):
    """Answer of `events.list`: entries after `since`, oldest first.

    Attributes:
        oldest: first cursor the log still holds (0 when it is empty).
        last: cursor of the newest entry; ask again with `since` = the last cursor received.
    """

    events: list[EventView]
    oldest: int
    last: int


class SubscribeParams(Params, frozen=True, kw_only=True):
    """Parameters of `events.subscribe`.

    Attributes:
        since: start behind this cursor; without it, with what happens from now on.
        follow: false: end when the log is read.
    """

    since: CursorParam | None = None
    types: TypesParam = []
    session: NameParam | None = None
    follow: bool = True


class Subscription(Answer, frozen=True, kw_only=True):
    """Answer of `events.subscribe`; `event` notifications with this number follow."""

    subscription: int
    oldest: int
    last: int


class UnsubscribeParams(Params, frozen=True, kw_only=True):
    """Parameters of `events.unsubscribe`: the number that `events.subscribe` answered."""

    subscription: CursorParam


class EventNotice(Answer, frozen=True, kw_only=True):
    """Parameters of the notification `event`."""

    subscription: int
    event: EventView


class EndNotice(Answer, frozen=True, kw_only=True):
    """Parameters of the notification `events.end`: this subscription sends nothing more.

    Attributes:
        reason: `complete` (`follow` was false and the log is read), `stopped` (the daemon is stopping),
            or `failed`, with `error`.
        cursor: the last cursor sent, or the `since` it started from.
    """

    subscription: int
    reason: Literal["complete", "stopped", "failed"]
    cursor: int
    error: ErrorBody | None = None
