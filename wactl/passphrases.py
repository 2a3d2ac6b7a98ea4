"""Passphrases of backups: from a terminal, or from a file that nobody else can read. Never from the arguments."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Final

import click

from wactl.failure import usage
from wactl.render import is_terminal

MAX_LENGTH: Final = 1024
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def new_passphrase(file: Path | None) -> str:
    """Take a passphrase for something new: from a file, else ask for it twice.

    Raises:
        Failure: the file is not fit for it, or there is no terminal to ask on.
        click.Abort: nothing was answered.
    """
    if file is not None:
        return read_passphrase(file)
    if not is_terminal(sys.stdin):
        raise usage("say who may read the backup: --recipient age1…, or --passphrase-file FILE")
    asked: str = click.prompt("Passphrase of the backup", hide_input=True, confirmation_prompt=True, err=True)
    return asked


def read_passphrase(file: Path) -> str:
    """The one line of a file of mode 0400 or 0600; raises Failure."""
    try:
        with open(os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY), "rb") as opened:
            status = os.fstat(opened.fileno())
            data = opened.read(MAX_LENGTH * 4) if stat.S_ISREG(status.st_mode) else b""
    except OSError as error:
        raise usage(f"cannot read the passphrase in {file}: {error.strerror}") from None
    if status.st_mode & _OTHERS:
        raise usage(f"others can use {file} (mode {status.st_mode & 0o7777:04o}): chmod 600")
    try:
        line = data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise usage(f"{file} is not a text in UTF-8") from None
    if not 0 < len(line) <= MAX_LENGTH or "\n" in line or "\r" in line:
        raise usage(f"{file} must have one line, the passphrase of at most {MAX_LENGTH} characters")
    return line
