"""SQLite files: which are read, in which versions, and that they are never changed."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.transfer.whatsmeow.databases import JID, LID, NOW_MS, Database, add_device, age
from waD.messaging import kinds
from waD.transfer.sources import sqlite as sqlite_source
from waD.transfer.whatsmeow import (
    Device,
    SourceRefused,
    import_device,
    list_devices,
    open_source,
    read_device,
    rows,
)

SECOND = "5511920000001:4@s.whatsapp.net"


def refused(action: Any) -> SourceRefused:
    with pytest.raises(SourceRefused) as caught:
        action()
    return caught.value


def snapshot(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in directory.iterdir()}


# Older and newer versions

UPGRADES: dict[int, tuple[str, ...]] = {
    15: ("ALTER TABLE whatsmeow_device DROP COLUMN companion_meta_nonce",),
    14: ("DROP TABLE whatsmeow_nct_salt",),
    13: ("DROP TABLE whatsmeow_retry_buffer",),
    12: ("ALTER TABLE whatsmeow_privacy_tokens DROP COLUMN sender_timestamp",),
    11: ("ALTER TABLE whatsmeow_contacts DROP COLUMN redacted_phone",),
    10: ("ALTER TABLE whatsmeow_device DROP COLUMN lid_migration_ts",),
    9: ("DROP TABLE whatsmeow_event_buffer",),
    8: ("DROP TABLE whatsmeow_lid_map",),
    7: ("ALTER TABLE whatsmeow_device DROP COLUMN lid",),
    6: ("ALTER TABLE whatsmeow_device DROP COLUMN facebook_uuid",),
    5: (),
    4: ("DROP TABLE whatsmeow_privacy_tokens",),
    3: ("DROP TABLE whatsmeow_message_secrets",),
}
"""What each upgrade brought, to be undone."""
OWNERS = {
    "whatsmeow_device": "jid",
    "whatsmeow_pre_keys": "jid",
    "whatsmeow_sessions": "our_jid",
    "whatsmeow_identity_keys": "our_jid",
    "whatsmeow_sender_keys": "our_jid",
    "whatsmeow_app_state_sync_keys": "jid",
}


@pytest.mark.parametrize("version", range(2, 16))
def test_every_older_schema_is_read(database: Database, version: int) -> None:
    whole = database.state()
    statements = [text for number, texts in UPGRADES.items() if number > version for text in texts]
    if version < 5:
        old = JID.replace(":", ".0:")
        statements += [f"UPDATE {table} SET {owner} = '{old}'" for table, owner in OWNERS.items()]
    if version < 8:
        statements.append("ALTER TABLE whatsmeow_version DROP COLUMN compat")
    database.run(*statements, f"UPDATE whatsmeow_version SET version = {version}")
    state = database.state(jid=JID)
    assert state.creds.me_pn == whole.creds.me_pn
    assert state.creds.account == whole.creds.account
    unmapped = {kinds.LID_OF_PN, kinds.PN_OF_LID}
    assert {key: value for key, value in state.items.items() if key[0] not in unmapped} == {
        key: value for key, value in whole.items.items() if key[0] not in unmapped
    }


def test_a_newer_schema_that_is_compatible_is_read(database: Database) -> None:
    database.run("UPDATE whatsmeow_version SET version = 17, compat = 8")
    assert database.codes() == ["schema_newer"]


def test_a_newer_schema_is_refused(database: Database) -> None:
    database.run("UPDATE whatsmeow_version SET version = 17, compat = 16")
    assert refused(database.load).code == "schema_too_new"
    database.run("ALTER TABLE whatsmeow_version DROP COLUMN compat")
    assert refused(database.load).code == "schema_too_new"


def test_a_table_without_an_owner_is_damage(database: Database) -> None:
    database.run("ALTER TABLE whatsmeow_sessions RENAME COLUMN our_jid TO whose")
    assert refused(database.load).code == "source_damaged"


def test_a_view_is_no_table(database: Database) -> None:
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x FROM n) SELECT x AS jid FROM n"
    database.run("DROP TABLE whatsmeow_device", f"CREATE VIEW whatsmeow_device AS {endless}")
    assert refused(database.load).code == "not_whatsmeow"


# Several devices


def test_several_devices_are_listed_and_chosen(database: Database) -> None:
    add_device(database, SECOND, "220000000000001:4@lid")
    with open_source(str(database.path), stopped=True, now_ms=NOW_MS) as source:
        assert list_devices(source) == [
            Device(JID, LID, "", "Loopback Biz"),
            Device(SECOND, "220000000000001:4@lid", "Second", ""),
        ]
    several = refused(database.load)
    assert (several.code, several.choices) == ("devices_several", (JID, SECOND))
    assert JID[:13] not in str(several)
    for wanted in (SECOND, "5511920000001@s.whatsapp.net", "220000000000001@lid", "220000000000001:4@lid"):
        state = database.state(jid=wanted)
        assert str(state.creds.me_pn) == SECOND
        assert state.of(kinds.SESSION) == {}


@pytest.mark.parametrize(
    "wanted", ["5511920000001:9@s.whatsapp.net", "nobody", "", "5511999999999@s.whatsapp.net"]
)
def test_a_device_that_is_not_there(database: Database, wanted: str) -> None:
    unknown = refused(lambda: database.load(jid=wanted))
    assert (unknown.code, unknown.choices) == ("device_unknown", (JID,))


def test_two_devices_of_one_number_need_the_device(database: Database) -> None:
    add_device(database, "5511910000001:18@s.whatsapp.net", "")
    assert refused(lambda: database.load(jid="5511910000001@s.whatsapp.net")).code == "devices_several"


def test_an_empty_database_of_whatsmeow(database: Database) -> None:
    database.run("DELETE FROM whatsmeow_device")
    assert refused(database.load).code == "device_unknown"


@pytest.mark.parametrize("table", ["users", "instances"])
def test_the_programs_that_keep_several_give_them_names(
    database: Database, tmp_path: Path, table: str
) -> None:
    users = tmp_path / "users.db"
    with closing(sqlite3.connect(users)) as connection, connection:
        connection.execute(f"CREATE TABLE {table} (id, name, token, jid)")
        connection.execute(f"INSERT INTO {table} VALUES (1, 'shop', 'secret', '{JID}'), (2, 'new', 'x', '')")
    age(users)
    with (
        open_source(str(database.path), stopped=True, now_ms=NOW_MS) as source,
        open_source(str(users), stopped=True, now_ms=NOW_MS) as names,
    ):
        assert [device.name for device in list_devices(source, names)] == ["shop"]
        assert [device.name for device in list_devices(source, source)] == [""]


def test_a_second_database_holds_the_keys(database: Database, tmp_path: Path) -> None:
    whole = database.state()
    keys = Database(tmp_path / "keys.db")
    keys.run("DELETE FROM whatsmeow_app_state_sync_keys", "DELETE FROM whatsmeow_lid_map")
    for table in ("sessions", "identity_keys", "sender_keys", "pre_keys"):
        database.run(f"DELETE FROM whatsmeow_{table}")
    state = database.state(keys=str(keys.path))
    # Only people who occur are mapped, and they occur in the second database.
    assert state.items == whole.items
    assert state.creds == whole.creds
    assert database.state().of(kinds.SESSION) == {}


# Whether the old program is stopped


def test_somebody_must_say_that_it_is_stopped(database: Database) -> None:
    stopped = refused(lambda: import_device(str(database.path), stopped=False, now_ms=NOW_MS))
    assert stopped.code == "source_running"
    assert "--i-stopped-it" in stopped.detail


@pytest.mark.parametrize("suffix", ["", "-wal", "-journal"])
def test_a_file_that_changed_just_now_is_refused(database: Database, suffix: str) -> None:
    path = database.path.with_name(database.path.name + suffix)
    path.touch()
    age(path, seconds=59)
    assert refused(database.load).code == "source_running"
    age(path, seconds=60)
    assert database.load()[0] is not None


def test_a_change_while_it_is_read_is_seen(database: Database) -> None:
    def read() -> None:
        with open_source(str(database.path), stopped=True, now_ms=NOW_MS) as source:
            list_devices(source)
            os.utime(database.path, (1, 1))

    assert refused(read).code == "source_changed"


def test_a_device_that_goes_while_it_is_read(database: Database) -> None:
    with open_source(str(database.path), stopped=True, now_ms=NOW_MS) as source:
        gone = refused(lambda: read_device(source, Device("1:1@s.whatsapp.net")))
    assert gone.code == "source_changed"


def test_a_locked_database_is_refused(database: Database) -> None:
    with closing(sqlite3.connect(database.path)) as connection:
        connection.isolation_level = None
        connection.execute("BEGIN EXCLUSIVE")
        assert refused(database.load).code == "source_busy"
        connection.execute("ROLLBACK")


# Write-ahead logs and unfinished transactions

KILLED = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA journal_mode = " + sys.argv[2])
connection.execute("PRAGMA cache_size = 1")
connection.execute("UPDATE whatsmeow_device SET push_name = 'committed'")
connection.commit()
connection.execute("UPDATE whatsmeow_device SET push_name = 'not committed'")
connection.execute("CREATE TABLE much AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 9000) "
                   "SELECT x, randomblob(500) AS blob FROM n")
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize(("mode", "sidecar"), [("WAL", "-wal"), ("DELETE", "-journal")])
@pytest.mark.parametrize("without_shm", [False, True])
def test_what_a_killed_program_committed_is_read(
    database: Database, mode: str, sidecar: str, without_shm: bool
) -> None:
    """The newest commits are in the log, and what was not committed is undone; the files stay as they are."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(database.path), mode], check=False)
    assert done.returncode == -9
    directory = database.path.parent
    assert directory.joinpath(database.path.name + sidecar).stat().st_size > 0
    shm = directory / f"{database.path.name}-shm"
    if without_shm and shm.exists():
        shm.unlink()
    age(*directory.iterdir())
    before = snapshot(directory)
    assert database.state().creds.push_name == "committed"
    assert snapshot(directory) == before


