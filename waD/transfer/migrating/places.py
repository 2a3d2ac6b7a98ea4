"""What the words after `--from` and `--to` mean, and what is there when they do not say it: nothing is opened to write.

A secret is never part of such a word: other users of the machine can read the arguments of a process.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias
from urllib.parse import parse_qsl, urlsplit

from waD.transfer.baileys.redis_dump import is_redis_dump
from waD.transfer.sources.errors import SourceRefused
from waD.transfer.sources.files import beginning, chunks, open_file
from waD.transfer.sources.sql_statements import is_sql
from waD.transfer.sources.sqlite import MAGIC, table_names

Scheme: TypeAlias = Literal[
    "waD", "sqlite", "postgresql", "baileys-dir", "baileys-kv", "baileys-json", "baileys-redis", "whatsmeow"
]
BAILEYS: Final = frozenset({"baileys-dir", "baileys-kv", "baileys-json", "baileys-redis"})
FOREIGN: Final = BAILEYS | {"whatsmeow"}
"""Schemes of other programs."""
STORES: Final = frozenset({"waD", "sqlite", "postgresql"})
"""Schemes of stores of waD."""
SOURCES: Final = FOREIGN | STORES
TARGETS: Final = STORES | {"baileys-dir"}

_URLS: Final = ("postgresql://", "postgres://")
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+-]*):(.*)", re.DOTALL)
_START: Final = 4096
"""Bytes of a file that tell what it is."""
_WHATSMEOW_TABLE: Final = re.compile(
    rb"^(?:CREATE TABLE|INSERT|COPY)\b[^(;\n]{0,80}?\bwhatsmeow_device\b", re.MULTILINE | re.IGNORECASE
)
_OVERLAP: Final = 200
_KNOWN: Final[dict[str, tuple[Scheme, str]]] = {
    "whatsmeow_device": ("whatsmeow", "an SQLite database of whatsmeow"),
    "wa_sessions": ("sqlite", "an SQLite store of waD"),
}


class PlaceRefused(Exception):  # noqa: N818 - what is the case
    """A word that names no place, or must not be used; `code` is stable.

    The codes: `scheme_unknown`, `password_in_url`, and those of `SourceRefused` for what stands at a path.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Place(NamedTuple):
    """Where a session is, or goes to.

    Attributes:
        scheme: what kind of place it is.
        location: path or URL; empty for the store of the daemon.
        found: what was found there, when the word did not say it.
    """

    scheme: Scheme
    location: str
    found: str | None = None

    @property
    def foreign(self) -> bool:
        """Whether it belongs to another program."""
        return self.scheme in FOREIGN

    def __str__(self) -> str:
        if self.scheme in ("waD", "postgresql"):
            return self.location or self.scheme
        return f"{self.scheme}:{self.location}"


def parse_source(word: str) -> Place:
    """Where a session comes from: `scheme:rest`, a URL, or a path at which it is found out.

    Raises:
        PlaceRefused: it is none.
    """
    place = _parse(word, SOURCES)
    return _detect(word) if place is None else place


def parse_target(word: str) -> Place:
    """Where a session goes to; here nothing is guessed.

    Raises:
        PlaceRefused: it is none.
    """
    place = _parse(word, TARGETS)
    if place is None:
        raise PlaceRefused("scheme_unknown", f"say what to make there: {_listed(TARGETS)}")
    return place


def _parse(word: str, schemes: frozenset[str]) -> Place | None:
    """A place whose scheme is named; None without one."""
    if word == "waD":
        return Place("waD", "")
    if word.startswith(_URLS):
        _refuse_password(word)
        return Place("postgresql", word)
    matched = _SCHEME.fullmatch(word)
    if matched is None or os.path.exists(word):
        return None
    scheme, rest = matched.groups()
    if scheme in ("postgresql", "postgres", "waD") or scheme not in schemes:
        raise PlaceRefused("scheme_unknown", f"{scheme}: is none of {_listed(schemes)}")
    if not rest:
        raise PlaceRefused("scheme_unknown", f"{scheme}: what comes behind it is missing")
    if rest.startswith(_URLS):
        if scheme not in ("whatsmeow", "baileys-kv"):
            raise PlaceRefused("scheme_unknown", f"{scheme}: takes no URL")
        _refuse_password(rest)
    return Place(scheme, rest)  # type: ignore[arg-type]


def _listed(schemes: frozenset[str]) -> str:
    forms = {"waD": "waD", "postgresql": "postgresql://USER@HOST/DATABASE"}
    return ", ".join(forms.get(scheme, f"{scheme}:PATH") for scheme in sorted(schemes))


def _refuse_password(url: str) -> None:
    try:
        parts = urlsplit(url)
        secret = bool(parts.password) or any(name == "password" for name, _ in parse_qsl(parts.query))
    except ValueError:
        raise PlaceRefused(
            "scheme_unknown", "the URL makes no sense: postgresql://USER@HOST/DATABASE"
        ) from None
    if secret:
        raise PlaceRefused(
            "password_in_url",
            "everybody on this machine can read the arguments of a process: put the password into a file of mode "
            "0600 and name it with PGPASSFILE, or set PGPASSWORD",
        )


# ------------------------------------------------------------------------------------------------------- detection


def _detect(word: str) -> Place:
    path = Path(word)
    try:
        if path.is_dir():
            return Place("baileys-dir", word, "a directory of Baileys")
        start = beginning(path, _START)
        if start.startswith(MAGIC):
            return _detect_database(word, path)
        if is_redis_dump(start):
            return Place("baileys-redis", word, "a dump of a Redis server")
        if is_sql(start):
            return _detect_dump(word, path)
    except SourceRefused as error:
        raise PlaceRefused(error.code, error.detail) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PlaceRefused("source_unreachable", f"cannot read {word}: {reason}") from None
    return Place("baileys-kv", word, "an exported file of a Baileys store")


def _detect_dump(word: str, path: Path) -> Place:
    """Whose tables an SQL dump holds; it may be long, so it is only searched for a name."""
    with open_file(path) as file:
        before = b""
        for piece in chunks(file):
            if _WHATSMEOW_TABLE.search(before + piece):
                return Place("whatsmeow", word, "an SQL dump of whatsmeow")
            before = piece[-_OVERLAP:]
    return Place("baileys-kv", word, "an SQL dump, perhaps with a Baileys store")


def _detect_database(word: str, path: Path) -> Place:
    tables = table_names(path, _KNOWN)
    for table, (scheme, found) in _KNOWN.items():
        if table in tables:
            return Place(scheme, word, found)
    return Place("baileys-kv", word, "an SQLite database, perhaps with a Baileys store")
