"""Files with secrets: what is in them, and who else could read them."""

from __future__ import annotations

import os
from pathlib import Path

import pyrage
import pytest

from waD.transfer.archive import ArchiveError
from waD.transfer.keyfiles import read_identities, read_passphrase

ME = pyrage.x25519.Identity.generate()


def written(path: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def code_of(error: pytest.ExceptionInfo[ArchiveError]) -> str:
    return error.value.code


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_an_identity_file_of_age_keygen(tmp_path: Path, mode: int) -> None:
    text = f"# created: 2026-01-01T00:00:00Z\n# public key: {ME.to_public()}\n\n{ME}\n"
    found = read_identities(written(tmp_path / "key", text, mode))
    assert found.recipients == (str(ME.to_public()),)
    assert len(read_identities(written(tmp_path / "two", f"{ME}\r\n{ME}")).recipients) == 2


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610])
def test_files_that_others_can_use(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path / "key", str(ME), mode)
    with pytest.raises(ArchiveError, match="chmod 600") as refused:
        read_identities(path)
    assert code_of(refused) == "key_file_too_open"
    assert str(path) in str(refused.value)
    with pytest.raises(ArchiveError, match="key_file_too_open"):
        read_passphrase(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "key", str(ME))
    os.chown(path, 12345, -1)
    with pytest.raises(ArchiveError, match="somebody else"):
        read_identities(path)
    os.chown(path, 0, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert read_identities(path).recipients  # root's own are as good


@pytest.mark.parametrize(
    "text",
    ["", "# nothing\n", "age1abc\n", "AGE-SECRET-KEY-1QQQ\n", f"{ME}x\n", f"{ME} {ME}\n"],
    ids=range(6),
)
def test_files_without_identities(tmp_path: Path, text: str) -> None:
    path = written(tmp_path / "key", text)
    with pytest.raises(ArchiveError) as refused:
        read_identities(path)
    assert code_of(refused) == "identity_unusable"
    assert refused.value.item == str(path)
    assert str(ME) not in str(refused.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "directory").mkdir(mode=0o700)
    written(tmp_path / "binary", b"\xff\xfe")
    written(tmp_path / "large", b"#" * (1 << 17))
    for name in ("missing", "fifo", "directory", "binary", "large"):
        for read in (read_identities, read_passphrase):
            with pytest.raises(ArchiveError) as refused:
                read(tmp_path / name)
            assert (code_of(refused), refused.value.item) == ("file_unreadable", str(tmp_path / name))
            assert refused.value.cannot_check


@pytest.mark.parametrize("text", ["", "\n", "two\nlines\n", "trailing\n\n", "a\rb"])
def test_files_without_a_passphrase(tmp_path: Path, text: str) -> None:
    with pytest.raises(ArchiveError, match="passphrase_unusable"):
        read_passphrase(written(tmp_path / "p", text))


@pytest.mark.parametrize("text", ["p", "p\n", "p\r\n"])
def test_a_passphrase(tmp_path: Path, text: str) -> None:
    assert read_passphrase(written(tmp_path / "p", text))._text == "p"
    assert read_passphrase(written(tmp_path / "blanks", " a b \n"))._text == " a b "
