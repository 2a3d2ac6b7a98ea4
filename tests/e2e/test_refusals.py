"""Starts that a person has to mend: exit status 2, a message that names the file and the remedy, nothing changed."""

from __future__ import annotations

import ctypes
import hashlib
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.e2e.daemon import Daemon
from waD.store.engine import CreateSession, UpdateSession
from waD.store.model import SessionRow
from waD.store.sqlite.engine import SqliteEngine

END_S = 30.0
PR_CAPBSET_DROP = 24
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2


class Place(Daemon):
    """A daemon that needs no network: it has no session."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.socket = directory / "run" / "waD" / "control.sock"
        self.log = directory / "log"
        self.config = directory / "waD.toml"
        self.config.write_text("[daemon]\nstop_timeout = 1\n")
        self.process: trio.Process | None = None
        self.database.parent.mkdir(parents=True, mode=0o700)

    @property
    def database(self) -> Path:
        return self.directory / "state" / "waD" / "waD.db"

    def make_database(self, session: str | None = None) -> None:
        engine = SqliteEngine(self.database)
        if session is not None:
            (row,) = engine.write([CreateSession(session)])
            assert isinstance(row, SessionRow)
            engine.write([UpdateSession(row.id, {"desired_state": "up"})])
        engine.close()

    def session(self, name: str) -> SessionRow:
        engine = SqliteEngine(self.database)
        row = engine.session(name)
        engine.close()
        assert row is not None
        return row

    def contents(self) -> dict[str, str]:
        """A hash of every file. Locks say who looked last, and a look leaves an index of the write-ahead log."""
        return {
            str(path.relative_to(self.directory)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.directory.rglob("*"))
            if path.is_file() and path != self.log and not path.name.endswith((".lock", "-shm"))
            if path == self.database or path.stat().st_size
        }

    async def refused(self, **options: object) -> str:
        """Run a start that is refused; returns what it says."""
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "waD", "--config", str(self.config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.environment,
            **options,
        )
        said = b""
        assert process.stdout is not None
        with trio.fail_after(END_S):
            async for chunk in process.stdout:
                said += chunk
            status = await process.wait()
        text = said.decode()
        assert status == 2, text
        assert "Traceback" not in text
        return text


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "one")


@asynccontextmanager
async def alive(place: Place) -> AsyncIterator[int]:
    """A running daemon; gives its process id."""
    await place.start()
    assert place.process is not None
    try:
        yield place.process.pid
    finally:
        with trio.CancelScope(shield=True):
            place.process.kill()
            await place.process.wait()


def overwrite(place: Place, offset: int, data: bytes) -> None:
    with place.database.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def scribbled(place: Place) -> None:
    place.make_database()
    overwrite(place, 0, b"no header at all")


def torn(place: Place) -> None:
    """A page in the middle is not what it was, as after a failing disk."""
    place.make_database()
    overwrite(place, 4096 * 3, os.urandom(4096 * 4))


def cut(place: Place) -> None:
    place.make_database()
    with place.database.open("r+b") as file:
        file.truncate(4096 * 5)


def empty(place: Place) -> None:
    place.database.touch(0o600)


def text_file(place: Place) -> None:
    place.database.write_text("dear diary,\n" * 1000)


DAMAGE: list[tuple[Callable[[Place], None], str]] = [
    (scribbled, "restore a backup"),
    (torn, "restore a backup"),
    (cut, "restore a backup"),
    (empty, "restore it from a backup"),
    (text_file, "restore a backup"),
]


@pytest.mark.parametrize(("damage", "remedy"), DAMAGE, ids=[damage.__name__ for damage, _ in DAMAGE])
async def test_a_damaged_database(place: Place, damage: Callable[[Place], None], remedy: str) -> None:
    damage(place)
    before = place.contents()
    said = await place.refused()
    assert str(place.database) in said
    assert remedy in said
    assert place.contents() == before
    assert not place.socket.exists()


async def test_a_database_of_a_newer_program(place: Place) -> None:
    place.make_database()
    with sqlite3.connect(place.database) as db:
        db.execute("INSERT INTO wa_schema_migrations VALUES (99, 'later', x'00', 0)")
    db.close()
    before = place.contents()
    said = await place.refused()
    assert f"{place.database} has schema version 99" in said
    assert "install the newer program" in said
    assert place.contents() == before


async def test_a_database_of_another_program_is_not_touched(place: Place) -> None:
    with sqlite3.connect(place.database) as db:
        db.execute("CREATE TABLE bookmarks (url TEXT)")
    db.close()
    before = place.contents()
    said = await place.refused()
    assert f"{place.database} is a database of another program" in said
    assert place.contents() == before


async def test_a_database_that_another_daemon_uses(tmp_path: Path, place: Place) -> None:
    async with alive(place) as pid:
        second = Place(tmp_path / "two")
        second.config.write_text(f'[store]\npath = "{place.database}"\n')
        said = await second.refused()
        assert f"{place.database} is in use by pid {pid}" in said
        assert "stop that process" in said
        assert await place.call("daemon.ping")
        assert not second.socket.exists()


async def test_a_socket_that_another_daemon_uses(tmp_path: Path, place: Place) -> None:
    async with alive(place) as pid:
        second = Place(tmp_path / "two")
        second.config.write_text(f'[control]\npath = "{place.socket}"\n')
        second.make_database(session="wanted")
        said = await second.refused()
        assert second.session("wanted").lease_token == 0  # nothing was begun for it
        assert f"process {pid} already listens on {place.socket}" in said
        assert "stop it first" in said
        assert (await place.call("daemon.ping"))["pid"] == pid


async def test_a_dead_daemons_socket_is_no_obstacle(place: Place) -> None:
    place.socket.parent.mkdir(parents=True, mode=0o700)
    (place.directory / "run").chmod(0o700)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(place.socket))
    async with alive(place) as pid:
        assert (await place.call("daemon.ping"))["pid"] == pid


async def test_a_file_in_the_place_of_the_socket_stays(place: Place) -> None:
    place.socket.parent.mkdir(parents=True, mode=0o700)
    place.socket.write_text("mine")
    said = await place.refused()
    assert f"{place.socket} exists and is not a socket" in said
    assert place.socket.read_text() == "mine"


def give_up_rootly_powers() -> None:
    """In the new process, before its program: even root has to keep to the permissions of files."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")


