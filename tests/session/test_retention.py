"""What is past its time goes, in batches; messages stay."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from waD.session.retention import EVERY_S, prune_all, run_retention
from waD.store.errors import StorageUnavailable


class Shrinking:
    """A store that has so many rows to remove, a hundred at a time."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.asked: list[int] = []
        self.fail = False

    async def prune(self, now_ms: int) -> int:
        await trio.lowlevel.checkpoint()
        self.asked.append(now_ms)
        if self.fail:
            raise StorageUnavailable("disk full")
        went = min(self.rows, 100)
        self.rows -= went
        return went


async def test_it_goes_on_until_nothing_is_left(autojump_clock: MockClock) -> None:
    store = Shrinking(250)
    assert await prune_all(store, lambda: 5) == 250  # type: ignore[arg-type]
    assert store.asked == [5] * 4


async def test_every_hour_and_also_after_a_failure(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    store = Shrinking(0)
    store.fail = True
    with trio.move_on_after(2.5 * EVERY_S):
        await run_retention(store, lambda: 5)  # type: ignore[arg-type]
    assert len(store.asked) == 3
    assert "disk full" in caplog.text
