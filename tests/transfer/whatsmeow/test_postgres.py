"""whatsmeow in PostgreSQL: the same rows give the same state."""

from __future__ import annotations

import sys

import psycopg
import pytest

from tests.transfer.whatsmeow.databases import JID, NOW_MS, Database, fill
from waD.transfer.whatsmeow import SourceRefused, import_device, list_devices, open_source


@pytest.fixture
def filled(url: str, database: Database) -> str:
    fill(url, database)
    return url


def test_the_same_rows_give_the_same_state(filled: str, database: Database) -> None:
    state, report = import_device(filled, stopped=True, now_ms=NOW_MS)
    assert state == database.state()
    assert report.notes == database.load()[1].notes


def test_tables_in_a_schema_of_the_search_path(filled: str) -> None:
    with psycopg.connect(filled) as connection:
        connection.execute("CREATE SCHEMA bridge")
        for (name,) in connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall():
            connection.execute(f"ALTER TABLE {name} SET SCHEMA bridge".encode())
    with pytest.raises(SourceRefused) as caught:
        import_device(filled, stopped=True, now_ms=NOW_MS)
    assert caught.value.code == "not_whatsmeow"
    state, _ = import_device(f"{filled}?options=-csearch_path%3Dbridge", stopped=True, now_ms=NOW_MS)
    assert state is not None


def test_an_older_schema_is_read(filled: str) -> None:
    with psycopg.connect(filled) as connection:
        connection.execute("ALTER TABLE whatsmeow_device DROP COLUMN lid, DROP COLUMN lid_migration_ts")
        connection.execute("DROP TABLE whatsmeow_lid_map, whatsmeow_privacy_tokens, whatsmeow_nct_salt")
        connection.execute("UPDATE whatsmeow_version SET version = 6")
    state, _ = import_device(filled, stopped=True, now_ms=NOW_MS)
    assert state is not None
    assert state.creds.me_lid is None


def test_an_empty_database_is_not_one_of_whatsmeow(url: str) -> None:
    with pytest.raises(SourceRefused) as caught:
        import_device(url, stopped=True, now_ms=NOW_MS)
    assert caught.value.code == "not_whatsmeow"


def test_nothing_can_be_written(filled: str) -> None:
    with open_source(filled, stopped=True, now_ms=NOW_MS) as source, pytest.raises(SourceRefused) as caught:
        [*source.rows("DELETE FROM whatsmeow_device RETURNING jid")]
    assert caught.value.code == "source_damaged"
    with psycopg.connect(filled) as connection:
        assert connection.execute("SELECT jid FROM whatsmeow_device").fetchone() == (JID,)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE whatsmeow_sessions SET session = session WHERE their_id LIKE '%:3'",
        "DELETE FROM whatsmeow_pre_keys WHERE key_id = 7",
        "DELETE FROM whatsmeow_device",
    ],
)
def test_a_change_while_it_is_read_is_seen(filled: str, change: str) -> None:
    def read() -> None:
        with open_source(filled, stopped=True, now_ms=NOW_MS) as source:
            devices = list_devices(source)
            with psycopg.connect(filled) as other:
                other.execute(change.encode())
            assert list_devices(source) == devices, "the view is consistent"

    with pytest.raises(SourceRefused) as caught:
        read()
    assert caught.value.code == "source_changed"


def test_one_who_writes_just_now_is_seen(filled: str) -> None:
    with psycopg.connect(filled) as other:
        other.execute("SELECT 1 FROM whatsmeow_device")
        with pytest.raises(SourceRefused) as caught:
            import_device(filled, stopped=True, now_ms=NOW_MS)
    assert caught.value.code == "source_running"


def test_one_who_is_only_connected_is_warned_about(filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waD.transfer.whatsmeow.postgres.QUIET_MS", 0)
    with psycopg.connect(filled, autocommit=True) as other:
        other.execute("SELECT 1")
        state, report = import_device(filled, stopped=True, now_ms=NOW_MS)
    assert state is not None
    assert [note.code for note in report.warnings] == ["source_in_use", "not_taken"]


def test_somebody_must_say_that_it_is_stopped(filled: str) -> None:
    with pytest.raises(SourceRefused) as caught:
        import_device(filled, stopped=False, now_ms=NOW_MS)
    assert caught.value.code == "source_running"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:hunter2@127.0.0.1:1/x",
        "postgresql://user:hunter2@127.0.0.1:port/x",
        "postgresql://hunter2@/x?host=/nowhere&bad option=hunter2",
    ],
)
def test_a_server_that_is_not_there(url: str) -> None:
    with pytest.raises(SourceRefused) as caught:
        import_device(url, stopped=True, now_ms=NOW_MS)
    assert caught.value.code == "source_unreachable"
    assert "hunter2" not in str(caught.value)


def test_the_driver_is_only_needed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(SourceRefused) as caught:
        import_device("postgresql:///x", stopped=True, now_ms=NOW_MS)
    assert caught.value.code == "driver_missing"
