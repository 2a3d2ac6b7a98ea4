"""Text for people: remote words without control characters, times, addresses."""

from __future__ import annotations

import re
import time
from typing import Final

_JOINERS: Final = "\u200c\u200d"
"""Format characters that writing needs: emoji families, Persian, Indic scripts."""

_SPOKEN: Final = {"\n": "↵", "\t": " ", "\u2028": "↵", "\u2029": "↵"}
_CONTROL_IN_JSON: Final = re.compile(rb"\x7f|\xc2[\x80-\x9f]")


def clean(text: str) -> str:
    """Make remote text safe for a terminal and one line long.

    Control and format characters (escape sequences, direction overrides) are dropped, line ends become a sign.
    """
    if text.isprintable():
        return text
    return "".join(_clean(character) for character in text.replace("\r\n", "\n"))


def _clean(character: str) -> str:
    if character.isprintable() or character in _JOINERS:
        return character
    return _SPOKEN.get(character, " " if character.isspace() and character > "\x20" else "")


def safe_json(document: bytes) -> bytes:
    """Escape the control characters that JSON lets stand, DEL and C1; the document stays the same."""
    return _CONTROL_IN_JSON.sub(lambda found: b"\\u00%02x" % found[0][-1], document)


def moment(unix_ms: int | None) -> str:
    """A local time to the second, a dash for none."""
    if unix_ms is None:
        return "-"
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_ms / 1000))
    except (OverflowError, ValueError, OSError):
        return f"@{unix_ms}"


def ago(unix_ms: int | None, now: float | None = None) -> str:
    """A local time and how long ago that was, or how long it will take."""
    if unix_ms is None:
        return "never"
    seconds = round((time.time() if now is None else now) - unix_ms / 1000)
    span = duration(abs(seconds))
    return f"{moment(unix_ms)} ({span} ago)" if seconds >= 0 else f"{moment(unix_ms)} (in {span})"


def duration(seconds: int) -> str:
    """A span in its two largest units."""
    parts = []
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"


def address(jid: str | None) -> str:
    """A phone's address as its number, whichever device it is; any other as it is."""
    if not jid:
        return "-"
    user, _, server = jid.partition("@")
    number = user.partition(":")[0]
    if server == "s.whatsapp.net" and number.isascii() and number.isdigit():
        return f"+{number}"
    return clean(jid)
