"""The store of a server without a daemon: every command that can do without one, under the sessions' leases."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyrage
import pytest

from tests.store.postgres_server import Server
from tests.wactl.conftest import ROOT, Run, documents, error_of
from wactl.client import Client
from wactl.failure import Failure
from wactl.offline import StoreClient
from waD.control import types as t

NAME = "alerts"
STARTED_S = 60.0


@pytest.fixture
def key(home: Path) -> tuple[str, Path]:
    """Recipient, and the file of the identity."""
    identity = pyrage.x25519.Identity.generate()
    file = home / "backup.key"
    file.write_text(f"{identity}\n")
    file.chmod(0o600)
    return str(identity.to_public()), file


@pytest.fixture
def config(home: Path, server: Server) -> Path:
    return configured(home / "one.toml", server)


def configured(file: Path, server: Server) -> Path:
    """Of a daemon with an empty database."""
    file.write_text(f'[store]\nurl = "{server.url(server.database())}"\n')
    return file


@pytest.fixture
def imported(run: Run, config: Path, account: Path) -> Path:
    """The same, with a session in it."""
    words = ("--from", str(account), "--i-stopped-it", "--config", str(config), "--json")
    (document,) = documents(run("migrate-auth", *words, NAME).stdout)
    assert (document["done"], document["destination"]["phase"]) == (True, "legacy_only")
    return config


def backed_up(run: Run, config: Path, recipient: str, directory: Path, *more: str) -> Path:
    directory.mkdir(exist_ok=True)
    words = ("--config", str(config), "--recipient", recipient, "-o", str(directory), "--yes", "--json")
    result = run("backup-auth", *words, *more)
    assert result.exit_code == 0, result.stderr
    (document,) = documents(result.stdout)
    assert document["verdict"]["ok"]
    return Path(document["file"])


def status(config: Path) -> t.SessionView:
    with StoreClient.start(config) as client:
        return client.ask("session.status", t.SessionView, t.SessionParams(name=NAME))


def test_backup_verify_restore(
    run: Run, home: Path, imported: Path, key: tuple[str, Path], server: Server
) -> None:
    recipient, identity = key
    one = backed_up(run, imported, recipient, home / "out", NAME)
    every = backed_up(run, imported, recipient, home / "every", "--all", "--with-history", "--with-outbox")
    for level in (1, 2, 3):
        result = run("verify-auth", "--config", str(imported), "--level", str(level), "--json", NAME)
        (document,) = documents(result.stdout)
        assert (result.exit_code, document["errors"]) == (0, []), document
    secret = ("--identity-file", str(identity))
    for file in (one, every):
        assert run("verify-auth", *secret, "--level", "2", str(file)).exit_code == 0
    against = run("verify-auth", "--config", str(imported), *secret, "--against", NAME, "--json", str(one))
    (document,) = documents(against.stdout)
    assert (document["equal"], document["sameIdentity"]) == (True, True), document
    other = configured(home / "other.toml", server)
    restore = ("restore-auth", "--config", str(other), *secret, "--yes", "--json")
    (planned,) = documents(run(*restore, "--dry-run", str(one)).stdout)
    (restored,) = documents(run(*restore, str(one)).stdout)
    assert (planned["done"], restored["done"], restored["exact"]) == (False, True, False)
    assert status(other).paired
    (again,) = documents(run(*restore, "--rollback-anyway", "--with-history", str(every)).stdout)
    assert again["done"]


def test_a_final_backup_and_back(
    run: Run, home: Path, imported: Path, key: tuple[str, Path], server: Server
) -> None:
    recipient, identity = key
    file = backed_up(run, imported, recipient, home / "out", "--final", NAME)
    with pytest.raises(Failure) as refusal:
        status(imported)
    assert refusal.value.exit == t.EXIT_STATE
    other = configured(home / "other.toml", server)
    words = ("--identity-file", str(identity), "--yes", "--json", str(file))
    (restored,) = documents(run("restore-auth", "--config", str(other), *words).stdout)
    assert (restored["done"], restored["exact"]) == (True, True)
    result = run("restore-auth", "--unretire", NAME, "--config", str(imported), "--yes", "--json")
    assert result.exit_code == 0, result.stderr
    (back,) = documents(result.stdout)
    assert (back["session"]["paired"], back["session"]["desired"]) == (True, "down")


def test_the_steps_of_storage(run: Run, imported: Path) -> None:
    with StoreClient.start(imported) as client:

        def step(name: str, params: Any = None, outcome: str = "done") -> t.StorageResult:
            wanted = params or t.StorageParams(name=NAME)
            done = client.ask(f"storage.{name}", t.StorageResult, wanted)
            assert done.outcome == outcome, done
            return done

        asked = t.SessionParams(name=NAME)
        assert client.ask("storage.status", t.StorageStatus, asked).phase == "legacy_only"
        assert step("dual_write").phase == "dual_write"
        assert step("backfill", t.BackfillParams(name=NAME)).phase == "backfilled"
        assert step("verify").comparison is not None
        promoted = step("promote", t.PromoteParams(name=NAME), "refused")
        assert {check.check for check in promoted.checks if not check.ok} >= {"age", "restarts"}
        assert step("encrypt", outcome="refused").checks[0].check == "kek"
        assert step("rollback", t.RollbackParams(name=NAME, to="legacy_only")).phase == "legacy_only"
        assert client.ask("auth.verify", t.VerifyResult, t.VerifyParams(name=NAME, level=3)).verdict.ok


def test_encrypted_from_outside(run: Run, home: Path, imported: Path) -> None:
    file = home / "kek"
    file.write_bytes(bytes(32))
    file.chmod(0o400)
    imported.write_text(f'{imported.read_text()}kek_file = "{file}"\n')
    with StoreClient.start(imported) as client:
        params = t.StorageParams(name=NAME)
        assert client.ask("storage.encrypt", t.StorageResult, params).outcome == "done"
        assert client.ask("storage.status", t.StorageStatus, t.SessionParams(name=NAME)).kek == "main"
        rewrap = t.RewrapParams(name=NAME)
        assert client.ask("storage.rewrap", t.StorageResult, rewrap).outcome in ("done", "nothing")
    assert run("verify-auth", "--config", str(imported), "--level", "3", NAME).exit_code == 0


# ------------------------------------------------------------------------------------------------------ the lease


@contextmanager
def running_daemon(config: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon elsewhere that has the same database; its sessions are down, but they are its own."""
    place = config.parent / "elsewhere"
    (place / "run").mkdir(mode=0o700, parents=True)
    more = {f"XDG_{name}": str(place / name) for name in ("STATE_HOME", "CONFIG_HOME")}
    socket = place / "run" / "waD" / "control.sock"
    process = subprocess.Popen(
        [sys.executable, "-m", "waD", "--config", str(config)],
        env=os.environ | more | {"XDG_RUNTIME_DIR": str(place / "run")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        until = time.monotonic() + STARTED_S
        while True:
            assert process.poll() is None, process.stderr and process.stderr.read()
            try:
                with Client.connect([socket]) as client:
                    if client.ask("session.list", t.SessionList).sessions:
                        break
            except Failure:
                assert time.monotonic() < until
            time.sleep(0.05)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STARTED_S)
        assert process.stderr is not None
        process.stderr.close()


def refusal_of(run: Run, *words: str) -> dict[str, Any]:
    result = run(*words, "--json")
    assert result.stdout == ""
    return error_of(result)


def test_what_a_daemon_elsewhere_runs_is_left_to_it(
    run: Run, home: Path, imported: Path, key: tuple[str, Path]
) -> None:
    recipient, identity = key
    file = backed_up(run, imported, recipient, home / "out", NAME)
    before = status(imported)
    with running_daemon(imported) as daemon:
        config = ("--config", str(imported))
        who = f"/{daemon.pid}/"
        seen = status(imported)
        assert who in (seen.run_by or "")
        restore = ("restore-auth", *config, "--identity-file", str(identity), "--yes", "--rollback-anyway")
        output = ("-o", str(home / "out"), "--recipient", recipient)
        for words in (
            ("backup-auth", *config, *output, "--final", "--yes", NAME),
            (*restore, str(file)),
            ("migrate-auth", *config, "--to", f"baileys-dir:{home / 'dir'}", NAME),
            ("migrate-auth", *config, "--from", "waD", "--to", f"sqlite:{home / 'x.db'}", "--yes", NAME),
        ):
            error = refusal_of(run, *words)
            assert who in error["message"], words
            assert error["exit"] in (t.EXIT_STATE, t.EXIT_REFUSED)
        with StoreClient.start(imported) as client:
            for method in ("dual_write", "backfill", "verify", "encrypt", "rewrap", "retire_legacy"):
                with pytest.raises(Failure) as refusal:
                    client.call(f"storage.{method}", {"name": NAME})
                assert who in refusal.value.message, method
            for method in ("connect", "disconnect", "logout", "remove", "undo"):
                with pytest.raises(Failure) as refusal:
                    client.call(f"session.{method}", {"name": NAME})
                assert who in refusal.value.message, method
        assert run("verify-auth", *config, "--level", "3", NAME).exit_code == 0  # it only reads
        assert [*(home / "out").iterdir()] == [file]
        assert not (home / "dir").exists()
    after = status(imported)
    assert (after.desired, after.paired, after.state) == (before.desired, before.paired, before.state)
    assert json.loads(run("verify-auth", "--config", str(imported), "--json", NAME).stdout)["ok"]


def test_the_lease_is_given_back_at_the_end(
    run: Run, home: Path, imported: Path, key: tuple[str, Path]
) -> None:
    """Whoever comes next does not wait for it to run out."""
    for _ in range(2):
        with StoreClient.start(imported) as client:
            wanted = t.SessionParams(name=NAME)
            assert client.ask("session.disconnect", t.SessionView, wanted).run_by is None
        assert status(imported).run_by is None


def test_a_process_that_was_killed_is_not_waited_for(run: Run, imported: Path) -> None:
    with StoreClient.start(imported) as client:
        client.ask("session.disconnect", t.SessionView, t.SessionParams(name=NAME))
        os.kill(client.ask("daemon.ping", t.Pong).pid, signal.SIGKILL)
    with StoreClient.start(imported) as client:
        client.ask("session.disconnect", t.SessionView, t.SessionParams(name=NAME))


def test_a_server_that_does_not_answer(run: Run, home: Path, server: Server) -> None:
    config = home / "wrong.toml"
    server.admin("CREATE ROLE stranger LOGIN PASSWORD 'right'")
    config.write_text(f'[store]\nurl = "{server.url(server.database(), user="stranger")}"\n')
    error = refusal_of(run, "verify-auth", "--config", str(config), NAME)
    assert error["exit"] == t.EXIT_REFUSED
    assert "no password supplied" in error["message"] or "authentication failed" in error["message"]
