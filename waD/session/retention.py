"""Removing what is past its time from the store: events, retry bookkeeping, finished outbox rows. Never messages."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import trio

from waD.config import Settings
from waD.store.errors import StoreError
from waD.store.store import Store, StoreSettings

EVERY_S: Final = 3600.0
PAUSE_S: Final = 1.0
"""Between two batches: others write in the meantime."""

_log = logging.getLogger(__name__)


async def run_retention(store: Store, unix_ms: Callable[[], int]) -> None:
    """Prune at the start and every hour, in bounded batches, until cancelled."""
    while True:
        try:
            await prune_all(store, unix_ms)
        except StoreError as error:
            _log.warning("what is past its time stays for another hour: %s", error)
        await trio.sleep(EVERY_S)


async def prune_all(store: Store, unix_ms: Callable[[], int]) -> int:
    """Prune until nothing is left to remove; returns how many rows went.

    Raises:
        StoreError: the store cannot be written.
    """
    total = 0
    while went := await store.prune(unix_ms()):
        total += went
        await trio.sleep(PAUSE_S)
    if total:
        _log.info("%d rows were past their time and are removed", total)
    return total


def store_settings(settings: Settings) -> StoreSettings:
    """The part of the settings that the store takes."""
    return StoreSettings(
        path=settings.store.path,
        event_days=settings.events.days,
        events_per_session=settings.events.rows,
        outbox_days=settings.outbox.keep_days,
    )
