"""A simulated day: a session that talks, is broken and comes back for 24 hours has lost nothing and grown by nothing.

`tests/soak` holds the life itself and a week of it.
"""

from __future__ import annotations

from pathlib import Path

import trio.testing

from tests.soak.life import Plan
from tests.soak.verdict import live_and_judge

DAY = Plan(hours=24, messages=1000)


async def test_a_day(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    await live_and_judge(DAY, tmp_path, mock_clock)
