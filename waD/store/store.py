"""The store as the rest of the program sees it: trio in front, a blocking engine behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import trio
from msgspec import Struct

from waD.store.engine import (
    AppendEvent,
    Attach,
    CreateSession,
    DropSeals,
    Engine,
    Job,
    Prune,
    Seal,
    SealReason,
    UpdateSession,
)
from waD.store.errors import CursorExpired, SessionUnknown
from waD.store.model import EventRow, MessageRow, OutboxRow, Sealed, SealInfo, SessionRow
from waD.store.seals import DAY_MS, superfluous
from waD.store.state import SessionState
from waD.store.unit import Committed
from waD.store.writer import Writer

T = TypeVar("T")

READERS: Final = 1
"""Reads of SQLite share one connection, so more threads would only wait for each other."""
MAX_PAGE: Final = 1000


class StoreSettings(Struct, frozen=True, kw_only=True):
    """Where the data is and how long some of it is kept.

    Attributes:
        path: the database file.
        event_days: age at which events go.
        events_per_session: number of events of one session beyond which the oldest go.
        outbox_days: age at which finished rows of the outbox go.
    """

    path: Path
    event_days: float = 30
    events_per_session: int = 1_000_000
    outbox_days: float = 30


class Store:
    """Sessions, events and history. A running session's own state goes through `attach`.

    Attributes:
        settings: how long things are kept; another value counts from the next `prune` on.
        on_commit: called on the loop after each transaction with its events, in the order of their cursors; must be
            quick and must not raise.
    """

    def __init__(self, engine: Engine, settings: StoreSettings) -> None:
        self._engine = engine
        self.settings = settings
        self._limiter = trio.CapacityLimiter(READERS)
        self._checkers = trio.CapacityLimiter(1)
        self._writer = Writer(engine, self._published)
        self.on_commit: Callable[[list[EventRow]], None] | None = None

    def _published(self, events: list[EventRow]) -> None:
        if self.on_commit is not None:
            self.on_commit(events)

    async def read(self, query: Callable[..., T], *args: Any) -> T:
        """Run a blocking read of the engine in a worker thread."""
        return await trio.to_thread.run_sync(query, *args, limiter=self._limiter)

    async def write(self, job: Job) -> Any:
        """Commit a job; its type says what comes back."""
        return await self._writer.submit(job)

    @property
    def engine(self) -> Engine:
        """The database; only for reads through `read`."""
        return self._engine

    async def close(self) -> None:
        """Finish what was submitted and release the database."""
        with trio.CancelScope(shield=True):
            await self._writer.close()
            await trio.to_thread.run_sync(self._engine.close)

    async def sessions(self, include_retired: bool = False) -> list[SessionRow]:
        """All sessions, by name."""
        return await self.read(self._engine.sessions, include_retired)

    async def session(self, name_or_id: str) -> SessionRow | None:
        """One session, also a retired one."""
        return await self.read(self._engine.session, name_or_id)

    async def create_session(self, name: str) -> SessionRow:
        """Make a session of that name, or give the one there is; a retired one comes back to life."""
        row: SessionRow = await self.write(CreateSession(name))
        return row

    async def update_session(self, session_id: str, **changes: Any) -> SessionRow:
        """Change columns of a session's row, such as its desired state.

        Raises:
            SessionUnknown: there is no such session.
        """
        row: SessionRow = await self.write(UpdateSession(session_id, changes))
        return row

    async def attach(self, session_id: str, holder: str) -> SessionState:
        """Take the session's lease and give its state to whoever runs it.

        Raises:
            SessionUnknown: there is no such session.
        """
        row: SessionRow = await self.write(Attach(session_id, holder))
        creds = await self.read(self._engine.creds, session_id)
        return SessionState(self, row, creds)

    async def seal(self, session_id: str, reason: SealReason, *, if_changed: bool = False) -> int:
        """Keep a complete copy of a session's auth state; returns the version that was sealed.

        With `if_changed` it returns 0, and does nothing, when the newest seal holds the same keys.
        """
        version: int = await self.write(Seal(session_id, reason, if_changed))
        return version

    async def seals(self, session_id: str) -> list[SealInfo]:
        """The sealed copies of a session's auth state, newest first."""
        return await self.read(self._engine.seals, session_id)

    async def sealed(self, session_id: str, seal: SealInfo) -> Sealed:
        """The content of a seal.

        Raises:
            StoreDamaged: it is not what was sealed.
        """
        return await self.read(self._engine.sealed, session_id, seal.epoch, seal.version)

    async def prune_seals(self, session_id: str, now_ms: int, undo_ms: int) -> int:
        """Drop the seals of a session that need not be kept (`waD.store.seals`); returns how many."""
        gone = superfluous(await self.seals(session_id), now_ms, undo_ms)
        if not gone:
            return 0
        went: int = await self.write(DropSeals(session_id, [(seal.epoch, seal.version) for seal in gone]))
        return went

    async def append_event(self, session_id: str | None, event_type: str, data: dict[str, Any]) -> EventRow:
        """Append an event that belongs to no unit of work."""
        committed: Committed = await self.write(AppendEvent(session_id, event_type, data))
        return committed.events[0]

    async def events(
        self,
        after: int = 0,
        limit: int = 500,
        session_id: str | None = None,
        types: Sequence[str] | None = None,
    ) -> list[EventRow]:
        """Events behind a cursor, oldest first, at most `limit` and at most `MAX_PAGE`.

        Raises:
            CursorExpired: events behind that cursor were removed.
        """
        found = await self.read(self._engine.events, after, min(limit, MAX_PAGE), session_id, types)
        oldest = await self.oldest_cursor()
        if after < oldest:
            raise CursorExpired(after, oldest)
        return found

    async def oldest_cursor(self) -> int:
        """The smallest cursor from which reading is complete; 0 when nothing was removed."""
        return (await self.read(self._engine.event_bounds))[0]

    async def last_cursor(self) -> int:
        """The newest cursor ever given; 0 in an empty log."""
        return (await self.read(self._engine.event_bounds))[1]

    async def messages(
        self,
        session_id: str,
        chats: Sequence[str] | None = None,
        before_seq: int | None = None,
        limit: int = 50,
    ) -> list[MessageRow]:
        """A page of the history, newest first; `chats` holds all spellings of the one that is meant."""
        return await self.read(self._engine.messages, session_id, chats, before_seq, min(limit, MAX_PAGE))

    async def message(self, session_id: str, message_id: str) -> list[MessageRow]:
        """All messages of that id: two people may choose the same one (chapter 04 §1.1)."""
        return await self.read(self._engine.message, session_id, message_id)

    async def outbox_row(
        self, session_id: str, *, client_ref: str | None = None, message_id: str | None = None
    ) -> OutboxRow | None:
        """One row of the outbox."""

        def find() -> OutboxRow | None:
            return self._engine.outbox_row(session_id, client_ref=client_ref, message_id=message_id)

        return await self.read(find)

    async def prune(self, now_ms: int) -> int:
        """Remove what is past its time, a bounded number of rows; returns how many. Messages are never touched."""
        settings = self.settings
        went: int = await self.write(
            Prune(
                now_ms,
                round(settings.event_days * DAY_MS),
                settings.events_per_session,
                round(settings.outbox_days * DAY_MS),
            )
        )
        return went

    async def outbox_count(self, session_id: str, states: Sequence[str]) -> int:
        """How many messages of a session are in these states of the outbox."""
        return await self.read(self._engine.outbox_count, session_id, states)

    async def integrity_check(self, *, quick: bool = False) -> list[str]:
        """What a check of the database complains about; slow on large files, but others read and write meanwhile."""
        return await trio.to_thread.run_sync(
            self._engine.integrity, quick, limiter=self._checkers, abandon_on_cancel=True
        )

    @property
    def write_stuck_s(self) -> float:
        """For how many seconds the present transaction has been running; 0 when none is."""
        return self._writer.busy_s

    async def require_session(self, name: str) -> SessionRow:
        """One session that is not retired.

        Raises:
            SessionUnknown: there is none.
        """
        row = await self.session(name)
        if row is None or row.desired_state == "retired":
            raise SessionUnknown(f"no session {name!r}")
        return row


@asynccontextmanager
async def open_store(settings: StoreSettings) -> AsyncIterator[Store]:
    """Open the embedded store for the life of the block.

    Raises:
        StoreError: the database cannot be used; the message names the file and what to do.
    """
    from waD.store.sqlite.engine import SqliteEngine

    engine = await trio.to_thread.run_sync(SqliteEngine, settings.path)
    store = Store(engine, settings)
    try:
        yield store
    finally:
        await store.close()
