"""Turns: how many sessions may be logging in at the same time."""

from __future__ import annotations

from typing import Final

import trio

LONGEST_S: Final = 20.0
"""A session that has not come further after this time lets the next one begin: a broken one delays nobody for long."""


class Turn:
    """One taken turn; giving it back twice does no harm."""

    def __init__(self, limiter: trio.CapacityLimiter) -> None:
        self._limiter: trio.CapacityLimiter | None = limiter

    async def take(self) -> None:
        """Wait for it; only once."""
        assert self._limiter is not None
        await self._limiter.acquire_on_behalf_of(self)

    def give_back(self) -> None:
        """Let the next one begin."""
        if self._limiter is not None:
            self._limiter.release_on_behalf_of(self)
            self._limiter = None

    async def give_back_late(self) -> None:
        """Give it back when it was held long enough."""
        await trio.sleep(LONGEST_S)
        self.give_back()


class Turns:
    """At most `at_once` turns are taken at a time; the first to ask is the first to begin."""

    def __init__(self, at_once: int) -> None:
        self._limiter = trio.CapacityLimiter(at_once)

    @property
    def at_once(self) -> int:
        """How many may be taken."""
        return int(self._limiter.total_tokens)

    @at_once.setter
    def at_once(self, at_once: int) -> None:
        self._limiter.total_tokens = at_once

    async def take(self) -> Turn:
        """Wait for a turn."""
        turn = Turn(self._limiter)
        await turn.take()
        return turn
