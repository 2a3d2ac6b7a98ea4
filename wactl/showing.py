"""Codes on a terminal, one in the place of the other."""

from __future__ import annotations

import shutil
import sys

from wactl.qrcode import draw
from wactl.render import Renderer, has_colour, is_capable
from wactl.text import moment
from waD.control import types as t

CAPTION_LINES = 1


class CodeBoard:
    """Draws codes to stdout; on a terminal a new code replaces the one before.

    Args:
        out: the renderer.
        invert: for dark text on a light ground, where no colour may be used.
    """

    def __init__(self, out: Renderer, *, invert: bool = False) -> None:
        self._out = out
        self._invert = invert
        self._height = 0

    def show(self, code: t.QrView) -> None:
        """Draw a code and how long it is good for."""
        lines = draw(code.qr, colour=has_colour(sys.stdout), invert=self._invert)
        width = len(draw(code.qr, colour=False)[0])
        columns, rows = shutil.get_terminal_size()
        if is_capable(sys.stdout):
            if width > columns or len(lines) + CAPTION_LINES > rows:
                self._out.note(
                    f"the terminal is too small for the code: it needs {width} columns and "
                    f"{len(lines) + CAPTION_LINES} lines; wactl qr {code.session} --png FILE writes it to a file"
                )
            self._wipe()
        for line in lines:
            self._out.line(line)
        self._out.line(f"code {code.number} of {code.of}, good until {moment(code.expires_at)}")
        self._height = len(lines) + CAPTION_LINES

    def leave(self) -> None:
        """Let what is drawn stand: something else follows it."""
        self._height = 0

    def _wipe(self) -> None:
        if self._height:
            sys.stdout.write(f"\x1b[{self._height}A\x1b[J")