async def test_a_database_that_may_not_be_read(place: Place) -> None:
    place.make_database()
    before = place.contents()
    place.database.chmod(0)
    options = {"preexec_fn": give_up_rootly_powers} if os.getuid() == 0 else {}
    said = await place.refused(**options)
    assert f"{place.database} cannot be opened: Permission denied" in said
    assert "must own it" in said
    place.database.chmod(0o600)
    assert place.contents() == before


async def test_a_directory_in_the_place_of_the_database(place: Place) -> None:
    place.database.mkdir()
    said = await place.refused()
    assert f"{place.database} cannot be opened: Is a directory" in said


CONFIGS = [
    ("[reconnect]\nbase = 'soon'\n", "waD.toml:2: reconnect.base"),
    ("[reconect]\nbase = 5\n", "waD.toml:1: reconect"),
    ("[reconnect\n", "waD.toml:1"),
    ('[reconnect.on]\ndns = "repair"\n', "waD.toml:2: reconnect.on.dns"),
    ('[control.roles]\nadmin = ["nobody-of-that-name"]\n', "nobody-of-that-name"),
    ('[control]\ngroup = "no-such-group"\n', "no-such-group"),
]


@pytest.mark.parametrize(("text", "named"), CONFIGS)
async def test_a_faulty_configuration(place: Place, text: str, named: str) -> None:
    place.config.write_text(text)
    before = place.contents()
    assert named in await place.refused()
    assert {name for name in place.contents() if not name.endswith((".db", "-wal", "-shm", ".kek"))} == set(
        before
    )


async def test_all_faults_of_a_configuration_are_told_at_once(place: Place) -> None:
    place.config.write_text("[reconnect]\nbase = 'soon'\nattempts = 0\n[alerts]\nreconnects = -1\n")
    said = await place.refused()
    for line in (
        "waD.toml:2: reconnect.base",
        "waD.toml:3: reconnect.attempts",
        "waD.toml:5: alerts.reconnects",
    ):
        assert line in said


async def test_a_configuration_that_is_not_there(place: Place) -> None:
    place.config.unlink()
    assert str(place.config) in await place.refused()


@pytest.mark.parametrize(
    ("text", "status", "says"),
    [
        ("[reconnect]\nbase = 1000\n", 0, "the configuration is valid"),
        ("[reconnect]\nbase = 'soon'\n", 2, "waD.toml:2: reconnect.base"),
        ('[control.roles]\nadmin = ["nobody-of-that-name"]\n', 2, "nobody-of-that-name"),
    ],
)
async def test_check_config_says_so_and_starts_nothing(
    place: Place, text: str, status: int, says: str
) -> None:
    place.config.write_text(text)
    before = place.contents()
    done = await trio.run_process(
        [sys.executable, "-m", "waD", "--check-config", "--config", str(place.config)],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env=place.environment,
    )
    assert done.returncode == status
    assert says in (done.stdout + done.stderr).decode()
    assert place.contents() == before
