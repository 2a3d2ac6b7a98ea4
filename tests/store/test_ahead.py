"""Reading ahead for a unit: one read instead of many, never an answer that differs from theirs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.store.conftest import alone
from tests.store.test_store import Counter, text
from waD.store.errors import LeaseLost
from waD.store.state import CACHED_ITEMS, SessionState
from waD.store.store import Store, StoreSettings, open_store


class Counting(Store):
    """A store that counts its reads."""

    reads = 0

    async def read(self, query: Callable[..., Any], *args: Any) -> Any:
        self.reads += 1
        return await super().read(query, *args)


@pytest.fixture
async def store(settings: StoreSettings) -> AsyncIterator[Counting]:
    async with open_store(settings) as opened:
        alone(opened)
        opened.__class__ = Counting
        assert isinstance(opened, Counting)
        yield opened


@pytest.fixture
async def state(store: Counting) -> SessionState:
    """A session with a message and more items than its cache holds, freshly attached."""
    row = await store.create_session("alerts")
    state = await store.attach(row.id, "before")
    unit = state.unit()
    for number in range(2 * CACHED_ITEMS):
        unit.put("count", str(number), str(number).encode())
    unit.add_message(text("A1"))
    await state.commit(unit)
    return await store.attach(row.id, "test")


async def test_one_read_for_more_than_the_cache_holds(store: Counting, state: SessionState) -> None:
    unit, before = state.unit(), store.reads
    keys = [str(number) for number in range(2 * CACHED_ITEMS)]
    await state.read_ahead(unit, {"count": keys, "none": ["a"]}, ["A1", "A2"])
    assert store.reads == before + 1
    for key in keys:
        assert await state.item("count", key, unit) == key.encode()
    assert await state.item("none", "a", unit) is None
    assert [row.message_id for row in await state.find_message("A1", unit=unit)] == ["A1"]
    assert await state.find_message("A1", "elsewhere", unit=unit) == []
    assert await state.find_message("A2", unit=unit) == []
    assert store.reads == before + 1


async def test_what_was_not_read_ahead_is_read(store: Counting, state: SessionState) -> None:
    unit = state.unit()
    await state.read_ahead(unit, {"count": ["1"]})
    before = store.reads
    assert await state.item("count", "2", unit) == b"2"
    assert await state.find_message("A1", unit=unit)
    assert store.reads == before + 2


async def test_a_second_call_adds_and_reads_only_what_is_new(store: Counting, state: SessionState) -> None:
    unit = state.unit()
    await state.read_ahead(unit, {"count": ["1"]}, ["A1"])
    before = store.reads
    await state.read_ahead(unit, {"count": ["1"]}, ["A1"])
    assert store.reads == before
    await state.read_ahead(unit, {"count": ["1", "2"]})
    assert [await state.item("count", key, unit) for key in ("1", "2")] == [b"1", b"2"]
    assert store.reads == before + 1


async def test_the_units_own_changes_win(state: SessionState) -> None:
    unit = state.unit()
    unit.put("count", "1", b'"before"')
    await state.read_ahead(unit, {"count": ["1", "2", "3"]})
    unit.put("count", "2", b'"after"')
    unit.delete("count", "3")
    values = [await state.item("count", key, unit) for key in ("1", "2", "3")]
    assert values == [b'"before"', b'"after"', None]


async def test_a_rolled_back_change_shows_what_was_read(state: SessionState) -> None:
    unit = state.unit()
    await state.read_ahead(unit, {"count": ["1"]})
    with suppress(RuntimeError), unit.step():
        unit.put("count", "1", b'"wrong"')
        raise RuntimeError
    assert await state.item("count", "1", unit) == b"1"


async def test_records_are_decoded_once(state: SessionState) -> None:
    unit, decoded = state.unit(), []

    def parse(data: bytes) -> Counter:
        decoded.append(data)
        return Counter.parse(data)

    await state.read_ahead(unit, {"count": ["7"]})
    first = await state.record("count", "7", parse, unit)
    assert await state.record("count", "7", parse, unit) is first
    assert decoded == [b"7"]
    assert await state.item("count", "7", unit) == b"7"


async def test_a_decoded_record_of_the_cache_is_taken_over(store: Counting, state: SessionState) -> None:
    known = await state.record("count", "7", Counter.parse)
    unit, before = state.unit(), store.reads
    await state.read_ahead(unit, {"count": ["7"]})
    assert await state.record("count", "7", Counter.parse, unit) is known
    assert store.reads == before


async def test_other_units_and_readers_without_one_see_the_present(state: SessionState) -> None:
    unit = state.unit()
    await state.read_ahead(unit, {"count": ["1"]}, ["B1"])
    other = state.unit()
    other.put("count", "1", b'"new"')
    other.add_message(text("B1"))
    await state.commit(other)
    assert await state.item("count", "1") == b'"new"'
    assert await state.find_message("B1")
    assert await state.item("count", "1", unit) == b'"new"'
    assert await state.find_message("B1", unit=unit)


async def test_nothing_outlives_the_commit(store: Counting, state: SessionState) -> None:
    unit = state.unit()
    await state.read_ahead(unit, {"count": ["1"]}, ["B1"])
    unit.put("count", "1", b'"new"')
    unit.add_message(text("B1"))
    await state.commit(unit)
    assert await state.item("count", "1", unit) == b'"new"'
    assert await state.find_message("B1", unit=unit)
    fresh = await store.attach(state.session_id, "later")
    assert await fresh.item("count", "1") == b'"new"'


async def test_nothing_outlives_a_commit_that_failed(store: Counting, state: SessionState) -> None:
    unit = state.unit()
    await state.read_ahead(unit, {"count": ["1"]})
    unit.put("count", "2", b'"new"')
    owner = await store.attach(state.session_id, "another owner")
    with pytest.raises(LeaseLost):
        await state.commit(unit)
    theirs = owner.unit()
    theirs.put("count", "1", b'"theirs"')
    await owner.commit(theirs)
    assert await state.item("count", "1", state.unit()) in (b"1", b'"theirs"')
    unit.items.clear()
    assert await state.item("count", "1", unit) == b'"theirs"'
