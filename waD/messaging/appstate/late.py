"""Waiting for what could not be had: ever longer, and not for ever (chapter 05 §4.3). Pure."""

from __future__ import annotations

from typing import Final

BACKOFF_BASE_S: Final = 1.0
BACKOFF_LONGEST_S: Final = 3600.0
MAX_DOUBLINGS: Final = 12
PATIENCE_MS: Final = 48 * 3600 * 1000
"""A collection that fails for so long counts as broken."""


class Late:
    """A collection that could not be had.

    Args:
        since_ms: when it failed first, Unix milliseconds.

    Attributes:
        at: when to try again, on trio's clock.
        why: the last failure, for people.
    """

    __slots__ = ("_since_ms", "_times", "at", "why")

    def __init__(self, since_ms: int) -> None:
        self.at = 0.0
        self.why = ""
        self._since_ms = since_ms
        self._times = 0

    def fail(self, now: float, why: str, least_s: float | None = None) -> None:
        """It failed once more; `least_s` is how long the server wants to be left alone."""
        delay = min(BACKOFF_BASE_S * 2.0 ** min(self._times, MAX_DOUBLINGS), BACKOFF_LONGEST_S)
        self.at, self.why = now + max(delay, least_s or 0.0), why
        self._times += 1

    def hopeless(self, now_ms: int) -> bool:
        """Whether it has failed for so long that waiting is of no use."""
        return now_ms - self._since_ms > PATIENCE_MS
