"""Hearing at once of what other daemons append; nothing relies on it."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import pytest
import trio

from tests.store.cutting import Proxy
from tests.store.postgres.helpers import EVENT, commit, count, opened, session, through, wait_until
from tests.store.postgres_server import Server
from waD.events import log as event_log
from waD.store.postgres import listening, transactions
from waD.store.postgres.engine import PostgresEngine
from waD.store.postgres.link import Link
from waD.store.postgres.settings import PostgresSettings
from waD.store.store import Store, StoreSettings, open_store
from waD.store.unit import Committed

NEVER = 3600.0
LISTENERS = "SELECT pid FROM pg_stat_activity WHERE datname = '{}' AND query LIKE 'LISTEN%'"


class Heard:
    """Counts what an engine hears of."""

    def __init__(self, engine: PostgresEngine) -> None:
        self.times = 0
        self._engine = engine
        engine.listen(self._hear)
        wait_until(lambda: self.times == 1, [])
        assert engine.listening

    def _hear(self) -> None:
        self.times += 1

    def wait(self, times: int) -> None:
        """Until it was told so often; the first time is that of the connection."""
        wait_until(lambda: self.times >= times, [])
        assert self.times == times


def threads() -> int:
    return sum(thread.name == "wad-listener" for thread in threading.enumerate())


@pytest.fixture
def other(server: Server, database: str, engine: PostgresEngine) -> PostgresEngine:
    """The engine of another daemon; it is closed with the test."""
    del engine  # it makes the tables
    return PostgresEngine(PostgresSettings(url=server.url(database), wait_s=10.0))


def test_what_others_append_is_heard_and_what_we_append_is_no_news(
    engine: PostgresEngine, other: PostgresEngine
) -> None:
    heard = Heard(engine)
    for _ in range(5):
        engine.write([EVENT])
    row = session(engine)
    commit(engine, row, a=b"1")
    other.write([EVENT, EVENT])  # notifications come in the order of the commits
    heard.wait(2)
    other.write([EVENT])
    heard.wait(3)
    other.close()


def test_what_appends_nothing_is_not_told(engine: PostgresEngine, other: PostgresEngine) -> None:
    heard = Heard(engine)
    session(other)
    other.write([EVENT])
    heard.wait(2)
    other.close()


@pytest.mark.parametrize("payload", ["", 'garbage "{\\', "-1", "9" * 400, "é\u2028", "x" * 7999])
def test_what_a_notification_holds_does_not_matter(
    server: Server, database: str, engine: PostgresEngine, payload: str
) -> None:
    heard = Heard(engine)
    server.admin(f"SELECT pg_notify('wad_events', '{payload}')", database)
    heard.wait(2)
    assert engine.listening
    assert engine.events(0, 10, None, None) == []


def test_a_listener_that_is_killed_comes_back(
    server: Server,
    database: str,
    engine: PostgresEngine,
    other: PostgresEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listening, "FIRST_PAUSE_S", 0.05)
    heard, row = Heard(engine), session(engine)
    for number in range(1, 4):
        ((pid,),) = server.admin(LISTENERS.format(database))
        server.admin(f"SELECT pg_terminate_backend({pid})")
        assert isinstance(commit(engine, row, a=b"1"), Committed), "it is nobody else's business"
        heard.wait(number + 1)
        wait_until(lambda: engine.listening, [])
    other.write([EVENT])
    heard.wait(5)
    other.close()


def test_pauses_grow_while_there_is_no_connection(
    server: Server, database: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(through(server, database, proxy)) as engine:
        heard = Heard(engine)
        pauses: list[float] = []
        sleep = engine._closing.sleep

        def slept(seconds: float) -> None:
            if threading.current_thread().name == "wad-listener":
                pauses.append(seconds)
                seconds = min(seconds, 0.01)
            sleep(seconds)

        monkeypatch.setattr(engine._closing, "sleep", slept)
        proxy.refuse()
        wait_until(lambda: len(pauses) >= 10, [])
        assert not engine.listening
        proxy.clear()
        heard.wait(2)
    assert pauses[:10] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


@pytest.mark.parametrize("statement", ["no such statement", "wad_events; SELECT no_such_function()"])
def test_a_server_without_listen(
    server: Server, database: str, engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    monkeypatch.setattr(listening, "CHANNEL", statement)
    before = threads()
    engine.listen(lambda: None)
    wait_until(lambda: threads() == before, [])
    assert not engine.listening
    assert isinstance(engine.write([EVENT])[0], Committed)
    assert server.admin(LISTENERS.format(database)) == []


def test_a_server_without_notifications(
    server: Server, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "CAN_NOTIFY", "SELECT false")
    monkeypatch.setattr(transactions, "NOTIFY", "SELECT no_such_function()")
    with opened(server.url(database)) as engine:
        assert isinstance(engine.write([EVENT])[0], Committed)


def test_notifications_that_nobody_takes_hold_up_nothing(
    server: Server, database: str, engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listener in a transaction that does not end lets the server's queue fill up."""
    server.admin(
        "CREATE FUNCTION full_queue() RETURNS text LANGUAGE plpgsql AS "
        "$$BEGIN RAISE EXCEPTION 'too many notifications' USING ERRCODE = '54000'; END$$",
        database,
    )
    monkeypatch.setattr(transactions, "NOTIFY", "SELECT full_queue()")
    row = session(engine)
    for number in range(3):
        assert isinstance(commit(engine, row, a=b"%d" % number), Committed)
    assert count(server, database) == 3


