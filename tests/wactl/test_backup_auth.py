"""wactl backup-auth: what it asks of the daemon, what it leaves on the disk, and what it says."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.wactl.conftest import Run, Spawn, documents, error_of
from tests.wactl.fake import ID, Connection, FakeDaemon, hang_up, refusal, view
from tests.wactl.test_terminal import Terminal, on, terminal  # noqa: F401 - a fixture
from waD.control import types as t

FILE = "6c1f0a52e9d84b7395ab0c1d2e3f4a5b"
DATA = bytes(range(256)) * 2100
NAME = "alerts-20260101T030000Z-v41.wadbackup.age"
TO = ("--recipient", "age1one")


class Vault:
    """A daemon that makes one archive, of these bytes."""

    def __init__(self, daemon: FakeDaemon, data: bytes = DATA) -> None:
        self.daemon = daemon
        self.data = data
        self.sound = True
        daemon.script |= {
            "auth.backup": self._backup,
            "auth.fetch": self._fetch,
            "auth.discard": t.Done(),
            "session.list": t.SessionList(
                sessions=[view(paired=True), view("new", name="fresh"), view(name="shop", paired=True)]
            ),
        }

    def made(self, name: str = "alerts") -> t.BackupResult:
        errors = [] if self.sound else [t.NoteView(code="session_invalid", item="session/1.0", detail="no")]
        return t.BackupResult(
            id=FILE,
            name=name,
            connection_id=ID,
            file_name=NAME.replace("alerts", name),
            size=len(self.data),
            sha256=hashlib.sha256(DATA).hexdigest(),
            created_at=1_767_236_400_000,
            epoch=1,
            version=41,
            verdict=t.Verdict(level=2, ok=self.sound, errors=errors),
        )

    def _backup(self, connection: Connection, request: dict[str, Any]) -> None:
        connection.answer(request, self.made(request["params"]["name"]))

    def _fetch(self, connection: Connection, request: dict[str, Any]) -> None:
        at = request["params"]["offset"]
        part = self.data[at : at + t.MAX_PART]
        connection.answer(request, t.Part(data=part, end=at + len(part) >= len(self.data)))


@pytest.fixture
def vault(daemon: FakeDaemon) -> Vault:
    return Vault(daemon)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.mkdir()
    return path


def test_into_a_directory(vault: Vault, run: Run, out: Path) -> None:
    result = run("backup-auth", "alerts", *TO, "--recipient", "age1two", "-o", str(out))
    path = out / NAME
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"alerts  {path}  {len(DATA)} bytes, verified\n"
    assert path.read_bytes() == DATA
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [*out.iterdir()] == [path]
    assert vault.daemon.params("auth.backup")["recipients"] == ["age1one", "age1two"]
    assert vault.daemon.params("auth.backup")["passphrase"] is None
    assert vault.daemon.params("auth.discard") == {"id": FILE, "kept": True}
    assert vault.daemon.methods() == ["auth.backup", *["auth.fetch"] * 3, "auth.discard"]


def test_into_a_file_of_that_name(vault: Vault, run: Run, out: Path) -> None:
    result = run("backup-auth", "alerts", *TO, "-o", str(out / "mine.age"), "--json")
    (document,) = documents(result.stdout)
    assert document["file"] == str(out / "mine.age")
    assert (document["name"], document["sha256"]) == ("alerts", hashlib.sha256(DATA).hexdigest())
    assert (document["verdict"]["ok"], document["removed"]) == (True, [])
    assert [path.name for path in out.iterdir()] == ["mine.age"]


def test_through_a_pipe(vault: Vault, spawn: Spawn, out: Path) -> None:
    process = spawn(
        "backup-auth", "alerts", *TO, "-o", "-", cwd=out, env=os.environ | {"PYTHONPATH": os.getcwd()}
    )
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout, stderr) == (0, DATA, b"")
    assert [*out.iterdir()] == []


def test_what_goes_with_it(vault: Vault, run: Run, out: Path) -> None:
    words = ("--with-outbox", "--with-history", "--compress", "--quiet")
    result = run("backup-auth", "alerts", *TO, "-o", str(out), *words)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    params = vault.daemon.params("auth.backup")
    assert [params[name] for name in ("outbox", "history", "compress", "final")] == [True, True, True, False]


def test_a_passphrase_from_a_file_is_in_no_argument(vault: Vault, run: Run, out: Path) -> None:
    secret = out.parent / "secret"
    secret.write_text("tell nobody\n")
    secret.chmod(0o600)
    assert run("backup-auth", "alerts", "--passphrase-file", str(secret), "-o", str(out)).exit_code == 0
    params = vault.daemon.params("auth.backup")
    assert (params["passphrase"], params["recipients"]) == ("tell nobody", [])


def test_a_passphrase_that_is_asked_for_is_not_shown(
    vault: Vault,
    spawn: Spawn,
    terminal: Terminal,  # noqa: F811
    out: Path,
) -> None:
    words = ("backup-auth", "alerts", "-o", str(out))
    process = spawn(*words, **(on(terminal) | {"stdout": subprocess.PIPE, "start_new_session": True}))
    terminal.read_until("Passphrase of the backup")
    terminal.type("tell nobody\n")
    terminal.read_until("Repeat for confirmation")
    terminal.type("tell nobody\n")
    process.communicate(timeout=60)
    assert (process.returncode, vault.daemon.params("auth.backup")["passphrase"]) == (0, "tell nobody")
    assert "tell nobody" not in terminal.text


@pytest.mark.parametrize(
    ("content", "mode", "word"),
    [
        (b"", 0o600, "one line"),
        (b"a\nb\n", 0o600, "one line"),
        (b"\xff", 0o600, "UTF-8"),
        (b"x", 0o640, "chmod 600"),
    ],
)
def test_files_that_are_not_fit_for_a_passphrase(
    vault: Vault, run: Run, out: Path, content: bytes, mode: int, word: str
) -> None:
    secret = out.parent / "secret"
    secret.write_bytes(content)
    secret.chmod(mode)
    result = run("backup-auth", "alerts", "--passphrase-file", str(secret), "-o", str(out))
    assert (result.exit_code, result.stdout) == (2, "")
    assert word in result.stderr
    assert vault.daemon.requests == []


def test_damage_is_told_and_the_file_stays(vault: Vault, run: Run, out: Path) -> None:
    """Old ones are not removed for the sake of one that would not work."""
    vault.sound = False
    old = out / "alerts-20200101T030000Z-v1.wadbackup.age"
    old.write_bytes(b"old")
    result = run("backup-auth", "alerts", *TO, "-o", str(out), "--keep", "1d")
    assert (result.exit_code, result.stdout) == (6, "")
    assert "error: session_invalid session/1.0: no" in result.stderr
    assert f"DAMAGED, this backup would not work: {out / NAME}" in result.stderr
    assert {*out.iterdir()} == {out / NAME, old}


def test_all_and_one_of_them_fails(vault: Vault, run: Run, out: Path) -> None:
    def backup(connection: Connection, request: dict[str, Any]) -> None:
        name = request["params"]["name"]
        connection.answer(request, refusal("damaged", "it is") if name == "alerts" else vault.made(name))

    vault.daemon.script["auth.backup"] = backup
    result = run("backup-auth", "--all", *TO, "-o", str(out))
    assert (result.exit_code, result.stderr) == (6, "wactl: alerts: it is\n")
    assert result.stdout.startswith("shop  ")
    assert [path.name for path in out.iterdir()] == [NAME.replace("alerts", "shop")]


def test_old_ones_of_the_same_session_go(vault: Vault, run: Run, out: Path) -> None:
    old = [f"alerts-2020010{day}T030000Z-v1.wadbackup.age" for day in range(1, 5)]
    others = ["shop-20200101T030000Z-v1.wadbackup.age", "notes.age", ".wadbackup-x.part"]
    for name in (*old, *others):
        (out / name).write_bytes(b"x")
    result = run("backup-auth", "alerts", *TO, "-o", str(out), "--keep", "2d", "--json")
    (document,) = documents(result.stdout)
    assert document["removed"] == old[:3]
    assert {path.name for path in out.iterdir()} == {NAME, old[3], *others}


def test_a_file_that_is_there_is_never_replaced(vault: Vault, run: Run, out: Path) -> None:
    (out / NAME).write_bytes(b"precious")
    result = run("backup-auth", "alerts", *TO, "-o", str(out))
    assert (result.exit_code, (out / NAME).read_bytes()) == (1, b"precious")
    assert "is there already" in result.stderr
    assert [path.name for path in out.iterdir()] == [NAME]


@pytest.mark.parametrize("data", [DATA[:-1], DATA + b"x", b"x" + DATA[1:], b""])
def test_what_comes_is_not_what_was_made(vault: Vault, run: Run, out: Path, data: bytes) -> None:
    vault.data = data
    made = vault.made
    size = len(DATA)
    vault.daemon.script["auth.backup"] = t.BackupResult(
        **{name: getattr(made(), name) for name in made().__struct_fields__} | {"size": size}
    )
    result = run("backup-auth", "alerts", *TO, "-o", str(out))
    assert (result.exit_code, result.stdout) == (6, "")
    assert [*out.iterdir()] == []
    assert vault.daemon.params("auth.discard")["kept"] is False


def test_a_daemon_that_dies_while_it_is_fetched(vault: Vault, run: Run, out: Path) -> None:
    vault.daemon.script["auth.fetch"] = hang_up
    result = run("backup-auth", "alerts", *TO, "-o", str(out))
    assert (result.exit_code, [*out.iterdir()]) == (3, [])


def test_a_move_whose_archive_is_lost_can_be_called_off(vault: Vault, run: Run, out: Path) -> None:
    vault.daemon.script["auth.fetch"] = hang_up
    result = run("backup-auth", "alerts", *TO, "-o", str(out), "--final", "--yes")
    assert result.exit_code == 3
    assert "wactl restore-auth --unretire alerts" in result.stderr
    assert vault.daemon.params("auth.backup")["final"] is True


def test_nothing_is_retired_for_a_file_that_cannot_be_made(vault: Vault, run: Run, out: Path) -> None:
    if os.geteuid() == 0:
        target = "/proc/backup"  # root may write everywhere else
    else:
        out.chmod(0o500)
        target = str(out)
    result = run("backup-auth", "alerts", *TO, "-o", os.path.dirname(target), "--final", "--yes")
    assert result.exit_code == 1
    assert "cannot write" in result.stderr
    assert "auth.backup" not in vault.daemon.methods()


def test_a_move_asks_first(vault: Vault, run: Run, out: Path) -> None:
    result = run("backup-auth", "alerts", *TO, "-o", str(out), "--final")
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert vault.daemon.requests == []


def test_errors_of_the_daemon(vault: Vault, run: Run, out: Path) -> None:
    for symbol, status in (("no_such_session", 4), ("not_permitted", 7), ("damaged", 6), ("bad_params", 2)):
        vault.daemon.script["auth.backup"] = refusal(symbol)  # type: ignore[arg-type]
        result = run("backup-auth", "alerts", *TO, "-o", str(out), "--json")
        assert error_of(result)["symbol"] == symbol
        assert result.exit_code == status
        assert [*out.iterdir()] == []


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--all", "alerts", *TO),
        ("alerts",),
        ("alerts", *TO, "--passphrase-file", "x"),
        ("--all", *TO, "--final", "--yes"),
        ("--all", *TO, "-o", "nowhere"),
        ("--all", *TO, "-o", "-"),
        ("alerts", *TO, "-o", "nowhere"),
        ("alerts", *TO, "-o", "nowhere.age", "--keep", "7d"),
        ("alerts", *TO, "--keep", "7x"),
        ("alerts", *TO, "--keep", "0d"),
    ],
)
def test_wrong_usage(vault: Vault, run: Run, words: tuple[str, ...]) -> None:
    result = run("backup-auth", *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert vault.daemon.requests == []


def test_no_daemon_where_one_was_named(run: Run, out: Path) -> None:
    """The store of another daemon would be the wrong one."""
    result = run("backup-auth", "alerts", *TO, "-o", str(out), "--socket", str(out / "no.sock"))
    assert result.exit_code == 3
    assert "no daemon at" in result.stderr


def test_the_store_of_a_configuration_that_is_wrong(run: Run, out: Path) -> None:
    config = out.parent / "waD.toml"
    config.write_text("[store]\npath = 7\n")
    result = run("backup-auth", "alerts", *TO, "-o", str(out), "--config", str(config))
    assert result.exit_code == 1
    assert "waD.toml" in result.stderr
    config.write_text(f"[store]\npath = '{out.parent}/no.db'\n")
    result = run("backup-auth", "alerts", *TO, "-o", str(out), "--config", str(config))
    assert (result.exit_code, "there is no database" in result.stderr) == (1, True)
    assert not (out.parent / "no.db").exists()
