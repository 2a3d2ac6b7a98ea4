from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.store.postgres_server import Server, running_server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as running:
        yield running


@pytest.fixture
def url(server: Server) -> str:
    """URL of an empty database."""
    return server.url(server.database())
