"""What the tests of the PostgreSQL engine share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from tests.store.cutting import Act, Proxy
from tests.store.postgres_server import Server
from waD.store.engine import (
    AppendEvent,
    Attach,
    CommitUnit,
    CreateSession,
)
from waD.store.model import SessionRow
from waD.store.postgres.engine import PostgresEngine
from waD.store.postgres.settings import PostgresSettings
from waD.store.unit import Unit

LEASE_MS = 30_000
EVENT = AppendEvent(None, "alert:raised", {"n": 1})
ACTS: list[Act] = ["cut before", "cut meanwhile", "cut after"]


@contextmanager
def opened(url: str, **changes: Any) -> Iterator[PostgresEngine]:
    """An engine for the life of the block; it waits 10 s for its database."""
    settings = PostgresSettings(url=url, **{"wait_s": 10.0, **changes})
    engine = PostgresEngine(settings)
    try:
        yield engine
    finally:
        engine.close()


def through(server: Server, database: str, proxy: Proxy) -> str:
    return f"{server.url(database, port=proxy.port)}?sslmode=disable&gssencmode=disable"


def keys(**items: bytes) -> Unit:
    """A unit with items and one event."""
    unit = Unit()
    for key, value in items.items():
        unit.put("session", key, value)
    unit.event("message:new", {"keys": sorted(items)})
    return unit


def commit(engine: PostgresEngine, row: SessionRow, **items: bytes) -> Any:
    """Commit a unit of `keys`."""
    (outcome,) = engine.write([CommitUnit(row.id, row.lease_token, keys(**items))])
    return outcome


def session(engine: PostgresEngine, holder: str = "test", lease_ms: int | None = None) -> SessionRow:
    """A session that is attached."""
    (row,) = engine.write([CreateSession("alerts")])
    assert isinstance(row, SessionRow)
    (row,) = engine.write([Attach(row.id, holder, lease_ms)])
    assert isinstance(row, SessionRow), row
    return row


def count(server: Server, database: str, table: str = "wa_events") -> int:
    found: int = server.admin(f"SELECT count(*) FROM {table}", database)[0][0]
    return found


def wait_until(condition: Callable[[], bool], work: list[Future[Any]]) -> None:
    until = time.monotonic() + 60
    while not condition():
        for one in work:
            if one.done():
                one.result()
        assert time.monotonic() < until
        time.sleep(0.005)