def test_nothing_is_left_beside_a_file_in_wal_mode(database: Database) -> None:
    database.run("PRAGMA journal_mode = WAL", "UPDATE whatsmeow_device SET push_name = 'x'")
    assert sorted(path.name for path in database.path.parent.iterdir()) == [database.path.name]
    before = snapshot(database.path.parent)
    assert database.state().creds.push_name == "x"
    assert snapshot(database.path.parent) == before


def test_a_private_copy_goes_away(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(sqlite_source.tempfile, "tempdir", str(scratch))
    database.run("PRAGMA journal_mode = WAL")
    with open_source(str(database.path), stopped=True, now_ms=NOW_MS):
        (private,) = scratch.iterdir()
        assert private.stat().st_mode & 0o777 == 0o700
    assert [*scratch.iterdir()] == []


# Wrong files


@pytest.mark.parametrize(
    "content",
    [b"", b"SQLite format 3\x00", b"x" * 5000, b'{"creds":1}', b"SQLite format 4\x00" + bytes(5000)],
    ids=["empty", "header", "text", "json", "other"],
)
def test_a_file_that_is_no_sqlite_database(database: Database, content: bytes) -> None:
    database.path.write_bytes(content)
    age(database.path)
    assert refused(database.load).code == "not_sqlite"


def test_a_directory_and_nothing_at_all(tmp_path: Path) -> None:
    for path, code in ((tmp_path, "not_sqlite"), (tmp_path / "missing.db", "source_missing")):
        assert refused(lambda path=path: import_device(str(path), stopped=True, now_ms=NOW_MS)).code == code


def test_a_database_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE session (id, data)")
    age(path)
    assert refused(lambda: import_device(str(path), stopped=True, now_ms=NOW_MS)).code == "not_whatsmeow"


def test_a_name_with_signs_of_urls(database: Database, tmp_path: Path) -> None:
    odd = tmp_path / "100%?mode=rwc#x y.db"
    shutil.copyfile(database.path, odd)
    age(odd)
    state, _ = import_device(str(odd), stopped=True, now_ms=NOW_MS)
    assert state is not None


@pytest.mark.parametrize("seed", range(40))
def test_damaged_pages_end_in_a_name(database: Database, seed: int) -> None:
    """Whatever a damaged file is, reading it ends in a state, or in an error that has a code."""
    data = bytearray(database.path.read_bytes())
    for number in range(40):
        at = 100 + (seed * 7919 + number * 104_729 + number * number * 31) % (len(data) - 100)
        data[at] ^= 1 + (seed + number) % 255
    database.path.write_bytes(data[: len(data) // 2] if seed % 5 == 0 else data)
    age(database.path)
    with suppress(SourceRefused):
        database.load()  # looks at what comes out


def test_too_many_rows_are_refused(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_ROWS", 47)
    assert refused(database.load).code == "source_too_large"
    monkeypatch.setattr(rows, "MAX_ROWS", 48)
    assert database.load()[0] is not None
    monkeypatch.setattr(rows, "MAX_TOTAL_SIZE", 5_000)
    assert refused(database.load).code == "source_too_large"


def test_a_huge_value_is_not_even_read(database: Database) -> None:
    """`length` of a text would say that this one has no characters."""
    database.run("UPDATE whatsmeow_device SET push_name = CAST(zeroblob(50000000) AS TEXT)")
    with open_source(str(database.path), stopped=True, now_ms=NOW_MS) as source:
        (device,) = list_devices(source)
        assert read_device(source, device).device["push_name"] is None
    assert database.state().creds.push_name == ""


def test_text_that_is_no_text(database: Database) -> None:
    database.run("UPDATE whatsmeow_device SET push_name = CAST(x'ff41' AS TEXT)")
    assert database.state().creds.push_name == "\ufffdA"


def test_rows_are_not_shown(database: Database) -> None:
    with open_source(str(database.path), stopped=True, now_ms=NOW_MS) as source:
        (device,) = list_devices(source)
        assert repr(read_device(source, device)) == "DeviceRows(3 sessions)"
