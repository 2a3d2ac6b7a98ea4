"""Reading QR codes back: from half blocks and from PNG files, as matrices of modules without a quiet zone."""

from __future__ import annotations

import re
import struct
import zlib

import segno

_WHITE_ON_BLACK = "\x1b[38;5;231;48;5;16m"
_HALVES = {" ": (0, 0), "▀": (1, 0), "▄": (0, 1), "█": (1, 1)}
SAMPLE = (
    "https://wa.me/settings/linked_devices#2@4-0OuvrSmPLFir8fnatCaIypQQ7srHYZm3mqj5P93z4,"
    "J0qNOGdzblMWz4JXXp4+OS0CdTj7m9+aI60SKuhNZCE=,kk7lIFOzhjDZfuG1csM4uuXLcSRwRVKYogpqMD5BkT4=,"
    "Nz9EoVUASYNAAixy3TP3W4d+zyo6F4T9G7BANBas/G4=,7"
)

Matrix = list[list[int]]


def expected(text: str) -> Matrix:
    """The matrix an independent encoder call makes of a text, 1 for dark."""
    return [list(row) for row in segno.make(text, micro=False, error="l", boost_error=False).matrix]


def _crop(light: Matrix) -> Matrix:
    """Cut the quiet zone, which must be whole and light, and turn light into 0."""
    dark = [[1 - module for module in row] for row in light]
    rows = [index for index, row in enumerate(dark) if any(row)]
    columns = [index for index in range(len(dark[0])) if any(row[index] for row in dark)]
    top, bottom, left, right = rows[0], rows[-1], columns[0], columns[-1]
    assert min(top, left, len(dark) - 1 - bottom, len(dark[0]) - 1 - right) >= 2, "quiet zone"
    return [row[left : right + 1] for row in dark[top : bottom + 1]]


def from_terminal(lines: list[str], *, colour: bool, inverted: bool = False) -> Matrix:
    """What a camera sees on a dark terminal; with `inverted` on a light one."""
    light: Matrix = []
    for line in lines:
        assert line.startswith(_WHITE_ON_BLACK) is colour
        halves = [_HALVES[block] for block in re.sub(r"\x1b\[[0-9;]*m", "", line)]
        light.append([upper ^ inverted for upper, _ in halves])
        light.append([lower ^ inverted for _, lower in halves])
    assert len({len(row) for row in light}) == 1
    return _crop(light)


def blocks(text: str) -> list[list[str]]:
    """The codes drawn in a text, each as its lines."""
    found: list[list[str]] = []
    last = -2
    for number, line in enumerate(text.splitlines()):
        bare = re.sub(r"\x1b\[[0-9;]*[mAJ]", "", line)
        if len(bare) > 20 and set(bare) <= set(_HALVES):
            if number != last + 1:
                found.append([])
            found[-1].append(re.sub(r"\x1b\[[0-9;]*[AJ]", "", line))
            last = number
    return found


def from_png(data: bytes, scale: int) -> Matrix:
    """Decode a PNG of one bit a pixel."""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    at, packed, width, height = 8, b"", 0, 0
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack_from(">IIBB", body)
            assert (depth, colour) == (1, 0)
        elif kind == b"IDAT":
            packed += body
        at += length + 12
    raw, stride = zlib.decompress(packed), (width + 7) // 8 + 1
    rows = [raw[y * stride : (y + 1) * stride] for y in range(height)]
    above = bytes(stride)
    for number, row in enumerate(rows):
        assert row[0] in (0, 2), "filters none and up are all that one bit a pixel needs"
        if row[0] == 2:
            rows[number] = row = bytes((here + up) & 255 for here, up in zip(row, above, strict=True))
        above = row
    middle = scale // 2
    light = [
        [row[1 + x // 8] >> (7 - x % 8) & 1 for x in range(middle, width, scale)]
        for row in rows[middle::scale]
    ]
    return _crop(light)
