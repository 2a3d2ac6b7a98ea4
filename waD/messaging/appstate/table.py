"""Entries of one collection while a page of changes is applied: read from the store by parts, written in a unit."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress

from waD.messaging import kinds
from waD.messaging.appstate.stored import (
    Damaged,
    Entry,
    Head,
    Part,
    decode_part,
    encode_part,
    index_of,
    index_text,
    part_key,
    part_of,
    part_place,
)
from waD.store.state import SessionState
from waD.store.unit import Unit


class Table:
    """The entries of one collection, as far as they were loaded, with changes that are not committed yet.

    Nobody else writes them, so they are read without the state's lock.

    Args:
        state: the session's.
        collection: its name.
        number: of the table.

    Attributes:
        number: of the table.
    """

    def __init__(self, state: SessionState, collection: str, number: int) -> None:
        self.number = number
        self._state = state
        self._collection = collection
        self._parts: dict[str, Part] = {}
        self._changed: set[str] = set()

    @classmethod
    async def open(cls, state: SessionState, collection: str, head: Head) -> Table:
        """The table that a head names; without one a new table, with what the head itself has.

        Raises:
            StoreError: it could not be read.
        """
        if head.table:
            return cls(state, collection, head.table)
        numbers = [number for _, number in await _places(state, collection)]
        table = cls(state, collection, max(numbers, default=0) + 1)
        table._parts = {f"{byte:02x}": {} for byte in range(256)}
        for index, mac in head.macs.items():
            table.put(index_of(index), Entry(mac))
        return table

    async def load(self, indexes: Iterable[bytes]) -> None:
        """Have the parts with some entries in memory.

        Raises:
            Damaged: one cannot be read.
            StoreError: the database cannot be read.
        """
        missing = {part_of(index) for index in indexes} - self._parts.keys()
        if not missing:
            return
        keys = {part_key(self._collection, self.number, part): part for part in sorted(missing)}
        stored = await self._state.all_items(kinds.APP_STATE_ENTRIES, [*keys])
        for key, part in keys.items():
            document = stored.get(key)
            self._parts[part] = {} if document is None else decode_part(document)

    def value_macs(self, indexes: Iterable[bytes]) -> dict[bytes, bytes]:
        """Value MACs of those entries that exist; their parts are loaded."""
        found: dict[bytes, bytes] = {}
        for index in indexes:
            entry = self._parts[part_of(index)].get(index_text(index))
            if entry is not None:
                found[index] = entry.mac
        return found

    def put(self, index: bytes, entry: Entry) -> None:
        """Set an entry; its part is loaded."""
        self._parts[part_of(index)][index_text(index)] = entry
        self._changed.add(part_of(index))

    def remove(self, index: bytes) -> None:
        """Remove an entry, if it exists; its part is loaded."""
        if self._parts[part_of(index)].pop(index_text(index), None) is not None:
            self._changed.add(part_of(index))

    def write(self, unit: Unit) -> None:
        """Write the changed parts as part of a unit."""
        for part in sorted(self._changed):
            key, entries = part_key(self._collection, self.number, part), self._parts[part]
            if entries:
                unit.put(kinds.APP_STATE_ENTRIES, key, _Changed(entries))
            else:
                unit.delete(kinds.APP_STATE_ENTRIES, key)


class _Changed:
    """A part on its way into the database, whose thread makes a document of it."""

    __slots__ = ("_entries",)

    def __init__(self, entries: Part) -> None:
        self._entries = entries

    def serialize(self) -> bytes:
        """The stored form."""
        return encode_part(self._entries)


async def forget_others(state: SessionState, unit: Unit, collection: str, numbers: Collection[int]) -> None:
    """Remove all tables of a collection but these, as part of a unit; raises StoreError."""
    for key, found in await _places(state, collection):
        if found not in numbers:
            unit.delete(kinds.APP_STATE_ENTRIES, key)


async def count(state: SessionState, collection: str, head: Head) -> int:
    """How many live entries a collection has.

    Raises:
        Damaged: some cannot be read.
        StoreError: the database cannot be read.
    """
    keys = [key for key, number in await _places(state, collection) if head.table and number == head.table]
    stored: Mapping[str, bytes] = await state.all_items(kinds.APP_STATE_ENTRIES, keys) if keys else {}
    return len(head.macs) + sum(len(decode_part(document)) for document in stored.values())


async def _places(state: SessionState, collection: str) -> list[tuple[str, int]]:
    """Keys of all stored parts of a collection, with the numbers of their tables."""
    found: list[tuple[str, int]] = []
    for key in await state.item_keys(kinds.APP_STATE_ENTRIES, f"{collection}|"):
        with suppress(Damaged):  # not a name that this program gives: a verification tells of it
            found.append((key, part_place(key)[1]))
    return found
