"""The unit of work: everything that one stanza, one batch of stanzas or one command changes (chapter 08 §0 R3).

A unit is memory only and knows no database. It is committed whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from msgspec import Struct

from waD.store.model import EventRow, MessageRow, OutboxRow, SecretRow


@runtime_checkable
class Record(Protocol):
    """A value that knows its stored form; kept decoded in the cache, serialised once at commit."""

    def serialize(self) -> bytes:
        """The bytes to store."""
        ...


ItemKey: TypeAlias = tuple[str, str]
ItemValue: TypeAlias = bytes | Record


class PutMessage(Struct, frozen=True):
    """Insert a message; one that is there stays as it is, but for an undecryptable one, which is resolved."""

    row: MessageRow


class ChangeMessage(Struct, frozen=True):
    """Change columns of one message."""

    chat: str
    sender: str
    message_id: str
    changes: dict[str, Any]


class RaiseStatus(Struct, frozen=True):
    """Raise the status of an own message; a lower number changes nothing."""

    chat: str
    message_id: str
    status: int


class Enqueue(Struct, frozen=True):
    """Add a row to the outbox."""

    row: OutboxRow


class ChangeOutbox(Struct, frozen=True):
    """Change columns of one outbox row."""

    message_id: str
    changes: dict[str, Any]


class KeepPlaintext(Struct, frozen=True):
    """Keep what was sent, to answer retry receipts."""

    chat: str
    message_id: str
    plaintext: bytes


class KeepSecret(Struct, frozen=True):
    """Keep the secret of a message; of two for one message that of the newer one stays."""

    row: SecretRow


class Journal(Struct, frozen=True):
    """Remember that a stanza was handled, to recognise it when it comes again (chapter 03 §8.4)."""

    chat: str
    sender: str
    message_id: str
    cipher_sha: bytes


class MovePerson(Struct, frozen=True):
    """Re-key what is filed under one address of a person to another one (chapter 04 §13.3).

    Where the new key exists already, the old row stays as it is: history is never deleted.
    """

    old: str
    new: str


class Tally(Struct, frozen=True):
    """Count one more of something that is counted since the session was made."""

    name: Literal["retry_requests"]


class Announce(Struct, frozen=True):
    """Append an event."""

    type: str
    data: dict[str, Any]


Step: TypeAlias = (
    PutMessage
    | ChangeMessage
    | RaiseStatus
    | Enqueue
    | ChangeOutbox
    | KeepPlaintext
    | KeepSecret
    | Journal
    | MovePerson
    | Tally
    | Announce
)


class Committed(Struct, frozen=True):
    """What a commit gave: the new version of the auth state, and the events with their cursors."""

    version: int
    events: list[EventRow]


class Unit:
    """Collects changes; later ones win over earlier ones for the same item."""

    __slots__ = ("_undo", "creds", "items", "session", "steps")

    def __init__(self) -> None:
        self.items: dict[ItemKey, ItemValue | None] = {}
        self.creds: bytes | None = None
        self.session: dict[str, Any] = {}
        self.steps: list[Step] = []
        self._undo: list[tuple[ItemKey, bool, ItemValue | None]] | None = None

    def __repr__(self) -> str:
        return f"Unit({len(self.items)} items, {len(self.steps)} steps)"

    @property
    def empty(self) -> bool:
        """Whether there is nothing to commit."""
        return not (self.items or self.steps or self.session or self.creds is not None)

    @contextmanager
    def step(self) -> Iterator[None]:
        """A savepoint: what is added inside is discarded when an exception leaves the block."""
        outer, creds, session, count = self._undo, self.creds, dict(self.session), len(self.steps)
        undo: list[tuple[ItemKey, bool, ItemValue | None]] = []
        self._undo = undo
        try:
            yield
        except BaseException:
            for key, present, value in reversed(undo):
                if present:
                    self.items[key] = value
                else:
                    self.items.pop(key, None)
            self.creds, self.session = creds, session
            del self.steps[count:]
            undo.clear()
            raise
        finally:
            self._undo = outer
            if outer is not None:
                outer += undo

    def put(self, kind: str, key: str, value: ItemValue) -> None:
        """Set an item of the auth state."""
        self._set((kind, key), value)

    def delete(self, kind: str, key: str) -> None:
        """Remove an item of the auth state; one that is not there is fine."""
        self._set((kind, key), None)

    def _set(self, key: ItemKey, value: ItemValue | None) -> None:
        if self._undo is not None:
            self._undo.append((key, key in self.items, self.items.get(key)))
        self.items[key] = value

    def set_creds(self, document: bytes) -> None:
        """Replace the device credentials."""
        self.creds = document

    def set_session(self, **changes: Any) -> None:
        """Change columns of the session's row."""
        self.session.update(changes)

    def add_message(self, row: MessageRow) -> None:
        """Add to the history, or resolve a message that could not be decrypted before."""
        self.steps.append(PutMessage(row))

    def update_message(self, chat: str, sender: str, message_id: str, **changes: Any) -> None:
        """Change columns of a message."""
        self.steps.append(ChangeMessage(chat, sender, message_id, changes))

    def raise_status(self, chat: str, message_id: str, status: int) -> None:
        """Raise the status of an own message."""
        self.steps.append(RaiseStatus(chat, message_id, status))

    def enqueue(self, row: OutboxRow) -> None:
        """Add to the outbox."""
        self.steps.append(Enqueue(row))

    def update_outbox(self, message_id: str, **changes: Any) -> None:
        """Change columns of an outbox row."""
        self.steps.append(ChangeOutbox(message_id, changes))

    def keep_plaintext(self, chat: str, message_id: str, plaintext: bytes) -> None:
        """Keep a sent plaintext for retries."""
        self.steps.append(KeepPlaintext(chat, message_id, plaintext))

    def keep_secret(self, row: SecretRow) -> None:
        """Keep the secret of a message, for its add-ons."""
        self.steps.append(KeepSecret(row))

    def journal(self, chat: str, sender: str, message_id: str, cipher_sha: bytes) -> None:
        """Remember a handled stanza."""
        self.steps.append(Journal(chat, sender, message_id, cipher_sha))

    def move_person(self, old: str, new: str) -> None:
        """Re-key rows from one bare address of a person to another."""
        self.steps.append(MovePerson(old, new))

    def tally(self, name: Literal["retry_requests"]) -> None:
        """Count one more."""
        self.steps.append(Tally(name))

    def event(self, event_type: str, data: dict[str, Any]) -> None:
        """Append an event to the log."""
        self.steps.append(Announce(event_type, data))
