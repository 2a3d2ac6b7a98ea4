"""The store as the rest of the program sees it: trio in front, a blocking engine behind."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import trio
from msgspec import Struct

from waD.store.canonical import as_it_is
from waD.store.codec import Codec, Upgrade
from waD.store.engine import (
    AppendEvent,
    Attach,
    CreateSession,
    DropSeals,
    Engine,
    Job,
    KeyUse,
    Prune,
    Seal,
    SealReason,
    UpdateSession,
)
from waD.store.errors import CursorExpired, KekUnavailable, SessionUnknown, StoreDamaged, StoreError
from waD.store.keks import MAIN
from waD.store.model import STORAGE_FALLBACK, EventRow, MessageRow, OutboxRow, Sealed, SealInfo, SessionRow
from waD.store.opening import open_engine
from waD.store.postgres.settings import PostgresSettings
from waD.store.seals import DAY_MS, superfluous
from waD.store.state import SessionState
from waD.store.unit import Committed
from waD.store.writer import Writer

T = TypeVar("T")

MAX_PAGE: Final = 1000

_log = logging.getLogger(__name__)


class StoreSettings(Struct, frozen=True, kw_only=True):
    """Where the data is and how long some of it is kept.

    Attributes:
        path: the database file.
        postgres: the server that is used instead of it.
        kek_file: where the operator's key is that wraps the sessions' keys; beside it may be others.
        kek: name of the key that wraps new ones.
        encrypt: whether new auth states are encrypted. None: where there is a key, and always in a database file,
            beside which one is made.
        lease_ms: life of a lease where other processes use the database too (chapter 08 §6.4).
        legacy: whether new sessions keep key-value rows beside the snapshot.
        event_days: age at which events go.
        events_per_session: number of events of one session beyond which the oldest go.
        outbox_days: age at which finished rows of the outbox go.
    """

    path: Path
    postgres: PostgresSettings | None = None
    kek_file: Path | None = None
    kek: str = MAIN
    lease_ms: int = 30_000
    encrypt: bool | None = None
    legacy: bool = False
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
        self._limiter = trio.CapacityLimiter(engine.concurrent_reads)
        self._checkers = trio.CapacityLimiter(1)
        self._writer = Writer(engine, self._published)
        self.on_commit: Callable[[list[EventRow]], None] | None = None

    def _published(self, events: list[EventRow]) -> None:
        if self.on_commit is not None:
            self.on_commit(events)

    def listen(self, heard: Callable[[], None]) -> None:
        """Call this on the loop when another process may have appended events; a hint, that may be missing."""
        token = trio.lowlevel.current_trio_token()

        def tell() -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(heard, idempotent=True)

        self._engine.listen(tell)

    async def read(self, query: Callable[..., T], *args: Any) -> T:
        """Run a blocking read of the engine in a worker thread."""
        found = await trio.to_thread.run_sync(query, *args, limiter=self._limiter)
        for session_id, kinds in self._engine.take_fallbacks().items():
            await self._tell_fallback(session_id, kinds)
        return found

    async def _tell_fallback(self, session_id: str, kinds: dict[str, int]) -> None:
        """Once the snapshot is complete, an item that only the legacy rows have is a fault (chapter 08 §6.5)."""
        data = {"count": sum(kinds.values()), "kinds": kinds}
        _log.error(
            "session %s: items were read from key-value rows that the snapshot lacks: %s", session_id, kinds
        )
        try:
            await self.append_event(session_id, STORAGE_FALLBACK, data)
        except StoreError as error:  # whoever reads has what it asked for
            _log.error("session %s: that could not be recorded: %s", session_id, error)

    async def write(self, job: Job) -> Any:
        """Commit a job; its type says what comes back."""
        return await self._writer.submit(job)

    @property
    def name(self) -> str:
        """Which database it is, without any password."""
        return self._engine.name

    @property
    def engine(self) -> Engine:
        """The database; only for reads through `read`."""
        return self._engine

    async def close(self) -> None:
        """Finish what was submitted and release the database."""
        with trio.CancelScope(shield=True):
            self._engine.hurry()
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

    async def attach(self, session_id: str, holder: str, instead_of: str | None = None) -> SessionState:
        """Take the session's lease and give its state to whoever runs it.

        Raises:
            SessionUnknown: there is no such session.
            SessionLeased: another process runs it.
        """
        lease_ms = self.settings.lease_ms if self._engine.shared else None
        began = trio.current_time()
        row: SessionRow = await self.write(Attach(session_id, holder, lease_ms, instead_of))
        creds, fault = None, None
        try:
            creds = await self.read(self._engine.checked_creds, session_id)
        except (StoreDamaged, KekUnavailable) as error:
            # Whoever runs the session is told when it looks at its credentials; the others are not held up.
            fault = error
        state = SessionState(self, row, creds, fault)
        if lease_ms is not None:
            state.renewed(began + lease_ms / 1000)
        return state

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

    async def last_event(self, session_id: str, event_type: str) -> EventRow | None:
        """The newest event of a type of one session that is still kept."""
        return await self.read(self._engine.last_event, session_id, event_type)

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

    async def key_use(self) -> KeyUse:
        """What needs which of the operator's keys; reads every seal, but others read and write meanwhile."""
        return await trio.to_thread.run_sync(
            self._engine.key_use, limiter=self._checkers, abandon_on_cancel=True
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


class Parts(Struct, frozen=True, kw_only=True):
    """What the store needs from higher floors.

    Attributes:
        codec: of the legacy rows; None: states that have any cannot be read.
        upgrade: turns items that an earlier version stored into today's documents.
    """

    codec: Codec | None = None
    upgrade: Upgrade = as_it_is


@asynccontextmanager
async def open_store(settings: StoreSettings, parts: Parts | None = None) -> AsyncIterator[Store]:
    """Open the store for the life of the block.

    Raises:
        StoreError: the database cannot be used; the message names it and what to do.
    """
    engine = await trio.to_thread.run_sync(open_engine, settings, parts or Parts())
    store = Store(engine, settings)
    try:
        yield store
    finally:
        await store.close()
