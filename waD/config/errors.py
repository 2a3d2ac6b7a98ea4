"""What can be wrong with the configuration: every error at once, each with its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands: a file and a line, counted from 1, or 0 when it has none."""

    file: Path
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else str(self.file)


@dataclass(frozen=True, slots=True)
class ConfigError:
    """One fault.

    Attributes:
        place: file and line.
        key: dotted key or table, empty when the file as a whole is meant.
        problem: what is wrong and what would be right; never holds a secret.
    """

    place: Place
    key: str
    problem: str

    def __str__(self) -> str:
        return f"{self.place}: {self.key}: {self.problem}" if self.key else f"{self.place}: {self.problem}"


class ConfigErrors(Exception):  # noqa: N818 - it holds several
    """The configuration cannot be used.

    Attributes:
        errors: all faults, by file and line.
    """

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(map(str, self.errors)))
