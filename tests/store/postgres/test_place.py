"""Where the server is, and the password for it."""

from __future__ import annotations

import logging
import os
import time
import traceback
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from tests.store.postgres.helpers import opened
from tests.store.postgres_server import Server, free_port
from waD.store.errors import (
    StorageUnavailable,
    StoreForbidden,
)
from waD.store.postgres.place import Place, read_password
from waD.store.postgres.settings import CREDENTIAL, PostgresSettings, password_credential

SECRET = "s3cret-Passw0rd"


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
