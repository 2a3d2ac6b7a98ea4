"""wactl migrate-auth and the keys of stores that are encrypted (chapter 08 §8)."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.store.postgres_server import Server
from tests.wactl.conftest import Run, documents
from tests.wactl.stores import refused
from waD.store.opening import open_engine
from waD.store.postgres.settings import PostgresSettings
from waD.store.store import StoreSettings
from waD.transfer.migrating.opening import PARTS
from waD.transfer.migrating.stores import stored_state

STOPPED = "--i-stopped-it"
NAME = "alerts"


@pytest.fixture
def key(home: Path) -> Path:
    return made(home / "keys" / "own", 1)


def made(path: Path, byte: int) -> Path:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_bytes(bytes([byte]) * 32)
    path.chmod(0o400)
    return path


@pytest.fixture
def url(run: Run, account: Path, server: Server, key: Path) -> str:
    """A server's database with the session, encrypted."""
    place = server.url(server.database())
    words = ("--from", str(account), STOPPED, "--to", place, "--to-kek-file", str(key), "--json")
    (document,) = documents(run("migrate-auth", *words, NAME).stdout)
    assert document["done"]
    assert kek_of(place) == "main"
    return place


def kek_of(place: str, name: str = NAME) -> str | None:
    """What the session is encrypted with; nothing is opened."""
    settings = (
        StoreSettings(path=Path("unused"), postgres=PostgresSettings(url=place), legacy=True, encrypt=False)
        if place.startswith("postgres")
        else StoreSettings(path=Path(place.removeprefix("sqlite:")), encrypt=False)
    )
    with closing(open_engine(settings, PARTS)) as engine:
        row = engine.session(name)
        assert row is not None
        return row.kek_id


def test_there_and_back_with_a_key(run: Run, home: Path, url: str, key: Path) -> None:
    file = f"sqlite:{home / 'x.db'}"
    (document,) = documents(
        run(
            "migrate-auth", "--from", url, "--from-kek-file", str(key), "--to", file, "--yes", "--json", NAME
        ).stdout
    )
    assert (document["done"], kek_of(file)) == (True, "main")
    assert (home / "x.db.kek").exists()
    second = made(home / "keys" / "second", 9)
    (document,) = documents(
        run(
            "migrate-auth", "--from", file, "--to", url, "--to-kek-file", str(second), "--yes", "--json", NAME
        ).stdout
    )
    assert (document["done"], kek_of(url)) == (True, "main")
    settings = StoreSettings(
        path=Path("unused"), postgres=PostgresSettings(url=url), legacy=True, kek_file=second
    )
    with closing(open_engine(settings, PARTS)) as engine:
        row = engine.session(NAME)
        assert row is not None
        assert stored_state(engine, row).counts() == document["counts"]


def test_a_source_whose_key_is_missing_or_another(run: Run, home: Path, url: str, key: Path) -> None:
    move = ("--from", url, "--to", f"sqlite:{home / 'x.db'}", "--yes")
    wrong = made(home / "keys" / "wrong", 2)
    for words, code in (((), "key_missing"), (("--from-kek-file", str(wrong)), "key_wrong")):
        for more in ((), ("--dry-run",)):
            status, found, error = refused(run, *move, *words, *more)
            assert (status, found) == (1, code)
            assert "--from-kek-file" in error["message"]
            assert f"session '{NAME}' in postgresql://" in error["message"]
    out = ("--from", url, "--to", f"baileys-dir:{home / 'out'}")
    assert refused(run, *out)[1] == "key_missing"
    assert not (home / "x.db").exists()
    assert not (home / "out").exists()
    assert run("migrate-auth", *out, "--from-kek-file", str(key), NAME).exit_code == 0


def test_a_destination_whose_key_is_missing_or_another(
    run: Run, home: Path, url: str, key: Path, whatsmeow: Path
) -> None:
    """Beside sessions that are encrypted none comes to lie in the clear, or under a key that nobody has there."""
    source = ("--from", str(whatsmeow), STOPPED, "--to", url)
    wrong = made(home / "keys" / "wrong", 2)
    for words, code in (((), "key_missing"), (("--to-kek-file", str(wrong)), "key_wrong")):
        status, found, error = refused(run, *source, *words, name="second")
        assert (status, found) == (1, code)
        assert "--to-kek-file" in error["message"]
    settings = StoreSettings(
        path=Path("unused"), postgres=PostgresSettings(url=url), legacy=True, encrypt=False
    )
    with closing(open_engine(settings, PARTS)) as engine:
        assert engine.session("second") is None
    words = ("migrate-auth", *source, "--to-kek-file", str(key))
    assert run(*words, "--dry-run", "second").exit_code == 0
    assert run(*words, "second").exit_code == 0
    assert kek_of(url, "second") == "main"


