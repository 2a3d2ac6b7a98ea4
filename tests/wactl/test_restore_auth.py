"""wactl restore-auth: the backup is checked in a process of its own, and nothing is done unasked."""

from __future__ import annotations

import base64
import hashlib
import io
from pathlib import Path
from typing import Any

import pyrage
import pytest

from tests.transfer.samples import NOW, a_sample, archive_of, content_of
from tests.wactl.conftest import Run, documents, error_of
from tests.wactl.fake import ID, Connection, FakeDaemon, hang_up, refusal, view
from waD.control import types as t
from waD.transfer.archive import file_name
from waD.transfer.archive_reading import open_archive
from waD.transfer.sealing import Recipients
from waD.transfer.state import Report

ME = pyrage.x25519.Identity.generate()
SAMPLE = a_sample()
FILE = "6c1f0a52e9d84b7395ab0c1d2e3f4a5b"
PLAN = ["pairwise sessions that are dropped: 2", "one-time prekeys that still decrypt: 5"]


class Store:
    """A daemon that takes uploads."""

    def __init__(self, daemon: FakeDaemon) -> None:
        self.daemon = daemon
        self.data = b""
        daemon.script |= {
            "auth.upload": self._upload,
            "auth.restore": self._restore,
            "auth.restore_seal": self._restore,
            "auth.discard": t.Done(),
        }

    def _upload(self, connection: Connection, request: dict[str, Any]) -> None:
        begun = request["params"]["id"] is not None
        self.data = (self.data if begun else b"") + base64.b64decode(request["params"]["data"])
        connection.answer(request, t.UploadResult(id=FILE, size=len(self.data)))

    def _restore(self, connection: Connection, request: dict[str, Any]) -> None:
        done = not request["params"]["dryRun"]
        result = t.RestoreResult(
            name="alerts",
            connection_id=ID,
            done=done,
            exact=False,
            plan=PLAN,
            peers=2,
            sessions=2,
            verdict=t.Verdict(level=2, ok=True, warnings=[t.NoteView(code="unknown_item", detail="x")]),
            held=3 if done else 0,
            messages=4 if done else 0,
            backup="sealed in the store as version 9" if done else None,
        )
        connection.answer(request, result)

    @property
    def orders(self) -> list[dict[str, Any]]:
        return [one["params"] for one in self.daemon.requests if one["method"] == "auth.restore"]


@pytest.fixture
def store(daemon: FakeDaemon) -> Store:
    return Store(daemon)


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    path = tmp_path / file_name("", "alerts", NOW, 41)
    seal = Recipients([str(ME.to_public())]).encrypt
    path.write_bytes(archive_of(content_of(SAMPLE.state), tmp_path, seal=seal, compress=True))
    return path


@pytest.fixture
def words(tmp_path: Path, backup: Path) -> list[str]:
    path = tmp_path / "key.txt"
    path.write_text(str(ME))
    path.chmod(0o600)
    return ["restore-auth", str(backup), "--identity-file", str(path)]


def test_a_restore(store: Store, run: Run, words: list[str], backup: Path, tmp_path: Path) -> None:
    result = run(*words, "--yes")
    assert (result.exit_code, result.stdout) == (0, "alerts  restored\n")
    assert result.stderr.splitlines() == [
        "warning: unknown_item: x",
        *PLAN,
        "backup of what was in place: sealed in the store as version 9",
        "messages on their way out that are held: 3; wactl outbox list alerts",
        "messages of the history: 4",
        "next: wactl connect alerts",
    ]
    with open_archive(io.BytesIO(store.data), tmp_path, None, Report()) as opened:
        assert [one.name for one in opened.manifest.sessions] == ["alerts"]
    first, second = store.orders
    assert (first["dryRun"], second["dryRun"]) == (True, False)
    assert first | {"dryRun": False} == second
    assert first["sha256"] == hashlib.sha256(backup.read_bytes()).hexdigest()
    assert (first["id"], first["mode"], first["rollbackAnyway"]) == (FILE, "drop", False)
    assert store.daemon.methods()[-1] == "auth.discard"


def test_a_dry_run(store: Store, run: Run, words: list[str]) -> None:
    result = run(*words, "--dry-run")
    assert (result.exit_code, result.stdout.splitlines()) == (0, PLAN)
    (document,) = documents(run(*words, "--dry-run", "--json").stdout)
    assert (document["done"], document["peers"]) == (False, 2)
    assert all(order["dryRun"] for order in store.orders)


