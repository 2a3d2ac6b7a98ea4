from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.postgres_server import Server, running_server
from tests.transfer.baileys import samples
from waD.transfer.baileys import BaileysItems


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as running:
        yield running


@pytest.fixture
def url(server: Server) -> str:
    """URL of an empty database."""
    return server.url(server.database())


@pytest.fixture
def source(tmp_path: Path) -> BaileysItems:
    path = tmp_path / "origin"
    path.mkdir()
    contents = samples.files() | {
        name: content
        for name, content in samples.files(samples.GROUPS).items()
        if name.startswith(("sender-key-", "pre-key-4"))
    }
    return samples.read(path, contents)
