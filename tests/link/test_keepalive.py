"""When to ping, when to worry, when to give up (chapter 02 §7.1)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waD.link.keepalive import HELD_UP_S, Keepalive, KeepaliveSettings

STEADY = KeepaliveSettings(jitter_s=0.0)


def middle() -> float:
    return 0.5


def new(settings: KeepaliveSettings = STEADY, now: float = 0.0) -> Keepalive:
    return Keepalive(settings, middle, now)


def poll_at_deadline(keepalive: Keepalive) -> tuple[float, str | None]:
    now = keepalive.deadline
    return now, keepalive.poll(now)


def test_first_ping_after_the_interval() -> None:
    keepalive = new()
    assert keepalive.deadline == 25.0
    assert keepalive.poll(24.9) is None
    assert keepalive.poll(25.0) == "ping"
    assert keepalive.healthy


def test_an_answered_ping_is_followed_by_the_next_interval() -> None:
    keepalive = new()
    keepalive.poll(25.0)
    keepalive.received(25.1)
    assert keepalive.deadline == 50.0
    assert keepalive.poll(50.0) == "ping"


def test_traffic_makes_pings_needless_but_not_for_longer_than_a_minute() -> None:
    keepalive = new()
    pings = []
    now = 0.0
    while now < 200.0:
        now += 1.0
        keepalive.received(now)
        if keepalive.poll(now) == "ping":
            pings.append(now)
            keepalive.received(now + 0.1)
    assert pings == [60.0, 120.0, 180.0]


def test_a_quiet_connection_is_pinged_though_it_was_busy_before() -> None:
    keepalive = new()
    keepalive.received(5.0)
    assert keepalive.poll(25.0) == "ping"
    other = new()
    other.received(11.0)
    assert other.poll(25.0) is None


def test_silence_unhealthy_after_five_dead_after_twenty() -> None:
    keepalive = new()
    assert poll_at_deadline(keepalive) == (25.0, "ping")
    assert poll_at_deadline(keepalive) == (30.0, "ping")
    assert not keepalive.healthy
    assert poll_at_deadline(keepalive) == (45.0, "dead")


def test_any_frame_heals() -> None:
    keepalive = new()
    keepalive.poll(25.0)
    keepalive.poll(30.0)
    keepalive.received(44.9)
    assert keepalive.healthy
    assert keepalive.poll(45.0) is None
    assert keepalive.deadline > 45.0


def test_the_literal_reading_of_the_two_numbers() -> None:
    keepalive = new(KeepaliveSettings(jitter_s=0.0, late_s=5.0, dead_s=5.0))
    keepalive.poll(25.0)
    assert poll_at_deadline(keepalive) == (30.0, "dead")


def test_a_held_up_loop_gets_one_more_try() -> None:
    keepalive = new()
    keepalive.poll(25.0)
    keepalive.poll(30.0)
    woken = 45.0 + HELD_UP_S + 100.0
    assert keepalive.poll(woken) == "ping"
    assert keepalive.poll(keepalive.deadline) == "ping"
    assert keepalive.poll(keepalive.deadline + 1000.0) == "dead"


def test_a_frame_after_the_hold_up_makes_excuses_possible_again() -> None:
    keepalive = new()
    keepalive.poll(25.0)
    assert keepalive.poll(25.0 + 20.0 + 50.0) == "ping"
    keepalive.received(96.0)
    keepalive.poll(keepalive.deadline)
    assert keepalive.poll(keepalive.deadline + 500.0) == "ping"


def test_time_in_which_nothing_was_read_does_not_count() -> None:
    keepalive = new()
    keepalive.poll(25.0)
    keepalive.shift(100.0)
    assert keepalive.deadline == 130.0
    assert keepalive.poll(129.0) is None
    assert keepalive.poll(130.0) == "ping"
    assert keepalive.poll(145.0) == "dead"


@pytest.mark.parametrize(("drawn", "expected"), [(0.0, 20.0), (0.5, 25.0), (0.999999, 29.99999)])
def test_jitter_goes_to_both_sides(drawn: float, expected: float) -> None:
    keepalive = Keepalive(KeepaliveSettings(), lambda: drawn, 0.0)
    assert keepalive.deadline == pytest.approx(expected)


@given(
    st.lists(st.tuples(st.floats(0.0, 40.0), st.booleans()), max_size=60),
    st.floats(0.0, 0.999),
)
def test_whatever_happens_it_stays_sane(steps: list[tuple[float, bool]], drawn: float) -> None:
    """Never dead while frames arrive after each ping; a ping at least every 60 s; deadlines lie ahead."""
    keepalive = Keepalive(KeepaliveSettings(), lambda: drawn, 0.0)
    now, last_ping = 0.0, 0.0
    for seconds, traffic in steps:
        until = now + seconds
        while keepalive.deadline <= until:
            now = max(now, keepalive.deadline)
            decision = keepalive.poll(now)
            assert decision != "dead"
            if decision == "ping":
                assert now - last_ping <= 60.0 + 1e-6
                last_ping = now
                keepalive.received(now)
            assert keepalive.deadline > now
        now = until
        if traffic:
            keepalive.received(now)
