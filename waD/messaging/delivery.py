"""Receipts that this device sends for what it got (chapter 04 §6.7); which messages one of them can name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Struct

from waD.messaging.stanza import Incoming
from waD.wire.jid import JID
from waD.wire.node import Node, Value

MAX_RECEIPT_IDS: Final = 256
"""Message ids in one receipt (§14)."""

_JOINED: Final = frozenset({None, "inactive", "sender"})
"""Types of receipts that may share a stanza."""
_ALIKE: Final = ("to", "participant", "type", "recipient", "context")
"""Attributes that receipts in one stanza have in common."""


def delivery_receipt(message: Incoming, *, available: bool = True) -> Node:
    """The receipt that takes a message off the server's queue; addresses are those of the stanza, verbatim.

    Args:
        message: what was processed.
        available: whether this client shows itself; otherwise the receipt says that nobody is looking.
    """
    received = message.node.attrs
    attrs: dict[str, Value] = {"id": received["id"], "to": received["from"]}
    if "participant" in received:
        attrs["participant"] = received["participant"]
    if message.peer:
        attrs["type"] = "peer_msg"
    elif message.own:
        attrs["type"] = "sender"
        if message.recipient is not None:
            attrs["recipient"] = message.recipient
    elif not available:
        attrs["type"] = "inactive"
    if message.kind == "status":
        attrs["context"] = "status"
    return Node("receipt", attrs)


def history_receipt(message: Incoming) -> Node:
    """What a piece of history gets besides its receipt as a peer message."""
    return Node(
        "receipt", {"id": message.node.attrs["id"], "to": message.sender.account, "type": "hist_sync"}
    )


def aggregate(answers: Sequence[Node]) -> list[Node]:
    """Join delivery receipts that differ in their id only, at most `MAX_RECEIPT_IDS` ids in one.

    Everything else keeps its place and its order; a joined receipt stands where its first id stood.
    """
    result: list[Node | _Joined] = []
    still_open: dict[tuple[Value | None, ...], _Joined] = {}
    for answer in answers:
        if not _joins(answer):
            result.append(answer)
            continue
        key = tuple(answer.attrs.get(name) for name in _ALIKE)
        joined = still_open.get(key)
        if joined is None or len(joined.ids) >= MAX_RECEIPT_IDS:
            joined = still_open[key] = _Joined(answer)
            result.append(joined)
        joined.ids.setdefault(answer.attrs["id"])
    return [item.node() if isinstance(item, _Joined) else item for item in result]


class _Joined:
    """A receipt in the making: the first one, and the ids of all."""

    __slots__ = ("first", "ids")

    def __init__(self, first: Node) -> None:
        self.first = first
        self.ids: dict[Value, None] = {}

    def node(self) -> Node:
        if len(self.ids) == 1:
            return self.first
        first, *others = self.ids
        return Node("receipt", self.first.attrs | {"id": first}, _listed(others))


def _joins(node: Node) -> bool:
    return node.tag == "receipt" and node.content is None and node.attrs.get("type") in _JOINED


def _listed(ids: Iterable[Value]) -> list[Node] | None:
    items = [Node("item", {"id": one}) for one in ids]
    return [Node("list", {}, items)] if items else None


class ReadKey(Struct, frozen=True):
    """A message that was read: chat as the stanza spelt it, author's address in groups and lists, else None."""

    chat: JID
    id: str
    participant: JID | None = None
    from_me: bool = False


class ReadGroup(Struct, frozen=True):
    """Messages that one read receipt can name."""

    chat: JID
    participant: JID | None
    ids: tuple[str, ...]


def aggregate_reads(keys: Iterable[ReadKey]) -> list[ReadGroup]:
    """Group read messages by chat and author, in order, at most `MAX_RECEIPT_IDS` each; own ones are left out."""
    found: dict[tuple[JID, JID | None], dict[str, None]] = {}
    for key in keys:
        if not key.from_me:
            found.setdefault((key.chat, key.participant), {}).setdefault(key.id)
    return [
        ReadGroup(chat, participant, tuple(ids)[start : start + MAX_RECEIPT_IDS])
        for (chat, participant), ids in found.items()
        for start in range(0, len(ids), MAX_RECEIPT_IDS)
    ]
