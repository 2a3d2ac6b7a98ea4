"""Requests that wait for their answers: ids, matching, time-outs (chapter 01 §7.2, §7.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_PENDING: Final = 1024
MAX_ID: Final = 64
"""Longer iq ids are nobody's."""


@dataclass(slots=True)
class Pending:
    """One open request: what it asks, when it was sent, when to give up; monotonic seconds."""

    subject: str
    sent: float
    deadline: float


class TooManyRequests(RuntimeError):  # noqa: N818 - names the state
    """More requests are open than anybody could mean."""


class PendingRequests:
    """Open requests of one connection by id.

    Args:
        prefix: what all ids of this connection begin with.
    """

    __slots__ = ("_count", "_open", "_prefix")

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._count = 0
        self._open: dict[str, Pending] = {}

    def next_id(self) -> str:
        """An id never used before on this connection."""
        self._count += 1
        return f"{self._prefix}-{self._count}"

    def add(self, request_id: str, subject: str, now: float, timeout_s: float) -> None:
        """Remember a request that goes out now; raises TooManyRequests, ValueError for an id in use."""
        if len(self._open) >= MAX_PENDING:
            raise TooManyRequests(f"{MAX_PENDING} requests are open on one connection")
        if request_id in self._open:
            raise ValueError(f"request id {request_id} is in use")
        self._open[request_id] = Pending(subject, now, now + timeout_s)

    def take(self, request_id: str) -> Pending | None:
        """Close a request; None when there is no such one."""
        return self._open.pop(request_id, None)

    def expired(self, now: float) -> list[tuple[str, Pending]]:
        """Close and return the requests whose time is up."""
        late = [(key, item) for key, item in self._open.items() if item.deadline <= now]
        for key, _ in late:
            del self._open[key]
        return late

    def shift(self, seconds: float) -> None:
        """Nothing was read for this long by our own decision: that time does not count."""
        for item in self._open.values():
            item.deadline += seconds
            item.sent += seconds

    @property
    def deadline(self) -> float | None:
        """When the next request expires."""
        return min((item.deadline for item in self._open.values()), default=None)

    def __len__(self) -> int:
        return len(self._open)


def id_prefix(random: bytes) -> str:
    """Make `<u16>.<u16>` from four random bytes, as the web client does."""
    return f"{int.from_bytes(random[:2], 'big')}.{int.from_bytes(random[2:4], 'big')}"
