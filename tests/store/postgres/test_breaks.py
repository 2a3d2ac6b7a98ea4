"""The connection breaks in the middle of something."""

from __future__ import annotations

import random

import pytest

from tests.store.cutting import Act, Proxy
from tests.store.postgres.helpers import ACTS, commit, count, keys, opened, session, through
from tests.store.postgres_server import Server
from waD.store.engine import CommitUnit
from waD.store.postgres import transactions
from waD.store.postgres.engine import PostgresEngine
from waD.store.unit import Committed


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("match", [b"BEGIN", b"INSERT INTO wa_events", b"wa_auth_snapshots", b"COMMIT"])
def test_a_connection_that_breaks_loses_and_repeats_nothing(
    server: Server, database: str, proxy: Proxy, proxied: PostgresEngine, act: Act, match: bytes
) -> None:
    row = session(proxied)
    proxy.order(act, match)
    outcome = commit(proxied, row, a=b"1")
    assert isinstance(outcome, Committed), outcome
    assert proxy.done == 1
    assert outcome.version == 1
    assert [event.cursor for event in outcome.events] == [proxied.event_bounds()[1]]
    assert count(server, database) == 1
    assert isinstance(commit(proxied, row, a=b"2", b=b"3"), Committed)
    assert proxied.items(row.id, "session", None) == {"a": b"2", "b": b"3"}
    assert proxied.auth_state(row.id).items.keys() == {("session", "a"), ("session", "b")}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize(
    "match", [b"INSERT INTO wa_auth_items", b"SAVEPOINT", b"ROLLBACK TO", b"RELEASE", b"COMMIT"]
)
def test_a_connection_that_breaks_while_jobs_are_done_one_by_one(
    server: Server, database: str, proxy: Proxy, proxied: PostgresEngine, act: Act, match: bytes
) -> None:
    row = session(proxied)
    proxy.order(act, match)
    outcomes = proxied.write(
        [
            CommitUnit(row.id, row.lease_token, unit)
            for unit in (keys(a=b"1"), keys(a=b"no document"), keys(b=b"2"))
        ]
    )
    assert [type(outcome) for outcome in outcomes] == [Committed, ValueError, Committed]
    assert proxy.done == 1
    assert count(server, database) == 2
    assert proxied.auth_state(row.id).items == {("session", "a"): (1, b"1"), ("session", "b"): (2, b"2")}


@pytest.mark.parametrize("act", ACTS)
def test_several_breaks_in_a_row(
    server: Server, database: str, proxy: Proxy, proxied: PostgresEngine, act: Act
) -> None:
    row = session(proxied)
    proxy.order(act, times=4)
    assert isinstance(commit(proxied, row, a=b"1"), Committed)
    assert count(server, database) == 1
    found = proxied.session("alerts")
    assert found is not None
    assert found.auth_version == 1


def test_a_commit_that_still_runs_when_the_connection_breaks(
    server: Server, database: str, proxy: Proxy, proxied: PostgresEngine
) -> None:
    """The server is busy with it for so long that whoever asks what became of it has to wait, or to end it."""
    row = session(proxied)
    server.admin(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(2); RETURN NULL; END'; "
        "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON wa_events DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION slow()",
        database,
    )
    proxy.order("cut meanwhile")
    assert isinstance(commit(proxied, row, a=b"1"), Committed)
    assert count(server, database) == 1


def test_a_commit_that_cannot_be_ended_is_waited_for(
    server: Server, database: str, proxy: Proxy, proxied: PostgresEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "_END", "SELECT $1::int, $2::text")
    test_a_commit_that_still_runs_when_the_connection_breaks(server, database, proxy, proxied)


def test_an_answer_that_never_comes(server: Server, database: str, proxy: Proxy) -> None:
    with opened(through(server, database, proxy), wait_s=2.0) as engine:
        row = session(engine)
        proxy.order("drop answer")
        assert isinstance(commit(engine, row, a=b"1"), Committed)
        assert count(server, database) == 1


def test_all_connections_of_the_pool_break(proxy: Proxy, proxied: PostgresEngine) -> None:
    row = session(proxied)
    proxied.sessions(True)
    proxy.cut()
    assert [found.id for found in proxied.sessions(True)] == [row.id]
    proxy.order("cut after", b"SELECT", times=3)
    assert proxied.session("alerts") is not None
    assert proxy.done == 3


def test_a_killed_backend(server: Server, database: str, engine: PostgresEngine) -> None:
    row = session(engine)
    engine.sessions(True)
    for number in range(5):
        server.admin(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")
        assert isinstance(commit(engine, row, a=b"%d" % number), Committed)
        assert engine.items(row.id, "session", None) == {"a": b"%d" % number}
    assert count(server, database) == 5


def test_breaks_at_random_instants(
    server: Server, database: str, proxy: Proxy, proxied: PostgresEngine
) -> None:
    """Every commit there once, every key at its last value, and the checksums right."""
    row, chance, expected = session(proxied), random.Random(7), {}
    marks = (
        b"BEGIN",
        b"UPDATE wa_sessions",
        b"INSERT INTO wa_auth_items",
        b"UPDATE wa_auth_snapshots",
        b"SAVEPOINT",
        b"RELEASE",
        b"COMMIT",
    )
    for number in range(60):
        if chance.random() < 0.6:
            proxy.order(chance.choice(ACTS), chance.choice(marks), times=chance.choice((1, 1, 2)))
        if chance.random() < 0.1:
            proxy.cut()
        key, value = f"k{chance.randrange(8)}", b"%d" % number
        jobs = [CommitUnit(row.id, row.lease_token, keys(**{key: value}))]
        if chance.random() < 0.3:  # beside one that is refused
            jobs.append(CommitUnit(row.id, row.lease_token, keys(z=b"no document")))
        outcome, *others = proxied.write(jobs)
        assert isinstance(outcome, Committed), outcome
        assert all(isinstance(other, ValueError) for other in others)
        assert outcome.version == number + 1
        expected["session", key] = (number + 1, value)
    assert count(server, database) == 60
    assert proxied.auth_state(row.id).items == expected
    cursors = [event.cursor for event in proxied.events(0, 1000, None, None)]
    assert cursors == sorted(set(cursors))
    assert len(cursors) == 60
