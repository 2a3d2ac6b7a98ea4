"""Requests that wait for answers (chapter 01 §7.2, §7.3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waD.link.pending import MAX_PENDING, PendingRequests, TooManyRequests, id_prefix


def test_ids_count_from_one_and_are_never_the_same() -> None:
    pending = PendingRequests("51234.9876")
    assert [pending.next_id() for _ in range(3)] == ["51234.9876-1", "51234.9876-2", "51234.9876-3"]


@given(st.binary(min_size=4, max_size=4))
def test_prefix_is_two_sixteen_bit_numbers(data: bytes) -> None:
    high, low = id_prefix(data).split(".")
    assert int(high) * 65536 + int(low) == int.from_bytes(data, "big")
    assert max(int(high), int(low)) < 65536


def test_answer_closes_the_request_once() -> None:
    pending = PendingRequests("1.2")
    pending.add("a", "get abt", 10.0, 60.0)
    assert len(pending) == 1
    taken = pending.take("a")
    assert taken is not None
    assert (taken.subject, taken.sent, taken.deadline) == ("get abt", 10.0, 70.0)
    assert pending.take("a") is None
    assert pending.deadline is None


def test_expiry_is_inclusive_and_takes_only_what_is_late() -> None:
    pending = PendingRequests("1.2")
    pending.add("early", "x", 0.0, 10.0)
    pending.add("late", "x", 0.0, 20.0)
    assert pending.deadline == 10.0
    assert pending.expired(9.999) == []
    assert [key for key, _ in pending.expired(10.0)] == ["early"]
    assert pending.expired(10.0) == []
    assert pending.deadline == 20.0


def test_time_in_which_nothing_was_read_does_not_count() -> None:
    pending = PendingRequests("1.2")
    pending.add("a", "x", 0.0, 10.0)
    pending.shift(5.0)
    assert pending.expired(10.0) == []
    ((_, item),) = pending.expired(15.0)
    assert item.sent == 5.0


def test_one_id_is_open_once() -> None:
    pending = PendingRequests("1.2")
    pending.add("a", "x", 0.0, 10.0)
    with pytest.raises(ValueError, match="a is in use"):
        pending.add("a", "x", 0.0, 10.0)


def test_there_is_a_limit() -> None:
    pending = PendingRequests("1.2")
    for number in range(MAX_PENDING):
        pending.add(str(number), "x", 0.0, 10.0)
    with pytest.raises(TooManyRequests):
        pending.add("one more", "x", 0.0, 10.0)
    pending.take("7")
    pending.add("one more", "x", 0.0, 10.0)
    assert len(pending) == MAX_PENDING
