"""A page of changes of one collection: checked, then stored in one unit (chapter 05 §4.7, §4.9; chapter 08 §0 R3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, Protocol, TypeAlias, TypeVar

import trio
from msgspec import structs

from waD.e2ee.syncd.errors import SyncdError
from waD.e2ee.syncd.keys import MutationKeys
from waD.e2ee.syncd.mutations import Mutation
from waD.e2ee.syncd.patches import (
    Applied,
    CollectionState,
    apply_patch,
    apply_snapshot,
    expect_reference,
    external_mutations,
    parse_mutations,
    parse_snapshot,
)
from waD.messaging.appstate import conclusions, effects
from waD.messaging.appstate.stored import Entry, Head
from waD.messaging.appstate.table import Table
from waD.messaging.appstate.wire import Answer
from waD.proto.appstate_pb2 import ExternalBlobReference, SyncActionData, SyncdPatch
from waD.proto.e2e_pb2 import SyncdMutation
from waD.store.state import SessionState
from waD.store.unit import Unit

T = TypeVar("T")

FEW: Final = 32
"""Mutations that are checked on the loop; more go to a thread."""

RECORD: Final = 128
"""Bytes of a short record, by which files are judged before they are read."""

_threads: Final = trio.CapacityLimiter(1)
"""Of all sessions: what a thread does here holds the interpreter."""


class Fetch(Protocol):
    """Gets the content of a file that belongs to the app state."""

    async def __call__(self, reference: ExternalBlobReference) -> bytes:
        """The decrypted content.

        Raises:
            BlobError: it cannot be had, now or ever.
            Disconnected: the connection ended.
        """
        ...


class BlobError(Exception):
    """A file cannot be had; `permanent` says that it never will be."""

    def __init__(self, text: str, *, permanent: bool) -> None:
        super().__init__(text)
        self.permanent = permanent


class HashMismatch(SyncdError):  # noqa: N818 - what is the case
    """A patch is authentic, but its writer had another hash than we have."""

    def __init__(self, name: str, version: int) -> None:
        super().__init__("snapshot-mac", f"patch {version} of {name} was made for another hash")


class Page:
    """Changes of one collection on their way into the store.

    Args:
        name: of the collection.
        head: as it is stored.
        table: the collection's entries.
        keys: by key id.
        fetch: gets files.
        now_ms: Unix milliseconds.

    Attributes:
        before: the head as it is stored.
        head: as it is after what was applied so far.
        acting: mutations among what was applied so far from which more follows.
    """

    def __init__(
        self,
        name: str,
        head: Head,
        table: Table,
        keys: dict[bytes, MutationKeys],
        fetch: Fetch,
        now_ms: int,
    ) -> None:
        self.before = self.head = head
        self.acting: list[Mutation] = []
        self._name = name
        self._table = table
        self._keys = keys
        self._fetch = fetch
        self._now_ms = now_ms

    @classmethod
    async def open(
        cls,
        state: SessionState,
        name: str,
        head: Head,
        keys: dict[bytes, MutationKeys],
        fetch: Fetch,
        now_ms: int,
    ) -> Page:
        """A page without changes; raises StoreError."""
        return cls(name, head, await Table.open(state, name, head), keys, fetch, now_ms)

    async def apply(self, answer: Answer) -> None:
        """Check and take an answer, one patch after the other; those before a faulty one stay applied.

        Raises:
            MissingKeys, SyncdError: of the first part that was not taken.
            BlobError: a file cannot be had.
            Damaged: stored entries cannot be read.
            StoreError: they could not be read.
        """
        if answer.fault is not None:
            raise answer.fault
        if answer.snapshot is not None:
            await self._take_snapshot(answer.snapshot)
        for patch in sorted(answer.patches, key=lambda one: one.version.version):
            await self._take_patch(patch)

    async def _take_snapshot(self, reference: ExternalBlobReference) -> None:
        if self.head.version:
            raise SyncdError("malformed", f"a snapshot of {self._name} that was not asked for")
        data = await self._fetch(expect_reference(reference))
        work = partial(_snapshot, self._name, data, self._keys)
        await self._store(*await _worked(len(data) // RECORD, work))

    async def _take_patch(self, patch: SyncdPatch) -> None:
        mutations = await self._mutations(patch)
        indexes = [one.record.index.blob for one in mutations if one.record.index.blob]
        await self._table.load(indexes)
        before = CollectionState(self.head.version, self.head.hash)
        stored = self._table.value_macs(indexes)
        work = partial(_patch, self._name, before, patch, mutations, self._keys, stored)
        applied, entries = await _worked(len(mutations), work)
        if applied.mac_mismatch and not self.head.mismatch:
            if not (self.head.retried or conclusions.spent(self.head, self._now_ms)):
                raise HashMismatch(self._name, patch.version.version)
            self.head = structs.replace(self.head, mismatch=True)
        await self._store(applied, entries)

    async def _mutations(self, patch: SyncdPatch) -> Sequence[SyncdMutation]:
        reference = external_mutations(patch)
        if reference is None:
            return patch.mutations
        data = await self._fetch(reference)
        return await _worked(len(data) // RECORD, partial(parse_mutations, data))

    async def _store(self, applied: Applied, entries: Entries) -> None:
        """Into the table, and the head along with it."""
        await self._table.load(index for index, _ in entries)
        await self._table.load(one.index_mac for one in applied.removes)
        for one in applied.removes:
            self._table.remove(one.index_mac)
        for index, entry in entries:
            self._table.put(index, entry)
        self.acting += filter(effects.matters, applied.mutations)
        self.head = structs.replace(
            self.head,
            version=applied.state.version,
            hash=applied.state.hash,
            macs={},
            table=self._table.number,
            leftover=self.head.leftover or not self.head.table,
        )

    def write(self, unit: Unit) -> None:
        """Add the changed entries to a unit."""
        if self.head.table == self._table.number:
            self._table.write(unit)


Entries: TypeAlias = list[tuple[bytes, Entry]]
"""What is stored, by index MAC."""


def _snapshot(name: str, data: bytes, keys: Mapping[bytes, MutationKeys]) -> tuple[Applied, Entries]:
    applied = apply_snapshot(name, parse_snapshot(data), keys)
    return applied, [(one.index_mac, _entry(one)) for one in applied.sets]


def _patch(
    name: str,
    before: CollectionState,
    patch: SyncdPatch,
    mutations: Sequence[SyncdMutation],
    keys: Mapping[bytes, MutationKeys],
    stored: Mapping[bytes, bytes],
) -> tuple[Applied, Entries]:
    applied = apply_patch(name, before, patch, mutations, keys, stored)
    return applied, [(one.index_mac, _entry(one)) for one in applied.sets]


def _entry(mutation: Mutation) -> Entry:
    data = SyncActionData(index=mutation.index, version=mutation.version)
    if mutation.value is not None:
        data.value.CopyFrom(mutation.value)
    return Entry(mutation.value_mac, mutation.key_id.hex(), data.SerializeToString())


async def _worked(amount: int, work: Callable[[], T]) -> T:
    """The result of work on so many mutations, off the loop when that takes a while."""
    if amount <= FEW:
        return work()
    return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=_threads)
