"""The FIFO of everything pushed to one device (chapter 07 §6)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import msgspec

from waD.sandbox.environment import DAY_MS
from waD.wire.jid import JID
from waD.wire.node import Node


class Item(msgspec.Struct, eq=False):
    """One queued stanza.

    Attributes:
        seq: position, increasing for ever.
        stanza: as it is sent, without `offline`.
        queued_ms: when it was queued.
        expires_ms: dropped silently when not delivered by then; None: keep.
        needs_ack: stays until the client acks it.
        sent: how often it was put on a wire.
    """

    seq: int
    stanza: Node
    queued_ms: int
    expires_ms: int | None
    needs_ack: bool
    sent: int = 0


class DeviceQueue:
    """Keeps order across all kinds of stanzas; an item leaves when the client acks it, or when it is too old.

    Args:
        limit: most items; the oldest goes when one more comes.
        days: items older than that are dropped.
    """

    def __init__(self, limit: int, days: int) -> None:
        self._limit = limit
        self._life_ms = days * DAY_MS
        self._items: OrderedDict[int, Item] = OrderedDict()
        self._waiting: dict[tuple[str, str], list[int]] = {}
        self._next = 1
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(list(self._items.values()))

    @property
    def last_seq(self) -> int:
        """Position of the newest item ever queued."""
        return self._next - 1

    def add(
        self, stanza: Node, now_ms: int, expires_ms: int | None = None, *, needs_ack: bool = True
    ) -> Item:
        """Append a stanza."""
        item = Item(self._next, stanza, now_ms, expires_ms, needs_ack)
        self.restore(item)
        return item

    def restore(self, item: Item) -> None:
        """Append an item that has its position already."""
        self._next = item.seq + 1
        self._items[item.seq] = item
        if item.needs_ack:
            self._waiting.setdefault(_key(item.stanza), []).append(item.seq)

    def overflow(self, now_ms: int) -> list[Item]:
        """Remove and return what exceeds the caps."""
        gone: list[Item] = []
        while self._items:
            oldest = next(iter(self._items.values()))
            if len(self._items) <= self._limit and now_ms - oldest.queued_ms <= self._life_ms:
                break
            self.remove(oldest)
            gone.append(oldest)
        self.dropped += len(gone)
        return gone

    def after(self, seq: int) -> Item | None:
        """The oldest item behind a position; constant time when nothing before it is left."""
        if seq + 1 in self._items:
            return self._items[seq + 1]
        if seq >= self.last_seq:
            return None
        return next((item for item in self._items.values() if item.seq > seq), None)

    def acked(self, tag: str, message_id: str, to: JID | None, kind: str | None = None) -> Item | None:
        """Find the item an ack is about: one that was sent if there is any, the oldest that fits best.

        Args:
            tag: class of the stanza.
            message_id: its id.
            to: the ack's `to`, to tell receipts of several devices for one message apart.
            kind: the ack's `type`, likewise.
        """
        candidates = [self._items[seq] for seq in self._waiting.get((tag, message_id), ())]
        sent = [item for item in candidates if item.sent] or candidates
        exact = [i for i in sent if i.stanza.attrs.get("from") == to and i.stanza.attrs.get("type") == kind]
        by_sender = exact or [item for item in sent if item.stanza.attrs.get("from") == to]
        fitting = by_sender or sent
        return fitting[0] if fitting else None

    def remove(self, item: Item) -> None:
        """Take an item out."""
        if self._items.pop(item.seq, None) is None:
            return
        waiting = self._waiting.get(_key(item.stanza))
        if waiting is not None and item.seq in waiting:
            waiting.remove(item.seq)
            if not waiting:
                del self._waiting[_key(item.stanza)]

    def clear(self) -> list[Item]:
        """Take everything out."""
        items = list(self._items.values())
        self._items.clear()
        self._waiting.clear()
        return items

    def counts(self) -> dict[str, int]:
        """Number of items by tag."""
        counts: dict[str, int] = {}
        for item in self._items.values():
            counts[item.stanza.tag] = counts.get(item.stanza.tag, 0) + 1
        return counts


def _key(stanza: Node) -> tuple[str, str]:
    return stanza.tag, stanza.text("id") or ""
