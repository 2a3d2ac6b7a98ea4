"""Whether a server can be trusted with what we store, and its schema."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import psycopg
import pytest

from tests.store.cutting import Proxy
from tests.store.postgres.helpers import EVENT, commit, count, opened, session
from tests.store.postgres_server import Server
from waD.store.errors import (
    StoreDamaged,
    StoreError,
    StoreForbidden,
    StoreTooNew,
)
from waD.store.postgres import schema
from waD.store.postgres.engine import PostgresEngine
from waD.store.unit import Committed


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
