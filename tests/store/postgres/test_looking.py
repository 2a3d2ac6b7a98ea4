"""A look at the database, and what it refuses by itself."""

from __future__ import annotations

import psycopg
import pytest

from tests.store.postgres.helpers import EVENT, commit, count, opened, session
from tests.store.postgres_server import Server
from tests.store.test_store import text
from waD.store.engine import (
    CommitUnit,
)
from waD.store.errors import (
    StoreDamaged,
)
from waD.store.postgres.engine import PostgresEngine
from waD.store.unit import Committed, Unit


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
