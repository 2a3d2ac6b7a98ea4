"""Forgetting what is past its time: notes about retries and questions to the own phone, prekeys of before a restore."""

from __future__ import annotations

import logging
from typing import Final

import msgspec

from waD.link.prekeys import OneTimePreKey, PreKeyRecordError
from waD.messaging import kinds
from waD.messaging.context import Context
from waD.store.unit import Unit

KEPT_MS: Final = 14 * 86_400_000
"""How long notes are kept: no message is asked for when it is older (chapter 04 §7.5)."""


STALE_PREKEYS_KEPT_MS: Final = 30 * 86_400_000
"""How long prekeys of before a restore still decrypt (chapter 08 §7.5)."""
RESTORE_POINT_KEY: Final = "last"


class _Note(msgspec.Struct):
    """What all notes have: Unix milliseconds of their last change."""

    at: int


_decode: Final = msgspec.json.Decoder(_Note).decode

_log = logging.getLogger(__name__)


async def forget_old(context: Context, unit: Unit) -> int:
    """Remove notes that are past their time, or that nobody can read, as part of a unit.

    Returns:
        How many.

    Raises:
        StoreError: they could not be read.
    """
    oldest, gone = context.now_ms() - KEPT_MS, 0
    for kind in (kinds.RETRY, kinds.PEER_REQUEST, kinds.APP_STATE_REQUEST):
        for key, value in (await context.state.all_items(kind)).items():
            if _at(value) < oldest:
                unit.delete(kind, key)
                gone += 1
    return gone


async def forget_stale_prekeys(context: Context, unit: Unit) -> int:
    """Remove one-time prekeys of before the last restore when nothing made with them can be on its way any more.

    They stay when the note of the restore is missing or cannot be read: deleting keys without knowing is worse.

    Returns:
        How many.

    Raises:
        StoreError: they could not be read.
    """
    note = await context.state.item(kinds.RESTORE_POINT, RESTORE_POINT_KEY, unit)
    if note is None or context.now_ms() - (_at(note) or context.now_ms()) < STALE_PREKEYS_KEPT_MS:
        return 0
    gone = [
        key for key, value in (await context.state.all_items(kinds.PREKEY)).items() if _is_stale(key, value)
    ]
    for key in gone:
        unit.delete(kinds.PREKEY, key)
    unit.delete(kinds.RESTORE_POINT, RESTORE_POINT_KEY)
    _log.info("%d prekeys of before the last restore are past their time and are removed", len(gone))
    return len(gone)


def _is_stale(key: str, value: bytes) -> bool:
    try:
        return OneTimePreKey.parse(int(key), value).state == "stale"
    except (PreKeyRecordError, ValueError):
        return False


def _at(value: bytes) -> int:
    try:
        return _decode(value).at
    except msgspec.DecodeError:
        return 0
