"""The server goes away, or does not do what it should."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.store.cutting import Act, Proxy
from tests.store.postgres.helpers import EVENT, commit, count, opened, session, through, wait_until
from tests.store.postgres_server import Server
from waD.store.engine import (
    Attach,
    CommitUnit,
)
from waD.store.errors import (
    StorageUnavailable,
)
from waD.store.model import SessionRow
from waD.store.postgres import link as links
from waD.store.postgres.engine import PostgresEngine
from waD.store.unit import Committed, Unit


def test_a_server_that_dies_in_the_middle_of_traffic(
    fragile: Server, background: Callable[..., Future[Any]]
) -> None:
    name = fragile.database()
    with opened(fragile.url(name), wait_s=60.0) as engine:
        row, stop = session(engine), threading.Event()
        done: list[int] = []

        def write() -> None:
            while not stop.is_set():
                outcome = commit(engine, row, a=b"%d" % len(done))
                assert isinstance(outcome, Committed), outcome
                done.append(outcome.events[0].cursor)

        def read() -> None:
            while not stop.is_set():
                assert engine.session("alerts") is not None

        def more() -> None:
            enough = len(done) + 20
            wait_until(lambda: len(done) >= enough, work)

        work = [background(write), background(read)]
        try:
            for _ in range(3):
                more()
                fragile.kill()
                fragile.start()
            more()
        finally:
            stop.set()
        for one in work:
            one.result(60)
        assert [event.cursor for event in engine.events(0, 100_000, None, None)] == done
        assert engine.auth_state(row.id).items == {("session", "a"): (len(done), b"%d" % (len(done) - 1))}


def test_a_server_that_stays_away(fragile: Server) -> None:
    name = fragile.database()
    with opened(fragile.url(name), wait_s=0.5) as engine:
        row = session(engine)
        fragile.stop(signal.SIGQUIT)
        try:
            began = time.monotonic()
            outcome = commit(engine, row, a=b"1")
            assert isinstance(outcome, StorageUnavailable)
            assert 0.5 <= time.monotonic() - began < 5
            assert f"127.0.0.1:{fragile.port}/{name}" in str(outcome)
            with pytest.raises(StorageUnavailable):
                engine.session("alerts")
        finally:
            fragile.start()
        assert isinstance(commit(engine, row, a=b"2"), Committed)
        assert engine.items(row.id, "session", None) == {"a": b"2"}


def test_a_read_only_database(server: Server, database: str, proxy: Proxy) -> None:
    with opened(through(server, database, proxy), wait_s=0.5) as engine:
        row = session(engine)
        server.admin(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
        proxy.cut()
        outcome = commit(engine, row, a=b"1")
        assert isinstance(outcome, StorageUnavailable)
        assert "read-only" in str(outcome)
        assert engine.session("alerts") is not None
        server.admin(
            f"ALTER DATABASE {database} RESET default_transaction_read_only",
            default_transaction_read_only="off",
        )
        assert isinstance(commit(engine, row, a=b"1"), Committed)
        assert count(server, database) == 1


def test_too_many_connections(server: Server, database: str, proxy: Proxy) -> None:
    role = f"few_{database}"
    server.admin(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 2")
    server.admin(
        f"GRANT ALL ON DATABASE {database} TO {role}; GRANT ALL ON SCHEMA public TO {role}", database
    )
    url = f"postgresql://{role}@/{database}?host={server.directory}&port={server.port}"
    with opened(url, wait_s=0.5) as engine, psycopg.connect(url), psycopg.connect(url):
        (outcome,) = engine.write([EVENT])
        assert isinstance(outcome, StorageUnavailable)
        assert "too many connections" in str(outcome)


def test_a_black_hole(server: Server, database: str, proxy: Proxy) -> None:
    with opened(through(server, database, proxy), wait_s=1.0) as engine:
        row = session(engine)
        engine.sessions(True)
        proxy.black_hole()
        began = time.monotonic()
        outcome = commit(engine, row, a=b"1")
        assert isinstance(outcome, StorageUnavailable)
        with pytest.raises(StorageUnavailable):
            engine.session("alerts")
        assert time.monotonic() - began < 10
        proxy.clear()
        proxy.cut()
        assert isinstance(commit(engine, row, a=b"1"), Committed)
        assert count(server, database) == 1


@pytest.mark.parametrize("act", ["cut before", "cut after"])
def test_a_commit_that_nobody_can_tell_about_is_no_success(
    server: Server, database: str, proxy: Proxy, act: Act
) -> None:
    with opened(through(server, database, proxy), wait_s=0.5) as engine:
        row = session(engine)
        proxy.order(act)
        proxy.order("cut before", b"FOR UPDATE", times=1000)
        outcome = commit(engine, row, a=b"1")
        assert isinstance(outcome, StorageUnavailable)
        assert "did not say" in str(outcome)
        proxy.clear()
        # Whoever goes on finds out by reading, as after a crash.
        (again,) = engine.write([Attach(row.id, "test", None)])
        assert isinstance(again, SessionRow)
        assert again.auth_version == count(server, database) == (act == "cut after")
        assert isinstance(commit(engine, again, b=b"2"), Committed)
        assert len(engine.auth_state(row.id).items) == again.auth_version + 1


def test_closing_waits_for_nobody(server: Server, database: str, proxy: Proxy, background: Callable[..., Future[Any]],
                                  monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(links, "GRACE_S", 0.2)
    with opened(through(server, database, proxy), wait_s=60.0) as engine:
        session(engine)
        proxy.refuse()
        work = [background(engine.write, [EVENT]), background(engine.write, [EVENT])][:1]
        work.append(background(engine.session, "alerts"))
        began = time.monotonic()
        engine.hurry()
        assert isinstance(work[0].result(20)[0], StorageUnavailable)
        with pytest.raises(StorageUnavailable):
            work[1].result(20)
        assert time.monotonic() - began < 10


def test_closing_ends_a_statement_that_gets_no_answer(
    server: Server, database: str, proxy: Proxy, background: Callable[..., Future[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(links, "GRACE_S", 0.2)
    with opened(through(server, database, proxy), wait_s=60.0) as engine:
        session(engine)
        proxy.order("drop answer", b"BEGIN")
        work, began = background(engine.write, [EVENT]), time.monotonic()
        wait_until(lambda: proxy.done == 1, [work])
        engine.hurry()
        assert isinstance(work.result(20)[0], StorageUnavailable)
        assert time.monotonic() - began < 10


def test_conflicts_are_tried_again(server: Server, database: str, engine: PostgresEngine) -> None:
    row = session(engine)
    server.admin(
        "CREATE SEQUENCE tries; CREATE FUNCTION clash() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN "
        "IF nextval('tries') <= 5 THEN RAISE EXCEPTION 'clash' USING ERRCODE = '40P01'; END IF; RETURN NEW; END$$; "
        "CREATE TRIGGER clash BEFORE INSERT ON wa_events FOR EACH ROW EXECUTE FUNCTION clash()",
        database,
    )
    assert isinstance(commit(engine, row, a=b"1"), Committed)
    server.admin("SELECT setval('tries', 1)", database)
    server.admin("ALTER SEQUENCE tries INCREMENT BY -1 MINVALUE -100000", database)
    outcome = commit(engine, row, a=b"2")
    assert isinstance(outcome, StorageUnavailable)
    assert "clash" in str(outcome)
    assert engine.items(row.id, "session", None) == {"a": b"1"}


def test_a_row_that_somebody_holds_is_waited_for(
    server: Server, database: str, engine: PostgresEngine, background: Callable[..., Future[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    row = session(engine)
    server.admin(f"ALTER DATABASE {database} SET deadlock_timeout = '100ms'")
    with psycopg.connect(server.url(database)) as other:
        other.execute("SELECT 1 FROM wa_sessions FOR UPDATE")
        work = background(commit, engine, row, a=b"1")
        waiting = "SELECT 1 FROM pg_locks WHERE NOT granted"
        wait_until(lambda: bool(server.admin(waiting)), [work])
        other.rollback()
        assert isinstance(work.result(20), Committed)


@pytest.fixture
def small_disk(fragile: Server) -> Iterator[tuple[str, Callable[[], None]]]:
    """A database on a disk of 32 MB, and what makes room there."""
    place = Path(f"{fragile.directory}/small")
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", place], capture_output=True, check=False
    )
    if done.returncode != 0:
        place.rmdir()
        pytest.skip("a full disk needs the right to mount one")
    ballast = place / "ballast"
    try:
        ballast.write_bytes(bytes(8 << 20))
        space = place / "space"
        space.mkdir()
        owner = fragile.data.stat()
        os.chown(space, owner.st_uid, owner.st_gid)
        fragile.admin(f"CREATE TABLESPACE small LOCATION '{space}'")
        fragile.admin("CREATE DATABASE small TEMPLATE template0 TABLESPACE small")
        yield "small", ballast.unlink
    finally:
        ballast.unlink(missing_ok=True)
        fragile.admin("DROP DATABASE IF EXISTS small WITH (FORCE)")
        fragile.admin("DROP TABLESPACE IF EXISTS small")
        subprocess.run(["umount", place], check=True)


def test_a_full_disk(fragile: Server, small_disk: tuple[str, Callable[[], None]]) -> None:
    name, make_room = small_disk
    with opened(fragile.url(name)) as engine:
        row = session(engine)
        fill, began, outcome = random.Random(1), time.monotonic(), None
        for number in range(100):
            unit = Unit()
            unit.keep_plaintext("2@lid", f"M{number}", fill.randbytes(1 << 20))
            unit.event("message:new", {"n": number})
            (outcome,) = engine.write([CommitUnit(row.id, row.lease_token, unit)])
            if not isinstance(outcome, Committed):
                break
        assert isinstance(outcome, StorageUnavailable), outcome
        assert "make room" in str(outcome)
        assert time.monotonic() - began < 60
        make_room()
        assert len(engine.events(0, 1000, None, None)) == number > 0
        assert isinstance(commit(engine, row, a=b"1"), Committed)
        assert engine.integrity(quick=False) == []
