"""The offline phase: asking for batches, counting, and its end (chapter 04 §6.10)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waD.link.offline import ASK_AGAIN_BELOW, BATCH, PATIENCE_S, OfflinePhase
from waD.wire.jid import SERVER
from waD.wire.node import Node

REQUEST = Node("ib", {}, [Node("offline_batch", {"count": "200"})])


def preview(count: int) -> Node:
    return Node("ib", {"from": SERVER}, [Node("offline_preview", {"count": str(count)})])


def end(count: int = 0) -> Node:
    return Node("ib", {"from": SERVER}, [Node("offline", {"count": str(count)})])


def queued(tag: str = "message") -> Node:
    return Node(tag, {"id": "1", "offline": "1"})


def live() -> Node:
    return Node("message", {"id": "2"})


def feed(phase: OfflinePhase, count: int, now: float = 0.0) -> int:
    """So many queued stanzas arrive; returns how many batches were asked for."""
    return sum(len(phase.received(queued(), now)) for _ in range(count))


def test_a_preview_asks_for_the_first_batch() -> None:
    phase = OfflinePhase(0.0)
    assert phase.received(preview(1000), 0.0) == [REQUEST]
    assert phase.announced == 1000


def test_nothing_is_asked_for_when_nothing_waits() -> None:
    phase = OfflinePhase(0.0)
    assert phase.received(preview(0), 0.0) == []
    assert feed(phase, 10) == 0


def test_servers_that_announce_nothing_are_not_asked() -> None:
    phase = OfflinePhase(0.0)
    assert feed(phase, 300) == 0
    assert phase.count == 300


def test_the_next_batch_when_fewer_than_fifty_are_to_come() -> None:
    phase = OfflinePhase(0.0)
    phase.received(preview(1000), 0.0)
    assert feed(phase, BATCH - ASK_AGAIN_BELOW) == 0
    assert phase.received(queued(), 0.0) == [REQUEST]
    assert feed(phase, BATCH - 1) == 0
    assert phase.received(queued(), 0.0) == [REQUEST]


def test_one_preview_counts() -> None:
    phase = OfflinePhase(0.0)
    assert len(phase.received(preview(10), 0.0)) == 1
    assert phase.received(preview(500), 0.0) == []
    assert phase.announced == 10


def test_before_open_nothing_is_asked_and_no_clock_runs() -> None:
    phase = OfflinePhase()
    assert phase.received(preview(10), 0.0) == []
    assert phase.deadline is None
    assert not phase.tick(1000.0)
    assert phase.opened(1000.0) == [REQUEST]
    assert phase.deadline == 1000.0 + PATIENCE_S


def test_open_without_a_preview() -> None:
    phase = OfflinePhase()
    assert phase.opened(5.0) == []
    assert phase.received(preview(3), 6.0) == [REQUEST]


def test_all_kinds_of_stanzas_count_and_live_ones_do_not() -> None:
    phase = OfflinePhase(0.0)
    for tag in ("message", "receipt", "notification", "call"):
        phase.received(queued(tag), 0.0)
    assert phase.received(live(), 0.0) == []
    assert phase.count == 4


def test_the_end() -> None:
    phase = OfflinePhase(0.0)
    phase.received(preview(5), 0.0)
    feed(phase, 5)
    assert not phase.done
    assert phase.received(end(5), 1.0) == []
    assert (phase.done, phase.timed_out, phase.count, phase.deadline) == (True, False, 5, None)
    assert phase.received(queued(), 2.0) == []
    assert phase.count == 5
    assert not phase.tick(1000.0)


def test_the_end_may_come_before_open() -> None:
    phase = OfflinePhase()
    phase.received(end(), 0.0)
    assert phase.done
    assert phase.opened(1.0) == []
    assert phase.deadline is None


def test_preview_and_end_in_one_stanza() -> None:
    phase = OfflinePhase(0.0)
    both = Node("ib", {"from": SERVER}, [*preview(3).children(), *end(3).children()])
    assert phase.received(both, 0.0) == []
    assert phase.done


def test_patience_starts_at_open_and_again_with_each_queued_stanza() -> None:
    phase = OfflinePhase(0.0)
    assert phase.deadline == PATIENCE_S
    phase.received(queued(), 40.0)
    phase.received(live(), 90.0)
    phase.received(Node("ib", {}, [Node("dirty", {"type": "groups"})]), 95.0)
    assert phase.deadline == 100.0
    assert not phase.tick(99.9)
    assert phase.tick(100.0)
    assert (phase.done, phase.timed_out) == (True, True)
    assert not phase.tick(101.0)


def test_a_late_end_after_the_time_out_changes_nothing() -> None:
    phase = OfflinePhase(0.0)
    phase.tick(PATIENCE_S)
    assert phase.received(end(), 61.0) == []
    assert phase.timed_out


@pytest.mark.parametrize("total", [1, 49, 50, 199, 200, 201, 5000])
def test_a_server_that_sends_only_what_was_asked_for_is_drained(total: int) -> None:
    phase = OfflinePhase(0.0)
    credit = BATCH * len(phase.received(preview(total), 0.0))
    sent = 0
    while sent < total:
        assert credit > 0, "the server waits and nobody asks"
        credit -= 1
        sent += 1
        credit += BATCH * len(phase.received(queued(), 0.0))
    phase.received(end(total), 0.0)
    assert (phase.count, phase.done) == (total, True)


@given(st.lists(st.sampled_from(["queued", "live", "preview", "end", "open", "tick"]), max_size=400))
def test_never_more_outstanding_than_a_batch_and_a_bit(steps: list[str]) -> None:
    phase = OfflinePhase()
    asked = received = 0
    for now, step in enumerate(steps):
        done = phase.done
        out: list[Node] = []
        match step:
            case "queued":
                out = phase.received(queued(), now)
                received += 0 if done else 1
            case "live":
                out = phase.received(live(), now)
            case "preview":
                out = phase.received(preview(1000), now)
            case "end":
                out = phase.received(end(), now)
            case "open":
                out = phase.opened(now)
            case "tick":
                phase.tick(now)
        asked += BATCH * len(out)
        assert not (done and out)
        assert asked - received < BATCH + ASK_AGAIN_BELOW
    assert phase.count == received
