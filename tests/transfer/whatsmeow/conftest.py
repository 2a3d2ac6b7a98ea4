from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.postgres_server import Server, running_server
from tests.transfer.whatsmeow.databases import Database


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "whatsmeow.db")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as running:
        yield running


@pytest.fixture
def url(server: Server) -> str:
    """URL of an empty database."""
    return server.url(server.database())
