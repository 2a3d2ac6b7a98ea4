"""PostgreSQL: where it is, whether it can be trusted, and what happens when it goes away in the middle of something."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from tests.store.cutting import Act, Proxy, proxy_to
from tests.store.postgres_server import Server, free_port, running_server
from tests.store.test_store import text
from waD.events import log as event_log
from waD.store import writer
from waD.store.engine import (
    AppendEvent,
    Attach,
    CommitUnit,
    CreateSession,
    ReleaseLease,
    Renewed,
    RenewLeases,
)
from waD.store.errors import (
    LeaseLost,
    SessionLeased,
    StorageUnavailable,
    StoreDamaged,
    StoreError,
    StoreForbidden,
    StoreTooNew,
)
from waD.store.model import SessionRow
from waD.store.postgres import link as links
from waD.store.postgres import schema, transactions
from waD.store.postgres.adapters import (
    ESCAPE,
    MAX_MS,
    JsonDumper,
    JsonLoader,
    MsDumper,
    MsLoader,
    TextDumper,
    TextLoader,
    numbered,
)
from waD.store.postgres.engine import PostgresEngine
from waD.store.postgres.place import Place, read_password
from waD.store.postgres.settings import CREDENTIAL, PostgresSettings, password_credential
from waD.store.sql.database import Json, Ms
from waD.store.store import Store, StoreSettings, open_store
from waD.store.unit import Committed, Unit

SECRET = "s3cret-Passw0rd"
LEASE_MS = 30_000
EVENT = AppendEvent(None, "alert:raised", {"n": 1})


@contextmanager
def opened(url: str, **changes: Any) -> Iterator[PostgresEngine]:
    """An engine for the life of the block; it waits 10 s for its database."""
    settings = PostgresSettings(url=url, **{"wait_s": 10.0, **changes})
    engine = PostgresEngine(settings)
    try:
        yield engine
    finally:
        engine.close()


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


def through(server: Server, database: str, proxy: Proxy) -> str:
    return f"{server.url(database, port=proxy.port)}?sslmode=disable&gssencmode=disable"


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


def commit(engine: PostgresEngine, row: SessionRow, **items: bytes) -> Any:
    """A unit with items and one event."""
    unit = Unit()
    for key, value in items.items():
        unit.put("session", key, value)
    unit.event("message:new", {"keys": sorted(items)})
    (outcome,) = engine.write([CommitUnit(row.id, row.lease_token, unit)])
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


# Values.


@given(st.text(alphabet=st.sampled_from(f'\0{ESCAPE}01a\\"é')))
def test_text_comes_back_as_it_went(value: str) -> None:
    stored = bytes(TextDumper(str).dump(value))
    assert b"\0" not in stored
    assert TextLoader(25).load(stored) == value


@given(st.text(alphabet=st.sampled_from(f'\0{ESCAPE}01u\\"é')))
def test_documents_come_back_as_they_went(value: str) -> None:
    stored = bytes(JsonDumper(Json).dump(Json(msgspec.json.encode([value]), "utf-8")))
    assert "\0" not in msgspec.json.decode(stored[1:])[0]
    assert msgspec.json.decode(JsonLoader(3802).load(stored)) == [value]


@given(st.integers(0, MAX_MS))
def test_times_come_back_as_they_went(value: int) -> None:
    assert MsLoader(1184).load(MsDumper(Ms).dump(Ms(value))) == value


def test_a_time_beyond_all_times_is_put_to_the_end(engine: PostgresEngine) -> None:
    row = session(engine)
    unit = Unit()
    unit.add_message(text("A1", ts=2**63 - 1))
    unit.add_message(text("A2", ts=-(2**63)))
    (outcome,) = engine.write([CommitUnit(row.id, row.lease_token, unit)])
    assert isinstance(outcome, Committed)
    assert [message.ts for message in engine.messages(row.id, None, None, 5)][1] == MAX_MS


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("SELECT 1", b"SELECT 1"),
        ("a=? AND b=?", b"a=$1 AND b=$2"),
        ("a='?' AND b=? AND \"?\"='it''s ?'", b"a='?' AND b=$1 AND \"?\"='it''s ?'"),
        ("a LIKE '%x' AND b=?", b"a LIKE '%x' AND b=$1"),
    ],
)
def test_placeholders(ours: str, theirs: bytes) -> None:
    assert numbered(ours) == theirs


def test_what_no_column_takes_is_kept(engine: PostgresEngine) -> None:
    row = session(engine)
    odd = "a\0b\\u0000" + ESCAPE
    unit = Unit()
    unit.add_message(text("A\0", chat=odd, body=odd, content={"q": odd}))
    unit.put("session", odd, msgspec.json.encode({"bb": odd, "a": 1}))
    unit.set_session(push_name=odd)
    (outcome,) = engine.write([CommitUnit(row.id, row.lease_token, unit)])
    assert isinstance(outcome, Committed), outcome
    (message,) = engine.messages(row.id, [odd], None, 5)
    assert (message.message_id, message.body, message.content) == ("A\0", odd, {"q": odd})
    assert engine.items(row.id, "session", None) == {odd: msgspec.json.encode({"a": 1, "bb": odd})}
    found = engine.session("alerts")
    assert found is not None
    assert found.push_name == odd


def test_what_the_database_refuses_is_the_fault_of_one_job(engine: PostgresEngine) -> None:
    row = session(engine)
    bad, good = Unit(), Unit()
    bad.put("session", "a", b"not a document")
    good.put("session", "a", b"1")
    outcomes = engine.write([CommitUnit(row.id, row.lease_token, unit) for unit in (bad, good)])
    assert isinstance(outcomes[0], ValueError)
    assert isinstance(outcomes[1], Committed)
    deep = Unit()
    deep.put("session", "b", b"[" * 200_000 + b"]" * 200_000)
    (outcome,) = engine.write([CommitUnit(row.id, row.lease_token, deep)])
    assert isinstance(outcome, ValueError), outcome
    assert engine.items(row.id, "session", None) == {"a": b"1"}


# Where it is, and the password for it.


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://wad:{SECRET}@host:port/db",
        f"postgresql://wad:{SECRET}@[::1/db",
        f"postgresql://wad:{SECRET}@host/db?no_such_word=1",
        f"postgresql://wad:{SECRET}@host/db%zz",
        f"mysql://wad:{SECRET}@host/db",
        f"host=localhost password={SECRET}",
        "",
    ],
)
def test_a_url_that_makes_no_sense_is_not_repeated(url: str) -> None:
    with pytest.raises(StoreForbidden, match=r"store\.url") as refused:
        Place(PostgresSettings(url=url))
    assert SECRET not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"postgresql://wad:{SECRET}@db.example:5433/waD", "postgresql://wad@db.example:5433/waD"),
        (f"postgres://wad:{SECRET}@/waD?host=/run/postgresql", "postgresql://wad@/run/postgresql/waD"),
        ("postgresql:///waD", "postgresql:///waD"),
        (f"postgresql://wad@a,b/waD?password={SECRET}", "postgresql://wad@a,b/waD"),
    ],
)
def test_a_place_names_host_user_and_database_only(url: str, shown: str) -> None:
    settings = PostgresSettings(url=url)
    place = Place(settings)
    assert str(place) == shown
    assert SECRET not in repr(place) + repr(settings) + str(settings)


def test_the_password_of_a_file_wins_and_is_read_each_time(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{SECRET}\nmore\n")
    file.chmod(0o600)
    place = Place(PostgresSettings(url="postgresql://wad:other@h/d", password_file=file))
    assert f"password={SECRET}" in place.conninfo()
    file.write_text("changed")
    assert "password=changed" in place.conninfo()


def test_the_password_of_a_credential(tmp_path: Path) -> None:
    assert password_credential(None) is None
    assert password_credential(str(tmp_path)) is None
    file = tmp_path / CREDENTIAL
    file.write_text(f"{SECRET}\r\n")
    file.chmod(0o440)
    assert password_credential(str(tmp_path)) == file
    place = Place(PostgresSettings(url="postgresql://wad@h/d", password_file=file))
    assert f"password={SECRET}" in place.conninfo()


@pytest.mark.parametrize("content", [b"", b"\nsecond line", b"x" * 5000, b"\xff\xfe", b"a\0b"])
def test_a_file_without_a_password_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(StoreForbidden, match=str(file)):
        read_password(file)


def test_a_password_that_everybody_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(SECRET)
    file.chmod(0o644)
    with pytest.raises(StoreForbidden, match="chmod") as refused:
        read_password(file)
    assert SECRET not in str(refused.value)
    with pytest.raises(StoreForbidden, match="No such file"):
        read_password(tmp_path / "none")


def test_a_wrong_password_is_told_at_once_and_never_shown(
    server: Server, database: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with suppress(psycopg.errors.DuplicateObject):
        server.admin("CREATE ROLE guarded LOGIN PASSWORD 'right'")
    file = tmp_path / "password"
    file.write_text(SECRET)
    file.chmod(0o600)
    url, began = server.url(database, user="guarded"), time.monotonic()
    with (
        pytest.raises(StoreForbidden, match="authentication failed") as refused,
        opened(url, password_file=file),
    ):
        pass
    assert time.monotonic() - began < 5
    told = "".join(traceback.format_exception(refused.value)) + caplog.text
    assert SECRET not in told
    assert f"guarded@127.0.0.1:{server.port}/{database}" in str(refused.value)


def test_the_right_password_opens(server: Server, database: str, tmp_path: Path) -> None:
    with suppress(psycopg.errors.DuplicateObject):
        server.admin("CREATE ROLE guarded LOGIN PASSWORD 'right'")
    server.admin("GRANT ALL ON SCHEMA public TO guarded", database)
    file = tmp_path / "password"
    file.write_text("right\n")
    file.chmod(0o600)
    with opened(server.url(database, user="guarded"), password_file=file) as engine:
        assert engine.event_bounds() == (0, 0)
        command_lines = [Path(f"/proc/{os.getpid()}/{part}").read_bytes() for part in ("cmdline", "environ")]
        assert not any(b"right" in line.split(b"\0") for line in command_lines)


def test_a_database_that_does_not_exist_is_told_at_once(server: Server) -> None:
    with pytest.raises(StoreForbidden, match="does not exist"), opened(server.url("nowhere")):
        pass


def test_nobody_listens() -> None:
    began = time.monotonic()
    with (
        pytest.raises(StorageUnavailable, match="wad@127"),
        opened(f"postgresql://wad@127.0.0.1:{free_port()}/db", wait_s=0.3),
    ):
        pass
    assert time.monotonic() - began >= 0.3


# Whether it can be trusted.


@pytest.mark.parametrize("weak", ["off", "local", "remote_write"])
def test_weak_durability_is_refused(server: Server, weak: str, caplog: pytest.LogCaptureFixture) -> None:
    url = server.url(server.database(synchronous_commit=weak))
    with (
        pytest.raises(StoreForbidden, match=f"synchronous_commit = {weak}.*--unsafe-durability"),
        opened(url),
    ):
        pass
    assert server.admin("SELECT to_regclass('wa_sessions')", url.rpartition("/")[2]) == [(None,)]
    with opened(url, unsafe_durability=True) as engine:
        assert isinstance(engine.write([EVENT])[0], Committed)
    assert f"synchronous_commit = {weak}" in caplog.text


def test_a_server_that_does_not_sync_is_refused(fragile: Server) -> None:
    name = fragile.database()
    fragile.restart(fsync="off", full_page_writes="off")
    try:
        with (
            pytest.raises(StoreForbidden, match="fsync = off, full_page_writes = off"),
            opened(fragile.url(name)),
        ):
            pass
    finally:
        fragile.restart()


def test_durability_that_is_taken_away_stops_the_next_commit(
    server: Server, database: str, proxy: Proxy, proxied: PostgresEngine
) -> None:
    proxied.write([EVENT])
    server.admin(f"ALTER DATABASE {database} SET synchronous_commit = 'off'")
    proxy.cut()
    (outcome,) = proxied.write([EVENT])
    assert isinstance(outcome, StoreForbidden)
    server.admin(f"ALTER DATABASE {database} RESET synchronous_commit")
    (outcome,) = proxied.write([EVENT])
    assert isinstance(outcome, Committed)
    assert count(server, database) == 2


def test_an_encoding_that_cannot_hold_all_text_is_refused(server: Server) -> None:
    server.admin("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1'")
    with pytest.raises(StoreForbidden, match="UTF8"), opened(server.url("latin")):
        pass


def test_an_old_server_is_refused(server: Server, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "MIN_VERSION", 990_000)
    with pytest.raises(StoreForbidden, match="99 is the oldest"), opened(server.url(database)):
        pass


# Migrations.


def test_the_schema_is_made_once(server: Server, database: str) -> None:
    for _ in range(2):
        with opened(server.url(database)) as engine:
            assert engine.integrity(quick=False) == []
    recorded = server.admin(
        "SELECT version, checksum, applied_by FROM wa_schema_migrations ORDER BY version", database
    )
    assert [(version, checksum) for version, checksum, _ in recorded] == [
        (step.version, step.checksum) for step in schema.migrations()
    ]
    assert recorded[0][2].endswith(f"/{os.getpid()}")


def test_the_schema_is_made_once_by_many(
    server: Server, database: str, background: Callable[..., Future[Any]]
) -> None:
    ready = threading.Barrier(8)

    def start() -> None:
        ready.wait(10)
        with opened(server.url(database)) as engine:
            assert isinstance(engine.write([EVENT])[0], Committed)

    for one in [background(start) for _ in range(8)]:
        one.result(60)
    assert count(server, database) == 8
    assert count(server, database, "wa_schema_migrations") == len(schema.migrations())


def test_a_migration_that_fails_leaves_nothing(
    server: Server, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first, *_) = schema.migrations()
    broken = first._replace(script=first.script + "\nSELECT no_such_function();")
    monkeypatch.setattr(schema, "migrations", lambda: [broken])
    with pytest.raises(StoreError), opened(server.url(database)):
        pass
    assert server.admin(
        "SELECT to_regclass('wa_sessions'), to_regclass('wa_schema_migrations')", database
    ) == [(None, None)]
    monkeypatch.undo()
    with opened(server.url(database)):
        pass


def test_a_newer_schema_is_refused(server: Server, database: str) -> None:
    with opened(server.url(database)):
        pass
    server.admin(
        "INSERT INTO wa_schema_migrations (version, name, checksum, applied_by) "
        f"VALUES (900, 'later', '\\x{'00' * 32}', 'somebody')",
        database,
    )
    with pytest.raises(StoreTooNew, match="900"), opened(server.url(database)):
        pass


def test_another_history_is_refused(server: Server, database: str) -> None:
    with opened(server.url(database)):
        pass
    server.admin(f"UPDATE wa_schema_migrations SET checksum = '\\x{'01' * 32}' WHERE version = 1", database)
    with pytest.raises(StoreDamaged, match="another build"), opened(server.url(database)):
        pass


def test_tables_without_records_are_refused(server: Server, database: str) -> None:
    server.admin("CREATE TABLE wa_sessions (id int)", database)
    with pytest.raises(StoreDamaged, match="without its records"), opened(server.url(database)):
        pass


RIGHTS = """
GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};
GRANT INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {role};
GRANT DELETE ON wa_settings, wa_writers, wa_auth_keys, wa_auth_snapshots, wa_auth_items, wa_auth_sealed, wa_outbox,
  wa_events, wa_inbound_buffer, wa_retry_buffer, wa_message_secrets TO {role}
