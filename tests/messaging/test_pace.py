"""How often something may be done."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waD.messaging.pace import Pace


@given(
    st.integers(1, 8),
    st.floats(0.1, 60),
    st.lists(st.floats(0, 5), max_size=60),
)
def test_no_period_holds_more_than_allowed(count: int, period: float, pauses: list[float]) -> None:
    pace, now, acts = Pace(count, period), 0.0, list[float]()
    for pause in pauses:
        now = pace.allowed_at(now + pause)
        assert pace.allowed_at(now) == now
        pace.act(now)
        acts.append(now)
    assert all(late - early >= period * 0.999_999 for early, late in zip(acts, acts[count:], strict=False))


@given(st.lists(st.floats(0, 100), max_size=20))
def test_zero_is_no_limit(times: list[float]) -> None:
    for pace in (Pace(1, 0), Pace.per_second(0), Pace.per_second(-1)):
        for now in sorted(times):
            assert pace.allowed_at(now) == now
            pace.act(now)


@pytest.mark.parametrize(("rate", "burst", "wait"), [(20.0, 20, 1.0), (2.5, 2, 0.8), (0.5, 1, 2.0)])
def test_rates_per_second(rate: float, burst: int, wait: float) -> None:
    pace = Pace.per_second(rate)
    for _ in range(burst):
        assert pace.allowed_at(0.0) == 0.0
        pace.act(0.0)
    assert pace.allowed_at(0.0) == pytest.approx(wait)


def test_another_pace_takes_over_what_was_done_lately() -> None:
    fast = Pace.per_second(3)
    for now in (0.0, 0.1, 0.2):
        fast.act(now)
    slow = Pace.per_second(1).after(fast)
    assert slow.allowed_at(0.3) == 1.2
    faster = Pace.per_second(10).after(fast)
    assert faster.allowed_at(0.3) == 0.3
    assert Pace.per_second(0).after(fast).allowed_at(0.3) == 0.3
