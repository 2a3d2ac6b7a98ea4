"""Leases by the clock of the database."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from tests.store.postgres.helpers import LEASE_MS, commit, count, opened, session
from tests.store.postgres_server import Server
from waD.store.engine import (
    Attach,
    ReleaseLease,
    Renewed,
    RenewLeases,
)
from waD.store.errors import (
    LeaseLost,
    SessionLeased,
)
from waD.store.model import SessionRow
from waD.store.postgres import link as links
from waD.store.postgres.engine import PostgresEngine
from waD.store.unit import Committed


@pytest.fixture
def two(server: Server, database: str) -> Iterator[tuple[PostgresEngine, PostgresEngine]]:
    """Two daemons on one database; the clock of the second is far off."""
    url = server.url(database)
    with opened(url) as one, opened(url) as other:
        other._jobs._now_ms = lambda: 0
        yield one, other


def expire(server: Server, database: str) -> None:
    server.admin(
        "UPDATE wa_sessions SET lease_expires_at = clock_timestamp() - interval '1 second'", database
    )


def test_a_lease_keeps_others_out(
    server: Server, database: str, two: tuple[PostgresEngine, PostgresEngine]
) -> None:
    one, other = two
    row = session(one, "one/1", LEASE_MS)
    (outcome,) = other.write([Attach(row.id, "other/1", LEASE_MS)])
    assert isinstance(outcome, SessionLeased)
    assert outcome.holder == "one/1"
    (left,) = server.admin(
        "SELECT extract(epoch FROM lease_expires_at - clock_timestamp()) FROM wa_sessions", database
    )
    assert 25 < left[0] <= 30
    assert isinstance(commit(one, row, a=b"1"), Committed)
    (again,) = one.write([Attach(row.id, "one/1", LEASE_MS)])
    assert isinstance(again, SessionRow), "its holder may take it again"
    assert again.lease_token == row.lease_token + 1


def test_a_lease_that_ran_out_is_taken_over(
    server: Server, database: str, two: tuple[PostgresEngine, PostgresEngine]
) -> None:
    one, other = two
    row = session(one, "one/1", LEASE_MS)
    assert isinstance(commit(one, row, a=b"1"), Committed)
    expire(server, database)
    (taken,) = other.write([Attach(row.id, "other/1", LEASE_MS)])
    assert isinstance(taken, SessionRow)
    assert (taken.lease_holder, taken.lease_token) == ("other/1", row.lease_token + 1)
    assert isinstance(commit(other, taken, a=b"2"), Committed)
    # The first one was frozen all the while and wakes up.
    assert isinstance(commit(one, row, a=b'"stale"'), LeaseLost)
    (renewed,) = one.write([RenewLeases([(row.id, row.lease_token)], LEASE_MS)])
    assert renewed == Renewed(frozenset())
    assert one.write([ReleaseLease(row.id, row.lease_token)]) == [0]
    assert isinstance(commit(other, taken, b=b"3"), Committed)
    assert one.items(row.id, "session", None) == {"a": b"2", "b": b"3"}


def test_a_lease_is_renewed_by_the_databases_clock(
    server: Server, database: str, two: tuple[PostgresEngine, PostgresEngine]
) -> None:
    one, other = two
    row = session(one, "one/1", LEASE_MS)
    expire(server, database)
    (renewed,) = one.write([RenewLeases([(row.id, row.lease_token)], LEASE_MS)])
    assert renewed == Renewed(frozenset({row.id}))
    (outcome,) = other.write([Attach(row.id, "other/1", LEASE_MS)])
    assert isinstance(outcome, SessionLeased)
    assert one.write([ReleaseLease(row.id, row.lease_token)]) == [1]
    (taken,) = other.write([Attach(row.id, "other/1", LEASE_MS)])
    assert isinstance(taken, SessionRow)


def test_many_take_over_and_one_gets_it(
    server: Server, database: str, engine: PostgresEngine, background: Callable[..., Future[Any]]
) -> None:
    row = session(engine, "one/1", LEASE_MS)
    expire(server, database)
    ready = threading.Barrier(6)

    def take(number: int) -> Any:
        with opened(server.url(database)) as own:
            ready.wait(20)
            return own.write([Attach(row.id, f"other/{number}", LEASE_MS)])[0]

    outcomes = [one.result(60) for one in [background(take, number) for number in range(6)]]
    assert sum(isinstance(outcome, SessionRow) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, SessionLeased) for outcome in outcomes) == 5


def test_a_daemon_that_stands_still_in_a_transaction_is_ended(
    server: Server, database: str, two: tuple[PostgresEngine, PostgresEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds the session's row; the server ends it, and the other gets the session."""
    monkeypatch.setattr(
        links, "_SETTINGS", "SET lock_timeout = 5000; SET idle_in_transaction_session_timeout = 300"
    )
    with opened(server.url(database)) as frozen:
        row = session(frozen, "frozen/1", LEASE_MS)
        expire(server, database)
        standing = threading.Event()
        flush = frozen._jobs.flush

        def stand(db: Any) -> None:
            flush(db)
            db.settle()
            if not standing.is_set():
                standing.set()
                (taken,) = two[1].write([Attach(row.id, "other/1", LEASE_MS)])
                assert isinstance(taken, SessionRow)

        frozen._jobs.flush = stand  # type: ignore[method-assign]
        assert isinstance(commit(frozen, row, a=b'"stale"'), LeaseLost)
        assert standing.is_set()
        assert count(server, database) == 0
