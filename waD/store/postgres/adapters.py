"""Values on their way to PostgreSQL and back: times, documents, ids, and text with characters that it does not take.

PostgreSQL stores no NUL, neither in text nor in documents, but a peer may well send one. It is written as two other
characters, the first of which is written as two as well, so that everything comes back as it was.
"""

from __future__ import annotations

import re
import struct
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.abc import AdaptContext
from psycopg.adapt import AdaptersMap, Buffer, Dumper, Loader
from psycopg.pq import Format

from waD.store.sql.database import Json, Ms

EPOCH_MS: Final = 946_684_800_000
"""PostgreSQL's times count from the year 2000."""
MIN_MS: Final = -210_863_520_000_000
MAX_MS: Final = 9_224_000_000_000_000
"""The first and the last time that a column holds; what claims to be outside is put to the end."""
ESCAPE: Final = "\U000f5a00"
_ESCAPE: Final = ESCAPE.encode()
_SPECIAL: Final = re.compile(f"[\0{ESCAPE}]")
_SPECIAL_JSON: Final = re.compile(rf"{ESCAPE}|\\(?:u0000|.)", re.DOTALL)
_ESCAPED: Final = re.compile(_ESCAPE + b"([01])")
_JSONB_VERSION: Final = b"\x01"


def escape_text(text: str) -> str:
    """Text without NUL."""
    return _SPECIAL.sub(lambda found: ESCAPE + ("0" if found[0] == "\0" else "1"), text)


def escape_json(text: str) -> str:
    """JSON text whose strings hold no NUL."""
    if r"\u0000" not in text and ESCAPE not in text:
        return text

    def write(found: re.Match[str]) -> str:
        if found[0] == ESCAPE:
            return ESCAPE + "1"
        return ESCAPE + "0" if found[0] == r"\u0000" else found[0]

    return _SPECIAL_JSON.sub(write, text)


def unescape(data: bytes, nul: bytes) -> bytes:
    """What was escaped; `nul` is how a NUL is written there."""
    if _ESCAPE not in data:
        return data
    return _ESCAPED.sub(lambda found: nul if found[1] == b"0" else _ESCAPE, data)


class TextDumper(Dumper):
    """Of `str`. The type is left to the server: the same text may be an id, a name or a key."""

    format = Format.TEXT
    oid = 0

    def dump(self, obj: Any) -> Buffer:
        """UTF-8."""
        return (escape_text(obj) if _SPECIAL.search(obj) else obj).encode()


class JsonDumper(Dumper):
    """Of `Json`."""

    format = Format.BINARY
    oid = psycopg.adapters.types["jsonb"].oid

    def dump(self, obj: Any) -> Buffer:
        """The text behind its version."""
        return _JSONB_VERSION + escape_json(str(obj)).encode()


class MsDumper(Dumper):
    """Of `Ms`."""

    format = Format.BINARY
    oid = psycopg.adapters.types["timestamptz"].oid

    def dump(self, obj: Any) -> Buffer:
        """Microseconds."""
        return struct.pack("!q", (min(max(obj, MIN_MS), MAX_MS) - EPOCH_MS) * 1000)


class TextLoader(Loader):
    """To `str`."""

    format = Format.BINARY

    def load(self, data: Buffer) -> str:
        """From UTF-8."""
        return unescape(bytes(data), b"\0").decode()


class JsonLoader(Loader):
    """To bytes: keys come in another order than they went."""

    format = Format.BINARY

    def load(self, data: Buffer) -> bytes:
        """The text behind its version."""
        return unescape(bytes(data[1:]), rb"\u0000")


class MsLoader(Loader):
    """To Unix milliseconds."""

    format = Format.BINARY

    def load(self, data: Buffer) -> int:
        """From microseconds."""
        micros: int = struct.unpack("!q", data)[0]
        return micros // 1000 + EPOCH_MS


class UuidLoader(Loader):
    """To `str`."""

    format = Format.BINARY

    def load(self, data: Buffer) -> str:
        """From 16 bytes."""
        return str(UUID(bytes=bytes(data)))


def _adapters() -> AdaptersMap:
    adapters = AdaptersMap(psycopg.adapters)
    for kind, dumper in ((str, TextDumper), (Json, JsonDumper), (Ms, MsDumper)):
        adapters.register_dumper(kind, dumper)
    for name, loader in (
        ("text", TextLoader),
        ("jsonb", JsonLoader),
        ("timestamptz", MsLoader),
        ("uuid", UuidLoader),
    ):
        adapters.register_loader(name, loader)
    return adapters


class _Context:
    """What psycopg takes adapters from."""

    adapters = _adapters()
    connection = None


CONTEXT: Final[AdaptContext] = _Context()


@lru_cache(maxsize=1024)
def numbered(sql: str) -> bytes:
    """A statement with `?` for its parameters as one with `$1`, `$2` …; quoted text stays."""
    parts, count, quote = [], 0, ""
    for letter in sql:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter == "?":
            count += 1
            parts.append(f"${count}")
            continue
        parts.append(letter)
    return "".join(parts).encode()
