"""Subscriptions of one connection: each reads the event log at the pace at which its client reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, TypeAlias

import msgspec
import trio

from waD.control.api import ControlError, EventStream, Sessions, bad_param
from waD.control.faults import refusal
from waD.control.outbox import Outbox
from waD.control.requests import notice_line
from waD.control.types import (
    ROLE_RANK,
    EndNotice,
    ErrorBody,
    EventNotice,
    EventView,
    Role,
    SubscribeParams,
    Subscription,
)

SECRET_EVENTS: Final = frozenset({"connection:qr"})
"""Their data lets whoever reads it finish a pairing: operators see it, observers see that it happened."""


def shown_to(role: Role, event: EventView) -> EventView:
    """Return the event as this role may see it."""
    if event.type in SECRET_EVENTS and ROLE_RANK[role] < ROLE_RANK["operator"]:
        return msgspec.structs.replace(event, data={})
    return event


_Reason: TypeAlias = Literal["complete", "stopped", "failed"]


class _Feed:
    """One subscription.

    Attributes:
        begin: set when the client has its number, so that no event comes before it.
        ended: set when nothing more is sent.
        stopped: the daemon ended it; without it, a cancelled feed ends in silence.
        cursor: of the last event sent.
    """

    __slots__ = ("begin", "cursor", "ended", "number", "params", "scope", "stopped")

    def __init__(self, number: int, params: SubscribeParams) -> None:
        self.number = number
        self.params = params
        self.begin = trio.Event()
        self.ended = trio.Event()
        self.scope = trio.CancelScope()
        self.stopped = False
        self.cursor = params.since or 0


class _Opening:
    """Tells whoever opens a subscription, once, how that went."""

    def __init__(self, task_status: trio.TaskStatus[Subscription | Exception]) -> None:
        self._task_status = task_status
        self.done = False

    def succeeded(self, number: int, stream: EventStream) -> None:
        self.done = True
        self._task_status.started(Subscription(subscription=number, oldest=stream.oldest, last=stream.last))

    def failed(self, error: Exception) -> None:
        self.done = True
        self._task_status.started(error)


class Subscriptions:
    """Opens, runs and ends them.

    Args:
        nursery: they run there.
        role: the client's role now.
    """

    def __init__(
        self, sessions: Sessions, outbox: Outbox, nursery: trio.Nursery, role: Callable[[], Role], limit: int
    ) -> None:
        self._sessions = sessions
        self._outbox = outbox
        self._nursery = nursery
        self._role = role
        self._limit = limit
        self._feeds: dict[int, _Feed] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._feeds)

    async def open(self, params: SubscribeParams) -> tuple[Subscription, Callable[[], object]]:
        """Open one; events flow when the function that comes with the answer is called.

        Raises:
            ControlError: `refused` when there are too many, or what the log says.
        """
        if len(self._feeds) >= self._limit:
            raise ControlError(
                "refused",
                f"this connection has {self._limit} subscriptions; end one, or open another connection",
                {"limit": "subscriptions"},
            )
        self._count += 1
        feed = self._feeds[self._count] = _Feed(self._count, params)
        opened: Subscription | Exception = await self._nursery.start(self._run, feed)
        if isinstance(opened, Exception):
            raise opened
        return opened, feed.begin.set

    async def close(self, number: int) -> None:
        """End one in silence: when this returns, nothing more of it is queued. Raises `bad_params`."""
        feed = self._feeds.get(number)
        if feed is None:
            raise bad_param("subscription", f"{number} is not open on this connection")
        feed.scope.cancel()
        await feed.ended.wait()

    def stop(self) -> None:
        """End all because the daemon stops; each client is told its cursor."""
        for feed in self._feeds.values():
            feed.stopped = True
            feed.scope.cancel()

    async def _run(self, feed: _Feed, *, task_status: trio.TaskStatus[Subscription | Exception]) -> None:
        opening = _Opening(task_status)
        try:
            reason, error = await self._follow(feed, opening)
            if not opening.done:
                opening.failed(
                    ControlError("shutting_down", "the daemon is stopping; try again when it is back")
                )
            elif reason is not None:
                await feed.begin.wait()
                notice = EndNotice(subscription=feed.number, reason=reason, cursor=feed.cursor, error=error)
                await self._outbox.put(notice_line("events.end", notice))
        finally:
            del self._feeds[feed.number]
            feed.ended.set()

    async def _follow(self, feed: _Feed, opening: _Opening) -> tuple[_Reason | None, ErrorBody | None]:
        """Send events until the end; return why it ended, None if nobody is to be told."""
        params = feed.params
        try:
            with feed.scope:
                async with self._sessions.subscribe(
                    since=params.since,
                    types=tuple(params.types),
                    session=params.session,
                    follow=params.follow,
                ) as stream:
                    if params.since is None:
                        feed.cursor = stream.last
                    opening.succeeded(feed.number, stream)
                    await feed.begin.wait()
                    await self._pump(feed, stream)
                return "complete", None
        except Exception as error:  # told to the subscriber, by the answer or by `events.end`
            if not opening.done:
                opening.failed(error)
                return None, None
            return "failed", refusal(error, "events.subscribe").body()
        return ("stopped" if feed.stopped else None), None

    async def _pump(self, feed: _Feed, stream: EventStream) -> None:
        async for event in stream:
            notice = EventNotice(subscription=feed.number, event=shown_to(self._role(), event))
            await self._outbox.put(notice_line("event", notice))
            feed.cursor = event.cursor
