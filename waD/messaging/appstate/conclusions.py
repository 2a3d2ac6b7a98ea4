"""What becomes of a collection after a page of changes, or a fault (chapter 05 §4.9, §4.11): pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from msgspec import structs

from waD.e2ee.syncd.lthash import EMPTY
from waD.messaging.appstate.stored import MAX_BLOCKED, START, Head

DAY_MS: Final = 24 * 3600 * 1000
RESYNCS_A_DAY: Final = 2
"""How often a collection is fetched anew on its own account within a day."""
FATAL_CODES: Final = frozenset({400, 404, 405, 406})
"""Refusals that no waiting helps against (chapter 05 §4.3)."""
MISMATCH: Final = "hash-mismatch"
"""The fault of a collection whose hash is not the one that others have."""


@dataclass(frozen=True, slots=True)
class Next:
    """What to do about a collection.

    Attributes:
        head: as it is stored.
        again: ask for more of it at once.
    """

    head: Head
    again: bool = False


def spent(head: Head, now_ms: int) -> bool:
    """Whether a collection was fetched anew as often as it may be for now."""
    return len(_recent(head, now_ms)) >= RESYNCS_A_DAY


def restarted(head: Head) -> Head:
    """A collection that begins anew; what it has stays until it is replaced."""
    return structs.replace(
        head,
        version=0,
        hash=EMPTY,
        macs={},
        table=0,
        blocked=[],
        leftover=True,
        kept=_complete(head),
        mismatch=False,
    )


def by_hand(head: Head) -> Head:
    """A collection that an operator has fetched anew: nothing of before counts."""
    return structs.replace(START, leftover=head.leftover or bool(head.table), kept=_complete(head))


def failed(head: Head, code: str, now_ms: int) -> Next:
    """After a fault that no waiting helps against: fetch it anew, or leave it when that was of no use."""
    if spent(head, now_ms):
        return Next(structs.replace(head, disabled=code))
    retried = head.retried or code == MISMATCH
    recent = [*_recent(head, now_ms), now_ms]
    return Next(structs.replace(restarted(head), retried=retried, resyncs=recent), again=True)


def blocked(head: Head, key_ids: list[str]) -> Next:
    """Keys are missing: it waits for them."""
    return Next(structs.replace(head, blocked=sorted(set(key_ids))[:MAX_BLOCKED]))


def advanced(head: Head, *, more: bool) -> Next:
    """All that was there is applied, or `more` is to come."""
    if more:
        return Next(structs.replace(head, blocked=[]), again=True)
    retried = head.retried and head.mismatch
    return Next(structs.replace(head, blocked=[], leftover=False, kept=0, retried=retried))


def _complete(head: Head) -> int:
    """The table to keep when a collection begins anew; one that is itself on its way to replace another is none."""
    return head.kept if head.leftover else head.table


def _recent(head: Head, now_ms: int) -> list[int]:
    """Within the last day; times that lie ahead count too: the clock was set back."""
    return [at for at in head.resyncs if at > now_ms - DAY_MS]
