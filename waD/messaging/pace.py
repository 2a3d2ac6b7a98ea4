"""How often something may be done: a number of times within any period of a given length. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

_UNLIMITED: Final = 0.0


class Pace:
    """Allows `count` acts within any `period_s` seconds; a period of 0 allows everything.

    Args:
        count: at least 1.
        period_s: seconds.
    """

    def __init__(self, count: int, period_s: float) -> None:
        self._period_s = period_s
        self._acts: deque[float] = deque(maxlen=count)

    @classmethod
    def per_second(cls, rate: float) -> Pace:
        """At most that many a second; fractions are rarer than one a second, 0 is no limit."""
        if rate <= 0:
            return cls(1, _UNLIMITED)
        count = max(1, int(rate))
        return cls(count, count / rate)

    def after(self, other: Pace) -> Pace:
        """The same pace, which takes over what was done lately."""
        self._acts.extend(other._acts)
        return self

    def allowed_at(self, now: float) -> float:
        """The earliest time, not before `now`, at which the next act is allowed."""
        if self._period_s <= _UNLIMITED or len(self._acts) < (self._acts.maxlen or 1):
            return now
        return max(now, self._acts[0] + self._period_s)

    def act(self, now: float) -> None:
        """It was done."""
        self._acts.append(now)
