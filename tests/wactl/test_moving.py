"""wactl migrate-auth between stores: killed, given up, and brought back from the disaster that is named."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.store.postgres_server import Server, free_port, running_server
from tests.wactl.conftest import ROOT, Run, documents, error_of
from tests.wactl.stores import database, refused, stored
from wactl.offline import StoreClient
from waD.control import types as t
from waD.store.engine import Attach, Engine
from waD.store.model import SessionRow
from waD.store.opening import open_engine
from waD.store.postgres.settings import PostgresSettings
from waD.store.store import StoreSettings
from waD.transfer.migrating.opening import PARTS
from waD.transfer.migrating.stores import do, stored_state

STOPPED = "--i-stopped-it"
NAME = "alerts"


def opened(place: str) -> Engine:
    if place.startswith("sqlite:"):
        return open_engine(StoreSettings(path=Path(place.removeprefix("sqlite:"))), PARTS)
    settings = StoreSettings(path=Path("unused"), postgres=PostgresSettings(url=place), legacy=True)
    return open_engine(settings, PARTS)


def row_of(place: str) -> SessionRow:
    with closing(opened(place)) as engine:
        row = engine.session(NAME)
        assert row is not None
        return row


def killed(at: str, *words: str) -> None:
    """The process that moves dies at that point."""
    done = subprocess.run(
        [sys.executable, "-m", "waD.migrate", "move", *words, NAME],
        env=os.environ | {"WAD_CRASH_AT": at},
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert done.returncode == -9, done


@pytest.fixture(params=["to a server", "from a server"])
def way(
    request: pytest.FixtureRequest, run: Run, home: Path, account: Path, server: Server
) -> tuple[str, str]:
    """Two stores, the session in the first."""
    file, url = f"sqlite:{home / 'one.db'}", server.url(server.database())
    places = (file, url) if request.param == "to a server" else (url, file)
    done = run("migrate-auth", "--from", str(account), STOPPED, "--to", places[0], NAME)
    assert done.exit_code == 0, done.stderr
    return places


def words(way: tuple[str, str], *more: str) -> tuple[str, ...]:
    return ("migrate-auth", "--from", way[0], "--to", way[1], "--yes", "--json", *more, NAME)


@pytest.mark.parametrize("at", ["move.written", "move.departed"])
@pytest.mark.parametrize("then", [None, "abort.cleared"])
def test_a_killed_move_is_given_up(run: Run, way: tuple[str, str], at: str, then: str | None) -> None:
    with closing(opened(way[0])) as engine:
        before = engine.session(NAME)
        assert before is not None
        state = stored_state(engine, before)
    killed(at, *way)
    if then is not None:
        killed(then, "--abort", *way)
    (planned,) = documents(run(*words(way, "--abort", "--dry-run")).stdout)
    (document,) = documents(run(*words(way, "--abort")).stdout)
    assert (planned["done"], document["done"]) == (False, True)
    assert planned["restored"] == document["restored"] == (at == "move.departed")
    assert (document["freed"], document["warnings"]) == (True, [])
    with closing(opened(way[0])) as engine:
        after = engine.session(NAME)
        assert after is not None
        same = ("id", "desired_state", "current_status", "me_pn", "auth_epoch", "auth_version")
        assert [getattr(after, one) for one in same] == [getattr(before, one) for one in same]
        now = stored_state(engine, after)
        assert (now.creds.serialize(), dict(now.items)) == (state.creds.serialize(), dict(state.items))
        assert engine.moves() == {}
    there = row_of(way[1])
    assert (there.desired_state, there.me_pn, there.lease_holder) == ("retired", None, None)


def test_a_move_that_was_let_go_is_not_given_up(run: Run, way: tuple[str, str]) -> None:
    killed("move.arrived", *way)
    left, there = row_of(way[0]), row_of(way[1])
    assert (left.desired_state, there.desired_state) == ("retired", "down")
    status, code, error = refused(run, *words(way, "--abort")[1:-1])
    assert (status, code) == (1, "move_ended")
    assert "may have run there" in error["message"]
    assert row_of(way[1]).me_pn == there.me_pn
    (document,) = documents(run(*words(way)).stdout)
    assert (document["done"], document["resumed"], document["account"]) == (True, True, None)
    assert (row_of(way[0]).me_pn, row_of(way[1]).me_pn) == (None, there.me_pn)


def test_it_is_told_and_asked_for(run: Run, way: tuple[str, str]) -> None:
    killed("move.departed", *way)
    ask = ("migrate-auth", "--from", way[0], "--to", way[1], "--abort")
    unasked = run(*ask, NAME)
    assert (unasked.exit_code, row_of(way[0]).desired_state) == (2, "retired")
    planned = run(*ask, "--dry-run", NAME)
    assert planned.stdout == f"{NAME}  would be given up: {way[0]} gets its session back\n"
    done = run(*ask, "--yes", NAME)
    assert done.stdout == f"{NAME}  the move is given up: {way[0]} gets its session back\n"
    assert "its name is free" in done.stderr
    assert refused(run, *ask[1:], "--yes")[:2] == (4, "no_move")
    for wrong in (("--to", way[1]), ("--from", way[0], "--to", "baileys-dir:x")):
        assert run("migrate-auth", *wrong, "--abort", NAME).exit_code == 2


def test_a_server_that_is_gone(run: Run, home: Path, account: Path) -> None:
    with running_server() as own:
        way = (f"sqlite:{home / 'one.db'}", own.url(own.database()))
        run("migrate-auth", "--from", str(account), STOPPED, "--to", way[0], NAME)
        killed("move.written", *way)
        own.stop()
        assert refused(run, *words(way)[1:-1])[:2] == (1, "store_unreachable")
        (document,) = documents(run(*words(way, "--abort")).stdout)
        assert (document["done"], document["restored"], document["freed"]) == (True, False, False)
        (warning,) = document["warnings"]
        assert warning["code"] == "destination_unreachable"
        assert row_of(way[0]).desired_state == "down"
        own.start()
        (document,) = documents(run(*words(way, "--abort")).stdout)
        assert document["freed"] is True
        killed("move.departed", *way)
        own.stop()
        status, code, error = refused(run, *words(way, "--abort")[1:-1])
        assert (status, code) == (1, "destination_unreachable")
        assert f"wactl restore-auth --unretire {NAME}" in error["message"]
        assert (row_of(way[0]).desired_state, row_of(way[0]).lease_holder is None) == ("retired", False)
        own.start()
        (document,) = documents(run(*words(way, "--abort")).stdout)
        assert (document["restored"], row_of(way[0]).desired_state) == (True, "down")


def config_of(home: Path, place: str) -> Path:
    """Of a daemon that has this store."""
    where = (
        f'url = "{place}"' if place.startswith("postgres") else f'path = "{place.removeprefix("sqlite:")}"'
    )
    file = home / "store.toml"
    file.write_text(f"[store]\n{where}\n")
    return file


def test_both_stores_say_what_is_the_case(home: Path, way: tuple[str, str]) -> None:
    killed("move.departed", *way)
    for here, there, into in ((way[0], way[1], False), (way[1], way[0], True)):
        with StoreClient.start(config_of(home, here)) as client:
            (listed,) = client.ask("session.list", t.SessionList).sessions
            view = client.ask("session.status", t.SessionView, t.SessionParams(name=NAME))
            assert view.move == listed.move == view.move
            assert view.move is not None
            assert (view.move.store, view.move.into, view.move.given_up) == (there, into, True)
            source, target = (there, "waD") if into else ("waD", there)
            assert view.move.command == f"wactl migrate-auth --from {source} --to {target} {NAME}"
            assert view.move.command in view.hint
            with pytest.raises(Exception, match="--abort"):
                client.call("session.connect", t.SessionParams(name=NAME))
            assert client.ask("session.status", t.SessionView, t.SessionParams(name=NAME)) == view


@pytest.mark.parametrize("lost", ["destination", "source"])
def test_the_other_store_is_lost_for_good(run: Run, home: Path, way: tuple[str, str], lost: str) -> None:
    """The disaster that is named: what is left comes back as an old state, and what was lost never goes on."""
    killed("move.departed", *way)
    here = way[0] if lost == "destination" else way[1]
    config = config_of(home, here)
    unretire = ("restore-auth", "--unretire", NAME, "--config", str(config), "--yes")
    assert run(*unretire).exit_code == 0
    row = row_of(here)
    assert (row.desired_state, row.me_pn is None, row.lease_expires_at) == ("down", False, None)
    with closing(opened(here)) as engine:
        assert engine.moves() == {}
        assert stored_state(engine, row).counts().get("session-own", 0) == 0
    # The other one was not lost after all.
    for more in ((), ("--abort",)):
        result = run(*words(way, *more, "--dry-run"))
        if lost == "source":
            assert error_of(result)["data"]["code"] == "move_incomplete"
    if lost == "source":
        assert row_of(way[0]).desired_state == "retired"
    else:
        assert run(*words(way, "--abort")).exit_code == 0
        assert row_of(way[1]).me_pn is None
    assert row_of(here).me_pn == row.me_pn


def test_a_session_that_was_never_given_up_is_not_brought_back_elsewhere(
    run: Run, home: Path, way: tuple[str, str]
) -> None:
    killed("move.restored", *way)
    unretire = (
        "restore-auth",
        "--unretire",
        NAME,
        "--config",
        str(config_of(home, way[1])),
        "--yes",
        "--json",
    )
    error = error_of(run(*unretire))
    assert error["exit"] == t.EXIT_STATE
    assert "--abort" in error["message"]
    assert row_of(way[1]).desired_state == "retired"


# --------------------------------------------------------------------------------------- what does not work is told


def test_databases_that_cannot_be_used(run: Run, home: Path, account: Path, server: Server) -> None:
    file = f"sqlite:{home / 'one.db'}"
    run("migrate-auth", "--from", str(account), STOPPED, "--to", file, NAME)
    before = row_of(file)
    name = server.database()
    newer = server.url(server.database())
    run("migrate-auth", "--from", newer, "--to", file, "--dry-run", "nobody")
    server.admin("UPDATE wa_schema_migrations SET version=999 WHERE version=1", newer.rpartition("/")[2])
    server.admin("CREATE ROLE guest LOGIN PASSWORD 'right'")
    os.environ["PGPASSWORD"] = "wrong-one"
    try:
        cases: list[tuple[str, int, str, str]] = [
            ("postgresql://wad@127.0.0.1:99999/x", 2, "url_invalid", "the URL makes no sense"),
            ("postgresql://wad@127.0.0.1/x?nonsense=1", 2, "url_invalid", "the URL makes no sense"),
            ("postgresql://wad@no.such.host.invalid/x", 7, "store_forbidden", "no.such.host.invalid"),
            (server.url(name, user="guest"), 7, "store_forbidden", "password authentication failed"),
            (server.url("nothing_there"), 7, "store_forbidden", "does not exist"),
            (server.url(name, port=free_port()), 1, "store_unreachable", "look whether the server runs"),
            (newer, 1, "store_too_new", "schema version 999"),
        ]
        for url, status, code, text in cases:
            for words_ in (("--from", url, "--to", file), ("--from", file, "--to", url)):
                found = refused(run, *words_, "--yes")
                assert found[:2] == (status, code), url
                assert text in found[2]["message"]
                assert "wrong-one" not in str(found[2])
    finally:
        del os.environ["PGPASSWORD"]
    assert row_of(file) == before
    assert server.admin("SELECT count(*) FROM pg_tables WHERE tablename LIKE 'wa\\_%'", name) == [(0,)]


def test_a_source_that_is_read_only(run: Run, home: Path, account: Path, server: Server) -> None:
    name = server.database()
    url = server.url(name)
    run("migrate-auth", "--from", str(account), STOPPED, "--to", url, NAME)
    before = row_of(url)
    server.admin(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    target = home / "two.db"
    status, code, error = refused(run, "--from", url, "--to", f"sqlite:{target}", "--yes")
    assert (status, code) == (1, "store_read_only")
    assert "default_transaction_read_only" in error["message"]
    server.admin(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    assert row_of(url) == before
    # A plan changes nothing, and so needs no more than to read.
    assert not target.exists() or opened(f"sqlite:{target}").sessions(True) == []


def test_a_source_that_a_daemon_runs_on_a_server(run: Run, home: Path, account: Path, server: Server) -> None:
    url = server.url(server.database())
    run("migrate-auth", "--from", str(account), STOPPED, "--to", url, NAME)
    target = home / "two.db"
    with closing(opened(url)) as engine:
        do(engine, Attach(row_of(url).id, "waD on mars", 3_600_000))
        before = row_of(url)
        status, code, error = refused(run, "--from", url, "--to", f"sqlite:{target}", "--yes")
        assert (status, code) == (1, "session_in_use")
        assert "waD on mars" in error["message"]
        assert row_of(url) == before
    with closing(opened(f"sqlite:{target}")) as made:
        assert made.sessions(True) == []


def test_a_destination_is_not_made_for_what_is_refused(run: Run, home: Path, account: Path) -> None:
    run("migrate-auth", "--from", str(account), STOPPED, NAME)
    target = home / "deep" / "two.db"
    assert refused(run, "--from", "waD", "--to", f"sqlite:{target}", "--yes", name="nobody")[0] == 4
    assert not target.parent.exists()
    assert stored(database(home))[0].desired_state == "down"


def test_a_file_is_the_same_from_everywhere(run: Run, home: Path, account: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(home)
    run("migrate-auth", "--from", str(account), STOPPED, "--to", "sqlite:one.db", NAME)
    killed("move.departed", f"sqlite:{home}/one.db", f"sqlite:{home}/two.db")
    (home / "sub").mkdir()
    monkeypatch.chdir(home / "sub")
    result = run("migrate-auth", "--from", "sqlite:../one.db", "--to", "sqlite:../two.db", "--yes", NAME)
    assert "the move that was interrupted has ended" in result.stdout


@pytest.mark.skipif(os.getuid() != 0, reason="who is not root makes a file read-only by its mode alone")
def test_a_file_that_may_only_be_read(run: Run, account: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        file = place / "one.db"
        run("migrate-auth", "--from", str(account), STOPPED, "--to", f"sqlite:{file}", NAME)
        for one in (place, *place.iterdir()):
            one.chmod(0o755 if one == place else 0o444)
        (place / "one.db.lock").chmod(0o666)
        (place / "one.db.kek").chmod(0o400)
        os.chown(place / "one.db.kek", nobody.pw_uid, nobody.pw_gid)
        before = {one.name: one.read_bytes() for one in place.iterdir()}
        program = f"""
import os
import waD.store.sqlite.engine
from waD.migrate import main
os.setgroups([]); os.setgid({nobody.pw_gid}); os.setuid({nobody.pw_uid})
main(["move", "sqlite:{file}", "sqlite:{place}/two.db", "{NAME}"])
"""
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=False)
        (document,) = documents(done.stdout)
        assert (done.returncode, document["refused"]["code"]) == (t.EXIT_NOT_PERMITTED, "store_forbidden")
        assert f"{file} cannot be opened" in document["refused"]["detail"]
        after = {one.name: one.read_bytes() for one in place.iterdir()}
        assert {**after, "one.db.lock": b""} == {**before, "one.db.lock": b""}
