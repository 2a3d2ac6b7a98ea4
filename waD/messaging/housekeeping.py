"""Forgetting what was noted about retries and questions to the own phone, and is past its time."""

from __future__ import annotations

from typing import Final

import msgspec

from waD.messaging import kinds
from waD.messaging.context import Context
from waD.store.unit import Unit

KEPT_MS: Final = 14 * 86_400_000
"""How long notes are kept: no message is asked for when it is older (chapter 04 §7.5)."""


class _Note(msgspec.Struct):
    """What all notes have: Unix milliseconds of their last change."""

    at: int


_decode: Final = msgspec.json.Decoder(_Note).decode


async def forget_old(context: Context, unit: Unit) -> int:
    """Remove notes that are past their time, or that nobody can read, as part of a unit.

    Returns:
        How many.

    Raises:
        StoreError: they could not be read.
    """
    oldest, gone = context.now_ms() - KEPT_MS, 0
    for kind in (kinds.RETRY, kinds.PEER_REQUEST):
        for key, value in (await context.state.all_items(kind)).items():
            if _at(value) < oldest:
                unit.delete(kind, key)
                gone += 1
    return gone


def _at(value: bytes) -> int:
    try:
        return _decode(value).at
    except msgspec.DecodeError:
        return 0
