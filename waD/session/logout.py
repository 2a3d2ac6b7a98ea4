"""An order to log out, and its outcome, on their way between tasks."""

from __future__ import annotations

from dataclasses import dataclass, field

import trio


@dataclass(frozen=True, slots=True)
class LoggedOut:
    """The outcome of a logout: whether WhatsApp confirmed it, and the version of the sealed credentials."""

    unlinked: bool
    sealed: int


@dataclass(slots=True)
class LogoutOrder:
    """Waits until somebody settles it.

    Attributes:
        done: it is settled.
        outcome: what came of it, or why nothing did.
    """

    done: trio.Event = field(default_factory=trio.Event)
    outcome: LoggedOut | Exception | None = None

    def settle(self, outcome: LoggedOut | Exception) -> None:
        """Say what came of it; only the first time counts."""
        if self.outcome is None:
            self.outcome = outcome
            self.done.set()

    async def wait(self) -> LoggedOut:
        """The outcome; raises what it was settled with."""
        await self.done.wait()
        if isinstance(self.outcome, LoggedOut):
            return self.outcome
        assert self.outcome is not None
        raise self.outcome
