"""Finds the line of every key in TOML text, which `tomllib` does not tell.

The text is expected to be valid; for any other text the answer is incomplete, but there is one.
"""

from __future__ import annotations

import tomllib
from bisect import bisect_right
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, TypeAlias

MAX_DEPTH: Final = 32
"""Nested arrays and inline tables deeper than this are not looked into."""

Keys: TypeAlias = tuple[str, ...]

_SPACE: Final = " \t"
_BLANK: Final = " \t\r\n"
_ENDS_BARE_KEY: Final = frozenset(" \t\r\n=.]\"'#,{}[")
_ENDS_BARE_VALUE: Final = frozenset(",]}#\r\n")


class _Unreadable(Exception):  # noqa: N818 - a state, caught in this module
    """The text is not what valid TOML would be here."""


@dataclass(slots=True)
class Lines:
    """Lines of keys, counted from 1.

    Attributes:
        first: where a key or table first appears.
        again: where it is assigned or opened a second time.
    """

    first: dict[Keys, int] = field(default_factory=dict)
    again: dict[Keys, int] = field(default_factory=dict)

    def of(self, keys: Keys) -> int:
        """The line of a key, else of the nearest table around it, else 0."""
        while keys and keys not in self.first:
            keys = keys[:-1]
        return self.first.get(keys, 0)


def key_lines(text: str) -> Lines:
    """Scan a document. Never raises."""
    scanner = _Scanner(text)
    scanner.document()
    return scanner.lines


class _Scanner:
    """One pass over one text."""

    def __init__(self, text: str) -> None:
        self.lines = Lines()
        self._text = text
        self._at = 0
        self._starts = [0, *(i + 1 for i, letter in enumerate(text) if letter == "\n")]
        self._table: Keys = ()

    def document(self) -> None:
        """Read statements to the end of the text."""
        while True:
            self._skip_blank()
            if self._at >= len(self._text):
                return
            with suppress(_Unreadable):
                self._header() if self._peek("[") else self._assignment(self._table, 0)
            self._skip_line()

    def _peek(self, wanted: str) -> bool:
        return self._text.startswith(wanted, self._at)

    def _line(self) -> int:
        return bisect_right(self._starts, self._at)

    def _item(self) -> str:
        """A name for one item of an array that no key can have: keys of two items are not the same key."""
        return f"\0{self._at}"

    def _note(self, keys: Keys, line: int, *, whole: bool) -> None:
        """Remember a key and the tables on the way to it; `whole` if a second time would be an error."""
        for size in range(1, len(keys)):
            self.lines.first.setdefault(keys[:size], line)
        if keys in self.lines.first and whole:
            self.lines.again.setdefault(keys, line)
        self.lines.first.setdefault(keys, line)

    def _header(self) -> None:
        line = self._line()
        array = self._peek("[[")
        self._at += 2 if array else 1
        self._table = self._dotted_key()
        self._note(self._table, line, whole=not array)
        if array:
            self._table += (self._item(),)

    def _assignment(self, table: Keys, depth: int) -> None:
        line = self._line()
        keys = table + self._dotted_key()
        if not self._peek("="):
            raise _Unreadable
        self._at += 1
        self._note(keys, line, whole=True)
        self._value(keys, depth)

    def _dotted_key(self) -> Keys:
        parts: list[str] = []
        while True:
            self._skip(_SPACE)
            parts.append(self._simple_key())
            self._skip(_SPACE)
            if not self._peek("."):
                return tuple(parts)
            self._at += 1

    def _simple_key(self) -> str:
        start = self._at
        if self._peek('"') or self._peek("'"):
            self._quoted(self._text[self._at])
            return _unquoted(self._text[start : self._at])
        while self._at < len(self._text) and self._text[self._at] not in _ENDS_BARE_KEY:
            self._at += 1
        if self._at == start:
            raise _Unreadable
        return self._text[start : self._at]

    def _value(self, keys: Keys, depth: int) -> None:
        self._skip(_SPACE)
        if depth > MAX_DEPTH:
            raise _Unreadable
        for mark in ('"""', "'''", '"', "'"):
            if self._peek(mark):
                self._quoted(mark)
                return
        if self._peek("["):
            self._array(keys, depth)
        elif self._peek("{"):
            self._inline_table(keys, depth)
        else:
            while self._at < len(self._text) and self._text[self._at] not in _ENDS_BARE_VALUE:
                self._at += 1

    def _quoted(self, mark: str) -> None:
        """Go behind a string that starts here; multi-line ones may end in up to two quotes more."""
        self._at += len(mark)
        while self._at < len(self._text):
            if self._peek(mark):
                self._at += len(mark)
                while len(mark) == 3 and self._peek(mark[0]):
                    self._at += 1
                return
            self._at += 2 if mark[0] == '"' and self._peek("\\") else 1
        raise _Unreadable

    def _array(self, keys: Keys, depth: int) -> None:
        self._at += 1
        while True:
            self._skip_blank()
            if self._end("]"):
                return
            before = self._at
            self._value((*keys, self._item()), depth + 1)
            self._skip_blank()
            if self._peek(","):
                self._at += 1
            if self._at == before:
                raise _Unreadable

    def _inline_table(self, keys: Keys, depth: int) -> None:
        self._at += 1
        while True:
            self._skip_blank()
            if self._end("}"):
                return
            self._assignment(keys, depth + 1)
            self._skip_blank()
            if self._peek(","):
                self._at += 1

    def _end(self, mark: str) -> bool:
        if self._at >= len(self._text):
            raise _Unreadable
        if self._peek(mark):
            self._at += 1
            return True
        return False

    def _skip(self, letters: str) -> None:
        while self._at < len(self._text) and self._text[self._at] in letters:
            self._at += 1

    def _skip_blank(self) -> None:
        """Over white space, line ends and comments."""
        self._skip(_BLANK)
        while self._peek("#"):
            self._skip_line()
            self._skip(_BLANK)

    def _skip_line(self) -> None:
        end = self._text.find("\n", self._at)
        self._at = len(self._text) if end < 0 else end + 1


def _unquoted(literal: str) -> str:
    """The text of a quoted key."""
    try:
        value = tomllib.loads(f"key = {literal}")["key"]
    except tomllib.TOMLDecodeError:
        raise _Unreadable from None
    return str(value)
