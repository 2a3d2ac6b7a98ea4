"""What a database has to do for the store: blocking, and called from worker threads only.

Writes are jobs, plain values. The writer thread hands an engine all jobs that wait; the engine puts them into one
transaction, each one whole or not at all (chapter 08 §6.4, group commit).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias

from msgspec import Struct

from waD.store.errors import StoreError
from waD.store.model import EventRow, MessageRow, OutboxRow, Sealed, SealInfo, SessionRow
from waD.store.unit import Committed, Unit

SealReason: TypeAlias = Literal["periodic", "shutdown", "pre_migration", "pre_reset", "pre_restore", "manual"]


class CommitUnit(Struct, frozen=True):
    """Apply a unit under a fencing token. Gives `Committed`."""

    session_id: str
    token: int
    unit: Unit


class CreateSession(Struct, frozen=True):
    """Make a session, or revive a retired one of that name. Gives its `SessionRow`."""

    name: str


class UpdateSession(Struct, frozen=True):
    """Change columns of a session's row without owning it, as an operator's order does. Gives its `SessionRow`."""

    session_id: str
    changes: dict[str, Any]


class Attach(Struct, frozen=True):
    """Take the lease. Gives the `SessionRow` with the new token."""

    session_id: str
    holder: str


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

    Gives the version that was sealed.
    """

    session_id: str
    token: int
    creds: bytes


class RestoreAuth(Struct, frozen=True):
    """Seal, then begin a new epoch with this auth state; the outbox is held. Gives `Restored`.

    `changes` are columns of the session's row. The event gets `sealedVersion`, the version of the seal.
    """

    session_id: str
    token: int
    creds: bytes
    items: Mapping[tuple[str, str], bytes]
    changes: Mapping[str, Any]
    event_type: str
    event_data: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"RestoreAuth({self.session_id}, {len(self.items)} items)"


class Restored(Committed, frozen=True):
    """What a restore gave: also the version that was sealed before it, and how many messages are held now."""

    sealed: int
    held: int


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
    | AppendEvent
    | Seal
    | DropSeals
    | ResetAuth
    | RestoreAuth
    | Prune
)
Outcome: TypeAlias = Committed | SessionRow | int | StoreError | ValueError


class Engine(Protocol):
    """A database."""

    def write(self, jobs: Sequence[Job]) -> list[Outcome]:
        """One transaction for all; an outcome that is an error means that this job changed nothing."""
        ...

    def sessions(self, include_retired: bool) -> list[SessionRow]:
        """All sessions by name."""
        ...

    def session(self, name_or_id: str) -> SessionRow | None:
        """One session, retired or not."""
        ...

    def creds(self, session_id: str) -> bytes | None:
        """The credentials document."""
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

    def journal_seen(self, session_id: str, chat: str, sender: str, message_id: str) -> list[bytes]:
        """Hashes of the ciphertexts handled under that key."""
        ...

    def journal_ciphers(self, session_id: str, hashes: Sequence[bytes]) -> set[bytes]:
        """Which of these ciphertext hashes were handled."""
        ...

    def integrity(self, quick: bool) -> list[str]:
        """What a check of the database complains about; other reads go on meanwhile. `quick` leaves the indexes out."""
        ...

    def close(self) -> None:
        """Release everything; nothing may be called afterwards."""
        ...
