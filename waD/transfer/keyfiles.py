"""Secrets from files that nobody else can read: identities and passphrases (chapter 08 §7.3)."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from waD.transfer.archive import ArchiveError
from waD.transfer.sealing import Identities, Passphrase

MAX_FILE: Final = 64 * 1024
MAX_IDENTITIES: Final = 64
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def read_identities(path: Path) -> Identities:
    """Read an identity file as `age-keygen` writes it: secret keys, one a line, and comments with `#`.

    Raises:
        ArchiveError: `file_unreadable`, `key_file_too_open`, `identity_unusable`.
    """
    lines = [line.strip() for line in _secret_text(path).splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if not 0 < len(keys) <= MAX_IDENTITIES:
        raise ArchiveError(
            "identity_unusable", f"it has {len(keys)} keys; 1 to {MAX_IDENTITIES} are possible", str(path)
        )
    try:
        return Identities(keys)
    except ArchiveError as error:
        raise ArchiveError(error.code, error.detail, str(path)) from None


def read_passphrase(path: Path) -> Passphrase:
    """Read a passphrase: the one line of a file.

    Raises:
        ArchiveError: `file_unreadable`, `key_file_too_open`, `passphrase_unusable`.
    """
    text = _secret_text(path)
    line = text.removesuffix("\n").removesuffix("\r")
    if not line or "\n" in line or "\r" in line:
        raise ArchiveError("passphrase_unusable", "it must have one line, the passphrase", str(path))
    return Passphrase(line)


def _secret_text(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with open(descriptor, "rb") as file:
            _check(os.fstat(descriptor), path)
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise ArchiveError("file_unreadable", error.strerror or "it cannot be read", str(path)) from None
    if len(data) > MAX_FILE:
        raise ArchiveError("file_unreadable", f"it has more than {MAX_FILE} bytes", str(path))
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ArchiveError("file_unreadable", "it is not a text in UTF-8", str(path)) from None


def _check(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ArchiveError("file_unreadable", "it is not a regular file", str(path))
    if status.st_mode & _OTHERS:
        raise ArchiveError(
            "key_file_too_open",
            f"others can use it (mode {status.st_mode & 0o7777:04o}): chmod 600",
            str(path),
        )
    if status.st_uid not in (os.geteuid(), 0):
        raise ArchiveError("key_file_too_open", "it belongs to somebody else", str(path))
