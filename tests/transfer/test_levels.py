"""Checking backup files level by level, and the command that does it on a host that has nothing else."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pyrage
import pytest

from tests.transfer.samples import (
    BOB,
    NOW,
    OTHER_ID,
    SESSION_ID,
    Taken,
    a_row,
    a_sample,
    archive_of,
    content_of,
)
from waD.messaging import kinds
from waD.store.model import SecretRow
from waD.transfer import age_header
from waD.transfer.archive import file_name
from waD.transfer.levels import Verdict, verify_file
from waD.transfer.sealing import Identities, Key, Passphrase, Recipients

ME = pyrage.x25519.Identity.generate()
KEY = Identities([str(ME)])
SAMPLE = a_sample()
ROOT = Path(__file__).resolve().parents[2]
NAME = file_name("", "alerts", NOW, 41)


def saved(directory: Path, data: bytes, name: str = NAME) -> Path:
    path = directory / name
    path.write_bytes(data)
    return path


def sealed(directory: Path, **more: Any) -> bytes:
    return archive_of(
        content_of(SAMPLE.state, **more), directory, seal=Recipients([str(ME.to_public())]).encrypt
    )


def verdict(path: Path, level: int = 2, key: Key | None = KEY) -> Verdict:
    return verify_file(path, level, key, path.parent, NOW)


def codes(found: Verdict) -> list[str]:
    return [note.code for note in found.report.notes]


def test_secrets_of_messages_are_counted(tmp_path: Path) -> None:
    kept = SecretRow(chat="c", sender="s", message_id="1", wire_sender="w", secret=bytes(32), message_ts=NOW)
    path = saved(tmp_path, archive_of(content_of(SAMPLE.state, secrets=[kept] * 2), tmp_path))
    assert "message-secret" not in verdict(path, 0).counts
    for level in (1, 2):
        assert verdict(path, level).counts == SAMPLE.state.counts() | {"message-secret": 2}


def test_a_sound_backup_at_every_level(tmp_path: Path) -> None:
    path = saved(tmp_path, sealed(tmp_path))
    for level in (0, 1, 2):
        found = verdict(path, level)
        assert (codes(found), found.exit_status, found.level) == ([], 0, level)
        assert found.counts == SAMPLE.state.counts()
        assert found.versions["format"] == 1
        assert found.final is False
    document = json.loads(json.dumps(found.document()))
    assert document["ok"] is True
    assert {"level", "ok", "errors", "warnings", "counts", "versions"} <= document.keys()
    assert document["sessions"][0] == {
        "id": SESSION_ID, "name": "alerts", "owner": "", "epoch": 2, "version": 41,
        "identity": document["sessions"][0]["identity"], "items": len(SAMPLE.state.items),
    }  # fmt: skip


def test_without_a_key_only_the_envelope_is_judged(tmp_path: Path) -> None:
    path = saved(tmp_path, sealed(tmp_path))
    found = verdict(path, 0, None)
    assert (codes(found), found.exit_status, found.sha256) == (["content_not_checked"], 0, None)
    found = verdict(path, 2, None)
    assert (codes(found), found.exit_status) == (["key_needed"], 1)


def test_the_wrong_key_says_nothing_about_the_backup(tmp_path: Path) -> None:
    path = saved(tmp_path, sealed(tmp_path))
    other = Identities([str(pyrage.x25519.Identity.generate())])
    for key in (other, Passphrase("p")):
        found = verdict(path, 2, key)
        assert (codes(found), found.exit_status) == (["wrong_key"], 1)


def test_a_cut_is_found_by_the_size_alone_or_by_the_content(tmp_path: Path) -> None:
    data = sealed(tmp_path)
    for missing in (1, 100, len(data) - 100, len(data) - 10):
        found = verdict(saved(tmp_path, data[:-missing]))
        assert (codes(found), found.exit_status) == (["archive_truncated"], 6)
    header = age_header.parse(data)
    found = verdict(saved(tmp_path, data[: header.size + 10]), 0, None)
    assert (codes(found), found.exit_status) == (["archive_truncated"], 6)


def test_names(tmp_path: Path) -> None:
    assert codes(verdict(saved(tmp_path, sealed(tmp_path), "renamed.age"))) == ["file_name_unusual"]


def test_a_plain_archive_is_told(tmp_path: Path) -> None:
    found = verdict(saved(tmp_path, archive_of(content_of(SAMPLE.state), tmp_path)), key=None)
    assert (codes(found), found.exit_status) == (["archive_not_encrypted"], 0)


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo", "empty", "foreign"])
def test_files_that_are_no_backup(tmp_path: Path, kind: str) -> None:
    path = tmp_path / NAME
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind != "missing":
        path.write_bytes(b"" if kind == "empty" else b"#!/bin/sh\n" * 99)
    found = verdict(path, key=None)
    unreadable = kind in ("missing", "directory", "fifo")
    assert found.exit_status == (1 if unreadable else 6)
    wanted = ["file_unreadable"] if unreadable else ["archive_not_encrypted", "not_an_archive"]
    assert codes(found) == wanted


def test_levels_find_what_is_theirs(tmp_path: Path) -> None:
    """A prekey whose halves do not fit is in order, and does not work."""
    document = json.loads(SAMPLE.state.items[kinds.PREKEY, "2"])
    other = json.loads(SAMPLE.state.items[kinds.PREKEY, "3"])
    document["pub"] = other["pub"]
    bad = SAMPLE.with_items({(kinds.PREKEY, "2"): json.dumps(document).encode()})
    path = saved(
        tmp_path, archive_of(content_of(bad), tmp_path, seal=Recipients([str(ME.to_public())]).encrypt)
    )
    assert [verdict(path, level).exit_status for level in (0, 1, 2)] == [0, 0, 6]
    assert [str(note) for note in verdict(path).report.errors] == [
        "pre_key_mismatch prekey/2: the public key is not that of the private one"
    ]
    form = SAMPLE.with_items({(kinds.SESSION, BOB): b"{}"})
    path = saved(tmp_path, archive_of(content_of(form), tmp_path))
    assert [verdict(path, level).exit_status for level in (0, 1, 2)] == [0, 6, 6]


def test_an_item_is_named_with_its_session(tmp_path: Path) -> None:
    form = SAMPLE.with_items({(kinds.SESSION, BOB): b"{}"})
    contents = [content_of(SAMPLE.state), content_of(form, a_row(OTHER_ID, "jobs"))]
    found = verdict(saved(tmp_path, archive_of(contents, tmp_path)))
    assert [note.item for note in found.report.errors] == [f"jobs/session/{BOB}"]
    assert found.counts["prekey"] == 10


def test_credentials_of_another_account(tmp_path: Path) -> None:
    parts = Taken.apart(archive_of(content_of(SAMPLE.state), tmp_path))
    manifest = json.loads(parts.members["manifest.json"])
    manifest["sessions"][0]["identity_fp"] = "00000000"
    parts.members["manifest.json"] = json.dumps(manifest).encode()
    assert "identity_fp_mismatch" in codes(verdict(saved(tmp_path, parts.together())))
    other = a_row().__class__(**{**_columns(), "me_pn": "15550009999:7@s.whatsapp.net"})
    assert "row_mismatch" in codes(
        verdict(saved(tmp_path, archive_of(content_of(SAMPLE.state, other), tmp_path)))
    )


def _columns() -> dict[str, Any]:
    row = a_row()
    return {name: getattr(row, name) for name in row.__struct_fields__}


def test_broken_credentials_have_their_code(tmp_path: Path) -> None:
    content = content_of(SAMPLE.state)
    document = json.loads(content.creds)
    parts = Taken.apart(archive_of(content, tmp_path))
    for field, code in (("noise", "noise_key_mismatch"), ("identity", "identity_key_mismatch")):
        changed = {**document, field: {**document[field], "pub": document["signed_prekeys"][0]["key"]["pub"]}}
        parts.members[f"sessions/{SESSION_ID}/creds.json"] = json.dumps(changed).encode()
        found = verdict(saved(tmp_path, parts.together()))
        assert found.exit_status == 6
        assert codes(found)[-1] == "checksum_mismatch", code


# ------------------------------------------------------------------------------------------------------ the command


def run(*words: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "waD.transfer", "verify-auth", *map(str, words)]
    return subprocess.run(
        line, cwd=ROOT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        start_new_session=True, timeout=60, **more,
    )  # fmt: skip


@pytest.fixture
def identity_file(tmp_path: Path) -> Path:
    path = tmp_path / "key.txt"
    path.write_text(f"# public key: {ME.to_public()}\n{ME}\n")
    path.chmod(0o600)
    return path


def test_the_command(tmp_path: Path, identity_file: Path) -> None:
    path = saved(tmp_path, sealed(tmp_path))
    done = run(path, "--identity-file", identity_file)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{path}: sound at level 2; 1 sessions, {len(SAMPLE.state.items)} items\n"
    done = run(path, "--identity-file", identity_file, "--json", "--level", "1")
    report = json.loads(done.stdout)
    assert (report["level"], report["ok"], report["counts"]) == (1, True, SAMPLE.state.counts())
    for words in (["--quiet"], ["--quiet", "--json"]):
        done = run(path, "--identity-file", identity_file, *words)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_command_without_a_terminal_does_not_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(age_header, "WORK_FACTOR", 10)
    data = archive_of(content_of(SAMPLE.state), tmp_path, seal=Passphrase("tell nobody").encrypt)
    path, secret = saved(tmp_path, data), tmp_path / "passphrase"
    done = run(path, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["errors"][0]["code"] == "key_needed"
    secret.write_text("tell nobody\n")
    secret.chmod(0o644)
    done = run(path, "--passphrase-file", secret, "--quiet")
    assert (done.returncode, "chmod 600" in done.stderr) == (1, True)
    secret.chmod(0o400)
    assert run(path, "--passphrase-file", secret).returncode == 0


def test_the_command_on_damage(tmp_path: Path, identity_file: Path) -> None:
    data = bytearray(sealed(tmp_path))
    data[-1] ^= 1
    path = saved(tmp_path, bytes(data))
    done = run(path, "--identity-file", identity_file, "--quiet")
    assert done.returncode == 6
    assert done.stderr.startswith("error: archive_truncated: ")
    assert "DAMAGED" in done.stdout
    assert run(path, "--level", "0").returncode == 0


def test_wrong_usage(tmp_path: Path, identity_file: Path) -> None:
    path = saved(tmp_path, b"")
    both = ["--identity-file", identity_file, "--passphrase-file", identity_file]
    for words in ([], [path, "--level", "3"], [path, "--level", "x"], [path, *both], [path, "more"]):
        assert run(*words).returncode == 2


def test_the_spool_directory(tmp_path: Path, identity_file: Path) -> None:
    path = saved(tmp_path, sealed(tmp_path))
    done = run(path, "--identity-file", identity_file, "--spool-dir", tmp_path / "missing")
    assert (done.returncode, "file_unreadable" in done.stderr) == (1, True)
    assert run(path, "--identity-file", identity_file, "--spool-dir", tmp_path).returncode == 0


# ------------------------------------------------------------------------------------------------ unseal, the terminal


def unseal(*words: str | Path) -> subprocess.CompletedProcess[bytes]:
    line = [sys.executable, "-m", "waD.transfer", "unseal", *map(str, words)]
    return subprocess.run(
        line, cwd=ROOT, capture_output=True, check=False, stdin=subprocess.DEVNULL, timeout=60
    )


def test_unsealing_gives_the_plain_archive(tmp_path: Path, identity_file: Path) -> None:
    plain = archive_of(content_of(SAMPLE.state), tmp_path)
    recipients = Recipients([str(ME.to_public())])
    for compress in (False, True):
        data = archive_of(content_of(SAMPLE.state), tmp_path, seal=recipients.encrypt, compress=compress)
        done = unseal(saved(tmp_path, data), "--identity-file", identity_file)
        assert (done.returncode, done.stdout == plain, done.stderr) == (0, True, b"")


def test_unsealing_gives_all_or_nothing(tmp_path: Path, identity_file: Path) -> None:
    data = sealed(tmp_path, history={"events": [{"text": os.urandom(3000).hex()} for _ in range(100)]})
    done = unseal(saved(tmp_path, data[:-1]), "--identity-file", identity_file)
    assert (done.returncode, done.stdout) == (6, b"")
    assert done.stderr.startswith(b"error: archive_truncated")
    done = unseal(saved(tmp_path, data))
    assert (done.returncode, done.stdout, b"key_needed" in done.stderr) == (1, b"", True)
    assert unseal(tmp_path / "missing.age").returncode == 1
    both = ["--identity-file", identity_file, "--passphrase-file", identity_file]
    assert unseal(tmp_path / "missing.age", *both).returncode == 2


@pytest.mark.parametrize(("answer", "status"), [(b"tell nobody\n", 0), (b"guessed\n", 1)])
def test_a_passphrase_is_asked_for_on_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes, status: int
) -> None:
    monkeypatch.setattr(age_header, "WORK_FACTOR", 10)
    data = archive_of(content_of(SAMPLE.state), tmp_path, seal=Passphrase("tell nobody").encrypt)
    line = [sys.executable, "-m", "waD.transfer", "verify-auth", "--json", str(saved(tmp_path, data))]
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        line, cwd=ROOT, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    ) as process:  # fmt: skip
        os.close(theirs)
        shown = b""
        while b"Passphrase of " not in shown:
            shown += os.read(ours, 1024)
        os.write(ours, answer)
        out, _ = process.communicate(timeout=60)
        os.close(ours)
    assert process.returncode == status
    assert json.loads(out)["ok"] is (status == 0)
    assert answer.strip() not in shown + out
