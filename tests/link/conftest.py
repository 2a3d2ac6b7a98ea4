"""What the tests of the link share."""

from __future__ import annotations

import pytest
import trio

from tests.link.kit import FakeServer


@pytest.fixture
async def server(nursery: trio.Nursery) -> FakeServer:
    """A server in this process."""
    return FakeServer(nursery)
