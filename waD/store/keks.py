"""The operator's keys that wrap the sessions' keys: where they are, and what is refused (chapter 08 §8)."""

from __future__ import annotations

import base64
import binascii
import glob
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from waD.store.errors import StoreForbidden
from waD.store.vault import KEY_LENGTH

MAIN: Final = "main"
"""Name of the key that stands in the file itself; `<file>.NAME` holds others."""
CREDENTIAL: Final = "wad-kek"
NEW_SUFFIX: Final = ".new"
"""Of a key that is still being written."""
MAX_KEYS: Final = 64
MAX_FILE: Final = 1024
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_OPEN_TO_OTHERS: Final = 0o077


def credential_file(directory: str | None) -> Path | None:
    """Where systemd puts the key, if the unit has one.

    Args:
        directory: of the process's credentials, `$CREDENTIALS_DIRECTORY`.
    """
    if not directory:
        return None
    file = Path(directory) / CREDENTIAL
    return file if file.exists() or any(file.parent.glob(f"{CREDENTIAL}.*")) else None


def read_keys(file: Path) -> dict[str, bytes]:
    """The key in a file, and those beside it that have its name and an ending.

    Raises:
        StoreForbidden: one of them cannot be used; the message names it and says why.
    """
    found: dict[str, bytes] = {}
    for path in _candidates(file):
        name = MAIN if path.name == file.name else path.name.removeprefix(file.name + ".")
        if _NAME.fullmatch(name):
            found[name] = read_key(path)
        if len(found) > MAX_KEYS:
            raise StoreForbidden(
                f"{file}.*: more than {MAX_KEYS} keys; remove those that nothing is wrapped with"
            )
    return found


def _candidates(file: Path) -> list[Path]:
    try:
        names = sorted(file.parent.glob(f"{glob.escape(file.name)}.*"))
        beside = [path for path in names if path.suffix != NEW_SUFFIX]
        return [file, *beside] if file.exists() else beside
    except OSError as error:
        raise StoreForbidden(f"{file} cannot be looked for: {error.strerror}") from None


def read_key(path: Path) -> bytes:
    """One key: 32 bytes as they are, or in base64 or hexadecimal.

    Raises:
        StoreForbidden: it is not a key, or others could read or replace it.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not hold up the start
        try:
            _check(path, os.fstat(fd))
            data = os.read(fd, MAX_FILE + 1)
        finally:
            os.close(fd)
    except OSError as error:
        raise StoreForbidden(f"the key file {path} cannot be read: {error.strerror}") from None
    key = _decoded(data)
    if key is None:
        raise StoreForbidden(
            f"the key file {path} holds no key: 32 bytes are expected, as they are or in base64 or hexadecimal"
        )
    return key


def _check(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise StoreForbidden(f"the key file {path} is no regular file")
    if found.st_uid not in (0, os.getuid()):
        raise StoreForbidden(
            f"the key file {path} belongs to user {found.st_uid}: chown it to {os.getuid()} or root"
        )
    # A credential that systemd passes belongs to root and is opened to us by an ACL, which shows as the group's mode.
    passed = found.st_uid == 0 and os.getuid() != 0
    if found.st_mode & (_OPEN_TO_OTHERS & ~stat.S_IRGRP if passed else _OPEN_TO_OTHERS):
        raise StoreForbidden(
            f"the key file {path} has permissions {found.st_mode & 0o7777:04o}: chmod 0400 it"
        )
    for parent in (path.parent, path.resolve().parent):  # that of a symbolic link, and where it leads
        mode = parent.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise StoreForbidden(
                f"the key file {path} lies in {parent}, where everybody may replace it: chmod o-w {parent}"
            )


def _decoded(data: bytes) -> bytes | None:
    if len(data) == KEY_LENGTH:
        return data
    text = data.strip()
    for decode in (bytes.fromhex, _from_base64):
        try:
            key = decode(text.decode("ascii"))
        except (ValueError, UnicodeDecodeError, binascii.Error):
            continue
        if len(key) == KEY_LENGTH:
            return key
    return None


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def make_key(path: Path, random: Callable[[int], bytes] = os.urandom) -> bytes:
    """Write a fresh key, durably, closed to everybody else; a file that is there is never replaced.

    Raises:
        StoreForbidden: it cannot be written.
    """
    key = random(KEY_LENGTH)
    new = path.with_name(path.name + NEW_SUFFIX)
    try:
        new.unlink(missing_ok=True)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, base64.b64encode(key) + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)
        try:
            os.link(new, path)  # unlike a rename it replaces nothing
        finally:
            new.unlink()
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise StoreForbidden(f"the key file {path} cannot be written: {error.strerror}") from None
    return key