def test_it_asks_first(store: Store, run: Run, words: list[str]) -> None:
    result = run(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert PLAN[0] in result.stderr
    assert "--yes" in result.stderr
    assert [order["dryRun"] for order in store.orders] == [True]
    assert store.daemon.methods()[-1] == "auth.discard"


def test_what_is_handed_on(store: Store, run: Run, words: list[str]) -> None:
    more = ("--name", "other", "--session", "alerts", "--sessions", "receive-only", "--rollback-anyway")
    (document,) = documents(run(*words, *more, "--with-history", "--yes", "--json").stdout)
    assert (document["done"], document["held"]) == (True, 3)
    order = store.orders[-1]
    assert [order[name] for name in ("name", "source", "mode", "rollbackAnyway", "history")] == [
        "other", "alerts", "receive-only", True, True,
    ]  # fmt: skip


def test_refusals_of_the_daemon(store: Store, run: Run, words: list[str]) -> None:
    store.daemon.script["auth.restore"] = refusal("refused", "it is newer", code="target_newer")
    result = run(*words, "--yes", "--json")
    assert (result.exit_code, error_of(result)["data"]["code"]) == (1, "target_newer")
    store.daemon.script["auth.upload"] = hang_up
    assert run(*words, "--yes").exit_code == 3


def test_what_cannot_be_opened_is_1_and_damage_is_6(
    store: Store, run: Run, words: list[str], backup: Path
) -> None:
    result = run("restore-auth", str(backup), "--yes")
    assert result.exit_code == 1
    assert "nothing was changed" in result.stderr
    backup.write_bytes(backup.read_bytes()[:-1])
    assert run(*words, "--yes").exit_code == 6
    backup.unlink()
    assert run(*words, "--yes").exit_code == 1
    assert store.data == b""
    assert store.orders == []


def test_a_move_is_called_off(daemon: FakeDaemon, run: Run) -> None:
    done = t.UndoResult(session=view("stopped"), restored="version 5", sealed_at=1, backup="version 7")
    daemon.script["auth.unretire"] = done
    result = run("restore-auth", "--unretire", "alerts", "--yes")
    assert (result.exit_code, result.stdout) == (0, "alerts  stopped\n")
    assert daemon.params("auth.unretire") == {"name": "alerts"}
    assert run("restore-auth", "--unretire", "alerts").exit_code == 2
    daemon.script["auth.unretire"] = refusal("wrong_state")
    assert run("restore-auth", "--unretire", "alerts", "--yes").exit_code == 4


def test_sealed_copies_are_listed(daemon: FakeDaemon, run: Run) -> None:
    seals = [
        t.SealView(
            epoch=2, version=51, reason="shutdown", sealed_at=1_767_225_600_000, items=9, current=True
        ),
        t.SealView(epoch=1, version=40, reason="pre_reset", sealed_at=1_767_139_200_000, items=8),
    ]
    daemon.script["auth.seals"] = t.SealList(
        name="alerts", connection_id=ID, epoch=2, version=51, seals=seals
    )
    result = run("restore-auth", "alerts", "--seals")
    first, *lines = result.stdout.splitlines()
    assert (result.exit_code, first.split()) == (0, ["SEAL", "REASON", "SEALED", "ITEMS"])
    assert lines[0].split()[:2] == ["2.51", "shutdown"]
    assert lines[0].endswith("as it is now")
    assert lines[1].split()[:2] == ["1.40", "pre_reset"]
    assert daemon.params("auth.seals") == {"name": "alerts"}
    (document,) = documents(run("restore-auth", "alerts", "--seals", "--json").stdout)
    assert [(one["epoch"], one["version"]) for one in document["seals"]] == [(2, 51), (1, 40)]
    daemon.script["auth.seals"] = refusal("no_such_session")
    assert run("restore-auth", "alerts", "--seals").exit_code == 4


def test_a_sealed_copy_is_put_back(store: Store, run: Run) -> None:
    words = ("restore-auth", "alerts", "--seal", "1.812")
    dry = run(*words, "--dry-run")
    assert (dry.exit_code, dry.stdout.splitlines()) == (0, PLAN)
    asked = run(*words)
    assert (asked.exit_code, "--yes" in asked.stderr) == (2, True)
    assert {one["method"] for one in store.daemon.requests} == {"auth.restore_seal"}
    assert all(one["params"]["dryRun"] for one in store.daemon.requests)
    result = run(*words, "--rollback-anyway", "--sessions", "receive-only", "--yes")
    assert (result.exit_code, result.stdout) == (0, "alerts  restored\n")
    assert "backup of what was in place: sealed in the store as version 9" in result.stderr
    assert store.daemon.params("auth.restore_seal") == {
        "name": "alerts", "epoch": 1, "version": 812, "mode": "receive-only", "rollbackAnyway": True,
        "replaceUnreadable": False, "dryRun": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("alerts", "--seal", "1.x"),
        ("alerts", "--seal", "812"),
        ("alerts", "--seal", "1.812", "--seals"),
        ("--seal", "1.812"),
        ("--seals",),
        ("--unretire", "alerts", "--seal", "1.812"),
        ("alerts", "--seal", "1.812", "--name", "other"),
        ("alerts", "--seal", "1.812", "--with-history"),
        ("a.age", "--unretire", "alerts"),
        ("a.age", "--identity-file", "a", "--passphrase-file", "b"),
        ("a.age", "--sessions", "keep"),
    ],
)
def test_wrong_usage(store: Store, run: Run, words: tuple[str, ...]) -> None:
    result = run("restore-auth", *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert store.daemon.requests == []
