"""Sealed snapshots of the auth states in the store, and how long they are kept (chapter 08 §6.1, §6.8)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from waD.config import Settings
from waD.store.errors import KekUnavailable, StoreDamaged, StoreError
from waD.store.model import SessionRow
from waD.store.seals import DAY_MS
from waD.store.store import Store

EVERY_MS: Final = 6 * 3_600_000
"""Age of the newest seal at which another one is made, if a key has changed since."""
LOOK_EVERY_S: Final = 600.0
FIRST_LOOK_S: Final = 60.0
"""The start has other things to do."""

_log = logging.getLogger(__name__)


async def run_snapshots(store: Store, settings: Callable[[], Settings], unix_ms: Callable[[], int]) -> None:
    """Seal what is due and drop what need not be kept, until cancelled."""
    await trio.sleep(FIRST_LOOK_S)
    while True:
        await snapshot_all(store, settings(), unix_ms)
        await trio.sleep(LOOK_EVERY_S)


async def snapshot_all(store: Store, settings: Settings, unix_ms: Callable[[], int]) -> int:
    """Look at every paired session once; returns how many were sealed. A store that refuses is logged."""

    async def look(row: SessionRow) -> bool:
        made = False
        if row.me_pn is not None and await _due(store, row, unix_ms()):
            made = await store.seal(row.id, "periodic", if_changed=True) != 0
        await _prune(store, row, settings, unix_ms())
        return made

    return await _each(store, look)


async def seal_at_end(store: Store) -> int:
    """Seal every paired session whose keys have changed, when nothing uses them any more; returns how many."""

    async def seal(row: SessionRow) -> bool:
        return row.me_pn is not None and await store.seal(row.id, "shutdown", if_changed=True) != 0

    return await _each(store, seal)


async def _each(store: Store, work: Callable[[SessionRow], Awaitable[bool]]) -> int:
    """How often it was done; one session whose key is gone must not keep the others from it."""
    made = 0
    try:
        for row in await store.sessions():
            try:
                made += await work(row)
            except (KekUnavailable, StoreDamaged) as error:
                _log.warning("session %s: no snapshot of its keys was made: %s", row.name, error)
    except StoreError as error:
        _log.warning("no snapshot of the sessions' keys was made: %s", error)
    return made


async def _due(store: Store, row: SessionRow, now_ms: int) -> bool:
    """By the age of the newest seal of these credentials; others have an epoch of their own."""
    seals = await store.seals(row.id)
    newest = next((seal.sealed_at for seal in seals if seal.epoch == row.auth_epoch), None)
    return newest is None or now_ms - newest >= EVERY_MS


async def _prune(store: Store, row: SessionRow, settings: Settings, now_ms: int) -> None:
    undo_ms = round(settings.session(row.name).reconnect.undo_days * DAY_MS)
    if went := await store.prune_seals(row.id, now_ms, undo_ms):
        _log.debug("session %s: %d old snapshots of its keys are removed", row.name, went)
