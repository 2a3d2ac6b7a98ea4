"""Giving a move between two stores up, whatever it has come to: blocking (chapter 08 §6.4, §7.4).

The order makes sure that never two can start, wherever it stops:

1. What is there of both sides is owned by the move, as a move itself would own it: one that still runs fails.
2. The destination clears what has come, in one commit, and notes that: nothing can arrive there any more, by this move.
3. The source, which has kept its state, is let go, as it was before.

Between 2 and 3 neither can start, and the same command goes on with 3. It is refused when the destination was let go
already, for it may have run; and when what it would have to clear cannot be seen.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from waD.crashpoints import crashpoint
from waD.link.credentials import new_credentials
from waD.store.engine import Engine, GiveUpMove, Job, OwnMove, ReleaseLease, StageMove
from waD.store.model import SessionRow
from waD.store.moves import note_key
from waD.transfer.migrating.moving import FENCE_MS
from waD.transfer.migrating.stores import (
    LEASE_MS,
    MoveRefused,
    do,
    going_on,
    has_arrived,
    holder,
    moves_elsewhere,
    never_arrived,
    own,
    release,
    together,
)

Note = dict[str, Any]

_HOW_TO_END: Final = "the same command without --abort ends the move; then move the session back"


@dataclass(frozen=True, slots=True)
class Aborted:
    """What giving up came to.

    Attributes:
        session_id: of the session, in the source.
        restored: the source had given its state up, and has it back.
        freed: the destination is free; False when it could not be reached, and still keeps the name for the move.
        done: it was done, not only planned.
    """

    session_id: str
    restored: bool
    freed: bool
    done: bool = False


@dataclass(slots=True)
class Abort:
    """The end of a move that is not wanted any more.

    Args:
        source: store that the session is in.
        target: the one it was to go to; None when it cannot be opened.
        target_name: its name, opened or not.
        name: of the session in both, or its id in the source.
        now_ms: asks for Unix milliseconds.
        random: makes the credentials that the destination keeps.
        step: called with the name of each step that is done, before the next.
    """

    source: Engine
    target: Engine | None
    target_name: str
    name: str
    now_ms: Callable[[], int]
    random: Callable[[int], bytes] = os.urandom
    step: Callable[[str], None] = crashpoint

    def plan(self) -> Aborted:
        """What would be done; nothing is changed.

        Raises:
            MoveRefused, StoreError: it cannot be.
        """
        row, left = self._source()
        self._destination(row, left)
        return Aborted(row.id, _is_given_up(left), self.target is not None)

    def run(self) -> Aborted:
        """Give it up, or end giving up that was interrupted.

        Raises:
            MoveRefused: nothing was changed, except with the code `move_interrupted`: nothing is lost, and the same
                command goes on.
            StoreError: nothing was changed, or the destination was cleared; the same command goes on.
        """
        row, left = self._source()
        target, note = self._destination(row, left)
        owned = self._own_source(row, left)
        try:
            if target is not None and note is not None and self.target is not None:
                self._clear(self.target, target, note, row)
        except BaseException:
            if owned is not None and not _is_given_up(left):
                release(self.source, owned)
            raise
        with going_on(self.source, self.target_name, " and --abort"):
            self.step("abort.cleared")
            self._let_go(row if owned is None else owned, left, owned=owned is not None)
            self.step("abort.released")
        return Aborted(row.id, _is_given_up(left), self.target is not None, done=True)

    # What there is.

    def _source(self) -> tuple[SessionRow, Note | None]:
        """The session, and what it has noted of the move."""
        row = self.source.session(self.name)
        if row is None:
            raise MoveRefused("no_such_session", f"there is no session {self.name!r} in {self.source.name}")
        self.name = row.name
        left = self.source.move_note(note_key("leaving", row.id))
        if left is not None and left["store"] != self.target_name:
            raise moves_elsewhere(self.source, row, left)
        return row, left

    def _destination(self, row: SessionRow, left: Note | None) -> tuple[SessionRow | None, Note | None]:
        """The session that has to be cleared, and what is noted of it; None where there is none, or none any more.

        Raises:
            MoveRefused: it may have run, or it is not known whether it may.
        """
        if self.target is None:
            if left is None or _is_given_up(left):
                raise unreachable(self.source, self.target_name, row, left)
            return None, None
        target = self.target.session(self.name if left is None else left["session"])
        note = None if target is None else self.target.move_note(note_key("arriving", target.id))
        ours = note is not None and note["session"] == row.id
        under_way = ours and note is not None and not note.get("aborted")
        if left is not None and _is_given_up(left):
            if has_arrived(self.target, row, left):
                raise self._ended(row)
            if not ours or note is None or note["state"] != left["state"]:
                raise never_arrived(self.source, self.target, row)
        elif left is None:
            if target is not None and self._departed_to(target, row):
                raise self._ended(row)
            if not under_way:
                raise MoveRefused(
                    "no_move",
                    f"no move of session {row.name!r} from {self.source.name} to {self.target_name} is under way",
                )
        if under_way and note is not None and "before" not in note:
            raise MoveRefused("move_incomplete", "an earlier version has begun this move: run it to its end")
        return (target, note) if under_way else (None, None)

    def _departed_to(self, target: SessionRow, row: SessionRow) -> bool:
        note = self.source.move_note(note_key("departed", row.id))
        return note is not None and note["session"] == target.id and note["epoch"] == row.auth_epoch

    def _ended(self, row: SessionRow) -> MoveRefused:
        return MoveRefused(
            "move_ended",
            f"session {row.name!r} was let go in {self.target_name} and may have run there, so that the state in "
            f"{self.source.name} is an old one: {_HOW_TO_END}",
        )

    # The steps.

    def _holder(self, row: SessionRow) -> str:
        return holder(self.source, self.target_name, row)

    def _own_source(self, row: SessionRow, left: Note | None) -> SessionRow | None:
        """Own it, so that no move that still runs takes its state; None where a daemon runs it, for then none does."""
        given_up = _is_given_up(left)
        lease_ms = FENCE_MS if given_up else LEASE_MS if self.source.shared else None
        seen = (note_key("leaving", row.id), left)
        try:
            return own(self.source, OwnMove(row.id, self._holder(row), lease_ms, seen))
        except MoveRefused:
            if given_up:
                raise
            return None

    def _clear(self, engine: Engine, target: SessionRow, note: Note, row: SessionRow) -> None:
        seen = (note_key("arriving", target.id), note)
        owned = own(engine, OwnMove(target.id, self._holder(row), FENCE_MS, seen))
        fresh = new_credentials(self.random, self.now_ms()).serialize()
        do(engine, GiveUpMove(owned.id, owned.lease_token, fresh))

    def _let_go(self, row: SessionRow, left: Note | None, *, owned: bool) -> None:
        """The source is what it was, and the move is forgotten there."""
        changes = left["before"] if left is not None and _is_given_up(left) else {}
        jobs: list[Job] = [StageMove(row.id, row.lease_token, (note_key("leaving", row.id), None), changes)]
        if owned:
            jobs.append(ReleaseLease(row.id, row.lease_token))
        together(self.source, *jobs)


def _is_given_up(left: Note | None) -> bool:
    return left is not None and left["state"] is not None


def unreachable(source: Engine, target: str, row: SessionRow, left: Note | None) -> MoveRefused:
    """What must be cleared first cannot be seen."""
    if left is None:
        return MoveRefused(
            "destination_unreachable", f"{source.name} knows of no move of session {row.name!r} to {target}"
        )
    return MoveRefused(
        "destination_unreachable",
        f"{source.name} has given session {row.name!r} up for {target}, where it may run by now: only there the move "
        f"can be given up. If that store is lost for good, wactl restore-auth --unretire {row.name} brings the session "
        "back as from an old backup",
    )
