"""What was read for a unit before it asked: many small reads in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from waD.store.engine import Engine
from waD.store.model import MessageRow
from waD.store.unit import ItemKey, ItemValue, Unit

Gathered: TypeAlias = tuple[dict[ItemKey, ItemValue | None], dict[str, list[MessageRow]]]


class Ahead:
    """Items and messages as they are committed, for one unit.

    Attributes:
        unit: whose.
        items: None for what does not exist.
        messages: all of an id.
    """

    __slots__ = ("items", "messages", "unit")

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.items: dict[ItemKey, ItemValue | None] = {}
        self.messages: dict[str, list[MessageRow]] = {}

    def add(self, gathered: Gathered) -> None:
        """Take over what was read."""
        items, messages = gathered
        self.items.update(items)
        self.messages.update(messages)


def gather(
    engine: Engine, session_id: str, items: Mapping[str, Sequence[str]], message_ids: Sequence[str]
) -> Gathered:
    """Read items by kind, and messages by id; blocking."""
    found: dict[ItemKey, ItemValue | None] = {}
    for kind, keys in items.items():
        stored = engine.items(session_id, kind, keys)
        found.update({(kind, key): stored.get(key) for key in keys})
    messages: dict[str, list[MessageRow]] = {name: [] for name in message_ids}
    for row in engine.messages_by_ids(session_id, message_ids) if message_ids else ():
        messages[row.message_id].append(row)
    return found, messages
