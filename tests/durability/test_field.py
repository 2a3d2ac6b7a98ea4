"""SIGKILL again and again under real traffic: every message once, every key once, every state sound."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import trio

from tests.durability.field import Field
from tests.durability.forking import ForkedDaemon, running_template
from tests.store.postgres_server import Server, binaries, running_server
from waD.sandbox import run_sandbox

KILLS: Final = 160
SERVER_KILLS: Final = 40
MANY_KILLS: Final = 10_000
USUAL_SEED: Final = 7


def seed(usual: int | None) -> int:
    """Printed, so that a run can be repeated; WAD_TEST_SEED is one to repeat."""
    given = os.environ.get("WAD_TEST_SEED")
    drawn = random.SystemRandom().randrange(2**32) if usual is None else usual
    chosen = int(given) if given else drawn
    print(f"WAD_TEST_SEED={chosen}")
    return chosen


async def field(directory: Path, kills: int, chosen: int, server: Server | None = None) -> None:
    more = "stable_after = 1\nattempts = 1000\n[daemon]\nrestore_spread = 0.1\n"

    async def kill_database(chance: random.Random) -> None:
        """And let it come back, at once or after a while in which the daemon has none."""
        assert server is not None
        server.kill()
        await trio.sleep(chance.uniform(0.0, 0.5))
        await trio.to_thread.run_sync(server.start)
        await trio.sleep(chance.uniform(0.0, 1.0))

    if server is not None:
        more += f'[store]\nurl = "{server.url(server.database())}"\n'
    async with run_sandbox() as sandbox, running_template() as template:
        daemon = ForkedDaemon(directory, sandbox, template, more=more)
        rough = None if server is None else kill_database
        try:
            await Field(daemon, sandbox, chosen, rough).run(kills)
        finally:
            if daemon.process is not None:
                with trio.CancelScope(shield=True):
                    daemon.process.kill()
                    await daemon.process.wait()


@pytest.fixture
def server() -> Iterator[Server]:
    if binaries() is None:
        pytest.skip("there are no PostgreSQL binaries on this machine")
    with running_server() as started:
        yield started


@pytest.mark.timeout(900)
async def test_the_killing_field(tmp_path: Path) -> None:
    await field(tmp_path, KILLS, seed(USUAL_SEED))


@pytest.mark.timeout(900)
async def test_the_killing_field_on_a_server(tmp_path: Path, server: Server) -> None:
    await field(tmp_path, SERVER_KILLS, seed(USUAL_SEED), server)


@pytest.mark.soak
@pytest.mark.timeout(12 * 3600)
async def test_the_killing_field_for_hours(tmp_path: Path) -> None:
    await field(tmp_path, MANY_KILLS, seed(None))


@pytest.mark.soak
@pytest.mark.timeout(12 * 3600)
async def test_the_killing_field_on_a_server_for_hours(tmp_path: Path, server: Server) -> None:
    await field(tmp_path, MANY_KILLS, seed(None), server)
