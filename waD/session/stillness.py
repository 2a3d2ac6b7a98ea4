"""A transaction that does not end, such as on a disk that hangs: told in the ways that need no store.

Whoever waits for that transaction can neither go on nor record anything, so nothing of this may be an event of the log
(chapter 08 §0 R6, §6.4).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import trio

from waD.config import Alerts
from waD.events import model as events
from waD.session.alerts import run_command
from waD.store.errors import StoreError
from waD.store.model import EventRow
from waD.store.store import Store

WRITE_STUCK_S: Final = 30.0
"""A transaction that takes longer stands still (chapter 08 §6.4)."""
LOOK_EVERY_S: Final = 2.0
HINT: Final = "check the disk or server under the store; nothing is sent or acknowledged until it answers"
NO_CURSOR: Final = 0
"""Cursor of an event that is in no log."""

_log = logging.getLogger(__name__)


def standing_still(store: Store) -> str | None:
    """What is wrong, in words; None when the store writes as it should."""
    seconds = store.write_stuck_s
    if seconds <= WRITE_STUCK_S:
        return None
    return f"a transaction has been running for {seconds:.0f} s"


class StillnessWatch:
    """Tells once of each transaction that stands still, and of its end.

    Args:
        store: looked at every `LOOK_EVERY_S`.
        alerts: the settings in force; the command gets an event that is in no log, with the cursor 0.
        unix_ms: the time of day in Unix milliseconds.
    """

    def __init__(self, store: Store, alerts: Callable[[], Alerts], unix_ms: Callable[[], int]) -> None:
        self._store = store
        self._alerts = alerts
        self._unix_ms = unix_ms
        self._longest_s = 0.0

    async def run(self) -> None:
        """Watch until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                self._look(nursery)
                await trio.sleep(LOOK_EVERY_S)

    def _look(self, nursery: trio.Nursery) -> None:
        seconds, wrong = self._store.write_stuck_s, standing_still(self._store)
        # A shorter time is another transaction's: that one has ended.
        if self._longest_s and seconds < self._longest_s:
            nursery.start_soon(self._tell_of_end, self._longest_s)
            self._longest_s = 0.0
        if wrong is not None:
            if not self._longest_s:
                _log.critical("the store stands still: %s; %s", wrong, HINT)
                nursery.start_soon(self._tell, wrong, seconds)
            self._longest_s = seconds

    async def _tell(self, wrong: str, seconds: float) -> None:
        settings = self._alerts()
        if not settings.command:
            return
        event_type, data = events.alert("critical", "store", wrong, hint=HINT, stuckSeconds=round(seconds))
        row = EventRow(
            cursor=NO_CURSOR,
            time=self._unix_ms(),
            connection_id=None,
            session=None,
            type=event_type,
            data=data,
        )
        await run_command(settings, row)

    async def _tell_of_end(self, seconds: float) -> None:
        """The store works again, so this is an event like every other."""
        text = f"the store goes on after a transaction that took more than {seconds:.0f} s"
        _log.warning("%s", text)
        try:
            await self._store.append_event(None, *events.alert("warning", "store", text))
        except StoreError as error:
            _log.warning("that could not be made an event: %s", error)
