"""Which sealed copies of an auth state are kept (chapter 08 §6.1): pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from waD.store.model import SealInfo

NEWEST: Final = 4
"""So many are kept whatever their age …"""
DAYS: Final = 7
"""… and the newest one of each of so many days."""
DAY_MS: Final = 86_400_000
ROUTINE: Final = frozenset({"periodic", "shutdown"})


def superfluous(seals: Sequence[SealInfo], now_ms: int, undo_ms: int) -> list[SealInfo]:
    """Those that may go.

    The newest four and one per day for a week stay. So do, as long as they can be put back, the newest `pre_reset`
    and the newest four that were made before something was overwritten, or by order.

    Args:
        seals: of one session, newest first.
        now_ms: Unix milliseconds.
        undo_ms: for how long cleared credentials can be restored.
    """
    kept = set(seals[:NEWEST]) | _daily(seals, now_ms)
    recent = [seal for seal in seals if seal.reason not in ROUTINE and now_ms - seal.sealed_at <= undo_ms]
    kept |= {*recent[:NEWEST], *[seal for seal in recent if seal.reason == "pre_reset"][:1]}
    return [seal for seal in seals if seal not in kept]


def _daily(seals: Sequence[SealInfo], now_ms: int) -> set[SealInfo]:
    newest: dict[int, SealInfo] = {}
    for seal in seals:
        if now_ms - seal.sealed_at < DAYS * DAY_MS:
            newest.setdefault(seal.sealed_at // DAY_MS, seal)
    return set(newest.values())
