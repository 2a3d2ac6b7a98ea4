"""When sessions were last backed up and found sound: asked for with every look at one, so it is kept in memory."""

from __future__ import annotations

from typing import Final

from waD.events import model as events
from waD.store.store import Store

KINDS: Final = (events.AUTH_BACKUP, events.AUTH_VERIFIED)


class Dates:
    """Of all sessions of a store.

    Args:
        store: the open store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[tuple[str, str], int | None] = {}

    async def of(self, session_id: str) -> tuple[int | None, int | None]:
        """When the newest backup of a session was kept, and when it was last found sound; Unix milliseconds.

        Raises:
            StoreError: the store cannot be read.
        """
        for kind in KINDS:
            if (session_id, kind) not in self._known:
                newest = await self._store.last_event(session_id, kind)
                sound = newest is not None and newest.data.get("ok", True)
                self._known[session_id, kind] = newest.time if newest is not None and sound else None
        return self._known[session_id, events.AUTH_BACKUP], self._known[session_id, events.AUTH_VERIFIED]

    def note(self, session_id: str, kind: str, at_ms: int | None) -> None:
        """There is a newer one; None: it was found not to be sound."""
        self._known[session_id, kind] = at_ms
