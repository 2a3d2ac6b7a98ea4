"""QR codes: for a terminal and as files. A code is a secret until it has expired, so files are for the owner alone."""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import segno

from wactl.failure import Failure

QUIET: Final = 2
"""Light modules around the code in a terminal."""

FILE_QUIET: Final = 4
FILE_SCALE: Final = 8

_BLOCKS: Final = {(True, True): "█", (True, False): "▀", (False, True): "▄", (False, False): " "}
_LIGHT_ON_DARK: Final = "\x1b[38;5;231;48;5;16m"
_RESET: Final = "\x1b[0m"


def matrix(text: str) -> list[list[bool]]:
    """Return the modules with a quiet zone around them, True for a dark one."""
    code = segno.make_qr(text, error="l", boost_error=False)
    return [[bool(module) for module in row] for row in code.matrix_iter(border=QUIET)]


def draw(text: str, *, colour: bool, invert: bool = False) -> list[str]:
    """Draw a code with half blocks, two rows of modules in a line.

    Args:
        text: what the code says.
        colour: set white and black explicitly, so that it scans on every terminal. Without colour light modules are
            drawn, which is right for light text on a dark ground.
        invert: without colour, draw the dark modules: for dark text on a light ground.
    """
    rows = matrix(text)
    if len(rows) % 2:
        rows.append([False] * len(rows[0]))
    drawn = bool(invert and not colour)
    lines = [_line(rows[index], rows[index + 1], drawn) for index in range(0, len(rows), 2)]
    return [f"{_LIGHT_ON_DARK}{line}{_RESET}" for line in lines] if colour else lines


def _line(upper: Sequence[bool], lower: Sequence[bool], drawn: bool) -> str:
    return "".join(_BLOCKS[above is drawn, below is drawn] for above, below in zip(upper, lower, strict=True))


def picture(text: str, kind: str) -> bytes:
    """Return a code as a `png` or `svg` file."""
    out = io.BytesIO()
    code = segno.make_qr(text, error="l", boost_error=False)
    code.save(out, kind=kind, scale=FILE_SCALE, border=FILE_QUIET, light="white")
    return out.getvalue()


def write_private(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, mode 0600; raises Failure."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise Failure(
            "output", f"cannot write {path}: {error.strerror}", 1, data={"file": str(path)}
        ) from None