def test_files_that_are_no_keys(run: Run, home: Path, url: str, key: Path) -> None:
    move = ("--from", url, "--to", f"sqlite:{home / 'x.db'}", "--yes")
    loose = made(home / "keys" / "loose", 1)
    loose.chmod(0o644)
    short = made(home / "keys" / "short", 1)
    short.chmod(0o600)
    short.write_text("geheim")
    shared = home / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    open_place = made(shared / "key", 1)
    for file, text in (
        (loose, "permissions 0644"),
        (short, "holds no key"),
        (open_place, "everybody may replace it"),
        (home / "nothing", "there is no key at"),
    ):
        status, code, error = refused(run, *move, "--from-kek-file", str(file))
        assert (status, code) == (1, "key_unusable")
        assert "--from-kek-file: " in error["message"]
        assert text in error["message"]
        assert "geheim" not in str(error)
    assert not (home / "x.db").exists()


def test_a_key_is_that_of_a_store_that_is_named(run: Run, key: Path, account: Path) -> None:
    for words in (
        ("--from", "waD", "--from-kek-file", str(key), "--to", "sqlite:x.db"),
        ("--from", "sqlite:x.db", "--to", "waD", "--to-kek-file", str(key)),
        ("--from", str(account), "--from-kek-file", str(key), "--to", "sqlite:x.db"),
        ("--from", "sqlite:x.db", "--to", "baileys-dir:x", "--to-kek-file", str(key)),
    ):
        result = run("migrate-auth", *words, NAME)
        assert result.exit_code == 2, words
        assert "named by a path or a URL" in result.stderr


def test_the_credential_opens_what_is_encrypted(
    run: Run, home: Path, url: str, key: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = home / "credentials"
    credentials.mkdir(mode=0o700)
    made(credentials / "wad-kek", 1)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    clear = server.url(server.database())
    move: Any = ("migrate-auth", "--from", url, "--to", clear, "--yes", "--json", NAME)
    (document,) = documents(run(*move).stdout)
    # Who uses that database may not have the key: nothing there was encrypted with it.
    assert (document["done"], kek_of(clear)) == (True, None)
    file = f"sqlite:{home / 'x.db'}"
    run("migrate-auth", "--from", clear, "--to", file, "--yes", NAME)
    assert (kek_of(file), (home / "x.db.kek").exists()) == ("main", True)
    assert (home / "x.db.kek").read_bytes() != key.read_bytes()


def test_the_credential_goes_on_where_sessions_are_encrypted(
    run: Run, home: Path, url: str, key: Path, whatsmeow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = home / "credentials"
    credentials.mkdir(mode=0o700)
    made(credentials / "wad-kek", 1)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    assert run("migrate-auth", "--from", str(whatsmeow), STOPPED, "--to", url, "second").exit_code == 0
    assert kek_of(url, "second") == "main"


def test_giving_up_needs_the_key_of_what_it_clears(
    run: Run, home: Path, account: Path, server: Server, key: Path, url: str
) -> None:
    from tests.wactl.test_moving import killed, row_of

    file = f"sqlite:{home / 'one.db'}"
    run("migrate-auth", "--from", url, "--from-kek-file", str(key), "--to", file, "--yes", NAME)
    place = server.url(server.database())
    killed("move.departed", f"--to-kek-file={key}", file, place)
    abort = ("--from", file, "--to", place, "--abort", "--yes")
    status, code, error = refused(run, *abort)
    assert (status, code) == (1, "key_missing")
    assert "--to-kek-file" in error["message"]
    assert row_of(file).desired_state == "retired"
    assert run("migrate-auth", *abort, "--to-kek-file", str(key), NAME).exit_code == 0
    assert row_of(file).desired_state == "down"
