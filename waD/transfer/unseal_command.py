"""`python -m waD.transfer unseal`: for programs that restore an archive through a running daemon."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

from waD.transfer.archive import ArchiveError
from waD.transfer.archive_reading import open_archive
from waD.transfer.levels import EXIT_DAMAGED, EXIT_REFUSED, open_file
from waD.transfer.state import Report
from waD.transfer.verify_command import find_key

_FILE = click.Path(path_type=Path)


@click.command("unseal")
@click.argument("file", type=_FILE)
@click.option("--identity-file", type=_FILE, metavar="FILE", help="Secret keys as age-keygen writes them.")
@click.option(
    "--passphrase-file", type=_FILE, metavar="FILE", help="The passphrase, as the one line of FILE."
)
@click.option("--spool-dir", type=_FILE, metavar="DIR", help="Unpack in DIR, else in TMPDIR.")
def unseal(
    file: Path, *, identity_file: Path | None, passphrase_file: Path | None, spool_dir: Path | None
) -> None:
    """Write an archive to standard output, decrypted and unpacked, after all of it was checked at level 0.

    What is written holds every key of the account: into a pipe only. Nothing is written on a failure. Exit status: 0
    done, 1 could not be opened, 6 damaged.
    """
    if identity_file is not None and passphrase_file is not None:
        raise click.UsageError("--identity-file and --passphrase-file exclude each other")
    if sys.stdout.isatty():
        raise click.UsageError("standard output is a terminal: this is for a pipe")
    try:
        key = find_key(file, identity_file, passphrase_file)
        spool = spool_dir or Path(tempfile.gettempdir())
        with open_file(file) as source, open_archive(source, spool, key, Report()) as archive:
            archive.copy_to(sys.stdout.buffer)
    except ArchiveError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(EXIT_REFUSED if error.cannot_check else EXIT_DAMAGED)
    except OSError as error:
        click.echo(f"error: file_unreadable {file}: {error.strerror or 'it cannot be read'}", err=True)
        sys.exit(EXIT_REFUSED)
