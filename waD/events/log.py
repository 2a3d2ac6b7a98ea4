"""Subscriptions to the durable event log.

A subscriber reads from the log at its own pace; whoever commits only wakes it. What was committed lately is kept in
memory, so that those who are up to date need no database.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio

from waD.store.errors import CursorExpired
from waD.store.model import EventRow
from waD.store.store import Store

PAGE: Final = 200
"""Events that a subscription holds at a time."""
RECENT: Final = 256
"""Events of the last commits that are kept for subscribers who are up to date."""
POLL_S: Final = 1.0
"""How often subscribers look for events of other daemons, where several share a database."""
LISTENING_POLL_S: Final = 5.0
"""The same while the database would tell of them."""


class EventLog:
    """The log of a store, with wake-ups. There is one for each store: it takes `Store.on_commit`.

    Args:
        store: where the events are.
        page_size: events read at a time.
    """

    def __init__(self, store: Store, page_size: int = PAGE) -> None:
        self._store = store
        self._shared = store.engine.shared
        self._listens = False
        self.page_size = page_size
        self._recent: deque[EventRow] = deque(maxlen=RECENT)
        self._news = trio.Event()
        self._readers: dict[int, Subscription] = {}
        self._opened = 0
        store.on_commit = self._committed

    def _committed(self, events: list[EventRow]) -> None:
        self._recent += events
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()

    @property
    def poll_s(self) -> float:
        """How long a subscriber waits for news until it looks by itself."""
        if not self._shared:
            return math.inf
        return LISTENING_POLL_S if self._store.engine.listening else POLL_S

    def _listen(self) -> None:
        """Once somebody subscribes, hear of what other daemons append."""
        if self._shared and not self._listens:
            self._listens = True
            self._store.listen(self._wake)

    @property
    def news(self) -> trio.Event:
        """Set by the next commit that has events, here or, if we hear of it, by another daemon.

        Take it before looking, wait for it after finding nothing.
        """
        return self._news

    @property
    def readers(self) -> list[Subscription]:
        """The open subscriptions, oldest first."""
        return list(self._readers.values())

    async def bounds(self) -> tuple[int, int]:
        """(smallest cursor from which reading is complete, newest cursor ever given)."""
        return await self._store.oldest_cursor(), await self._store.last_cursor()

    async def newest(self) -> int:
        """The newest cursor ever given; 0 in an empty log."""
        return await self._store.last_cursor()

    async def page(
        self, after: int, limit: int, session_id: str | None = None, types: Sequence[str] = ()
    ) -> list[EventRow]:
        """Events behind a cursor, oldest first; no types means all.

        Raises:
            CursorExpired: events behind that cursor were removed.
            StoreError: the log cannot be read.
        """
        return await self._store.events(after, limit, session_id, types or None)

    @asynccontextmanager
    async def subscribe(
        self,
        *,
        since: int | None = None,
        types: Sequence[str] = (),
        session_id: str | None = None,
        follow: bool = True,
        name: str = "client",
    ) -> AsyncIterator[Subscription]:
        """Open a subscription for the life of the block.

        Args:
            since: cursor behind which to begin; None: what is committed from now on.
            types: only these; none means all.
            session_id: only events of this session.
            follow: False ends the iteration where the log ended when it was opened.
            name: who reads, for those who look after the daemon.

        Raises:
            CursorExpired: events behind `since` were removed; also out of the iteration, when the subscriber is so
                slow that they are removed before it reads them.
        """
        self._listen()
        oldest, last = await self.bounds()
        if since is not None and since < oldest:
            raise CursorExpired(since, oldest)
        start = last if since is None else since
        reader = Subscription(self, start, oldest, last, tuple(types), session_id, follow, name)
        self._opened += 1
        number = self._opened
        self._readers[number] = reader
        try:
            yield reader
        finally:
            del self._readers[number]

    def recent_after(self, cursor: int) -> list[EventRow] | None:
        """The events behind a cursor, if memory has all of them."""
        if not self._recent or cursor < self._recent[0].cursor - 1:
            return None
        found = [event for event in self._recent if event.cursor > cursor]
        if self._store.engine.shared and (not found or found[-1].cursor != cursor + len(found)):
            return None  # where there is a gap, or nothing, there may be an event of another daemon
        return found


class Subscription:
    """An open subscription; iterate over it once, in one task.

    Attributes:
        oldest: smallest cursor from which the log was complete when it was opened.
        last: newest cursor at that time.
        cursor: everything up to here was given, or was not asked for.
        name: who reads.
    """

    def __init__(
        self,
        log: EventLog,
        start: int,
        oldest: int,
        last: int,
        types: tuple[str, ...],
        session_id: str | None,
        follow: bool,
        name: str,
    ) -> None:
        self.name = name
        self.oldest = oldest
        self.last = last
        self.cursor = start
        self._log = log
        self._types = types
        self._session_id = session_id
        self._follow = follow
        self._news = log.news
        self._ahead: deque[EventRow] = deque()
        self._reach = start
        self._idle = False

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> EventRow:
        while not self._ahead:
            self.cursor = max(self.cursor, self._reach)
            if self._idle:
                if not self._follow:
                    raise StopAsyncIteration
                with trio.move_on_after(self._log.poll_s):
                    await self._news.wait()
            self._news = self._log.news
            await self._fill()
        event = self._ahead.popleft()
        if not self._follow and event.cursor > self.last:
            raise StopAsyncIteration
        self.cursor = event.cursor
        return event

    async def _fill(self) -> None:
        """Take the next events that are wanted; `_idle` says that there are no more up to `_reach`."""
        recent = self._log.recent_after(self.cursor)
        if recent is not None:
            self._ahead += [event for event in recent if self._wants(event)]
            self._reach = recent[-1].cursor if recent else self.cursor
            self._idle = True
            return
        newest = await self._log.newest()
        page = await self._log.page(self.cursor, self._log.page_size, self._session_id, self._types)
        self._ahead += page
        self._idle = len(page) < self._log.page_size
        self._reach = newest if self._idle else page[-1].cursor

    def _wants(self, event: EventRow) -> bool:
        return (not self._types or event.type in self._types) and self._session_id in (
            None,
            event.connection_id,
        )
