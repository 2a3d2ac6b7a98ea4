"""What redis-cli prints of a hash or of strings: as JSON, plain, or for people (chapter 08 §3)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

_QUOTED: Final = r'"((?:[^"\\]|\\.)*)"'
_NUMBERED: Final = re.compile(rf"\s*[0-9]+\) {_QUOTED}")
_PAIRED: Final = re.compile(rf"\s*[0-9]+# {_QUOTED} => {_QUOTED}")
_ESCAPE: Final = re.compile(r"\\(x[0-9a-fA-F]{2}|.)")
_LETTERS: Final = {"n": b"\n", "r": b"\r", "t": b"\t", "a": b"\a", "b": b"\b"}


def redis_pairs(text: str) -> Iterator[tuple[str, str]]:
    """Names and values from the output of `HGETALL`, piped or as shown on a terminal.

    Raises:
        ValueError: it is no such output.
    """
    lines = [line.rstrip("\r") for line in text.split("\n") if line.strip()]
    if not lines:
        raise ValueError("empty")
    if _PAIRED.fullmatch(lines[0]):
        return _paired(lines)
    if _NUMBERED.fullmatch(lines[0]):
        return pairs([_unquoted(_matched(_NUMBERED, line)[1]) for line in lines])
    return pairs(lines)


def pairs(values: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Names and values in turn; raises ValueError when the last name has no value."""
    if len(values) % 2:
        raise ValueError("a name without a value")
    return zip(values[::2], values[1::2], strict=True)


def _paired(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        match = _matched(_PAIRED, line)
        yield _unquoted(match[1]), _unquoted(match[2])


def _matched(pattern: re.Pattern[str], line: str) -> re.Match[str]:
    match = pattern.fullmatch(line)
    if match is None:
        raise ValueError("a line that redis-cli does not print")
    return match


def _unquoted(text: str) -> str:
    """Undo the quoting of redis-cli, which spells every byte outside ASCII by its number."""
    data = bytearray()
    end = 0
    for match in _ESCAPE.finditer(text):
        data += text[end : match.start()].encode()
        escape = match[1]
        data += bytes((int(escape[1:], 16),)) if len(escape) > 1 else _LETTERS.get(escape, escape.encode())
        end = match.end()
    return (data + text[end:].encode()).decode("utf-8", "replace")
