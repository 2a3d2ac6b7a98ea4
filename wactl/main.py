"""Entry point. The rest is imported inside `main`, so that Ctrl-C ends quietly even during start-up."""

from __future__ import annotations

import sys


def main() -> None:
    """Run `wactl`; always ends in SystemExit."""
    try:
        from wactl.cli import cli

        cli.main(prog_name="wactl")
    except KeyboardInterrupt:
        sys.exit(130)
