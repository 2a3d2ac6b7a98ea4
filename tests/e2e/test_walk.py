"""Thousands of faults at random over twenty sessions: nothing runs hot, nothing leaks, nothing is lost or told twice.

The seed is printed; WAD_TEST_SEED walks the same way again. The short walk is always the same one, the long one draws
its way. All of it runs in this process on a simulated clock.
"""

from __future__ import annotations

import logging
import os
import random
from pathlib import Path
from typing import Final

import pytest
import trio
import trio.testing

from tests.e2e.in_process import living_tasks, machine, open_files, sandbox_beside
from tests.e2e.walking import Judge, Walk
from tests.soak.inside import Watch

SESSIONS: Final = 20
PREKEYS: Final = 60
"""Fewer than a real device uploads, so that the time goes into faults."""
MORE: Final = "[alerts]\nreconnects = 1000"


SHORT_WALK: Final = 11


def seed(usual: int | None) -> int:
    given = os.environ.get("WAD_TEST_SEED")
    drawn = random.SystemRandom().randrange(2**32) if usual is None else usual
    chosen = int(given) if given else drawn
    print(f"WAD_TEST_SEED={chosen}")
    return chosen


async def walk_and_judge(
    faults: int,
    directory: Path,
    clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
    usual: int | None = None,
) -> None:
    chosen = seed(usual)
    watch = Watch(clock)
    caplog.set_level(logging.CRITICAL)
    async with sandbox_beside(watch) as sandbox:
        tasks, files = living_tasks(), open_files()
        async with machine(directory, sandbox, watch, more=MORE, seed=chosen) as made:
            walk = Walk(made, SESSIONS, chosen)
            await walk.pair_all()
            await walk.settle()
            tasks_open, files_open = living_tasks(), open_files()
            await walk.run(faults)
            await walk.settle()
            assert living_tasks() == tasks_open
            assert open_files() == files_open
            assert sum(made.dials.live.values()) == SESSIONS
            links = sandbox.core.world.links.values()
            assert [vars(link) for link in links if link.device is None or link.device.link is not link] == []
            assert len(links) == SESSIONS
            await Judge(walk).judge()
        assert (living_tasks(), open_files()) == (tasks, files)
        assert sandbox.core.world.keys.report()["reused"] == []
    stumbles = [one.getMessage() for one in caplog.records if one.exc_info is not None]
    assert stumbles == []


@pytest.fixture(autouse=True)
def _few_prekeys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waD.link.prekeys.HIGH_WATERMARK", PREKEYS)


async def test_a_walk(
    tmp_path: Path, mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    await walk_and_judge(1500, tmp_path, mock_clock, caplog, SHORT_WALK)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_a_long_walk(
    tmp_path: Path, mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    await walk_and_judge(10_000, tmp_path, mock_clock, caplog)
