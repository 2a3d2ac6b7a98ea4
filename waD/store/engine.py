"""What a database has to do for the store: blocking, and called from worker threads only.

Writes are jobs, plain values. The writer thread hands an engine all jobs that wait; the engine puts them into one
transaction, each one whole or not at all (chapter 08 §6.4, group commit).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from msgspec import Struct

from waD.store.errors import StoreError
from waD.store.model import EventRow, MessageRow, OutboxRow, Sealed, SealInfo, SecretRow, SessionRow
from waD.store.moves import MoveUnderWay
from waD.store.phases import Phase
from waD.store.unit import Committed, Unit

SealReason: TypeAlias = Literal["periodic", "shutdown", "pre_migration", "pre_reset", "pre_restore", "manual"]


class CommitUnit(Struct, frozen=True):
    """Apply a unit under a fencing token, to the epoch it was built in; 0 for any. Gives `Committed`."""

    session_id: str
    token: int
    unit: Unit
    epoch: int = 0


class CreateSession(Struct, frozen=True):
    """Make a session, or revive a retired one of that name. Gives its `SessionRow`."""

    name: str


class UpdateSession(Struct, frozen=True):
    """Change columns of a session's row without owning it, as an operator's order does. Gives its `SessionRow`."""

    session_id: str
    changes: dict[str, Any]


class Attach(Struct, frozen=True):
    """Take the lease. Gives the `SessionRow` with the new token, or SessionLeased while somebody else has it.

    `lease_ms` is how long it lasts by the database's clock; None for one that does not end, where nobody else can
    open the database. `instead_of` is a holder that is known to be dead.
    """

    session_id: str
    holder: str
    lease_ms: int | None = None
    instead_of: str | None = None


class RenewLeases(Struct, frozen=True):
    """Make leases last longer: (session id, token). Gives `Renewed`."""

    leases: Sequence[tuple[str, int]]
    lease_ms: int


class Renewed(Struct, frozen=True):
    """The sessions whose leases are still ours."""

    sessions: frozenset[str]


class ReleaseLease(Struct, frozen=True):
    """Let somebody else have a session at once. Gives 1, or 0 when it was not ours any more."""

    session_id: str
    token: int


class AppendEvent(Struct, frozen=True):
    """Append an event that belongs to no unit. Gives `Committed` with version 0."""

    session_id: str | None
    type: str
    data: dict[str, Any]


class Seal(Struct, frozen=True):
    """Keep a complete copy of the auth state as it is. Gives the version that was sealed.

    With `if_changed` nothing is done, and 0 given, when the newest seal holds the same keys.
    """

    session_id: str
    reason: SealReason
    if_changed: bool = False


class DropSeals(Struct, frozen=True):
    """Remove seals, named by epoch and version. Gives how many went."""

    session_id: str
    seals: Sequence[tuple[int, int]]


class ResetAuth(Struct, frozen=True):
    """Seal, then begin a new epoch with these credentials; messages and events stay (chapter 08 §6.7).

    `items` are those that the new auth state begins with. Gives the version that was sealed.
    """

    session_id: str
    token: int
    creds: bytes
    items: Mapping[tuple[str, str], bytes] = {}

    def __repr__(self) -> str:
        return f"ResetAuth({self.session_id}, {len(self.items)} items)"


class RestoreAuth(Struct, frozen=True):
    """Seal, then begin a new epoch with this auth state; the outbox is held. Gives `Restored`.

    `changes` are columns of the session's row. The new epoch is at least `least_epoch`. The event gets
    `sealedVersion`, the version of the seal. `archive` is the SHA-256 of one that goes on exactly, which it may once.
    With `locked` a state whose key is not here may be replaced: it is kept as it is stored. `texts` are payloads of
    messages by id that failed for want of that key; they are held again.
    """

    session_id: str
    token: int
    creds: bytes
    items: Mapping[tuple[str, str], bytes]
    changes: Mapping[str, Any]
    event_type: str
    event_data: Mapping[str, Any]
    least_epoch: int = 0
    archive: bytes | None = None
    locked: bool = False
    texts: Mapping[str, bytes] = {}

    def __repr__(self) -> str:
        return f"RestoreAuth({self.session_id}, {len(self.items)} items)"


class Restored(Committed, frozen=True):
    """What a restore gave: also the version that was sealed before it, how many messages are held, the new epoch.

    `locked` names the key of what was in place, if it is not here; then `lost` messages that waited have no text.
    """

    sealed: int
    held: int
    epoch: int = 0
    locked: str | None = None
    lost: int = 0


class CopyRows(Struct, frozen=True):
    """Write rows of a session that come from another store, those that are there stay. Gives how many there were.

    `table` and the values of `rows` are as `waD.store.sql.moving` reads them; `note` is written with them.
    """

    session_id: str
    token: int
    table: str
    rows: Sequence[tuple[Any, ...]]
    note: tuple[str, dict[str, Any] | None] | None = None

    def __repr__(self) -> str:
        return f"CopyRows({self.session_id}, {self.table}, {len(self.rows)} rows)"


class ReserveMove(Struct, frozen=True):
    """Make the session that a move goes into, or take one of that name that is not paired: retired, owned by the move.

    `store` and `session` are the move's source; `holder` has it for `lease_ms`. Gives its `SessionRow`.
    """

    name: str
    store: str
    session: str
    holder: str
    lease_ms: int


class OwnMove(Struct, frozen=True):
    """Take the lease of a session that is part of a move, if what is noted of that is still this. Gives its row.

    Raises LeaseLost when another process has gone on with the move: then nothing of it was taken.
    """

    session_id: str
    holder: str
    lease_ms: int | None
    note: tuple[str, dict[str, Any] | None]


class StageMove(Struct, frozen=True):
    """Note how far a move of a session has come, and change columns of its row with that. Gives 1."""

    session_id: str
    token: int
    note: tuple[str, dict[str, Any] | None]
    changes: Mapping[str, Any] = {}


class ArriveMove(Struct, frozen=True):
    """Let a session go that a move has brought whole: it is down, and free. Gives 1.

    `source` and `state` are what the move's source has given up, and must be what has arrived: epoch and version.
    """

    session_id: str
    token: int
    source: str
    state: Sequence[int]


class GiveUpMove(Struct, frozen=True):
    """Clear what a move has brought into a session, so that it never starts with that, and free it. Gives 1.

    Nothing is sealed: the state is the source's. It begins a new epoch with these credentials.
    """

    session_id: str
    token: int
    creds: bytes

    def __repr__(self) -> str:
        return f"GiveUpMove({self.session_id})"


class Depart(Struct, frozen=True):
    """Give a session up for good: seal, begin a new epoch with these credentials, retire and free it, and note that.

    Moves of it that are under way have ended with that. Without a note no other store has it. Gives the version that
    was sealed.
    """

    session_id: str
    token: int
    creds: bytes
    note: dict[str, Any] | None

    def __repr__(self) -> str:
        return f"Depart({self.session_id})"


class MovePhase(Struct, frozen=True):
    """Go to another phase of the two representations, and log it (chapter 08 §6.5). Gives the `SessionRow`."""

    session_id: str
    token: int
    to_phase: Phase
    actor: str
    report: Mapping[str, Any]


class Backfill(Struct, frozen=True):
    """Copy items into the snapshot that only the legacy rows have, at most `limit`. Gives how many."""

    session_id: str
    token: int
    limit: int


class EncryptAuth(Struct, frozen=True):
    """Encrypt a state that is stored in the clear, seals and waiting messages included. Gives the new version.

    Gives 0, and changes nothing, when it is encrypted already.
    """

    session_id: str
    token: int


class RewrapAuth(Struct, frozen=True):
    """Wrap a session's key, and those of its seals, with another one of the operator's. Gives `Rewrapped`."""

    session_id: str
    kek_id: str


class Rewrapped(Struct, frozen=True):
    """What was wrapped anew: the session's own key or not, and how many seals; `left` seals' keys are not here."""

    own: bool
    seals: int
    left: int = 0


class KeyUse(Struct, frozen=True):
    """What the operator's keys are needed for: sessions, retired ones too, and their seals.

    Attributes:
        sessions: by name, with the key of the present state, None in the clear.
        seals: how many of each session, by its id, need which key.
        locked: ids of the sessions whose key is not here, or is another one of that name.
    """

    sessions: list[SessionRow]
    seals: dict[str, dict[str, int]]
    locked: frozenset[str]


class Locked(Struct, frozen=True):
    """A state whose key is not here, as far as it can be seen: the key, the items, and whether it has credentials."""

    kek_id: str
    items: int
    has_creds: bool


class Purge(Struct, frozen=True):
    """Delete messages of the history, the oldest of those that are meant first, at most `limit`. Gives `Purged`.

    `chats` holds all spellings of one chat; None for all chats. The event says who wanted it.
    """

    session_id: str
    chats: Sequence[str] | None
    before_ms: int | None
    limit: int
    actor: str


class Purged(Committed, frozen=True):
    """What a purge gave: also how many messages went."""

    count: int


class Comparison(Struct, frozen=True, kw_only=True):
    """Snapshot against legacy rows: counts by kind of what only the rows have, what differs, what only they lack.

    `compared` is False in a phase in which there is only one of the two.
    """

    phase: str
    compared: bool
    items: int = 0
    missing: dict[str, int] = {}
    different: dict[str, int] = {}
    extra: dict[str, int] = {}
    falls_back: bool = False

    @property
    def equal(self) -> bool:
        """Whether both say the same."""
        return not (self.missing or self.different or self.extra)


class AuthSize(Struct, frozen=True):
    """How much there is of an auth state: rows of both representations, and bytes of their values."""

    items: int
    legacy_rows: int
    bytes: int


class Prune(Struct, frozen=True):
    """Remove what is past its time, a bounded number of rows of each kind. Gives how many went."""

    now_ms: int
    event_age_ms: int
    events_per_session: int
    outbox_age_ms: int


Job: TypeAlias = (
    CommitUnit
    | CreateSession
    | UpdateSession
    | Attach
    | RenewLeases
    | ReleaseLease
    | AppendEvent
    | Seal
    | DropSeals
    | ResetAuth
    | RestoreAuth
    | CopyRows
    | ReserveMove
    | OwnMove
    | StageMove
    | ArriveMove
    | GiveUpMove
    | Depart
    | MovePhase
    | Backfill
    | EncryptAuth
    | RewrapAuth
    | Purge
    | Prune
)
Outcome: TypeAlias = Committed | SessionRow | Renewed | Rewrapped | int | StoreError | ValueError


class Page(NamedTuple):
    """Rows in the clear, the place of the last one, None when there is none, and whether there may be more."""

    rows: list[tuple[Any, ...]]
    last: tuple[Any, ...] | None
    more: bool


class WholeState(Protocol):
    """A whole auth state, decrypted: documents with the version that changed them last."""

    creds: bytes | None
    creds_version: int
    items: dict[tuple[str, str], tuple[int, bytes]]


class Engine(Protocol):
    """A database.

    Attributes:
        name: which it is: `sqlite:PATH`, or a URL without a password.
        shared: whether other processes may use it at the same time, so that leases end and must be renewed.
        listening: whether it would tell now when another process appends events.
        concurrent_reads: how many reads may run at the same time; more would only wait for each other.
    """

    name: str
    shared: bool
    concurrent_reads: int

    @property
    def listening(self) -> bool:
        """See above."""
        ...

    def listen(self, heard: Callable[[], None]) -> None:
        """From now on call this, in some thread, when another process may have appended events.

        A hint: where the database cannot tell, nothing is called, and calls may be missing or too many.
        """
        ...

    def write(self, jobs: Sequence[Job]) -> list[Outcome]:
        """One transaction for all; an outcome that is an error means that this job changed nothing."""
        ...

    def sessions(self, include_retired: bool) -> list[SessionRow]:
        """All sessions by name."""
        ...

    def unleased(self) -> frozenset[str]:
        """Ids of the sessions that nobody runs, by the database's clock (chapter 08 §6.4); no retired ones."""
        ...

    def session(self, name_or_id: str) -> SessionRow | None:
        """One session, retired or not."""
        ...

    def creds(self, session_id: str) -> bytes | None:
        """The credentials document."""
        ...

    def checked_creds(self, session_id: str) -> bytes | None:
        """The same, after the whole auth state was found to match its checksum (chapter 08 §6.6).

        Raises:
            StoreDamaged: it does not.
            KekUnavailable: it is encrypted with a key that is not here.
        """
        ...

    def compare(self, session_id: str) -> Comparison:
        """Snapshot against legacy rows; raises StoreDamaged."""
        ...

    def phase_log(self, session_id: str, limit: int) -> list[dict[str, Any]]:
        """The newest phase changes: from, to, actor, report, at."""
        ...

    def auth_state(self, session_id: str) -> WholeState:
        """The whole auth state, checked; raises StoreDamaged, KekUnavailable."""
        ...

    def rows_of(self, session_id: str, table: str, after: tuple[Any, ...] | None, limit: int) -> Page:
        """A page of what goes along with a session that moves, decrypted (`waD.store.sql.moving`)."""
        ...

    def move_note(self, key: str) -> dict[str, Any] | None:
        """What was noted of a move."""
        ...

    def moves(self) -> dict[str, MoveUnderWay]:
        """Moves between stores that have not ended, by the id of their session here."""
        ...

    def restored_archives(self) -> set[str]:
        """SHA-256 of the archives that were restored exactly, in hex."""
        ...

    def view(self) -> AbstractContextManager[Any]:
        """The reads of this engine as of one moment, on a connection of their own; blocking for a while is fine."""
        ...

    def take_fallbacks(self) -> dict[str, dict[str, int]]:
        """How many items by session and kind only the legacy rows had since the last call, where none should be."""
        ...

    def auth_size(self, session_id: str) -> AuthSize:
        """How much there is of an auth state."""
        ...

    def kek_ids(self) -> tuple[list[str], str | None]:
        """Names of the operator's keys that are here, and which one wraps new ones."""
        ...

    def kek_lost(self) -> str:
        """Why nothing new can be stored, since the key for it is gone, and what to do; "" when all is well."""
        ...

    def key_use(self) -> KeyUse:
        """What needs which key; reads every seal, on a connection of its own."""
        ...

    def seal_keks(self, session_id: str) -> dict[str, int]:
        """How many seals of a session need which key."""
        ...

    def locked(self, session_id: str) -> Locked | None:
        """What can be seen of a state whose key is not here; None for any other."""
        ...

    def free_bytes(self) -> int | None:
        """Room on the disk of the database; None where that cannot be seen from here."""
        ...

    def weaknesses(self) -> list[str]:
        """Settings of the database with which it may lose what it has confirmed."""
        ...

    def newest_events(
        self, session_id: str, types: Sequence[str], since_ms: int, limit: int
    ) -> list[EventRow]:
        """Events of one session since a time, newest first."""
        ...

    def message_count(self, session_id: str, chats: Sequence[str] | None, before_ms: int | None) -> int:
        """Messages of these chats, or of all, that are older."""
        ...

    def items(self, session_id: str, kind: str, keys: Sequence[str] | None) -> Mapping[str, bytes]:
        """The named items of a kind that exist; all of the kind for None."""
        ...

    def item_keys(self, session_id: str, kind: str, prefix: str) -> list[str]:
        """Keys of the items of a kind that begin with a text, in order."""
        ...

    def events(
        self, after: int, limit: int, session_id: str | None, types: Sequence[str] | None
    ) -> list[EventRow]:
        """Events behind a cursor, oldest first."""
        ...

    def last_event(self, session_id: str, event_type: str) -> EventRow | None:
        """The newest of a type of one session."""
        ...

    def event_bounds(self) -> tuple[int, int]:
        """(smallest cursor from which reading is complete, newest cursor)."""
        ...

    def messages(
        self, session_id: str, chats: Sequence[str] | None, before_seq: int | None, limit: int
    ) -> list[MessageRow]:
        """The newest messages before a position, of these chats or of all, newest first."""
        ...

    def message(self, session_id: str, message_id: str) -> list[MessageRow]:
        """All messages of that id, in whatever chat."""
        ...

    def messages_by_ids(self, session_id: str, message_ids: Sequence[str]) -> list[MessageRow]:
        """All messages of these ids, in whatever chat."""
        ...

    def outbox(self, session_id: str, states: Sequence[str], limit: int) -> list[OutboxRow]:
        """Rows in these states, oldest first."""
        ...

    def outbox_count(self, session_id: str, states: Sequence[str]) -> int:
        """How many rows are in these states."""
        ...

    def seals(self, session_id: str) -> list[SealInfo]:
        """The sealed copies of a session's auth state, newest first."""
        ...

    def sealed(self, session_id: str, epoch: int, version: int) -> Sealed:
        """The content of one; raises StoreDamaged."""
        ...

    def outbox_row(
        self, session_id: str, *, client_ref: str | None, message_id: str | None
    ) -> OutboxRow | None:
        """One row by idempotency key or by message id."""
        ...

    def plaintext(self, session_id: str, message_id: str) -> list[tuple[str, bytes]]:
        """What was sent under that id: (chat, plaintext)."""
        ...

    def message_secrets(
        self, session_id: str, chats: Sequence[str], senders: Sequence[str], message_id: str
    ) -> list[SecretRow]:
        """Secrets of a message id, in these spellings of its chat and its author; a damaged one is left out."""
        ...

    def secrets(
        self, session_id: str, after: tuple[str, str, str], limit: int
    ) -> tuple[list[SecretRow], tuple[str, str, str] | None]:
        """Secrets of messages behind (chat, author, message id), in this order, and the key of the last one.

        The key is None when there are none; damaged ones are left out.
        """
        ...

    def journal_seen(self, session_id: str, chat: str, sender: str, message_id: str) -> list[bytes]:
        """Hashes of the ciphertexts handled under that key."""
        ...

    def journal_ciphers(self, session_id: str, hashes: Sequence[bytes]) -> set[bytes]:
        """Which of these ciphertext hashes were handled."""
        ...

    def integrity(self, quick: bool) -> list[str]:
        """What a check of the database complains about; other reads go on meanwhile. `quick` leaves the indexes out."""
        ...

    def hurry(self) -> None:
        """The end is near: what runs may end, but a database that does not answer is not waited for any more."""
        ...

    def close(self) -> None:
        """Release everything; nothing may be called afterwards."""
        ...
