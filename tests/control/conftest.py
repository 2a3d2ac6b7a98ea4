"""A server and a client for the tests that need no more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.control.client import Client, Running, serving


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with serving(tmp_path) as server:
        yield server


@pytest.fixture
async def client(running: Running) -> AsyncIterator[Client]:
    async with running.client() as connected:
        yield connected
