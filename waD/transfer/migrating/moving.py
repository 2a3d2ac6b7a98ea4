"""A session from one store of waD to another, exactly: blocking (chapter 08 §6.4, §7.4).

The order makes sure that never two of them can start, wherever it stops:

1. The lease of both sides is taken; the destination is a retired session without credentials.
2. Messages, events and what may be asked for again are copied, page by page; what is there stays.
3. The state is written there, then the outbox; it is read again, verified to level 2 and compared item by item. The
   session cannot start: it stays retired, and its lease is the move's, for years.
4. The source gives its state up: sealed, its epoch raised, retired, and a note that says for whom, in one commit.
5. The destination is released.

Up to 4 the source is the one that can start, and the same command begins anew; after 4 it goes on with 5, and refuses
when what was given up is not what has arrived.
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
    Attach,
    CopyRows,
    CreateSession,
    Depart,
    Engine,
    Page,
    ReleaseLease,
    Renewed,
    RenewLeases,
    RestoreAuth,
    StageMove,
)
from waD.store.errors import LeaseLost, SessionLeased
from waD.store.model import SessionRow
from waD.store.sql.moving import TABLES
from waD.transfer.migrating.stores import (
    LEASE_MS,
    MoveRefused,
    checked,
    do,
    lease,
    refuse_taken,
    stored_state,
)
from waD.transfer.reviving import columns
from waD.transfer.state import AuthState, Report

PAGE: Final = 500
FENCE_MS: Final = 10 * 365 * 86_400_000
"""Nobody else gets the destination as long as the move has not ended."""
_KEPT: Final = (
    "held", "last_disconnect", "last_connected_at", "last_message_at", "reconnect_count", "messages_received",
    "messages_sent", "decrypt_failures", "retry_requests",
)  # fmt: skip
"""Columns of a session's row that go along."""
_EVENTS: Final = "wa_events"
_OUTBOX: Final = "wa_outbox"
_EVENT_TIME: Final = [*TABLES[_EVENTS].columns].index("at")


