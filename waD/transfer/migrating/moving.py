"""A session from one store of waD to another, exactly: blocking (chapter 08 §6.4, §7.4).

The order makes sure that never two of them can start, wherever it stops:

1. The lease of both sides is taken; the destination is a retired session without credentials. Both note the move.
2. Messages, events and what may be asked for again are copied, page by page; what is there stays.
3. The state is written there, then the outbox; it is read again, verified to level 2 and compared item by item. The
   session cannot start: it stays retired, and its lease is the move's, for years.
4. The source gives its state up: retired, its lease the move's for years, and a note that says which state, and for
   whom, in one commit. The state itself stays where it is.
5. The destination is released, and notes that.
6. The source clears its state: sealed, its epoch raised.

Up to 4 the source is the one that can start, and the same command begins anew. After 4 neither can: the same command
goes on with 5, and refuses when what was given up is not what has arrived; or the move is given up
(`waD.transfer.migrating.aborting`), which makes the destination unable to start first. After 5 the destination may have
run, and the only way is on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from waD.crashpoints import crashpoint
from waD.events import model as events
from waD.link.credentials import Credentials, new_credentials
from waD.store.engine import (
    ArriveMove,
    Attach,
    CopyRows,
    Depart,
    Engine,
    OwnMove,
    Page,
    Renewed,
    RenewLeases,
    ReserveMove,
    RestoreAuth,
    StageMove,
)
from waD.store.errors import LeaseLost, SessionLeased
from waD.store.model import SessionRow
from waD.store.moves import Side, note_key
from waD.store.sql.moves import KEPT
from waD.store.sql.moving import TABLES
from waD.transfer.migrating.stores import (
    LEASE_MS,
    MoveRefused,
    checked,
    do,
    going_on,
    has_arrived,
    holder,
    moves_elsewhere,
    never_arrived,
    own,
    refuse_taken,
    release,
    stored_state,
    together,
)
from waD.transfer.reviving import columns
from waD.transfer.state import AuthState, Report

PAGE: Final = 500
FENCE_MS: Final = 10 * 365 * 86_400_000
"""Nobody else gets what a move has fenced as long as it has not ended."""
_EVENTS: Final = "wa_events"
_OUTBOX: Final = "wa_outbox"
_EVENT_TIME: Final = [*TABLES[_EVENTS].columns].index("at")

Note = dict[str, Any]


@dataclass(slots=True)
class Moved:
    """What was moved: the state and its verification, rows by table, and the session that goes on.

    There is no state when the session has gone on in the destination already, and only the source was cleared.
    """

    state: AuthState | None
    report: Report
    rows: dict[str, int] = field(default_factory=dict)
    session_id: str | None = None
    phase: str | None = None
    resumed: bool = False
    done: bool = False


@dataclass(slots=True)
class Move:
    """One move.

    Args:
        source: store that the session is in.
        target: another one.
        name: of the session in both, or its id in the source.
        now_ms: asks for Unix milliseconds.
        random: makes the credentials that the source keeps.
        step: called with the name of each step that is done, before the next.
    """

    source: Engine
    target: Engine
    name: str
    now_ms: Callable[[], int]
    random: Callable[[int], bytes] = os.urandom
    step: Callable[[str], None] = crashpoint

    def plan(self) -> Moved:
        """What would be moved; nothing is changed.

        Raises:
            MoveRefused, StoreError: it cannot be.
        """
        self._refuse_same()
        row = self._source_row()
        if (left := self._left(row)) is not None:
            return self._arrived(row, left)[2]
        planned = plan_source(self.source, row, self.now_ms())
        assert planned.state is not None
        refuse_taken(self.target, self.name, planned.state.creds, but=self._staged_id(row))
        return planned

    def run(self) -> Moved:
        """Move it, or end a move that was interrupted.

        Raises:
            MoveRefused: nothing was changed, except with the code `move_interrupted`: nothing is lost, and the move
                goes on with the same command.
            StoreError: both stores are as they were, but for rows that were copied, and the source can start as before.
        """
        self._refuse_same()
        row = self._source_row()
        if (left := self._left(row)) is not None:
            return self._finish(row, left)
        owned = own(self.source, Attach(row.id, self._holder(row), LEASE_MS if self.source.shared else None))
        try:
            moved, target, left = self._bring(owned)
        except BaseException:
            release(self.source, owned)
            raise
        # From here on the source's lease is what keeps it from starting: whatever happens, it is not given back.
        with going_on(self.source, self.target.name, unless=(LeaseLost,)):
            self._leave(owned, left)
        self.step("move.departed")
        with going_on(self.source, self.target.name):
            self._arrive(target, owned, left)
            self.step("move.arrived")
            self._clear(owned, target, left)
        moved.session_id, moved.phase, moved.done = target.id, target.auth_phase, True
        return moved

    def _refuse_same(self) -> None:
        if self.source.name == self.target.name:
            raise MoveRefused("same_store", "both are the same store")

    # The source.

    def _source_row(self) -> SessionRow:
        row = self.source.session(self.name)
        if row is None or (row.desired_state == "retired" and self._left(row) is None):
            raise MoveRefused("no_such_session", f"there is no session {self.name!r} in {self.source.name}")
        self.name = row.name
        return row

    def _left(self, row: SessionRow) -> Note | None:
        """What the source has given up for the destination; a move that was followed by another life does not count.

        Raises:
            MoveRefused: a move to another store has begun and not ended.
        """
        note = self.source.move_note(note_key("leaving", row.id))
        if note is not None:
            if note["store"] != self.target.name:
                raise moves_elsewhere(self.source, row, note)
            return note if note["state"] is not None else None
        note = self.source.move_note(note_key("departed", row.id))
        if note is None or note["epoch"] != row.auth_epoch or row.me_pn is not None:
            return None
        return note if note["store"] == self.target.name else None

    def _holder(self, row: SessionRow) -> str:
        return holder(self.source, self.target.name, row)

    # The steps.

    def _bring(self, row: SessionRow) -> tuple[Moved, SessionRow, Note]:
        """Everything up to the moment when the source gives its state up; what it will note then."""
        state = stored_state(self.source, row)
        moved = Moved(state, checked(state, self.now_ms()))
        target, note = self._stage(row, state.creds)
        begun = {"store": self.target.name, "session": target.id, "state": None}
        do(self.source, StageMove(row.id, row.lease_token, (note_key("leaving", row.id), begun)))
        self.step("move.staged")
        moved.rows = self._copy(row, target, note, [table for table in TABLES if table != _OUTBOX])
        self.step("move.copied")
        self._write_state(row, target, state)
        self.step("move.restored")
        # Afterwards, for a state that is replaced has its outbox held.
        moved.rows |= self._copy(row, target, note, [_OUTBOX])
        note = self._compare(row, target, note, state)
        self.step("move.written")
        before = {"desired_state": row.desired_state, "current_status": row.current_status}
        return moved, target, begun | {"state": note["state"], "before": before}

    def _staged_id(self, row: SessionRow) -> str | None:
        """The session that an attempt before has begun in the destination."""
        found = self.target.session(self.name)
        if found is None:
            return None
        note = self.target.move_note(note_key("arriving", found.id))
        ours = note is not None and note["session"] == row.id and not note.get("aborted")
        return found.id if ours else None

    def _stage(self, row: SessionRow, creds: Credentials) -> tuple[SessionRow, Note]:
        """The session in the destination, ours and retired, and the note of how far it has come."""
        refuse_taken(self.target, self.name, creds, but=self._staged_id(row))
        job = ReserveMove(self.name, self.source.name, row.id, self._holder(row), FENCE_MS)
        try:
            target: SessionRow = do(self.target, job)
        except SessionLeased as error:
            raise MoveRefused("session_in_use", f"in the destination: {error}") from None
        note = self.target.move_note(note_key("arriving", target.id))
        assert note is not None
        return target, note

    def _copy(self, row: SessionRow, target: SessionRow, note: Note, tables: Sequence[str]) -> dict[str, int]:
        """Rows that are there stay, but events have no names: how far they have come is noted with them."""
        copied: dict[str, int] = dict.fromkeys(tables, 0)
        for table in tables:
            after = tuple(note["events"]) if table == _EVENTS and note["events"] is not None else None
            for page in _pages(self.source, row.id, table, after):
                rows = page.rows
                if table == _EVENTS and page.last is not None:
                    rows = [one for one in rows if one[_EVENT_TIME] > note["since"]]
                    note["events"] = [*page.last]
                key = note_key("arriving", target.id)
                copied[table] += do(
                    self.target, CopyRows(target.id, target.lease_token, table, rows, (key, note))
                )
                self.step(f"move.page.{table}")
                self._renew(row)
        return copied

    def _write_state(self, row: SessionRow, target: SessionRow, state: AuthState) -> None:
        data = {
            "reason": "moved",
            "restoredEpoch": row.auth_epoch,
            "restoredVersion": row.auth_version,
            "peers": 0,
        }
        job = RestoreAuth(
            target.id,
            target.lease_token,
            state.creds.serialize(),
            state.items,
            columns(state.creds),
            events.AUTH_RESTORED,
            data,
            least_epoch=row.auth_epoch + 1,
        )
        do(self.target, job)

    def _compare(self, row: SessionRow, target: SessionRow, note: Note, state: AuthState) -> Note:
        """Read again what was written; then it is noted that it is there."""
        written = stored_state(self.target, target)
        checked(written, self.now_ms())
        if written.creds.serialize() != state.creds.serialize() or dict(written.items) != dict(state.items):
            raise MoveRefused(
                "not_equal", "what was written is not what was read: the session stays where it is"
            )
        kept: Mapping[str, Any] = {name: getattr(row, name) for name in KEPT}
        note = note | {"state": [row.auth_epoch, row.auth_version]}
        do(
            self.target,
            StageMove(target.id, target.lease_token, (note_key("arriving", target.id), note), kept),
        )
        return note

    def _renew(self, row: SessionRow) -> None:
        """The source's lease must not end while a long history is copied."""
        if self.source.shared:
            self._renewed(do(self.source, RenewLeases([(row.id, row.lease_token)], LEASE_MS)), row)

    def _renewed(self, renewed: Renewed, row: SessionRow) -> None:
        if row.id not in renewed.sessions:
            raise LeaseLost(f"session {row.name} has another owner in {self.source.name} now; it stays there")

    def _leave(self, row: SessionRow, left: Note) -> None:
        """From here on the source cannot start any more."""
        changes = {"desired_state": "retired", "current_status": "stopped"}
        fence = RenewLeases([(row.id, row.lease_token)], FENCE_MS)
        note = StageMove(row.id, row.lease_token, (note_key("leaving", row.id), left), changes)
        renewed, _ = together(self.source, fence, note)
        self._renewed(renewed, row)

    def _arrive(self, target: SessionRow, row: SessionRow, left: Note) -> None:
        """From here on the destination can."""
        do(self.target, ArriveMove(target.id, target.lease_token, row.id, left["state"]))

    def _clear(self, row: SessionRow, target: SessionRow, left: Note) -> None:
        """The source forgets what it cannot use any more."""
        fresh = new_credentials(self.random, self.now_ms()).serialize()
        note = {
            "store": self.target.name,
            "session": target.id,
            "state": left["state"],
            "epoch": row.auth_epoch + 1,
        }
        do(self.source, Depart(row.id, row.lease_token, fresh, note))

    # The end of a move that was interrupted.

    def _finish(self, row: SessionRow, left: Note) -> Moved:
        target, note, moved = self._arrived(row, left)
        with going_on(self.source, self.target.name):
            if note is not None:
                target = self._own(self.target, target, row, ("arriving", note))
                self._arrive(target, row, left)
                self.step("move.arrived")
            if row.me_pn is not None:
                self._clear(self._own(self.source, row, row, ("leaving", left)), target, left)
        moved.done = True
        return moved

    def _own(self, engine: Engine, one: SessionRow, row: SessionRow, seen: tuple[Side, Note]) -> SessionRow:
        side, note = seen
        return own(engine, OwnMove(one.id, self._holder(row), FENCE_MS, (note_key(side, one.id), note)))

    def _arrived(self, row: SessionRow, left: Note) -> tuple[SessionRow, Note | None, Moved]:
        """The destination of a move whose source has given up its state: what has arrived must be just that."""
        target = self.target.session(left["session"])
        if target is None:
            raise never_arrived(self.source, self.target, row)
        moved = Moved(None, Report(), {}, target.id, target.auth_phase, resumed=True)
        note = self.target.move_note(note_key("arriving", target.id))
        if note is None:
            known = has_arrived(self.target, row, left)
            if row.me_pn is None and (known or target.me_pn is not None):
                raise MoveRefused(
                    "no_such_session", f"the session {self.name!r} has moved to {self.target.name} already"
                )
            if not known:
                raise never_arrived(self.source, self.target, row)
            return target, None, moved
        if note["state"] != left["state"] or note["session"] != row.id:
            raise MoveRefused(
                "move_incomplete", "what has arrived is not what was given up; nothing was changed"
            )
        if note.get("aborted"):
            raise MoveRefused(
                "move_aborted", "the move was being given up: end that with the same command and --abort"
            )
        moved.state = stored_state(self.target, target)
        moved.report = checked(moved.state, self.now_ms())
        refuse_taken(self.target, target.name, moved.state.creds, but=target.id)
        return target, note, moved


def plan_source(source: Engine, row: SessionRow, now_ms: int) -> Moved:
    """What a move would take out of a store; nothing is changed.

    Raises:
        MoveRefused, StoreError: it cannot be moved.
    """
    state = stored_state(source, row)
    report = checked(state, now_ms)
    counts = {table: count_rows(source, row.id, table) for table in TABLES}
    return Moved(state, report, counts, row.id)


def count_rows(engine: Engine, session_id: str, table: str) -> int:
    """How many rows of a session a table of `waD.store.sql.moving` has."""
    return sum(len(page.rows) for page in _pages(engine, session_id, table))


def _pages(
    engine: Engine, session_id: str, table: str, after: tuple[Any, ...] | None = None
) -> Iterator[Page]:
    more = True
    while more:
        page = engine.rows_of(session_id, table, after, PAGE)
        yield page
        after, more = page.last, page.more
