"""`python -m waD.transfer write-directory`: a session out of an archive into a directory of Baileys (chapter 08 §5.3).

The archive comes in on standard input, encrypted to a key of this process that nobody else has and nobody keeps.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import pyrage

from waD.transfer.archive import SECRETS, ArchiveError
from waD.transfer.archive_reading import open_archive
from waD.transfer.baileys.export import baileys_files, write_directory
from waD.transfer.migrating.options import EXIT_DAMAGED, EXIT_REFUSED, refuse, say, unix_ms
from waD.transfer.migrating.reading import account, notes
from waD.transfer.sealing import Identities
from waD.transfer.sources.errors import SourceRefused
from waD.transfer.state import MESSAGE_SECRET, AuthState, Report
from waD.transfer.verify import read_credentials, verify

CHUNK = 1 << 20


@click.command("write-directory")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Write nothing.")
def write_directory_command(directory: Path, *, dry_run: bool) -> None:
    """Take an archive of one session from standard input and write it as a directory of Baileys.

    First a line with the public key to encrypt the archive to is written to standard output, at the end one about what
    was done and what was lost. Exit status: 0 done, 1 refused, 6 damaged.
    """
    own = pyrage.x25519.Identity.generate()
    spool = Path(tempfile.gettempdir())
    try:
        check_target(directory)
        say({"recipient": str(own.to_public())})
        with tempfile.TemporaryFile(dir=spool) as file:
            while chunk := sys.stdin.buffer.read(CHUNK):
                file.write(chunk)
            file.seek(0)
            with open_archive(file, spool, Identities([str(own)]), Report()) as archive:
                (listed,) = archive.manifest.sessions
                session = archive.session(listed.id)
                secrets = archive.check_rows(listed.id).get(SECRETS, 0)
        report = Report()
        creds = read_credentials(session.creds, report)
        if creds is None:
            raise ArchiveError("creds_unreadable", report.errors[0].detail)
        state = AuthState(creds, {name: item.document for name, item in session.items.items()})
        export(state, directory, dry_run=dry_run, secrets=secrets)
    except (SourceRefused, ArchiveError) as error:
        refuse(error)


def check_target(path: Path) -> None:
    """Before anything is asked for: whether the directory can be made.

    Raises:
        SourceRefused: it cannot.
    """
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise SourceRefused(
                "target_not_empty", f"{path} is not an empty directory: name one that does not exist"
            )
    except OSError as error:
        raise SourceRefused("target_unwritable", f"cannot look at {path}: {error.strerror}") from None
    if not path.parent.is_dir():
        raise SourceRefused("target_unwritable", f"there is no directory {path.parent}")


def export(state: AuthState, directory: Path, *, dry_run: bool, secrets: int = 0) -> None:
    """Write a state that was checked, and the line about it; ends the process if it is not sound.

    `secrets` is how many secrets of messages there are beside it.

    Raises:
        SourceRefused: the directory cannot be written; nothing is left behind.
    """
    found = verify(state, unix_ms())
    if not found.ok:
        say(_document(state, found, done=False))
        sys.exit(EXIT_DAMAGED if state.creds.registered else EXIT_REFUSED)
    lost = baileys_files(state)[1] if dry_run else write_directory(state, directory)
    if secrets:
        lost.warn(
            "not_exported",
            MESSAGE_SECRET,
            f"{secrets} items: Baileys has no place for them, and cannot read votes on messages before the move, "
            "answers to them and encrypted edits",
        )
    say(_document(state, lost, done=not dry_run))


def _document(state: AuthState, report: Report, *, done: bool) -> dict[str, Any]:
    return {
        "ok": report.ok,
        "done": done,
        "account": account(state),
        "counts": state.counts(),
        **notes(report),
    }
