"""The event log as the control protocol reads it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from waD.control.api import no_such_session
from waD.control.types import EventList, EventView
from waD.events.log import EventLog, Subscription
from waD.session.refusals import translated
from waD.session.views import event_view
from waD.store.store import Store


class Stream:
    """A subscription as the control protocol sees it."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self.oldest = subscription.oldest
        self.last = subscription.last

    def __aiter__(self) -> AsyncIterator[EventView]:
        return self

    async def __anext__(self) -> EventView:
        with translated():
            return event_view(await anext(self._subscription))


class EventReader:
    """Reads the log of all sessions.

    Args:
        store: where the sessions are.
        log: the events.
    """

    def __init__(self, store: Store, log: EventLog) -> None:
        self._store = store
        self._log = log

    async def page(self, *, since: int, types: tuple[str, ...], session: str | None, limit: int) -> EventList:
        """See `Sessions.events`."""
        session_id = await self._id_for_events(session)
        with translated():
            oldest, last = await self._log.bounds()
            rows = await self._log.page(since, limit, session_id, types)
        return EventList(events=[event_view(row) for row in rows], oldest=oldest, last=last)

    @asynccontextmanager
    async def subscribe(
        self, *, since: int | None, types: tuple[str, ...], session: str | None, follow: bool
    ) -> AsyncIterator[Stream]:
        """See `Sessions.subscribe`."""
        session_id = await self._id_for_events(session)
        with translated():
            async with self._log.subscribe(
                since=since, types=types, session_id=session_id, follow=follow
            ) as subscription:
                yield Stream(subscription)

    async def _id_for_events(self, session: str | None) -> str | None:
        """The id of a session, also of a retired one: its events are kept."""
        if session is None:
            return None
        with translated(session):
            row = await self._store.session(session)
        if row is None:
            raise no_such_session(session)
        return row.id
