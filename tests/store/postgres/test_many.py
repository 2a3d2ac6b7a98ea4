"""Slow commits, and many at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.store.cutting import Proxy
from tests.store.postgres.helpers import count, through
from tests.store.postgres_server import Server
from waD.store import writer
from waD.store.errors import (
    StorageUnavailable,
    StoreError,
)
from waD.store.postgres.settings import PostgresSettings
from waD.store.store import Store, StoreSettings, open_store


async def test_slow_commits_are_shared(server: Server, database: str, proxy: Proxy, tmp_path: Path) -> None:
    settings = StoreSettings(
        path=tmp_path / "unused", postgres=PostgresSettings(url=through(server, database, proxy))
    )
    async with open_store(settings) as store:
        proxy.order("delay", times=3, seconds=1.0)
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                for _ in range(60):
                    nursery.start_soon(store.append_event, None, "alert:raised", {})
        assert len(await store.events()) == 60
    assert not (tmp_path / "unused").exists()


async def test_what_waits_for_a_database_that_is_away_is_bounded(
    server: Server, database: str, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MAX_WAITING", 200)
    settings = StoreSettings(
        path=tmp_path / "unused", postgres=PostgresSettings(url=through(server, database, proxy), wait_s=60)
    )
    async with open_store(settings) as store:
        proxy.refuse()
        async with trio.open_nursery() as nursery:
            for _ in range(300):
                nursery.start_soon(store.append_event, None, "alert:raised", {})
            await wait_all_tasks_blocked()
            with trio.move_on_after(0.1) as patience:
                await store.append_event(None, "alert:raised", {})
            assert patience.cancelled_caught
            proxy.clear()
        assert len(await store.events(limit=1000)) == 300
    assert count(server, database) == 300


async def test_a_store_that_is_closed_while_its_database_is_away(
    server: Server, database: str, proxy: Proxy, tmp_path: Path
) -> None:
    settings = StoreSettings(
        path=tmp_path / "unused", postgres=PostgresSettings(url=through(server, database, proxy), wait_s=600)
    )
    failures: list[Exception] = []

    async def append(store: Store) -> None:
        try:
            await store.append_event(None, "alert:raised", {})
        except StoreError as error:
            failures.append(error)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:  # noqa: SIM117 - the store is closed before it
            async with open_store(settings) as store:
                proxy.refuse()
                nursery.start_soon(append, store)
                await wait_all_tasks_blocked()
    assert [type(error) for error in failures] == [StorageUnavailable]
