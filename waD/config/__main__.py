"""`python -m waD.config`: print the commented file, the manual page, or what is in force."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from waD.config.errors import ConfigErrors
from waD.config.loading import load
from waD.config.manual import manual
from waD.config.settings import Settings
from waD.config.template import template

_FILE = click.option(
    "--config", "path", type=click.Path(path_type=Path), help="Another file than the default one."
)


@click.group()
def main() -> None:
    """Settings of the waD daemon."""


@main.command()
def init() -> None:
    """Print a file with every option, commented out.

    Example: python -m waD.config init > waD.toml
    """
    click.echo(template(), nl=False)


@main.command("man")
def man_page() -> None:
    """Print the manual page waD.toml(5), without the disconnect table: that is the session's.

    Example: python -m waD.config man | man -l -
    """
    click.echo(manual(), nl=False)


@main.command()
@_FILE
def check(path: Path | None) -> None:
    """Read the files and report every fault; exit status 1 if there is one.

    Example: python -m waD.config check --config ./waD.toml
    """
    settings = _load(path)
    for warning in settings.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo("\n".join(f"read {file}" for file in settings.files) or "no file; defaults are in force")


@main.command()
@_FILE
@click.option("--origin", is_flag=True, help="Say where each value comes from.")
def show(path: Path | None, *, origin: bool) -> None:
    """Print every option with its value.

    Example: python -m waD.config show --origin
    """
    for line in _load(path).show():
        click.echo(f"{line.key} = {line.value}" + (f"  # {line.origin}" if origin else ""))


def _load(path: Path | None) -> Settings:
    try:
        return load(path, os.environ)
    except ConfigErrors as errors:
        click.echo(str(errors), err=True)
        sys.exit(1)


if __name__ == "__main__":
    main(prog_name="python -m waD.config")
