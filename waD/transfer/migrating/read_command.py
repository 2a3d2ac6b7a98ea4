"""`python -m waD.transfer read-source`: for a program that hands a session of another one to a daemon or a store."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from waD.transfer.migrating.options import REFUSALS, choice, choice_options, exit_of, refuse, say, unix_ms
from waD.transfer.migrating.packing import pack
from waD.transfer.migrating.places import PlaceRefused, parse_source
from waD.transfer.migrating.reading import read, summary


@click.command("read-source")
@click.argument("source")
@click.argument("name")
@click.option("--archive", is_flag=True, help="Write the archive behind the summary.")
@click.option("--program", default="waD", help="For the manifest of the archive.")
@choice_options
def read_source(source: str, name: str, *, archive: bool, program: str, **options: Any) -> None:
    """Read one session of another program, check it, and write one line of JSON about it to standard output.

    With --archive a backup in the clear follows that line, if the session is sound: it holds every key of the account,
    so it goes into a pipe only. Nothing is changed. Exit status: 0 sound, 1 refused, 2 usage, 4 no such session,
    6 damaged.
    """
    if archive and sys.stdout.isatty():
        raise click.UsageError("standard output is a terminal: --archive is for a pipe")
    now_ms = unix_ms()
    try:
        place = parse_source(source)
        if not place.foreign:
            raise PlaceRefused(
                "scheme_unknown", f"it is a store of waD, not of another program: write --from {place}"
            )
        reading = read(place, choice(**options), now_ms)
    except REFUSALS as error:
        refuse(error)
    document = summary(reading)
    say(document)
    if archive and reading.state is not None:
        pack(sys.stdout.buffer, reading.state, name, program, now_ms, Path(tempfile.gettempdir()))
    sys.exit(exit_of(document))
