"""Phone numbers and addresses on the command line."""

from __future__ import annotations

from typing import Any

import click

from waD.control.types import parse_recipient


class Recipient(click.ParamType[str]):
    """A phone number or an address, brought into the form the daemon takes."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check and normalise."""
        try:
            return parse_recipient(str(value))
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


RECIPIENT = Recipient()
