"""`wactl` in this process, or as a process of its own, against a fake daemon."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from tests.store.postgres_server import Server, running_server
from tests.transfer.baileys import samples
from tests.transfer.whatsmeow.databases import original
from tests.wactl.fake import FakeDaemon
from wactl.cli import cli

ROOT = Path(__file__).resolve().parents[2]
TIMEZONE = "UTC"

Run = Callable[..., Result]
Spawn = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "WAD_SOCKET",
        "WAD_SANDBOX_URL",
        "XDG_RUNTIME_DIR",
        "RUNTIME_DIRECTORY",
        "NO_COLOR",
        "FORCE_COLOR",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("TZ", TIMEZONE)
    time.tzset()


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    fake = FakeDaemon(tmp_path / "c.sock")
    monkeypatch.setenv("WAD_SOCKET", str(fake.path))
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture
def run() -> Run:
    """Run a command line in this process."""

    def invoke(*words: str, stdin: str | bytes | None = None) -> Result:
        result = CliRunner().invoke(cli, list(words), input=stdin, prog_name="wactl")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Start `wactl` as a process; what is left at the end of the test is killed."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: str, **settings: Any) -> subprocess.Popen[bytes]:
        defaults: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "cwd": ROOT,
            "env": dict(os.environ),
        }
        process = subprocess.Popen([sys.executable, "-m", "wactl", *words], **(defaults | settings))
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without a daemon, and without a store."""
    (tmp_path / "run").mkdir(mode=0o700)
    for name, place in (("STATE_HOME", "state"), ("CONFIG_HOME", "config"), ("RUNTIME_DIR", "run")):
        monkeypatch.setenv(f"XDG_{name}", str(tmp_path / place))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


@pytest.fixture
def account(tmp_path: Path) -> Path:
    path = tmp_path / "auth"
    path.mkdir()
    return samples.write(path, samples.files())


@pytest.fixture
def whatsmeow(tmp_path: Path) -> Path:
    path = tmp_path / "main.db"
    path.write_bytes(original())
    os.utime(path, (samples.NOW_MS // 1000 - 86_400,) * 2)
    return path


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with running_server() as started:
        yield started


def documents(text: str | bytes) -> list[Any]:
    """JSON documents, one a line."""
    lines = text.encode() if isinstance(text, str) else text
    return [msgspec.json.decode(line) for line in lines.splitlines()]


def error_of(result: Result) -> dict[str, Any]:
    """The one JSON object on stderr."""
    (error,) = documents(result.stderr)
    assert set(error) == {"symbol", "code", "message", "exit", "data"}
    assert error["exit"] == result.exit_code
    found: dict[str, Any] = error
    return found
