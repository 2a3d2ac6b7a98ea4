"""The offline phase: what waited at the server comes first, in batches we ask for (chapter 04 §6.10, chapter 02 §5.5).

Pure: stanzas and times in, stanzas to send and a deadline out. Back-pressure is not its subject: that is not reading.
"""

from __future__ import annotations

from typing import Final

from waD.link.infos import OfflineEnd, OfflinePreview, parse
from waD.wire.node import Node

BATCH: Final = 200
"""Stanzas asked for at a time."""
ASK_AGAIN_BELOW: Final = 50
"""Outstanding ones below which the next batch is asked for."""
PATIENCE_S: Final = 60.0
"""Without a stanza of the backlog for so long, the phase is over (chapter 02 §5.2)."""


class OfflinePhase:
    """Follows the backlog of one connection from the first stanza after `<success>`.

    Args:
        now: monotonic seconds at which the session became open; None when it is not yet: call `opened` then.

    Attributes:
        count: stanzas of the backlog received.
        announced: stanzas the server said it has; None before it said so.
        done: whether the phase is over.
        timed_out: whether it is over because nothing came, without the server's word: worth a warning.
    """

    def __init__(self, now: float | None = None) -> None:
        self.count = 0
        self.announced: int | None = None
        self.done = False
        self.timed_out = False
        self._outstanding = 0
        self._quiet_since = now

    @property
    def deadline(self) -> float | None:
        """When to call `tick`; None when there is nothing to wait for."""
        if self.done or self._quiet_since is None:
            return None
        return self._quiet_since + PATIENCE_S

    def opened(self, now: float) -> list[Node]:
        """The session is open; returns what to send: a preview may have come before."""
        self._quiet_since = now
        return self._ask()

    def received(self, stanza: Node, now: float) -> list[Node]:
        """Look at a stanza as it is taken for handling; returns what to send."""
        if self.done:
            return []
        if stanza.tag == "ib":
            self._read(stanza)
        elif "offline" in stanza.attrs:
            self.count += 1
            self._outstanding = max(0, self._outstanding - 1)
            if self._quiet_since is not None:
                self._quiet_since = now
        else:
            return []
        return self._ask()

    def tick(self, now: float) -> bool:
        """End the phase when its deadline has passed; says whether it did just now."""
        deadline = self.deadline
        if deadline is None or now < deadline:
            return False
        self.done = self.timed_out = True
        return True

    def _read(self, ib: Node) -> None:
        for info in parse(ib):
            if isinstance(info, OfflineEnd):
                self.done = True
            elif isinstance(info, OfflinePreview) and self.announced is None:
                self.announced = info.count

    def _ask(self) -> list[Node]:
        """Ask for a batch while a backlog was announced; before `open` the server would not listen."""
        wanted = bool(self.announced) and self._outstanding < ASK_AGAIN_BELOW
        if self.done or self._quiet_since is None or not wanted:
            return []
        self._outstanding += BATCH
        return [Node("ib", {}, [Node("offline_batch", {"count": str(BATCH)})])]
