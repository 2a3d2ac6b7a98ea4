"""Orders to a supervisor that somebody waits for, and their outcome, on their way between tasks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LoggedOut:
    """The outcome of a logout: whether WhatsApp confirmed it, and the version of the sealed credentials."""

    unlinked: bool
    sealed: int


class Awaited(Generic[T]):
    """Something to be done by another task. It waits until somebody settles it."""

    def __init__(self) -> None:
        self._done = trio.Event()
        self._result: list[T] = []
        self._error: Exception | None = None

    def settle(self, outcome: T | Exception) -> None:
        """Say what came of it, or why nothing did; only the first time counts."""
        if self._done.is_set():
            return
        if isinstance(outcome, Exception):
            self._error = outcome
        else:
            self._result.append(outcome)
        self._done.set()

    async def wait(self) -> T:
        """The outcome; raises what it was settled with."""
        await self._done.wait()
        if self._error is not None:
            raise self._error
        return self._result[0]


class Errand(Awaited[T]):
    """Work to be done while there is no connection.

    Args:
        work: what.
    """

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        super().__init__()
        self._work = work

    async def run(self) -> bool:
        """Do it and settle; says whether it was done. Raises nothing but cancellation."""
        try:
            self.settle(await self._work())
        except Exception as error:  # whoever waits gets it
            self.settle(error)
            return False
        except BaseException:
            self.settle(Abandoned("the daemon is stopping; nothing was changed"))
            raise
        return True


class Busy(Exception):  # noqa: N818 - what is the case
    """Such work is going on already."""


class Abandoned(Exception):  # noqa: N818 - what happened to the order
    """The daemon ends; nothing was done."""
