"""wactl verify-auth: files in a process of their own, sessions by the daemon."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pyrage
import pytest

from tests.transfer.samples import BOB, NOW, a_sample, archive_of, content_of
from tests.wactl.conftest import Run, documents, error_of
from tests.wactl.fake import ID, FakeDaemon, in_turn, refusal, view
from wactl import child
from wactl.failure import Failure
from waD.control import types as t
from waD.messaging import kinds
from waD.transfer import age_header
from waD.transfer.archive import file_name
from waD.transfer.sealing import Passphrase, Recipients

ME = pyrage.x25519.Identity.generate()
SAMPLE = a_sample()
NAME = file_name("", "alerts", NOW, 41)


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    path = tmp_path / "key.txt"
    path.write_text(str(ME))
    path.chmod(0o600)
    return path


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    path = tmp_path / NAME
    seal = Recipients([str(ME.to_public())]).encrypt
    path.write_bytes(archive_of(content_of(SAMPLE.state), tmp_path, seal=seal))
    return path


# ----------------------------------------------------------------------------------------------------------- files


def test_a_sound_file(run: Run, backup: Path, identity: Path) -> None:
    result = run("verify-auth", str(backup), "--identity-file", str(identity))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{backup}: sound at level 2, {len(SAMPLE.state.items)} items\n"
    result = run("verify-auth", str(backup), "--identity-file", str(identity), "--json")
    (document,) = documents(result.stdout)
    assert (document["file"], document["ok"], document["level"]) == (str(backup), True, 2)
    assert document["counts"] == SAMPLE.state.counts()
    for words in ([], ["--json"]):
        quiet = run("verify-auth", "--quiet", str(backup), "--identity-file", str(identity), *words)
        assert (quiet.exit_code, quiet.stdout, quiet.stderr) == (0, "", "")


def test_no_daemon_is_needed_and_no_secret_is_in_the_arguments(
    run: Run, backup: Path, identity: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[tuple[str, ...]] = []
    real = child.run

    def spy(*words: str, **more: Any) -> child.Done:
        lines.append(words)
        return real(*words, **more)

    monkeypatch.setattr(child, "run", spy)
    monkeypatch.setenv("WAD_SOCKET", "/nonexistent/socket")
    assert run("verify-auth", str(backup), "--identity-file", str(identity)).exit_code == 0
    assert lines == [
        (
            "-m",
            "waD.transfer",
            "verify-auth",
            "--json",
            "--level=2",
            f"--identity-file={identity}",
            "--",
            str(backup),
        )
    ]


def test_warnings_are_told_and_are_no_failure(run: Run, backup: Path) -> None:
    result = run("verify-auth", str(backup), "--level", "0")
    assert result.exit_code == 0
    assert result.stdout == f"{backup}: sound at level 0\n"
    assert result.stderr.startswith(f"{backup}: warning: content_not_checked: ")


def test_what_could_not_be_checked_is_1_and_damage_is_6(run: Run, backup: Path, identity: Path) -> None:
    result = run("verify-auth", str(backup))
    assert (result.exit_code, result.stdout) == (1, f"{backup}: could not be checked\n")
    assert "error: key_needed: " in result.stderr
    damaged = backup.with_name(f"x-{NAME}")
    damaged.write_bytes(backup.read_bytes()[:-1])
    result = run("verify-auth", "--quiet", str(damaged), "--identity-file", str(identity))
    assert (result.exit_code, result.stdout) == (6, f"{damaged}: damaged\n")
    assert "error: archive_truncated: " in result.stderr
    result = run(
        "verify-auth",
        str(backup),
        str(damaged),
        str(backup.parent / "no.age"),
        "--identity-file",
        str(identity),
    )
    assert result.exit_code == 6
    assert [line.rpartition(": ")[2] for line in result.stdout.splitlines()] == [
        f"sound at level 2, {len(SAMPLE.state.items)} items", "damaged", "could not be checked",
    ]  # fmt: skip


def test_an_item_that_is_damaged(run: Run, tmp_path: Path) -> None:
    path = tmp_path / NAME.removesuffix(".age")
    form = SAMPLE.with_items({(kinds.SESSION, BOB): b"{}"})
    path.write_bytes(archive_of(content_of(form), tmp_path))
    result = run("verify-auth", str(path), "--json")
    (document,) = documents(result.stdout)
    assert result.exit_code == 6
    assert [(note["code"], note["item"]) for note in document["errors"]] == [
        ("item_unreadable", f"session/{BOB}")
    ]
    assert [note["code"] for note in document["warnings"]] == ["archive_not_encrypted"]


def test_a_passphrase_from_a_file(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(age_header, "WORK_FACTOR", 10)
    backup, secret = tmp_path / NAME, tmp_path / "p"
    backup.write_bytes(archive_of(content_of(SAMPLE.state), tmp_path, seal=Passphrase("tell nobody").encrypt))
    secret.write_text("tell nobody")
    secret.chmod(0o600)
    result = run("verify-auth", str(backup), "--passphrase-file", str(secret), "--spool-dir", str(tmp_path))
    assert result.exit_code == 0
    secret.chmod(0o666)
    result = run("verify-auth", str(backup), "--passphrase-file", str(secret))
    assert (result.exit_code, "chmod 600" in result.stderr) == (1, True)


def test_a_file_with_the_name_of_an_option(
    run: Run, backup: Path, identity: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.rename(backup, backup.with_name("--json"))
    monkeypatch.chdir(backup.parent)
    result = run("verify-auth", "--identity-file", str(identity), "--", "--json")
    assert (result.exit_code, result.stdout.startswith("--json: sound")) == (0, True)


def test_a_child_that_fails(run: Run, backup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for status, out in ((2, ""), (0, "no json"), (139, "")):
        done = child.Done(status, out, ["why"])
        monkeypatch.setattr(child, "run", lambda *_, _done=done, **__: _done)
        result = run("verify-auth", str(backup), "--json")
        assert result.exit_code == 1
        assert str(backup) in error_of(result)["message"]

    def broken(*_: str, **__: float) -> child.Done:
        raise Failure("refused", "has broken down", t.EXIT_REFUSED)

    monkeypatch.setattr(child, "run", broken)
    assert run("verify-auth", str(backup)).exit_code == 1


# -------------------------------------------------------------------------------------------------------- sessions


def verified(name: str = "alerts", **more: Any) -> t.VerifyResult:
    verdict = t.Verdict(level=3, ok=True, counts={"session": 2}, versions={"epoch": 1, "version": 9})
    return t.VerifyResult(name=name, connection_id=ID, verdict=t.Verdict(**{**_fields(verdict), **more}))


def _fields(verdict: t.Verdict) -> dict[str, Any]:
    return {name: getattr(verdict, name) for name in verdict.__struct_fields__}


def test_a_session(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["auth.verify"] = verified()
    result = run("verify-auth", "alerts")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "alerts: sound at level 3, 2 items\n", "")
    assert daemon.params("auth.verify") == {"name": "alerts", "level": 3}
    result = run("verify-auth", "alerts", "--level", "4", "--json")
    (document,) = documents(result.stdout)
    assert (document["name"], document["connectionId"], document["ok"]) == ("alerts", ID, True)
    assert daemon.params("auth.verify")["level"] == 4


def test_a_damaged_session(daemon: FakeDaemon, run: Run) -> None:
    note = t.NoteView(code="session_invalid", item="session/1.0", detail="no\x1b[31m")
    daemon.script["auth.verify"] = verified(ok=False, errors=[note])
    result = run("verify-auth", "alerts", "--quiet")
    assert (result.exit_code, result.stdout) == (6, "alerts: damaged\n")
    assert result.stderr == "alerts: error: session_invalid session/1.0: no[31m\n"


def test_all_paired_sessions(daemon: FakeDaemon, run: Run) -> None:
    paired = view(name="alerts", paired=True)
    daemon.script["session.list"] = t.SessionList(sessions=[paired, view("new", name="fresh")])
    daemon.script["auth.verify"] = verified()
    result = run("verify-auth", "--all", "--quiet", "--level", "3")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert daemon.params("auth.verify") == {"name": "alerts", "level": 3}


def test_one_that_cannot_be_checked_does_not_keep_the_others_from_it(daemon: FakeDaemon, run: Run) -> None:
    names = [view(name=name, paired=True) for name in ("one", "two", "three")]
    daemon.script["session.list"] = t.SessionList(sessions=names)
    daemon.script["auth.verify"] = in_turn(
        refusal("lease_held", "elsewhere"), verified("two"), verified("three")
    )
    result = run("verify-auth", "--all")
    assert (result.exit_code, result.stderr) == (4, "wactl: elsewhere\n")
    assert [line.partition(":")[0] for line in result.stdout.splitlines()] == ["two", "three"]


def test_whatsapp_cannot_be_asked(daemon: FakeDaemon, run: Run) -> None:
    """Nothing is wrong with the state: it could not be checked."""
    daemon.script["auth.verify"] = refusal("wrong_state", "it is not connected")
    assert run("verify-auth", "alerts", "--level", "4").exit_code == 1


def test_against_a_session(daemon: FakeDaemon, run: Run, backup: Path, identity: Path) -> None:
    daemon.script |= {"auth.upload": t.UploadResult(id="0" * 32, size=1), "auth.discard": t.Done()}
    found = t.CompareResult(
        name="alerts",
        connection_id=ID,
        same_identity=True,
        same_epoch=True,
        equal=False,
        exact=False,
        archive={"epoch": 1, "version": 41},
        store={"epoch": 1, "version": 50},
        kinds={
            "session": t.DifferenceView(only_store=1, older=2, equal=40),
            "prekey": t.DifferenceView(equal=3),
        },
        plan=["pairwise sessions that are dropped: 42"],
        peers=40,
        sessions=42,
        verdict=t.Verdict(level=2, ok=True),
    )
    daemon.script["auth.compare"] = found
    words = ("verify-auth", str(backup), "--against", "alerts", "--identity-file", str(identity))
    result = run(*words)
    assert (result.exit_code, result.stderr) == (0, "")
    assert [line.split() for line in result.stdout.splitlines()[2:5]] == [
        ["KIND", "ONLY", "IN", "BACKUP", "ONLY", "HERE", "OLDER", "NEWER", "DIFFERENT", "EQUAL"],
        ["prekey", "-", "-", "-", "-", "-", "3"],
        ["session", "-", "1", "2", "-", "-", "40"],
    ]
    assert result.stdout.endswith("pairwise sessions that are dropped: 42\n")
    assert daemon.params("auth.compare") == {"id": "0" * 32, "name": "alerts", "source": None, "mode": "drop"}
    (document,) = documents(run(*words, "--json").stdout)
    assert document["kinds"]["session"]["older"] == 2
    assert run(*words, "--quiet").stdout == ""
    daemon.script["auth.compare"] = msgspec.structs.replace(found, same_identity=False)
    result = run(*words, "--quiet")
    assert (result.exit_code, "another linked device" in result.stdout) == (1, True)


def test_errors_of_the_daemon(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["auth.verify"] = refusal("no_such_session", "there is no session 'x'")
    assert run("verify-auth", "x").exit_code == 4


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--all", "alerts"],
        ["a.age", "--level", "3"],
        ["alerts", "--level", "0"],
        ["--all", "--level", "0"],
        ["alerts", "--level", "5"],
        ["a.age", "--identity-file", "a", "--passphrase-file", "b"],
        ["a.age", "b.age", "--against", "alerts"],
        ["alerts", "--against", "alerts"],
    ],
)
def test_wrong_usage(daemon: FakeDaemon, run: Run, words: list[str]) -> None:
    result = run("verify-auth", *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert daemon.requests == []
