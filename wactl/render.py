"""The one place that writes: data to stdout, everything else to stderr."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final, TextIO

import click
import msgspec

from wactl.failure import Failure
from wactl.text import clean, safe_json

_COLOURS: Final = {
    "open": "green",
    "pairing": "cyan",
    "connecting": "yellow",
    "backoff": "yellow",
    "needs_pairing": "red",
    "failed": "red",
}


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal; a closed one is not."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def is_capable(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal that understands escape sequences."""
    return is_terminal(stream) and os.environ.get("TERM", "dumb") != "dumb"


def has_colour(stream: TextIO | None) -> bool:
    """Whether to colour what goes there: never without a terminal, nor with NO_COLOR."""
    return is_capable(stream) and not os.environ.get("NO_COLOR")


class Renderer:
    """Writes answers for people, or as JSON.

    Args:
        as_json: JSON on stdout, errors as a JSON object on stderr.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json

    def document(self, document: bytes | msgspec.Struct | Sequence[Any] | dict[str, Any]) -> None:
        """Write one JSON document on a line."""
        _check_open()
        line = document if isinstance(document, bytes) else msgspec.json.encode(document)
        click.echo(safe_json(line))

    def line(self, text: str = "") -> None:
        """Write a line for people to stdout."""
        _check_open()
        click.echo(_encodable(text, sys.stdout), color=has_colour(sys.stdout))

    def note(self, text: str) -> None:
        """Write a line for people to stderr; nothing with --json."""
        if not self.as_json:
            click.echo(_encodable(text, sys.stderr), err=True, color=has_colour(sys.stderr))

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Write rows in aligned columns."""
        lines = [list(heads), *([clean(cell) for cell in row] for row in rows)]
        widths = [max(len(click.unstyle(line[column])) for line in lines) for column in range(len(heads))]
        for line in lines:
            cells = (cell + " " * (width - len(cell)) for cell, width in zip(line, widths, strict=True))
            self.line("  ".join(cells).rstrip())

    def fields(self, rows: Iterable[tuple[str, str]]) -> None:
        """Write names and values, one a line."""
        known = [(name, value) for name, value in rows if value]
        width = max((len(name) for name, _ in known), default=0)
        for name, value in known:
            self.line(f"  {name:<{width}}  {value}")

    def failure(self, failure: Failure) -> None:
        """Write why the command failed."""
        if self.as_json:
            click.echo(safe_json(msgspec.json.encode(failure.document())), err=True)
        else:
            click.echo(_encodable(f"wactl: {clean(failure.message)}", sys.stderr), err=True)


def state(name: str) -> str:
    """A session's state, coloured; stdout drops the colour where it does not belong."""
    return click.style(clean(name), fg=_COLOURS.get(name), bold=name in ("failed", "needs_pairing"))


def _check_open() -> None:
    """Raise OSError if there is no stdout: an answer must not vanish."""
    if sys.stdout is None:
        raise OSError(errno.EBADF, "standard output is closed")


def _encodable(text: str, stream: TextIO | None) -> str:
    """Text that the stream's encoding can hold."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding, "replace")