def test_no_connection_is_left(server: Server, database: str) -> None:
    before = threads()
    for _ in range(3):
        with opened(server.url(database)) as engine:
            heard = Heard(engine)
            engine.listen(heard._hear)
            assert len(server.admin(LISTENERS.format(database))) == 1
    with opened(server.url(database)) as engine:
        pass
    engine.listen(lambda: None)
    engine.close()
    wait_until(lambda: threads() == before, [])
    wait_until(lambda: server.admin(LISTENERS.format(database)) == [], [])


# Subscribers.


@pytest.fixture
async def stores(
    server: Server, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Store, Store]]:
    """Those of two daemons on one database, whose subscribers never look by themselves."""
    monkeypatch.setattr(event_log, "POLL_S", NEVER)
    monkeypatch.setattr(event_log, "LISTENING_POLL_S", NEVER)
    settings = StoreSettings(path=tmp_path / "unused", postgres=PostgresSettings(url=server.url(database)))
    async with open_store(settings) as ours, open_store(settings) as theirs:
        yield ours, theirs


async def test_a_subscriber_is_told(stores: tuple[Store, Store]) -> None:
    ours, theirs = stores
    async with event_log.EventLog(ours).subscribe() as events:
        with trio.fail_after(60):
            for number in range(20):
                appended = await theirs.append_event(None, "alert:raised", {"n": number})
                assert await anext(events) == appended


async def test_a_subscriber_misses_nothing_while_nobody_listens(
    server: Server, database: str, stores: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "FIRST_PAUSE_S", 0.01)
    ours, theirs = stores
    listener, gate = cast("PostgresEngine", ours.engine)._listener, threading.Event()
    connect = listener._connect

    def held_up() -> Link:
        gate.wait(60)
        return connect()

    log, seen = event_log.EventLog(ours), list[int]()

    async def follow() -> None:
        async with log.subscribe(since=0) as events:
            async for event in events:
                seen.append(event.data["n"])

    async def until(condition: Callable[[], bool]) -> None:
        await trio.to_thread.run_sync(wait_until, condition, [])

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await until(lambda: ours.engine.listening)
            await theirs.append_event(None, "alert:raised", {"n": 0})
            await until(lambda: seen == [0])
            monkeypatch.setattr(listener, "_connect", held_up)
            ((pid,),) = server.admin(LISTENERS.format(database))
            server.admin(f"SELECT pg_terminate_backend({pid})")
            await until(lambda: not ours.engine.listening and log.news.statistics().tasks_waiting == 1)
            await theirs.append_event(None, "alert:raised", {"n": 1})
            assert seen == [0]
            gate.set()
            await until(lambda: seen == [0, 1])
            nursery.cancel_scope.cancel()


async def test_subscribers_look_less_often_while_they_are_told(
    stores: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log, "POLL_S", 1.0)
    monkeypatch.setattr(event_log, "LISTENING_POLL_S", 5.0)
    log = event_log.EventLog(stores[0])
    assert log.poll_s == 1.0
    async with log.subscribe():
        await trio.to_thread.run_sync(wait_until, lambda: log.poll_s == 5.0, [])


async def test_where_nobody_is_told_subscribers_look(
    stores: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log, "POLL_S", 0.05)
    monkeypatch.setattr(listening, "CHANNEL", "no such statement")
    ours, theirs = stores
    async with event_log.EventLog(ours).subscribe() as events:
        with trio.fail_after(60):
            appended = await theirs.append_event(None, "alert:raised", {})
            assert await anext(events) == appended
    assert not ours.engine.listening
