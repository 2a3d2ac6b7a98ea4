"""A daemon that is stopped in the middle of a transaction, and another one on the same database."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg
import pytest

from tests.store.postgres_server import Server
from waD.store.engine import AppendEvent
from waD.store.errors import StorageUnavailable
from waD.store.postgres import frozen, transactions
from waD.store.postgres.engine import PostgresEngine
from waD.store.postgres.settings import PostgresSettings
from waD.store.unit import Committed

EVENT = AppendEvent(None, "alert:raised", {"n": 1})


@pytest.fixture
def url(server: Server) -> str:
    return server.url(server.database())


@pytest.fixture
def engine(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresEngine]:
    """One that is less patient."""
    monkeypatch.setattr(transactions, "_PATIENCE", "SET lock_timeout = 300")
    monkeypatch.setattr(frozen, "_END_FROZEN", frozen._END_FROZEN.replace("5000 ms", "500 ms"))
    with closing(PostgresEngine(PostgresSettings(url=url, wait_s=3.0))) as opened:
        yield opened


@contextmanager
def stand_still(url: str, name: str) -> Iterator[psycopg.Connection]:
    """A connection whose process was stopped between two statements that travel together, with events locked."""
    link = psycopg.connect(url, application_name=name)
    link.execute("SET idle_in_transaction_session_timeout = 200")
    link.commit()
    link.pipeline().__enter__()
    link.execute("INSERT INTO wa_events (kind, payload) VALUES ('frozen', '{}')")
    link.pgconn.send_flush_request()
    while link.pgconn.flush():
        pass
    try:
        yield link
    finally:
        link.pgconn.finish()


def test_its_transaction_is_ended(url: str, engine: PostgresEngine, caplog: pytest.LogCaptureFixture) -> None:
    with stand_still(url, "waD") as link:
        with caplog.at_level(logging.WARNING):
            (outcome,) = engine.write([EVENT])
        assert isinstance(outcome, Committed)
        assert "stood still in front of ours and was ended" in caplog.text
        assert [event.type for event in engine.events(0, 10, None, None)] == ["alert:raised"]
        with pytest.raises(psycopg.OperationalError):
            link.execute("SELECT 1").fetchone()


def test_those_of_other_programs_are_left_alone(url: str, engine: PostgresEngine) -> None:
    with stand_still(url, "pg_restore"):
        (outcome,) = engine.write([EVENT])
        assert isinstance(outcome, StorageUnavailable)
        assert "pg_stat_activity" in str(outcome)
    (outcome,) = engine.write([EVENT])
    assert isinstance(outcome, Committed)
