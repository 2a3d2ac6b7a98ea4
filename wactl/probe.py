"""Commands for monitors and service managers, whose exit statuses are a convention of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wactl.base import Command


class Probe(Command):
    """A command with exit statuses of its own.

    Args:
        exits: what each of them means.
        misused: the one for a wrong command line.
    """

    def __init__(self, name: str | None, *, exits: Mapping[int, str], misused: int, **settings: Any) -> None:
        super().__init__(name, **settings)
        self.exits = exits
        self.misused = misused
