"""Two stores, each in a file or on a server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.store.postgres_server import Server, running_server
from tests.transfer.moves import Opening, postgres, sqlite
from waD.store.engine import Engine


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with running_server() as started:
        yield started


WAYS = ("sqlite-sqlite", "sqlite-postgres", "postgres-sqlite")
"""Every engine on either side; the fourth way has no more to show than time to take."""


@pytest.fixture(params=[*WAYS, pytest.param("postgres-postgres", marks=pytest.mark.soak)])
def ways(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Opening, Opening]:
    """How source and destination are opened."""

    def opening(kind: str, directory: str) -> Opening:
        if kind == "sqlite":
            return lambda: sqlite(tmp_path / directory / "waD.db")
        running: Server = request.getfixturevalue("server")
        url = running.url(running.database())
        return lambda: postgres(url)

    first, second = request.param.split("-")
    return opening(first, "a"), opening(second, "b")


@pytest.fixture
def source(ways: tuple[Opening, Opening]) -> Iterator[Engine]:
    with closing(ways[0]()) as engine:
        yield engine


@pytest.fixture
def target(ways: tuple[Opening, Opening]) -> Iterator[Engine]:
    with closing(ways[1]()) as engine:
        yield engine
