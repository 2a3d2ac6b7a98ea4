"""Repeated lines: after some a minute they are counted instead of written, and a summary follows."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

WINDOW_S: Final = 60.0
IDENTICAL: Final = 20
"""Lines a minute that are the same in everything but the time."""
SIMILAR: Final = 600
"""Lines a minute that differ in their fields only: a peer can make those, too."""
MAX_TRACKED: Final = 1024
"""Different lines that are remembered; the oldest are forgotten first."""


@dataclass(slots=True)
class _Window:
    """One kind of line since `start`."""

    start: float
    line: str
    count: int = 0
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Summary:
    """How many repetitions of a line were not written.

    Attributes:
        line: its text.
        left_out: how many.
    """

    line: str
    left_out: int

    def __str__(self) -> str:
        times = "time" if self.left_out == 1 else "times"
        return f"not logged {self.left_out} more {times} within a minute: {self.line}"


class Limiter:
    """Decides which lines are written. Sans-IO: the time is an argument, in monotonic seconds."""

    __slots__ = ("_windows",)

    def __init__(self) -> None:
        self._windows: dict[tuple[int, Hashable], _Window] = {}

    def admit(self, same: Hashable, similar: Hashable, line: str, now: float) -> tuple[list[Summary], bool]:
        """Count a line.

        Args:
            same: equal for lines with equal fields.
            similar: equal for lines of one origin and wording.
            line: text for the summary.
            now: monotonic seconds.

        Returns:
            Summaries to write first, and whether to write the line.
        """
        summaries = self._expire(now)
        passed = self._count((IDENTICAL, same), line, now)
        return summaries, passed and self._count((SIMILAR, similar), line, now)

    def flush(self) -> list[Summary]:
        """Summaries of everything that was left out so far; counting starts anew."""
        found = [Summary(w.line, w.left_out) for w in self._windows.values() if w.left_out]
        self._windows.clear()
        return found

    def _count(self, key: tuple[int, Hashable], line: str, now: float) -> bool:
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = _Window(now, line)
        window.count += 1
        if window.count > key[0]:
            window.left_out += 1
            return False
        return True

    def _expire(self, now: float) -> list[Summary]:
        """Forget old windows; they stand in the order of their starts."""
        summaries: list[Summary] = []
        while self._windows:
            key, window = next(iter(self._windows.items()))
            if now - window.start < WINDOW_S and len(self._windows) <= MAX_TRACKED - 2:
                break
            del self._windows[key]
            if window.left_out:
                summaries.append(Summary(window.line, window.left_out))
        return summaries
