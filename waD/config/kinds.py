"""The kinds of values an option can have: each parses what TOML gave, renders it again and describes itself."""

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

T = TypeVar("T")
S = TypeVar("S", bound=str)

Unit: TypeAlias = Literal["ms", "s", "min", "h", "d"]

SECONDS: Final[dict[str, float]] = {
    "ms": 0.001,
    "s": 1.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86_400.0,
    "w": 604_800.0,
}
UNIT_NAMES: Final[dict[str, str]] = {
    "ms": "milliseconds",
    "s": "seconds",
    "min": "minutes",
    "h": "hours",
    "d": "days",
}
MAX_SHOWN: Final = 60
"""Characters of a wrong value that an error repeats."""

_SPAN: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?(ms|s|min|h|d|w)")
_SPANS: Final = re.compile(r"(?:[0-9]{1,15}(?:\.[0-9]{1,9})? ?(?:ms|s|min|h|d|w) ?)+")
CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def span(seconds: float) -> str:
    """A duration in the largest unit that needs no fraction."""
    unit = next((unit for unit in ("d", "h", "min", "s") if seconds and not seconds % SECONDS[unit]), "ms")
    return f"{number(seconds / SECONDS[unit])}{unit}" if seconds else "0"


class Problem(ValueError):  # noqa: N818 - it is half a sentence, completed by the key
    """What is wrong with one value; the text follows the name of the key."""


def shown(raw: object) -> str:
    """A value from a file as an error repeats it: one line, of bounded length."""
    try:
        text = str(raw).lower() if isinstance(raw, bool) else repr(raw) if isinstance(raw, str) else str(raw)
    except ValueError:  # an integer with more digits than Python prints
        return "so large a number"
    text = CONTROL.sub("?", text)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def number(value: float) -> str:
    """A number in plain digits, without a needless fraction."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


class Kind(ABC, Generic[T]):
    """A type of option."""

    @abstractmethod
    def parse(self, raw: object) -> T:
        """Make the typed value of what TOML gave.

        Raises:
            Problem: wrong type or out of range; the text says what is expected.
        """

    @abstractmethod
    def toml(self, value: T) -> str:
        """The value as it is written in a file."""

    @abstractmethod
    def describe(self) -> str:
        """Type, unit and range in a few words."""

    def summary(self) -> str:
        """The same for the manual, where durations have been explained."""
        return self.describe()

    def masked(self, value: T) -> str:
        """The value as it may be shown to anyone, TOML text."""
        return self.toml(value)

    def wrong(self, raw: object) -> Problem:
        """The error for a value that is not of this kind."""
        return Problem(f"must be {self.describe()}, not {shown(raw)}")


@dataclass(frozen=True, slots=True)
class Switch(Kind[bool]):
    """true or false."""

    def parse(self, raw: object) -> bool:
        """Accept a boolean only."""
        if not isinstance(raw, bool):
            raise self.wrong(raw)
        return raw

    def toml(self, value: bool) -> str:
        """`true` or `false`."""
        return "true" if value else "false"

    def describe(self) -> str:
        """Name the two values."""
        return "true or false"


@dataclass(frozen=True, slots=True)
class Whole(Kind[int]):
    """An integer in a range, both ends included."""

    low: int
    high: int

    def parse(self, raw: object) -> int:
        """Accept an integer in the range."""
        if not isinstance(raw, int) or isinstance(raw, bool) or not self.low <= raw <= self.high:
            raise self.wrong(raw)
        return raw

    def toml(self, value: int) -> str:
        """Plain digits."""
        return str(value)

    def describe(self) -> str:
        """Name the range."""
        return f"a whole number from {self.low} to {self.high}"


@dataclass(frozen=True, slots=True)
class Number(Kind[float]):
    """A number in a range, both ends included."""

    low: float
    high: float

    def parse(self, raw: object) -> float:
        """Accept an integer or a finite float in the range."""
        value = _finite(raw)
        if value is None or not self.low <= value <= self.high:
            raise self.wrong(raw)
        return value

    def toml(self, value: float) -> str:
        """Plain digits."""
        return number(value)

    def describe(self) -> str:
        """Name the range."""
        return f"a number from {number(self.low)} to {number(self.high)}"


def _finite(raw: object) -> float | None:
    if isinstance(raw, bool) or not isinstance(raw, (int, float)):
        return None
    try:
        value = float(raw)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class Duration(Kind[float]):
    """A span of time: a number of `unit`, or a string with units such as "1h 30min".

    Attributes:
        unit: of a plain number, and of `low` and `high`.
        low: least value.
        high: greatest value.
        bare: the option's name says its unit, and the typed value is in that unit; otherwise it is in seconds.
    """

    unit: Unit
    low: float
    high: float
    bare: bool = False

    def parse(self, raw: object) -> float:
        """Accept a number of the unit or a string with units, within the range."""
        count = self._from_text(raw) if isinstance(raw, str) else _finite(raw)
        if count is None:
            raise self.wrong(raw)
        if not self.low <= count <= self.high:
            raise Problem(f"must be from {self._range()}, not {shown(raw)}")
        return count if self.bare else round(count * SECONDS[self.unit], 9)

    def toml(self, value: float) -> str:
        """A string with the unit; a number where the name of the option says the unit, and for 0."""
        count = value if self.bare else value / SECONDS[self.unit]
        return number(count) if self.bare or not count else f'"{number(count)}{self.unit}"'

    def describe(self) -> str:
        """Name both ways of writing it, and the range."""
        return (
            f'a number of {UNIT_NAMES[self.unit]} or a duration such as "{self._sample()}", {self._range()}'
        )

    def summary(self) -> str:
        """Name the range and the unit of plain numbers."""
        return f"a duration, {self._range()}; numbers are {UNIT_NAMES[self.unit]}"

    def _sample(self) -> str:
        return {"ms": "250ms", "s": "25s", "min": "15min", "h": "26h", "d": "30d"}[self.unit]

    def _range(self) -> str:
        return f"{span(self.low * SECONDS[self.unit])} to {span(self.high * SECONDS[self.unit])}"

    def _from_text(self, raw: str) -> float | None:
        text = raw.strip()
        if not _SPANS.fullmatch(text) or len(text) > MAX_SHOWN:
            return None
        seconds = sum(float(count) * SECONDS[unit] for count, unit in _SPAN.findall(text))
        return round(seconds / SECONDS[self.unit], 9)


@dataclass(frozen=True)  # no slots: typing writes the parameter into the instance
class Choice(Kind[S]):
    """One of a few words."""

    values: tuple[S, ...]

    def parse(self, raw: object) -> S:
        """Accept one of the words."""
        for value in self.values:
            if raw == value:
                return value
        raise self.wrong(raw)

    def toml(self, value: S) -> str:
        """A quoted word."""
        return quoted(value)

    def describe(self) -> str:
        """Name all words."""
        return "one of " + ", ".join(quoted(value) for value in self.values)


def quoted(text: str) -> str:
    """A TOML basic string."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


AnyKind: TypeAlias = Kind[Any]
