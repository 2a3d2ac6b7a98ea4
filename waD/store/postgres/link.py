"""A connection on which nothing waits for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from typing import Any, Final, TypeVar

import psycopg
from psycopg import RawCursor
from psycopg.pq import TransactionStatus

from waD.store.postgres.adapters import CONTEXT
from waD.store.postgres.faults import Silent
from waD.store.postgres.place import Place

T = TypeVar("T")

LOOK_S: Final = 0.1
"""How often a wait looks whether it is over."""
PREPARE_AFTER: Final[int | None] = 3
"""How often a statement is run before it is prepared."""
PREPARED: Final = 300
"""Statements that are kept prepared: a few dozen, each for up to seven numbers of rows."""
GRACE_S: Final = 5.0
"""How long a statement may still run when the store is closed."""
LOCK_MS: Final = 10_000
"""How long a statement waits for a row that somebody else has locked; then it is tried again."""
IDLE_MS: Final = 5_000
"""A transaction of a process that stands still is ended by the server, so that its rows are free for another owner."""
_SETTINGS: Final = (
    f"SET TIME ZONE 'UTC'; SET lock_timeout = {LOCK_MS}; SET idle_in_transaction_session_timeout = {IDLE_MS}"
)


class Closing:
    """Says to everybody who waits for a database that the store is being closed."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._at = float("inf")

    def begin(self) -> None:
        """Statements that run may end; nothing is tried again."""
        self._at = min(self._at, time.monotonic() + GRACE_S)
        self._event.set()

    @property
    def begun(self) -> bool:
        """Whether it was."""
        return self._event.is_set()

    @property
    def end(self) -> float:
        """When nothing may run any more, by the monotonic clock."""
        return self._at

    def sleep(self, seconds: float) -> None:
        """Wait, or not, if it has begun."""
        self._event.wait(seconds)


class Link(psycopg.Connection[tuple[Any, ...]]):
    """A connection. Made by `open_link`.

    Attributes:
        silence_s: how long an answer is waited for.
        closing: ends waiting sooner.
    """

    silence_s: float = 30.0
    closing: Closing

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **kwargs: Any) -> T:
        """Wait for an answer.

        Raises:
            Silent: none came; the connection is closed.
        """
        kwargs.setdefault("interval", LOOK_S)
        return super().wait(self._bounded(gen), *args, **kwargs)

    def _bounded(self, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        until = time.monotonic() + self.silence_s
        try:
            wants = next(gen)
            while True:
                ready = yield wants
                if not ready and time.monotonic() > min(until, self.closing.end):
                    self.close()
                    raise Silent(f"no answer within {self.silence_s:g} s")
                wants = gen.send(ready)
        except StopIteration as done:
            value: T = done.value
            return value

    @property
    def usable(self) -> bool:
        """Whether it is open and in no transaction."""
        return not self.closed and self.info.transaction_status == TransactionStatus.IDLE


def open_link(place: Place, closing: Closing, silence_s: float) -> Link:
    """Connect.

    Raises:
        psycopg.Error: it is not possible.
        StoreForbidden: the file of the password cannot be used.
    """
    link = Link.connect(
        place.conninfo(),
        autocommit=True,
        context=CONTEXT,
        cursor_factory=RawCursor,
        prepare_threshold=PREPARE_AFTER,
    )
    link.closing, link.silence_s, link.prepared_max = closing, silence_s, PREPARED
    try:
        link.execute(_SETTINGS)
    except BaseException:
        link.close()
        raise
    return link
