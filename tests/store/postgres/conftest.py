"""Engines on databases of their own, directly and behind a proxy that fails on order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.store.cutting import Proxy, proxy_to
from tests.store.postgres.helpers import opened, through
from tests.store.postgres_server import Server, running_server
from waD.store.postgres import link as links
from waD.store.postgres.engine import PostgresEngine


@pytest.fixture
def database(server: Server) -> str:
    return server.database()


@pytest.fixture
def engine(server: Server, database: str) -> Iterator[PostgresEngine]:
    with opened(server.url(database)) as engine:
        yield engine


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with proxy_to(server.port) as proxy:
        yield proxy


@pytest.fixture
def proxied(
    server: Server, database: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PostgresEngine]:
    """An engine behind a proxy, which sees the text of every statement: none is prepared."""
    monkeypatch.setattr(links, "PREPARE_AFTER", None)
    with opened(through(server, database, proxy)) as engine:
        yield engine


@pytest.fixture(scope="module")
def fragile() -> Iterator[Server]:
    """A server that tests kill; each leaves it running."""
    with running_server() as server:
        yield server


@pytest.fixture
def background() -> Iterator[Callable[..., Future[Any]]]:
    """Runs something in a thread."""
    with ThreadPoolExecutor(16) as pool:
        yield pool.submit
