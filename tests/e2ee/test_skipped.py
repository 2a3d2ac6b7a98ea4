from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waD.e2ee import skipped

COUNTERS = st.sets(st.integers(0, 2**32 - 2), max_size=60)


def seed_of(counter: int) -> bytes:
    return counter.to_bytes(32, "big")


def packed_of(counters: set[int], now_ms: int = 7) -> bytes:
    return skipped.pack((counter, now_ms, seed_of(counter)) for counter in counters)


@given(COUNTERS)
def test_packing_sorts_and_unpacks(counters: set[int]) -> None:
    packed = packed_of(counters)
    assert len(packed) == len(counters) * skipped.SEED_ENTRY
    assert list(skipped.unpack(packed, skipped.SEED_ENTRY)) == [(n, 7, seed_of(n)) for n in sorted(counters)]
    assert skipped.is_well_formed(packed, skipped.SEED_ENTRY, 2**32 - 1)


@given(COUNTERS, st.data())
def test_each_key_is_taken_once(counters: set[int], data: st.DataObject) -> None:
    packed = packed_of(counters)
    for counter in data.draw(st.permutations(sorted(counters))):
        taken = skipped.take(packed, skipped.SEED_ENTRY, counter)
        assert taken is not None
        seed, packed = taken
        assert seed == seed_of(counter)
        assert skipped.take(packed, skipped.SEED_ENTRY, counter) is None
    assert packed == b""


@given(COUNTERS, st.integers(0, 2**32 - 2))
def test_absent_keys_are_not_found(counters: set[int], counter: int) -> None:
    found = skipped.take(packed_of(counters), skipped.SEED_ENTRY, counter)
    assert (found is not None) == (counter in counters)


def test_triples_are_wider() -> None:
    triple = bytes(range(80))
    packed = skipped.pack([(5, 1, triple), (3, 1, bytes(80))])
    assert len(packed) == 2 * skipped.TRIPLE_ENTRY
    assert skipped.take(packed, skipped.TRIPLE_ENTRY, 5) == (triple, packed[: skipped.TRIPLE_ENTRY])


@given(st.integers(0, 100), st.integers(0, 50), st.integers(0, 50))
def test_appending_continues(first: int, count: int, more: int) -> None:
    packed = skipped.append(b"", first, [seed_of(n) for n in range(first, first + count)], 10)
    packed = skipped.append(packed, first + count, [seed_of(0)] * more, 20)
    entries = list(skipped.unpack(packed, skipped.SEED_ENTRY))
    assert [counter for counter, _, _ in entries] == list(range(first, first + count + more))
    assert [time for _, time, _ in entries] == [10] * count + [20] * more


@given(COUNTERS, st.integers(0, 70))
def test_the_lowest_go_first(counters: set[int], count: int) -> None:
    left = skipped.drop_lowest(packed_of(counters), skipped.SEED_ENTRY, count)
    assert left == packed_of(set(sorted(counters)[count:]))


@given(st.dictionaries(st.integers(0, 1000), st.integers(0, 50), max_size=30), st.integers(0, 60))
def test_old_keys_go_and_unknown_times_stay(times: dict[int, int], limit: int) -> None:
    packed = skipped.pack((counter, time, seed_of(counter)) for counter, time in times.items())
    left = skipped.drop_older(packed, skipped.SEED_ENTRY, limit)
    kept = {counter for counter, time in times.items() if time >= limit or time == 0}
    assert {counter for counter, _, _ in skipped.unpack(left, skipped.SEED_ENTRY)} == kept
    known = [time for time in times.values() if time]
    assert skipped.oldest(packed, skipped.SEED_ENTRY) == min(known, default=0)


def test_of_two_entries_with_one_counter_the_last_is_kept() -> None:
    packed = skipped.pack([(1, 5, seed_of(1)), (1, 6, seed_of(2))])
    assert list(skipped.unpack(packed, skipped.SEED_ENTRY)) == [(1, 6, seed_of(2))]


@pytest.mark.parametrize("cut", [1, 43, 45])
def test_broken_entries_are_noticed(cut: int) -> None:
    packed = packed_of({1, 2})
    assert not skipped.is_well_formed(packed[:cut], skipped.SEED_ENTRY, 10)
    assert not skipped.is_well_formed(packed, skipped.SEED_ENTRY, 2)
    assert skipped.is_well_formed(packed, skipped.SEED_ENTRY, 3)
    assert skipped.is_well_formed(b"", skipped.SEED_ENTRY, 0)
