"""The queue of a device against a simple model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from waD.sandbox.queues import DeviceQueue
from waD.wire.jid import JID, LID
from waD.wire.node import Node

SENDERS = [JID(str(number), LID) for number in range(3)]


def stanza(number: int) -> Node:
    return Node("message", {"id": f"id{number % 4}", "from": SENDERS[number % 3]})


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 11)), st.tuples(st.just("ack"), st.integers(0, 11))
        )
    )
)
def test_order_and_acks(steps: list[tuple[str, int]]) -> None:
    queue, model = DeviceQueue(1000, 30), list[tuple[int, Node]]()
    for action, number in steps:
        node = stanza(number)
        if action == "add":
            item = queue.add(node, 0)
            item.sent = 1
            model.append((item.seq, node))
            continue
        found = queue.acked("message", str(node.attrs["id"]), node.jid("from"))
        same_id = [entry for entry in model if entry[1].attrs["id"] == node.attrs["id"]]
        exact = [entry for entry in same_id if entry[1].attrs["from"] == node.attrs["from"]]
        expected = (exact or same_id or [None])[0]
        assert (found.seq if found else None) == (expected[0] if expected else None)
        if found and expected:
            queue.remove(found)
            model.remove(expected)
    assert [item.seq for item in queue] == [seq for seq, _ in model]


@given(st.lists(st.booleans(), max_size=60))
def test_walking_finds_every_item_once(kept: list[bool]) -> None:
    queue = DeviceQueue(1000, 30)
    items = [queue.add(stanza(number), 0) for number in range(len(kept))]
    for item, keep in zip(items, kept, strict=True):
        if not keep:
            queue.remove(item)
    seen, cursor = [], 0
    while (found := queue.after(cursor)) is not None:
        seen.append(found)
        cursor = found.seq
    assert seen == [item for item, keep in zip(items, kept, strict=True) if keep]


def test_sent_items_are_acked_before_unsent_ones() -> None:
    queue = DeviceQueue(10, 30)
    first, second = queue.add(stanza(0), 0), queue.add(stanza(0), 0)
    second.sent = 1
    assert queue.acked("message", "id0", SENDERS[0]) is second
    second.sent = 0
    assert queue.acked("message", "id0", SENDERS[0]) is first


def test_overflow_returns_what_it_drops() -> None:
    queue = DeviceQueue(3, 1)
    items = [queue.add(stanza(number), 0) for number in range(5)]
    assert queue.overflow(0) == items[:2]
    assert queue.overflow(25 * 3600 * 1000) == items[2:]
    assert queue.dropped == 5
    assert queue.counts() == {}
