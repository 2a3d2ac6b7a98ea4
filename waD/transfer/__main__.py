"""`python -m waD.transfer`: what needs neither daemon nor database."""

from __future__ import annotations

import click

from waD.transfer.migrating.export_command import write_directory_command
from waD.transfer.migrating.read_command import read_source
from waD.transfer.unseal_command import unseal
from waD.transfer.verify_command import verify_auth


@click.group()
def main() -> None:
    """Auth states in files: check them, read them, write them."""


main.add_command(verify_auth)
main.add_command(unseal)
main.add_command(read_source)
main.add_command(write_directory_command)

if __name__ == "__main__":
    main(prog_name="python -m waD.transfer")
