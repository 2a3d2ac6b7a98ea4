"""Turns: how many sessions may be logging in at the same time."""

from __future__ import annotations

from typing import Final

import trio

LONGEST_S: Final = 20.0
"""A session that has not come further after this time lets the next one begin: a broken one delays nobody for long."""


class Turn:
    """One taken turn; giving it back twice does no harm."""

    def __init__(self, semaphore: trio.Semaphore) -> None:
        self._semaphore: trio.Semaphore | None = semaphore

    def give_back(self) -> None:
        """Let the next one begin."""
        if self._semaphore is not None:
            self._semaphore.release()
            self._semaphore = None

    async def give_back_late(self) -> None:
        """Give it back when it was held long enough."""
        await trio.sleep(LONGEST_S)
        self.give_back()


class Turns:
    """At most `at_once` turns are taken at a time; the first to ask is the first to begin."""

    def __init__(self, at_once: int) -> None:
        self._semaphore = trio.Semaphore(at_once)

    async def take(self) -> Turn:
        """Wait for a turn."""
        await self._semaphore.acquire()
        return Turn(self._semaphore)
