"""A session with the key of its account's app state, and what it syncs from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from tests.messaging.appstate.cloud import KEY, Client, Cloud
from waD.messaging.context import Context

Running = Callable[[], AbstractAsyncContextManager[None]]


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


@pytest.fixture
async def bare(ctx: Context, cloud: Cloud) -> Client:
    """A session without keys."""
    return Client(ctx, cloud)


@pytest.fixture
async def client(bare: Client) -> Client:
    await bare.share(KEY)
    return bare


@pytest.fixture
def clock() -> MockClock:
    """Time passes when nothing else happens; the database takes a moment of real time. Each test names it itself."""
    return MockClock(autojump_threshold=0.05)


@pytest.fixture
def running(bare: Client) -> Running:
    """The client's task on one connection whose backlog is through; the block begins when it has nothing to do."""

    @asynccontextmanager
    async def run() -> AsyncIterator[None]:
        done = trio.Event()
        done.set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bare.app_state.run, bare.cloud.way, done, bare.note_name)
            await settled(bare)
            yield
            nursery.cancel_scope.cancel()

    return run


async def settled(client: Client) -> None:
    """Let everything happen that happens by itself within a moment."""
    await trio.sleep(0.5)
    app_state = client.app_state
    while app_state._due or app_state._unblock or app_state._turn.locked():  # noqa: ASYNC110 - there is no event
        await trio.sleep(0.5)