"""


def test_a_role_without_the_right_to_make_tables(server: Server, database: str) -> None:
    role = f"limited_{database}"
    server.admin(f"CREATE ROLE {role} LOGIN")
    server.admin("REVOKE CREATE ON SCHEMA public FROM PUBLIC", database)
    url = f"postgresql://{role}@/{database}?host={server.directory}&port={server.port}"
    with pytest.raises(StoreForbidden, match="permission"), opened(url):
        pass
    with opened(server.url(database)):
        pass
    server.admin(RIGHTS.format(role=role), database)
    with opened(url) as engine:
        row = session(engine)
        assert isinstance(commit(engine, row, a=b"1"), Committed)
        assert engine.items(row.id, "session", None) == {"a": b"1"}
    with (
        pytest.raises(psycopg.errors.InsufficientPrivilege),
        psycopg.connect(url, autocommit=True) as db,
    ):
        db.execute("TRUNCATE whatsapp_messages")


# The connection breaks.

ACTS: list[Act] = ["cut before", "cut meanwhile", "cut after"]


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("match", [b"BEGIN", b"SAVEPOINT", b"INSERT INTO wa_events", b"COMMIT"])
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
        b"SAVEPOINT",
        b"UPDATE wa_sessions",
        b"INSERT INTO wa_auth_items",
        b"RELEASE",
        b"COMMIT",
    )
    for number in range(60):
        if chance.random() < 0.6:
            proxy.order(chance.choice(ACTS), chance.choice(marks), times=chance.choice((1, 1, 2)))
        if chance.random() < 0.1:
            proxy.cut()
        key, value = f"k{chance.randrange(8)}", b"%d" % number
        outcome = commit(proxied, row, **{key: value})
        assert isinstance(outcome, Committed), outcome
        assert outcome.version == number + 1
        expected["session", key] = (number + 1, value)
    assert count(server, database) == 60
    assert proxied.auth_state(row.id).items == expected
    cursors = [event.cursor for event in proxied.events(0, 1000, None, None)]
    assert cursors == sorted(set(cursors))
    assert len(cursors) == 60


# The server goes away.


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


def wait_until(condition: Callable[[], bool], work: list[Future[Any]]) -> None:
    until = time.monotonic() + 60
    while not condition():
        for one in work:
            if one.done():
                one.result()
        assert time.monotonic() < until
        time.sleep(0.005)


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


# Slow, and many at once.


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


# Leases.


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
        run = frozen._jobs.run

        def stand(db: Any, jobs: Any) -> Any:
            outcomes = run(db, jobs)
            db.settle()
            if not standing.is_set():
                standing.set()
                (taken,) = two[1].write([Attach(row.id, "other/1", LEASE_MS)])
                assert isinstance(taken, SessionRow)
            return outcomes

        frozen._jobs.run = stand  # type: ignore[method-assign]
        assert isinstance(commit(frozen, row, a=b'"stale"'), LeaseLost)
        assert standing.is_set()
        assert count(server, database) == 0


# Events.


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


# A look at it.


def test_damage_is_seen(server: Server, database: str, engine: PostgresEngine) -> None:
    row = session(engine)
    commit(engine, row, a=b"1")
    assert engine.integrity(quick=True) == engine.integrity(quick=False) == []
    server.admin("UPDATE wa_auth_items SET value = '2'", database)
    with pytest.raises(StoreDamaged, match="checksum"):
        engine.checked_creds(row.id)
    server.admin("ALTER TABLE wa_retry_buffer RENAME TO gone", database)
    assert any("wa_retry_buffer" in line for line in engine.integrity(quick=False))
    assert not any("wa_retry_buffer" in line for line in engine.integrity(quick=True))


def test_history_is_kept_by_the_database_itself(
    server: Server, database: str, engine: PostgresEngine
) -> None:
    row = session(engine)
    unit = Unit()
    unit.add_message(text("A1"))
    engine.write([CommitUnit(row.id, row.lease_token, unit)])
    for statement in ("DELETE FROM whatsapp_messages", "TRUNCATE whatsapp_messages"):
        with pytest.raises(psycopg.Error, match="WA001"):
            server.admin(statement, database)
    with pytest.raises(psycopg.IntegrityError):
        server.admin("DELETE FROM wa_sessions", database)
    assert count(server, database, "whatsapp_messages") == 1


def test_writers_say_goodbye(server: Server, database: str) -> None:
    with opened(server.url(database)) as engine:
        row = session(engine)
        assert isinstance(commit(engine, row, a=b"1"), Committed)
        assert count(server, database, "wa_writers") == 1
        server.admin("DELETE FROM wa_writers", database)
        assert isinstance(commit(engine, row, b=b"2"), Committed)
        assert isinstance(commit(engine, row, c=b"3"), Committed)
        assert len(engine.auth_state(row.id).items) == 3
        assert count(server, database, "wa_writers") == 1
        server.admin("UPDATE wa_writers SET at = at - interval '8 days'", database)
        with opened(server.url(database)) as other:
            other.write([EVENT])
            assert count(server, database, "wa_writers") == 1, "nothing is left of one that is long gone"
        assert isinstance(commit(engine, row, d=b"4"), Committed)
    assert count(server, database, "wa_writers") == 0


def test_a_view_stands_still(server: Server, database: str, engine: PostgresEngine) -> None:
    row = session(engine)
    commit(engine, row, a=b"1")
    with engine.view() as view:
        assert view.items(row.id, "session", None) == {"a": b"1"}
        commit(engine, row, a=b"2")
        assert view.items(row.id, "session", None) == {"a": b"1"}
        assert view.auth_state(row.id).items == {("session", "a"): (1, b"1")}
        server.admin(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")
        with pytest.raises(psycopg.Error):
            view.sessions(True)
    assert engine.items(row.id, "session", None) == {"a": b"2"}


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
