"""A simulated week: what `tests/e2e/test_day.py` looks at, for longer, and down to the bytes that are held."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
import trio.testing

from tests.soak.life import Plan
from tests.soak.verdict import live_and_judge

WEEK = Plan(hours=7 * 24, messages=10_000, strangers=200, newcomers=400, breaks=84)


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_a_week(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    tracemalloc.start()
    try:
        await live_and_judge(WEEK, tmp_path, mock_clock)
    finally:
        tracemalloc.stop()
