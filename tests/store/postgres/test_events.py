"""Events that several daemons append."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trio

from tests.store.postgres.helpers import EVENT, opened, wait_until
from tests.store.postgres_server import Server
from waD.events import log as event_log
from waD.store.postgres.engine import PostgresEngine
from waD.store.postgres.settings import PostgresSettings
from waD.store.store import StoreSettings, open_store
from waD.store.unit import Committed


def test_an_event_that_commits_late_is_not_skipped(
    server: Server, database: str, engine: PostgresEngine, background: Callable[..., Future[Any]]
) -> None:
    with psycopg.connect(server.url(database)) as late:
        late.execute("INSERT INTO wa_events (kind, payload) VALUES ('late', '{}')")
        work = background(engine.write, [EVENT])
        wait_until(lambda: bool(server.admin("SELECT 1 FROM pg_locks WHERE NOT granted")), [work])
        assert engine.events(0, 10, None, None) == []
        late.commit()
        assert isinstance(work.result(20)[0], Committed)
    found = [(event.cursor, event.type) for event in engine.events(0, 10, None, None)]
    assert found == [(1, "late"), (2, "alert:raised")]


def test_readers_behind_many_writers_see_every_event_once(
    server: Server, database: str, background: Callable[..., Future[Any]]
) -> None:
    with opened(server.url(database)) as one, opened(server.url(database)) as other:
        writers = [
            background(lambda engine: [engine.write([EVENT] * 3) for _ in range(100)], engine)
            for engine in (one, other)
        ]
        seen: list[int] = []
        while len(seen) < 600:
            finished = all(writer.done() for writer in writers)
            page = one.events(seen[-1] if seen else 0, 50, None, None)
            seen += [event.cursor for event in page]
            assert page or not finished or len(seen) == 600
        for writer in writers:
            writer.result()
    assert seen == [row[0] for row in server.admin("SELECT id FROM wa_events ORDER BY id", database)]


@pytest.mark.parametrize("since", [0, None])
async def test_subscribers_see_the_events_of_other_daemons(
    server: Server, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, since: int | None
) -> None:
    monkeypatch.setattr(event_log, "POLL_S", 0.05)
    settings = StoreSettings(path=tmp_path / "unused", postgres=PostgresSettings(url=server.url(database)))
    async with open_store(settings) as ours, open_store(settings) as theirs:
        log = event_log.EventLog(ours)
        async with log.subscribe(since=since) as events, trio.open_nursery() as nursery:
            for store in (ours, theirs):
                for number in range(20):
                    nursery.start_soon(store.append_event, None, "alert:raised", {"n": number})
            with trio.fail_after(30):
                seen = [(await anext(events)).cursor for _ in range(40)]
        assert seen == [row[0] for row in server.admin("SELECT id FROM wa_events ORDER BY id", database)]
