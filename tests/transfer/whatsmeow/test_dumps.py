"""whatsmeow as a dump of statements: the same rows give the same state."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.transfer.dumps.programs import SQLITE_SHELL, iterdump, pg_dump, shell_dump
from tests.transfer.whatsmeow.databases import JID, NOW_MS, Database, add_device, fill
from waD.transfer.state import AuthState
from waD.transfer.whatsmeow import SourceRefused, import_device

OPTIONS: dict[str, tuple[str, ...]] = {
    "copy": (),
    "inserts": ("--inserts",),
    "columns": ("--column-inserts", "--rows-per-insert=5"),
    "rows alone": ("--data-only",),
    "rows and columns alone": ("--data-only", "--column-inserts"),
}


def read(path: Path, content: bytes, jid: str | None = None) -> AuthState:
    path.write_bytes(content)
    state, report = import_device(str(path), stopped=False, now_ms=NOW_MS, jid=jid)
    assert state is not None, report.notes
    return state


def refused(path: Path, content: bytes) -> SourceRefused:
    path.write_bytes(content)
    with pytest.raises(SourceRefused) as refusal:
        import_device(str(path), stopped=True, now_ms=NOW_MS)
    return refusal.value


@pytest.mark.parametrize("dump", [iterdump, shell_dump])
def test_sqlite(database: Database, tmp_path: Path, dump: object) -> None:
    if dump is shell_dump and SQLITE_SHELL is None:
        pytest.skip("the machine has no shell of SQLite")
    content = shell_dump(database.path) if dump is shell_dump else iterdump(database.path)
    assert read(tmp_path / "dump.sql", content) == database.state()


@pytest.mark.parametrize("options", OPTIONS)
def test_postgresql(database: Database, url: str, tmp_path: Path, options: str) -> None:
    fill(url, database)
    path = tmp_path / "dump.sql"
    assert read(path, pg_dump(url, *OPTIONS[options])) == database.state()
    state, report = import_device(str(path), stopped=True, now_ms=NOW_MS)
    assert state is not None
    assert report.notes == database.load()[1].notes


def test_several_devices(database: Database, tmp_path: Path) -> None:
    add_device(database, "5511910000009:3@s.whatsapp.net", "110000000000009:3@lid")
    path = tmp_path / "dump.sql"
    refusal = refused(path, iterdump(database.path))
    assert (refusal.code, len(refusal.choices)) == ("devices_several", 2)
    assert read(path, path.read_bytes(), JID) == database.state(jid=JID)


def test_a_dump_without_what_is_needed(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "dump.sql"
    content = iterdump(database.path)
    assert refused(path, b"BEGIN TRANSACTION;\nCREATE TABLE a (b);\nCOMMIT;\n").code == "not_whatsmeow"
    without = re.sub(rb"CREATE TABLE [^;]*;\n", b"", content)
    refusal = refused(path, without)
    assert (refusal.code, "columns" in refusal.detail) == ("dump_unsupported", True)
    changed = content.replace(b"COMMIT;", b"UPDATE whatsmeow_sessions SET session = '';\nCOMMIT;")
    assert refused(path, changed).code == "dump_unsupported"
    assert refused(path, content.replace(b"COMMIT;", b"ROLLBACK; -- due to errors")).code == "source_damaged"


@given(size=st.integers(min_value=1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
def test_cut_short(database: Database, tmp_path: Path, size: int) -> None:
    """However much of it is there: a refusal of its own, never a part of the account."""
    content = iterdump(database.path)
    refusal = refused(tmp_path / "dump.sql", content[: size % (len(content) - 8)])
    assert refusal.code in ("source_damaged", "not_sqlite")


@given(at=st.integers(min_value=0), octet=st.integers(0, 255))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
def test_a_changed_byte_ends_in_a_refusal_or_a_sound_state(
    database: Database, tmp_path: Path, at: int, octet: int
) -> None:
    content = bytearray(iterdump(database.path))
    content[at % len(content)] = octet
    path = tmp_path / "dump.sql"
    path.write_bytes(content)
    try:
        state, report = import_device(str(path), stopped=False, now_ms=NOW_MS)
    except SourceRefused:
        return
    assert (state is None) is bool(report.errors)
