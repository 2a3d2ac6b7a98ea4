"""What the handling of a stanza leads to once its unit of work is durable."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from waD.wire.jid import JID
from waD.wire.node import Node


@dataclass(frozen=True, slots=True)
class FetchDevices:
    """Ask for the device lists of these accounts, and for their LIDs."""

    users: tuple[JID, ...]


@dataclass(frozen=True, slots=True)
class TopUpPreKeys:
    """The server runs out of our one-time prekeys."""


@dataclass(frozen=True, slots=True)
class CheckDigest:
    """The server asks whether it holds the right keys of ours."""


@dataclass(frozen=True, slots=True)
class Paced:
    """Answers that leave one lot at a time, with a pause between two lots (chapter 04 §7.1)."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class RefreshSession:
    """Build a new session with a device whose identity changed."""

    device: JID


@dataclass(frozen=True, slots=True)
class AnswerRetry:
    """Another device could not read a message of ours and may have it again (chapter 04 §7.4).

    Attributes:
        chat: canonical chat the message was sent to.
        message_id: which message.
        requester: the device that asks, as addressed in the receipt.
        count: number of the request, 1…4.
        receipt: the whole receipt, for its keys and registration id.
    """

    chat: str
    message_id: str
    requester: JID
    count: int
    receipt: Node


@dataclass(frozen=True, slots=True)
class AskPhone:
    """Ask the own phone for a message nobody can make readable (chapter 04 §7.5).

    Attributes:
        payload: the serialised Message to send to device 0 as a peer message.
        delay_s: how long to wait first, so that a normal retry can win.
        chat, sender, message_id: canonical key of the row that waits; asked only if it is still undecryptable.
    """

    payload: bytes
    delay_s: float
    chat: str
    sender: str
    message_id: str


@dataclass(frozen=True, slots=True)
class SyncAppState:
    """There is something to fetch of the app state.

    Attributes:
        names: collections.
        keys: keys came that some may have waited for.
    """

    names: tuple[str, ...]
    keys: bool = False


Work: TypeAlias = (
    FetchDevices | TopUpPreKeys | CheckDigest | Paced | RefreshSession | AnswerRetry | AskPhone | SyncAppState
)


@dataclass(slots=True)
class Reaction:
    """Answers to send, in order, and work to do, after the commit."""

    answers: list[Node] = field(default_factory=list)
    work: list[Work] = field(default_factory=list)

    def add(self, answer: Node | None) -> None:
        """Append an answer, if there is one."""
        if answer is not None:
            self.answers.append(answer)

    def merge(self, other: Reaction) -> None:
        """Append another reaction."""
        self.answers += other.answers
        self.work += other.work
