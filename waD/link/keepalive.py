"""When to ping, when to worry, when to give up (chapter 02 §7.1). Numbers in, decisions out.

Every received frame counts as life, not only the answer to a ping.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

HELD_UP_S: Final = 2.0
"""A deadline noticed this late means that the event loop was held up and the socket was not read in the meantime."""

Decision: TypeAlias = Literal["ping", "dead"]


@dataclass(frozen=True, slots=True)
class KeepaliveSettings:
    """Seconds of chapter 02 §7.1.

    Attributes:
        interval_s: between pings.
        jitter_s: random part of it, to both sides.
        quiet_s: a ping is skipped when a frame arrived less than this ago …
        longest_s: … unless the last ping is this old.
        late_s: without a frame for this long after a ping the connection is unhealthy and a second ping follows.
        dead_s: without a frame for this long after the first unanswered ping the connection is dead.
    """

    interval_s: float = 25.0
    jitter_s: float = 5.0
    quiet_s: float = 15.0
    longest_s: float = 60.0
    late_s: float = 5.0
    dead_s: float = 20.0


class Keepalive:
    """The clockwork of one connection, from the end of the handshake.

    Args:
        settings: seconds.
        draw: returns a random number from 0 to below 1.
        now: monotonic seconds.
    """

    __slots__ = (
        "_draw",
        "_excused",
        "_last_frame",
        "_last_ping",
        "_next_ping",
        "_second_sent",
        "_settings",
        "_unanswered_since",
        "healthy",
    )

    def __init__(self, settings: KeepaliveSettings, draw: Callable[[], float], now: float) -> None:
        self._settings = settings
        self._draw = draw
        self._last_frame = now
        self._last_ping = now
        self._unanswered_since: float | None = None
        self._second_sent = False
        self._excused = False
        self.healthy = True
        self._next_ping = self._after(now)

    def received(self, now: float) -> None:
        """A frame arrived."""
        self._last_frame = now
        self._unanswered_since = None
        self._second_sent = self._excused = False
        self.healthy = True

    def poll(self, now: float) -> Decision | None:
        """Decide at any time, at the latest at `deadline`; the caller sends the ping at once."""
        if self._unanswered_since is not None:
            return self._judge(now, self._unanswered_since)
        if now < self._next_ping:
            return None
        fresh = now - self._last_frame < self._settings.quiet_s
        if fresh and now < self._last_ping + self._settings.longest_s:
            self._next_ping = self._after(now)
            return None
        self._unanswered_since = now
        return self._ping(now)

    @property
    def deadline(self) -> float:
        """When to call `poll` next."""
        since = self._unanswered_since
        if since is None:
            return self._next_ping
        return since + (
            self._settings.dead_s if self._second_sent else min(self._settings.late_s, self._settings.dead_s)
        )

    def shift(self, seconds: float) -> None:
        """Nothing was read for this long by our own decision: that time does not count."""
        self._last_frame += seconds
        self._next_ping += seconds
        self._last_ping += seconds
        if self._unanswered_since is not None:
            self._unanswered_since += seconds

    def _judge(self, now: float, since: float) -> Decision | None:
        dead_at = since + self._settings.dead_s
        if now >= dead_at:
            if now - dead_at <= HELD_UP_S or self._excused:
                return "dead"
            self._excused = True
            self._unanswered_since = now
            self._second_sent = False
            return self._ping(now)
        if not self._second_sent and now >= since + self._settings.late_s:
            self._second_sent = True
            self.healthy = False
            return self._ping(now)
        return None

    def _ping(self, now: float) -> Decision:
        self._last_ping = now
        self._next_ping = self._after(now)
        return "ping"

    def _after(self, now: float) -> float:
        jitter = (2 * self._draw() - 1) * self._settings.jitter_s
        return min(now + self._settings.interval_s + jitter, self._last_ping + self._settings.longest_s)
