"""`python -m waD.transfer verify-auth`."""

from __future__ import annotations

import getpass
import os
import sys
import tempfile
import time
from pathlib import Path

import click
import msgspec

from waD.transfer import keyfiles, sealing
from waD.transfer.archive import ArchiveError
from waD.transfer.levels import ENVELOPE, LEVELS, Verdict, open_file, read_header, verify_file

_FILE = click.Path(path_type=Path)


@click.command("verify-auth")
@click.argument("file", type=_FILE)
@click.option("--level", type=click.IntRange(LEVELS[0], LEVELS[-1]), default=LEVELS[-1], show_default=True)
@click.option("--identity-file", type=_FILE, metavar="FILE", help="Secret keys as age-keygen writes them.")
@click.option(
    "--passphrase-file", type=_FILE, metavar="FILE", help="The passphrase, as the one line of FILE."
)
@click.option("--spool-dir", type=_FILE, metavar="DIR", help="Unpack in DIR, else in TMPDIR.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--quiet", is_flag=True, help="Print nothing unless something is wrong.")
def verify_auth(
    file: Path,
    *,
    level: int,
    identity_file: Path | None,
    passphrase_file: Path | None,
    spool_dir: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Check a backup: its envelope, what is in it, and that every key and signature holds.

    Exit status: 0 sound, 1 could not be checked, 6 damaged. Asks for a passphrase on the terminal if it needs one.
    """
    if identity_file is not None and passphrase_file is not None:
        raise click.UsageError("--identity-file and --passphrase-file exclude each other")
    verdict = Verdict(level)
    try:
        key = find_key(file, identity_file, passphrase_file, ask=level > ENVELOPE)
    except ArchiveError as error:
        verdict.report.error(error.code, error.item, error.detail)
    else:
        spool = spool_dir or Path(tempfile.gettempdir())
        verdict = verify_file(file, level, key, spool, time.time_ns() // 1_000_000)
    if not (quiet and verdict.report.ok):
        _print(file, verdict, as_json=as_json)
    sys.exit(verdict.exit_status)


def find_key(
    file: Path, identity_file: Path | None, passphrase_file: Path | None, *, ask: bool = True
) -> sealing.Key | None:
    """The key that the command line names, or (`ask`) a passphrase asked for on the terminal.

    Raises:
        ArchiveError: a file of keys cannot be used.
    """
    if identity_file is not None:
        return keyfiles.read_identities(identity_file)
    if passphrase_file is not None:
        return keyfiles.read_passphrase(passphrase_file)
    if not ask or not _wants_passphrase(file) or not _has_terminal():
        return None
    return sealing.Passphrase(getpass.getpass(f"Passphrase of {file.name}: "))


def _wants_passphrase(file: Path) -> bool:
    try:
        with open_file(file) as opened:
            header = read_header(opened)
    except (OSError, ArchiveError):
        return False  # told when the file is checked
    return header is not None and header.passphrase is not None


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _print(file: Path, verdict: Verdict, *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(verdict.document()))
        return
    for note in verdict.report.notes:
        click.echo(f"{note.severity}: {note}", err=True)
    told = "sound" if verdict.report.ok else "not checked" if verdict.exit_status == 1 else "DAMAGED"
    count = sum(verdict.counts.values())
    click.echo(f"{file}: {told} at level {verdict.level}; {len(verdict.sessions)} sessions, {count} items")
