"""What the policy remembers between connections. Frozen values, pure updates; times are monotonic seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from waD.session.table import IN_A_ROW, LIMITS

MAX_TALLY: Final = 16
"""Occurrences of one cause that are remembered; no limit of the table is higher."""
MAX_TIMES: Final = 1000
"""Reconnects that are remembered for the alert."""


def _until(*ends: str) -> frozenset[str]:
    return frozenset(group for group, limit in LIMITS.items() if limit.until in ends)


_KEPT_ON_OPEN: Final = _until("stable", "never")
_KEPT_ON_STABLE: Final = _until("never")
_WINDOWED: Final = frozenset(group for group, limit in LIMITS.items() if limit.within_s is not None)


class Counters(msgspec.Struct, frozen=True):
    """The memory of one session's policy.

    Attributes:
        attempts: waits of `backoff` begun since the last stable connection.
        slow: likewise of `slow`.
        restarts: when connections were made again at once.
        reconnects: when connections were made again for whatever reason, for the alert.
        alerted_at: when that alert was raised.
        tallies: occurrences by count of the table.
        steady: the connection that ends now had been stable.
        given_up: the attempts are used up, and the operator was told.
    """

    attempts: int = 0
    slow: int = 0
    restarts: tuple[float, ...] = ()
    reconnects: tuple[float, ...] = ()
    alerted_at: float | None = None
    tallies: Mapping[str, tuple[float, ...]] = msgspec.field(default_factory=dict)
    steady: bool = False
    given_up: bool = False

    def change(self, **changes: Any) -> Counters:
        """A copy with some fields replaced."""
        return msgspec.structs.replace(self, **changes)

    def opened(self) -> Counters:
        """The session is open."""
        return self.change(
            tallies={k: v for k, v in self.tallies.items() if k not in LIMITS or k in _KEPT_ON_OPEN}
        )

    def stable(self) -> Counters:
        """The connection has been open long enough (chapter 02 §9.3)."""
        return Counters(
            reconnects=self.reconnects,
            alerted_at=self.alerted_at,
            tallies={k: v for k, v in self.tallies.items() if k in _KEPT_ON_STABLE},
            steady=True,
        )

    def retried(self) -> Counters:
        """The operator wants a connection after the policy had stopped making them."""
        return Counters(
            restarts=self.restarts,
            reconnects=self.reconnects,
            alerted_at=self.alerted_at,
            tallies={k: v for k, v in self.tallies.items() if k in _KEPT_ON_STABLE},
        )

    def repaired(self) -> Counters:
        """The credentials were cleared: the counts of pairing begin anew."""
        gone = ("qr_exhausted", "pair_socket_lost")
        return self.change(tallies={k: v for k, v in self.tallies.items() if k not in gone})

    def counted(self, group: str, now: float) -> Counters:
        """One more occurrence; those that must come in a row and did not are forgotten."""
        kept = {k: v for k, v in self.tallies.items() if k not in IN_A_ROW or k == group}
        kept[group] = (*kept.get(group, ()), now)[-MAX_TALLY:]
        return self.change(tallies=kept)

    def count(self, group: str, now: float) -> int:
        """Occurrences that count now."""
        limit = LIMITS.get(group)
        times = self.tallies.get(group, ())
        if limit is None or limit.within_s is None:
            return len(times)
        return sum(1 for at in times if now - at <= limit.within_s)

    def durable(self) -> dict[str, Any]:
        """What outlives the process, as JSON; times mean nothing in another one and stay out."""
        tallies = {k: len(v) for k, v in self.tallies.items() if k not in _WINDOWED}
        return {"attempts": self.attempts, "slow": self.slow, "givenUp": self.given_up, "tallies": tallies}

    @classmethod
    def restored(cls, stored: object, now: float) -> Counters:
        """From what `durable` gave; anything else counts as nothing."""
        try:
            plain = msgspec.convert(stored, _Durable)
        except msgspec.ValidationError:
            return cls()
        tallies = {k: (now,) * min(n, MAX_TALLY) for k, n in plain.tallies.items() if k not in _WINDOWED}
        return cls(
            attempts=max(0, plain.attempts),
            slow=max(0, plain.slow),
            tallies=tallies,
            given_up=plain.given_up,
        )


class _Durable(msgspec.Struct, frozen=True, rename="camel"):
    attempts: int = 0
    slow: int = 0
    given_up: bool = False
    tallies: dict[str, int] = {}
