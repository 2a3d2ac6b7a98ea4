"""A move of a session between two stores, as each of the two has noted it (chapter 08 §6.4, §7.4).

The source notes under `leaving` that a move has begun, and later that it has given its state up. The destination notes
under `arriving` how far it has come, and under `arrived` that the session has been let go there.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct

Side: TypeAlias = Literal["leaving", "arriving", "arrived", "departed"]

PREFIX: Final = "move."
BOTH: Final[tuple[Side, ...]] = ("leaving", "arriving")
"""Of moves that are under way."""
OWN: Final = "waD"
"""What a store is called on the machine whose daemon has it."""


def note_key(side: Side, session_id: str) -> str:
    """Where a note is kept.

    Args:
        side: what it is about; `departed` says that the source has cleared its state.
        session_id: of the session in the store that keeps it.
    """
    return f"{PREFIX}{side}.{session_id}"


class MoveUnderWay(Struct, frozen=True, kw_only=True):
    """A move that has begun and not ended.

    Attributes:
        session_id: of the session in this store.
        store: the other one.
        into: this store is the destination.
        given_up: the source must not start any more; in a destination, the whole state is here.
    """

    session_id: str
    store: str
    into: bool
    given_up: bool

    def command(self, name: str) -> str:
        """What ends it, for the machine whose daemon has this store."""
        other = shlex.quote(self.store)
        source, target = (other, OWN) if self.into else (OWN, other)
        return f"wactl migrate-auth --from {source} --to {target} {shlex.quote(name)}"

    def hint(self, name: str) -> str:
        """What is the case, and what to do."""
        ends = f"stop the daemon, then {self.command(name)} ends it, and with --abort gives it up"
        if self.into:
            return f"a move of it from {self.store} to here has not ended: {ends}"
        if self.given_up:
            return f"it is on its way to {self.store}, and can run nowhere until the move has ended: {ends}"
        return f"a move of it to {self.store} has begun and not ended; it can run here until then: {ends}"


def under_way(key: str, note: Mapping[str, Any]) -> MoveUnderWay | None:
    """The move that a note is about, unless it has ended."""
    side, _, session_id = key.removeprefix(PREFIX).partition(".")
    into = side == "arriving"
    if side not in BOTH or note.get("aborted"):
        return None
    whole = note["state"] is not None
    return MoveUnderWay(session_id=session_id, store=note["store"], into=into, given_up=whole)
