"""Every test of the store runs on each database; a server is started when the first one needs it."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.store.postgres_server import Server, running_server
from waD.store.postgres.settings import PostgresSettings
from waD.store.store import Store, StoreSettings, open_store

Raw = Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One for all tests of this process, who neither stop it nor change its settings."""
    with running_server() as started:
        yield started


@pytest.fixture(params=["sqlite", "postgres", "postgres-encrypted"])
def backend(request: pytest.FixtureRequest) -> str:
    """Which database, by name; those in files are encrypted by themselves."""
    name: str = request.param
    return name


@pytest.fixture
def settings(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> StoreSettings:
    """An empty database."""
    chosen = StoreSettings(path=tmp_path / "state" / "waD.db")
    if backend == "sqlite":
        return chosen
    server: Server = request.getfixturevalue("server")
    found = msgspec.structs.replace(chosen, postgres=PostgresSettings(url=server.url(server.database())))
    if backend == "postgres":
        return found
    key = tmp_path / "kek"
    key.write_bytes(bytes(range(32)))
    key.chmod(0o400)
    return msgspec.structs.replace(found, kek_file=key)


def alone(store: Store) -> Store:
    """Where only one process uses a database, leases do not end; those that do have tests of their own."""
    store.engine.shared = False
    return store


@pytest.fixture
async def store(settings: StoreSettings) -> AsyncIterator[Store]:
    async with open_store(settings) as opened:
        yield alone(opened)


@pytest.fixture
def raw(settings: StoreSettings, request: pytest.FixtureRequest) -> Raw:
    """Runs a statement beside the store."""
    if settings.postgres is None:

        def run(sql: str) -> list[tuple[Any, ...]]:
            with closing(sqlite3.connect(settings.path, isolation_level=None)) as db:
                return db.execute(sql).fetchall()

        return run
    server: Server = request.getfixturevalue("server")
    name = settings.postgres.url.rpartition("/")[2]
    return lambda sql: server.admin(sql, name)