@dataclass(slots=True)
class Moved:
    """What was moved: the verification of the state, rows by table, and the session that goes on."""

    state: AuthState
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
        if (departed := self._departed(row)) is not None:
            return self._arrived(row, departed)[1]
        planned = plan_source(self.source, row, self.now_ms())
        refuse_taken(self.target, self.name, planned.state.creds, but=self._staged_id(row))
        return planned

    def run(self) -> Moved:
        """Move it, or end a move that was interrupted.

        Raises:
            MoveRefused, StoreError: both stores are as they were, but for rows that were copied, and one of them can
                start as before.
        """
        self._refuse_same()
        row = self._source_row()
        if (departed := self._departed(row)) is not None:
            target, moved = self._arrived(row, departed)
            self._arrive(do(self.target, Attach(target.id, self._holder(row), FENCE_MS)))
            moved.done = True
            return moved
        with lease(self.source, row, self._holder(row), LEASE_MS if self.source.shared else None) as owned:
            return self._begin(owned)

    def _refuse_same(self) -> None:
        if self.source.name == self.target.name:
            raise MoveRefused("same_store", "both are the same store")

    # The source.

    def _source_row(self) -> SessionRow:
        row = self.source.session(self.name)
        if row is None or (row.desired_state == "retired" and self._departed(row) is None):
            raise MoveRefused("no_such_session", f"there is no session {self.name!r} in {self.source.name}")
        self.name = row.name
        return row

    def _departed(self, row: SessionRow) -> dict[str, Any] | None:
        """The note of a move that the source has ended; one that was followed by another life does not count."""
        note = self.source.move_note(_departure(row.id))
        if note is None or note["epoch"] != row.auth_epoch or row.me_pn is not None:
            return None
        return note if note["store"] == self.target.name else None

    def _holder(self, row: SessionRow) -> str:
        """The same for every attempt, so that the next one gets the lease that this one has left."""
        return f"a move of session {row.id} from {self.source.name} to {self.target.name}"

    # The steps.

    def _begin(self, row: SessionRow) -> Moved:
        state = stored_state(self.source, row)
        report = checked(state, self.now_ms())
        moved = Moved(state, report)
        target, note = self._stage(row, state.creds)
        self.step("move.staged")
        moved.rows = self._copy(row, target, note, [table for table in TABLES if table != _OUTBOX])
        self.step("move.copied")
        self._write_state(row, target, state)
        # Afterwards, for a state that is replaced has its outbox held.
        moved.rows |= self._copy(row, target, note, [_OUTBOX])
        note = self._compare(row, target, note, state)
        self.step("move.written")
        self._renew(row)
        self._depart(row, target, note)
        self.step("move.departed")
        self._arrive(target)
        moved.session_id, moved.done = target.id, True
        moved.phase = target.auth_phase
        return moved

    def _staged_id(self, row: SessionRow) -> str | None:
        """The session that an attempt before has begun in the destination."""
        found = self.target.session(self.name)
        if found is None:
            return None
        note = self.target.move_note(_arrival(found.id))
        return found.id if note is not None and note["session"] == row.id else None

    def _stage(self, row: SessionRow, creds: Credentials) -> tuple[SessionRow, dict[str, Any]]:
        """The session in the destination, ours and retired, and the note of how far it has come."""
        staged = self._staged_id(row)
        there = refuse_taken(self.target, self.name, creds, but=staged)
        created: SessionRow = there if there is not None else do(self.target, CreateSession(self.name))
        try:
            target: SessionRow = do(self.target, Attach(created.id, self._holder(row), FENCE_MS))
        except SessionLeased as error:
            raise MoveRefused("session_in_use", f"in the destination: {error}") from None
        note = self.target.move_note(_arrival(target.id)) if staged is not None else None
        if note is None:
            note = {
                "store": self.source.name,
                "session": row.id,
                "since": self._newest_event(target.id),
                "events": None,
                "state": None,
            }
        note = note | {"state": None}
        retired = {"desired_state": "retired"}
        do(self.target, StageMove(target.id, target.lease_token, (_arrival(target.id), note), retired))
        return target, note

    def _newest_event(self, session_id: str) -> int:
        """When; a session that comes back has the events of its first stay already."""
        times = (row[_EVENT_TIME] for page in _pages(self.target, session_id, _EVENTS) for row in page.rows)
        return max(times, default=-1)

    def _copy(
        self, row: SessionRow, target: SessionRow, note: dict[str, Any], tables: Sequence[str]
    ) -> dict[str, int]:
        """Rows that are there stay, but events have no names: how far they have come is noted with them."""
        copied: dict[str, int] = dict.fromkeys(tables, 0)
        for table in tables:
            after = tuple(note["events"]) if table == _EVENTS and note["events"] is not None else None
            for page in _pages(self.source, row.id, table, after):
                rows = page.rows
                if table == _EVENTS and page.last is not None:
                    rows = [one for one in rows if one[_EVENT_TIME] > note["since"]]
                    note["events"] = [*page.last]
                job = CopyRows(target.id, target.lease_token, table, rows, (_arrival(target.id), note))
                copied[table] += do(self.target, job)
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

    def _compare(
        self, row: SessionRow, target: SessionRow, note: dict[str, Any], state: AuthState
    ) -> dict[str, Any]:
        """Read again what was written; then it is noted that it is there."""
        written = stored_state(self.target, target)
        checked(written, self.now_ms())
        if written.creds.serialize() != state.creds.serialize() or dict(written.items) != dict(state.items):
            raise MoveRefused(
                "not_equal", "what was written is not what was read: the session stays where it is"
            )
        kept: Mapping[str, Any] = {name: getattr(row, name) for name in _KEPT}
        note = note | {"state": [row.auth_epoch, row.auth_version]}
        do(self.target, StageMove(target.id, target.lease_token, (_arrival(target.id), note), kept))
        return note

    def _renew(self, row: SessionRow) -> None:
        """The source's lease must not end while a long history is copied."""
        if not self.source.shared:
            return
        renewed: Renewed = do(self.source, RenewLeases([(row.id, row.lease_token)], LEASE_MS))
        if row.id not in renewed.sessions:
            raise LeaseLost(f"session {row.name} has another owner in {self.source.name} now; it stays there")

    def _depart(self, row: SessionRow, target: SessionRow, note: dict[str, Any]) -> None:
        """From here on the source cannot start any more."""
        fresh = new_credentials(self.random, self.now_ms()).serialize()
        left = {
            "store": self.target.name,
            "session": target.id,
            "state": note["state"],
            "epoch": row.auth_epoch + 1,
        }
        do(self.source, Depart(row.id, row.lease_token, fresh, (_departure(row.id), left)))

    def _arrive(self, target: SessionRow) -> None:
        """From here on the destination can."""
        changes = {"desired_state": "down", "current_status": "stopped"}
        do(self.target, StageMove(target.id, target.lease_token, (_arrival(target.id), None), changes))
        do(self.target, ReleaseLease(target.id, target.lease_token))

    def _arrived(self, row: SessionRow, departed: dict[str, Any]) -> tuple[SessionRow, Moved]:
        """The destination of a move whose source was given up: what has arrived must be what was given up."""
        target = self.target.session(departed["session"])
        note = None if target is None else self.target.move_note(_arrival(target.id))
        if target is None or (note is None and target.me_pn is None):
            raise MoveRefused(
                "move_incomplete",
                f"the session has left {self.source.name}, and {self.target.name} does not know of it: bring it back "
                f"from its sealed state with wactl restore-auth --unretire {row.name}",
            )
        if note is None:
            raise MoveRefused(
                "no_such_session", f"the session {self.name!r} has moved to {self.target.name} already"
            )
        if note["state"] != departed["state"] or note["session"] != row.id:
            raise MoveRefused(
                "move_incomplete", "what has arrived is not what was given up; nothing was changed"
            )
        state = stored_state(self.target, target)
        report = checked(state, self.now_ms())
        return target, Moved(state, report, {}, target.id, target.auth_phase, resumed=True)


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


def _departure(session_id: str) -> str:
    return f"move.departed.{session_id}"


def _arrival(session_id: str) -> str:
    return f"move.arriving.{session_id}"
