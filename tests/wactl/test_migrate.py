"""wactl migrate-auth: sources, destinations and refusals, each in the processes that it starts."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from tests.store.postgres_server import Server
from tests.transfer.baileys import samples
from tests.transfer.whatsmeow.databases import JID
from tests.wactl.conftest import ROOT, Run, documents, error_of
from tests.wactl.fake import FakeDaemon, view
from tests.wactl.stores import database, refused, stored
from wactl.commands.migrate_auth import PRESETS, migrate_auth
from waD.migrate import PARTS
from waD.store.opening import open_engine
from waD.store.store import StoreSettings
from waD.transfer.baileys.convert import convert
from waD.transfer.baileys.directory import read_directory
from waD.transfer.baileys.presets import PRESETS as KNOWN

NOW = samples.NOW_MS
STOPPED = "--i-stopped-it"


def snapshot(path: Path) -> dict[str, tuple[bytes, int]]:
    return {one.name: (one.read_bytes(), one.stat().st_mtime_ns) for one in path.iterdir()}


# ---------------------------------------------------------------------------------------------- into waD, and out


def test_a_directory_comes_in(run: Run, home: Path, account: Path) -> None:
    before = snapshot(account)
    result = run("migrate-auth", "--from", f"baileys-dir:{account}", STOPPED, "alerts")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "alerts  imported"
    assert "session: 2" in result.stdout
    assert "warning: the old program must never connect" in result.stderr
    assert "next: wactl connect alerts" in result.stderr
    assert snapshot(account) == before
    row, state = stored(database(home))
    assert (row.desired_state, row.current_status, row.auth_phase) == ("down", "stopped", "cut_over")
    expected, _ = convert(read_directory(account, now_ms=NOW, stopped=True), NOW)
    assert expected is not None
    assert dict(state.items) == dict(expected.items)
    assert state.creds.identity == expected.creds.identity
    # In flight first messages refer to the signed prekey: it is not rotated at once.
    assert state.creds.last_rotation_ms > 0


def test_a_dry_run_needs_no_store_and_changes_nothing(run: Run, home: Path, account: Path) -> None:
    result = run("migrate-auth", "--from", str(account), STOPPED, "--dry-run", "--json", "alerts")
    (document,) = documents(result.stdout)
    assert result.exit_code == 0
    assert document["from"] == {"scheme": "baileys-dir", "found": "a directory of Baileys"}
    assert (document["ok"], document["done"], document["destination"]) == (True, False, None)
    assert document["counts"]["session"] == 2
    assert [note["code"] for note in document["warnings"]] == ["creds_field_dropped"]
    assert document["errors"] == []
    assert not database(home).exists()
    told = run("migrate-auth", "--from", str(account), STOPPED, "--dry-run", "alerts")
    assert told.stdout.splitlines()[-1] == "alerts  would be imported"
    assert "found: a directory of Baileys" in told.stderr


def test_a_dry_run_asks_the_destination_if_there_is_one(run: Run, home: Path, account: Path) -> None:
    run("migrate-auth", "--from", str(account), STOPPED, "alerts")
    result = run(
        "migrate-auth", "--from", str(account), STOPPED, "--dry-run", "--json", "--offline", "second"
    )
    assert result.exit_code == 1
    assert "'alerts'" in error_of(result)["message"]


def test_a_name_that_is_taken_stays_as_it_is(run: Run, home: Path, account: Path, whatsmeow: Path) -> None:
    run("migrate-auth", "--from", str(account), STOPPED, "alerts")
    before = stored(database(home))
    result = run("migrate-auth", "--from", str(whatsmeow), STOPPED, "--json", "alerts")
    assert (result.exit_code, error_of(result)["data"]["code"]) == (1, "name_taken")
    after = stored(database(home))
    assert (after[0].auth_version, dict(after[1].items)) == (before[0].auth_version, dict(before[1].items))


def test_a_device_of_whatsmeow_comes_in(run: Run, home: Path, whatsmeow: Path) -> None:
    before = whatsmeow.read_bytes()
    result = run("migrate-auth", "--from", str(whatsmeow), STOPPED, "--jid", JID, "--json", "alerts")
    (document,) = documents(result.stdout)
    assert document["from"] == {"scheme": "whatsmeow", "found": "an SQLite database of whatsmeow"}
    assert document["destination"]["phase"] == "cut_over"
    assert document["warnings"] == [
        {
            "code": "not_taken",
            "count": 1,
            "detail": "4 rows: this program has no table for them, and the phone sends them again with the app state",
            "items": ["whatsmeow_contacts"],
        }
    ]
    assert whatsmeow.read_bytes() == before
    assert stored(database(home))[1].counts() == document["counts"]


def test_where_rows_are_kept_it_begins_with_those(run: Run, home: Path, account: Path) -> None:
    config = home / "waD.toml"
    config.write_text('[store]\nlegacy = "on"\n')
    result = run("migrate-auth", "--from", str(account), STOPPED, "--config", str(config), "--json", "alerts")
    (document,) = documents(result.stdout)
    assert document["destination"]["phase"] == "legacy_only"
    row, state = stored(database(home))
    assert row.auth_phase == "legacy_only"
    assert state.counts() == document["counts"]


def test_a_session_goes_out_and_comes_back(run: Run, home: Path, account: Path) -> None:
    run("migrate-auth", "--from", str(account), STOPPED, "alerts")
    _, state = stored(database(home))
    out = home / "out"
    planned = run("migrate-auth", "--to", f"baileys-dir:{out}", "--dry-run", "alerts")
    assert planned.stdout.splitlines()[-1] == f"alerts  would be exported to {out}"
    assert not out.exists()
    result = run("migrate-auth", "--to", f"baileys-dir:{out}", "alerts")
    assert result.exit_code == 0, result.stderr
    assert "warning: only one of the two may connect" in result.stderr
    assert (out.stat().st_mode & 0o777, (out / "creds.json").stat().st_mode & 0o777) == (0o700, 0o600)
    back, _ = convert(read_directory(out, now_ms=NOW, stopped=True), NOW)
    assert back is not None
    assert dict(back.items) == dict(state.items)
    again = run("migrate-auth", "--to", f"baileys-dir:{out}", "--json", "alerts")
    assert (again.exit_code, error_of(again)["data"]["code"]) == (1, "target_not_empty")


def test_into_a_store_that_is_named_and_out_of_it(run: Run, home: Path, account: Path) -> None:
    path = home / "other" / "waD.db"
    planned = run(
        "migrate-auth", "--from", str(account), STOPPED, "--to", f"sqlite:{path}", "--dry-run", "alerts"
    )
    assert planned.exit_code == 0
    assert not path.exists()
    result = run(
        "migrate-auth", "--from", str(account), STOPPED, "--to", f"sqlite:{path}", "--json", "alerts"
    )
    (document,) = documents(result.stdout)
    assert document["done"] is True
    assert stored(path)[1].counts() == document["counts"]
    again = run("migrate-auth", "--from", str(account), STOPPED, "--to", f"sqlite:{path}", "--json", "alerts")
    assert error_of(again)["data"]["code"] in ("name_taken", "already_here")
    out = home / "out"
    assert (
        run("migrate-auth", "--from", f"sqlite:{path}", "--to", f"baileys-dir:{out}", "alerts").exit_code == 0
    )
    assert (out / "creds.json").exists()


def test_between_stores(run: Run, home: Path, account: Path) -> None:
    run("migrate-auth", "--from", str(account), STOPPED, "alerts")
    before = stored(database(home))[1]
    path = home / "other" / "waD.db"
    move = ("migrate-auth", "--from", "waD", "--to", f"sqlite:{path}")
    planned = run(*move, "--dry-run", "alerts")
    assert "rows of wa_events: " in planned.stdout
    assert not path.exists()
    unasked = run(*move, "alerts")
    assert (unasked.exit_code, path.exists()) == (2, False)
    result = run(*move, "--yes", "--json", "alerts")
    (document,) = documents(result.stdout)
    assert (document["done"], document["resumed"]) == (True, False)
    row, state = stored(path)
    assert row.id == document["destination"]["connectionId"]
    assert dict(state.items) == dict(before.items)
    assert state.creds.serialize() == before.creds.serialize()
    left, nothing = stored(database(home))
    assert (left.desired_state, nothing) == ("retired", None)
    again = run(*move, "--yes", "--json", "alerts")
    assert (again.exit_code, error_of(again)["data"]["code"]) == (4, "no_such_session")


@pytest.mark.parametrize("at", ["move.copied", "move.written", "move.departed"])
def test_a_move_that_is_killed_ends_with_the_same_command(
    run: Run, home: Path, account: Path, at: str
) -> None:
    run("migrate-auth", "--from", str(account), STOPPED, "alerts")
    path = home / "other" / "waD.db"
    killed = subprocess.run(
        [sys.executable, "-m", "waD.migrate", "move", "waD", f"sqlite:{path}", "alerts"],
        env=os.environ | {"WAD_CRASH_AT": at},
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -9
    gone = at == "move.departed"
    assert (stored(database(home))[0].desired_state == "retired") is gone
    there = stored(path)[0]
    assert (there.desired_state, there.lease_holder is None) == ("retired", False)
    result = run("migrate-auth", "--from", "waD", "--to", f"sqlite:{path}", "--yes", "--json", "alerts")
    (document,) = documents(result.stdout)
    assert (document["done"], document["resumed"]) == (True, gone)
    row, state = stored(path)
    assert (row.desired_state, row.lease_holder) == ("down", None)
    assert state.counts() == document["counts"]


# --------------------------------------------------------------------------------------------------------- refusals


def test_into_postgresql_and_out_of_it(run: Run, home: Path, account: Path, server: Server) -> None:
    url = server.url(server.database())
    result = run("migrate-auth", "--from", str(account), STOPPED, "--to", url, "--json", "alerts")
    (document,) = documents(result.stdout)
    assert (document["done"], document["destination"]["phase"]) == (True, "legacy_only")
    path = home / "x.db"
    result = run("migrate-auth", "--from", url, "--to", f"sqlite:{path}", "--yes", "--json", "alerts")
    (moved,) = documents(result.stdout)
    assert (moved["done"], moved["counts"]) == (True, document["counts"])
    assert stored(path)[1].counts() == document["counts"]
    back = run("migrate-auth", "--from", f"sqlite:{path}", "--to", url, "--yes", "alerts")
    assert back.stdout.splitlines()[-1] == f"alerts  moved to {url}"
    assert stored(path)[1] is None


def test_sources_that_are_refused(run: Run, home: Path, account: Path, whatsmeow: Path) -> None:
    source = f"baileys-dir:{account}"
    assert refused(run, "--from", source)[:2] == (1, "source_running")
    assert refused(run, "--from", f"whatsmeow:{whatsmeow}")[:2] == (1, "source_running")
    assert refused(run, "--from", str(home / "nothing"), STOPPED)[:2] == (1, "source_missing")
    assert refused(run, "--from", f"baileys-dir:{home / 'nothing'}", STOPPED)[:2] == (1, "source_missing")
    assert refused(run, "--from", f"baileys-dir:{home / 'run'}", STOPPED)[:2] == (1, "not_baileys")
    assert refused(run, "--from", f"whatsmeow:{whatsmeow}", STOPPED, "--jid", "1@s.whatsapp.net")[:2] == (
        4,
        "device_unknown",
    )
    assert refused(run, "--from", "mysql:there", STOPPED)[:2] == (2, "scheme_unknown")
    assert refused(run, "--from", str(account), STOPPED, "--key-column", "k")[:2] == (2, "column_missing")
    assert not database(home).exists() or stored_names(home) == []


def stored_names(home: Path) -> list[str]:
    with closing(open_engine(StoreSettings(path=database(home)), PARTS)) as engine:
        return [row.name for row in engine.sessions(True)]


def test_a_password_in_the_arguments_is_refused_and_not_repeated(run: Run, home: Path) -> None:
    for url in (
        "postgresql://me:geheim@h/d",
        "postgresql://me@h/d?password=geheim",
        "whatsmeow:postgresql://me:geheim@h/d",
    ):
        status, code, error = refused(run, "--from", url, "--to", f"sqlite:{home / 'x.db'}", "--yes")
        assert (status, code) == (2, "password_in_url")
        assert "geheim" not in json.dumps(error)


def test_credentials_without_keys(run: Run, home: Path, account: Path) -> None:
    for path in account.iterdir():
        if path.name != "creds.json":
            path.unlink()
    result = run("migrate-auth", "--from", str(account), STOPPED, "--json", "alerts")
    (document,) = documents(result.stdout)
    assert (result.exit_code, document["done"]) == (1, False)
    assert [note["code"] for note in document["errors"]] == ["keys_missing"]
    assert stored_names(home) == []


def test_keys_without_credentials(run: Run, home: Path, account: Path) -> None:
    creds = (account / "creds.json").read_bytes()
    (account / "creds.json").unlink()
    result = run("migrate-auth", "--from", str(account), STOPPED, "--json", "alerts")
    (document,) = documents(result.stdout)
    assert (result.exit_code, [note["code"] for note in document["errors"]]) == (6, ["creds_unreadable"])
    assert "there is no creds.json" in document["errors"][0]["detail"]
    told = run("migrate-auth", "--from", str(account), STOPPED, "alerts")
    assert told.stdout == "alerts  not imported; nothing was changed\n"
    # The two may lie in different places.
    alone = home / "creds"
    alone.mkdir()
    (alone / "creds.json").write_bytes(creds)
    assert run("migrate-auth", "--from", str(alone), "--keys", str(account), STOPPED, "alerts").exit_code == 0
    assert stored(database(home))[1].counts()["session"] == 2


def test_damage_is_6_and_faulty_items_are_left_out(run: Run, home: Path, account: Path) -> None:
    session = next(account.glob("session-*.json"))
    session.write_text("{")
    result = run("migrate-auth", "--from", str(account), STOPPED, "--dry-run", "--json", "alerts")
    (document,) = documents(result.stdout)
    assert result.exit_code == 0
    assert "item_unreadable" in {note["code"] for note in document["warnings"]}
    assert document["counts"]["session"] == 1
    creds = json.loads((account / "creds.json").read_text())
    creds["signedPreKey"]["signature"] = samples.buffer(bytes(64))
    (account / "creds.json").write_text(json.dumps(creds))
    result = run("migrate-auth", "--from", str(account), STOPPED, "--json", "alerts")
    (document,) = documents(result.stdout)
    assert result.exit_code == 6
    assert [note["code"] for note in document["errors"]] == ["signed_prekey_signature_invalid"]
    assert stored_names(home) == []


def test_a_schema_one_version_newer(run: Run, home: Path, account: Path, whatsmeow: Path) -> None:
    with closing(sqlite3.connect(whatsmeow)) as connection, connection:
        connection.execute("UPDATE whatsmeow_version SET version=16, compat=16")
    os.utime(whatsmeow, (NOW // 1000 - 86_400,) * 2)
    assert refused(run, "--from", str(whatsmeow), STOPPED)[:2] == (1, "schema_too_new")
    path = home / "newer.db"
    assert (
        run("migrate-auth", "--from", str(account), STOPPED, "--to", f"sqlite:{path}", "alerts").exit_code
        == 0
    )
    with closing(sqlite3.connect(path)) as connection, connection:
        newest = "SELECT max(version) FROM wa_schema_migrations"
        connection.execute(f"UPDATE wa_schema_migrations SET version=999 WHERE version=({newest})")
    move = ("--from", f"sqlite:{path}", "--to", f"sqlite:{home / 'x.db'}", "--yes")
    assert refused(run, *move)[:2] == (1, "store_too_new")
    assert not (home / "x.db").exists()


def test_a_store_that_is_in_use(run: Run, home: Path, account: Path) -> None:
    path = home / "other.db"
    run("migrate-auth", "--from", str(account), STOPPED, "--to", f"sqlite:{path}", "alerts")
    move = ("--from", f"sqlite:{path}", "--to", f"sqlite:{home / 'x.db'}", "--yes")
    with closing(open_engine(StoreSettings(path=path), PARTS)):
        assert refused(run, *move)[:2] == (1, "session_in_use")
    same = ("--from", f"sqlite:{path}", "--to", f"sqlite:{path}", "--yes")
    assert refused(run, *same)[:2] == (1, "same_store")
    assert refused(run, *move, name="nobody")[:2] == (4, "no_such_session")


def test_a_move_waits_for_no_daemon(run: Run, daemon: FakeDaemon, tmp_path: Path) -> None:
    status, code, error = refused(run, "--from", "waD", "--to", f"sqlite:{tmp_path / 'x.db'}", "--yes")
    assert (status, code) == (1, "session_in_use")
    assert "wactl daemon stop" in error["message"]


def test_what_is_up_is_not_exported(run: Run, daemon: FakeDaemon, tmp_path: Path) -> None:
    daemon.script["session.status"] = view("open", desired="up", paired=True)
    status, code, error = refused(run, "--to", f"baileys-dir:{tmp_path / 'out'}")
    assert (status, code) == (1, "session_up")
    assert "wactl disconnect alerts" in error["message"]
    assert not (tmp_path / "out").exists()


def test_words_that_make_no_sense(run: Run, tmp_path: Path) -> None:
    for words in (
        (),
        ("--from", "waD", "--to", "sqlite:x", "--jid", "1@s.whatsapp.net"),
        ("--from", "baileys-dir:x", "--to", "baileys-dir:y"),
        ("--from", str(tmp_path), "--preset", "nobody"),
    ):
        assert run("migrate-auth", *words, "alerts").exit_code == 2


def test_the_presets_are_those_that_are_known() -> None:
    assert {*PRESETS} == {*KNOWN}
    assert migrate_auth.help is not None
    assert all(f"{name}," in migrate_auth.help or f"{name}." in migrate_auth.help for name in PRESETS)


def test_a_table_of_its_own(run: Run, home: Path, account: Path) -> None:
    path = home / "keys.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE things (who TEXT, what TEXT, said TEXT)")
        rows = [("one", one.name.removesuffix(".json"), one.read_text()) for one in account.iterdir()]
        connection.executemany("INSERT INTO things VALUES (?,?,?)", rows)
    os.utime(path, (NOW // 1000 - 86_400,) * 2)
    words = ("--from", f"baileys-kv:{path}", STOPPED, "--table", "things", "--session-column", "who")
    assert refused(run, *words)[:2] == (2, "column_missing")
    columns = ("--key-column", "what", "--value-column", "said", "--session", "one")
    result = run("migrate-auth", *words, *columns, "--json", "alerts")
    (document,) = documents(result.stdout)
    assert (result.exit_code, document["counts"]["session"]) == (0, 2)
    assert refused(run, *words, *columns[:-1], "two", name="second")[:2] == (4, "session_unknown")


def test_nothing_secret_is_told(run: Run, home: Path, account: Path) -> None:
    creds = json.loads((account / "creds.json").read_text())
    result = run("migrate-auth", "--from", str(account), STOPPED, "--json", "alerts")
    for field in ("noiseKey", "signedIdentityKey"):
        assert creds[field]["private"]["data"] not in result.stdout + result.stderr
    assert msgspec.json.decode(result.stdout)["done"]
    shutil.rmtree(account)
