"""Sessions in the dump of a whole Redis server: hashes, and strings with a prefix (chapter 08 §3).

A session is called what its hash or its prefix is called, with the number of the database in front unless that is 0:
`evolution-cache:instance:3f2a`, `2/authState:shop`. The part of that name which the programs let people choose will do
where only one has it. The file is read twice, so that no more than one session is ever in memory;
the checksum is counted once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from waD.transfer.baileys.names import CREDS, NameRefused, read_name, split_prefix
from waD.transfer.baileys.rows import MAX_CHOICES, MAX_SESSIONS, Row, read_rows
from waD.transfer.baileys.source import MAX_VALUE, BaileysItems, Unreadable
from waD.transfer.sources.errors import SourceRefused
from waD.transfer.sources.files import chunks, open_file
from waD.transfer.sources.rdb import MAGIC, Item, read_rdb

_IN_CREDS: Final = b"noiseKey"
_HASHES: Final = re.compile(r"(?:.*:)?(?:authState|instance):(.+)|.*:([^:]+):authState", re.DOTALL)
"""Names of hashes: hbinduni/baileys-redis-auth and Evolution; fazer-ai/baileys-api."""


def is_redis_dump(start: bytes) -> bool:
    """Whether a file begins like one."""
    return MAGIC.match(start) is not None


def read_redis_dump(path: Path, *, session: str | None = None) -> BaileysItems:
    """Read one session from an RDB file.

    Args:
        path: the file.
        session: which one, when there are several.

    Raises:
        SourceRefused: it was not read.
    """
    try:
        with open_file(path) as file:
            survey = _Survey()
            for item in read_rdb(chunks(file), survey.wants, max_value=MAX_VALUE):
                survey.take(item)
            chosen = survey.chosen(session)
            file.seek(0)
            items = read_rdb(
                chunks(file),
                lambda database, key, field: _session(database, key, field) == chosen,
                max_value=MAX_VALUE,
                checked=False,
            )
            return read_rows(_rows(items))
    except SourceRefused as error:
        if error.code in ("source_damaged", "dump_unsupported"):
            raise SourceRefused(error.code, f"{path}: {error.detail}") from None
        raise


class _Survey:
    """Finds what sessions a dump holds, and which of them have credentials."""

    def __init__(self) -> None:
        self._found: dict[str, bool] = {}

    def wants(self, database: int, key: bytes, field: bytes | None) -> bool:
        """Only strings are read whose name does not tell what they are."""
        split = split_prefix(_text(key if field is None else field))
        if split is None:
            return field is None
        if _is_item(split[1]):
            self._put(_session(database, key, field), has_creds=split[1] == CREDS)
        return False

    def take(self, item: Item) -> None:
        """A string without the name of an item: credentials or a whole state, or nothing to us."""
        if item.value is not None and _IN_CREDS in item.value:
            self._put(_session(item.database, item.key, item.field), has_creds=True)

    def _put(self, name: str, *, has_creds: bool) -> None:
        if len(self._found) >= MAX_SESSIONS and name not in self._found:
            raise SourceRefused("source_too_large", f"more than {MAX_SESSIONS} sessions")
        self._found[name] = has_creds or self._found.get(name, False)

    def chosen(self, wanted: str | None) -> str:
        """The name of the one that is wanted, or of the only one there is.

        Raises:
            SourceRefused: there is none, or several.
        """
        everything = sorted(self._found)
        if not everything:
            raise SourceRefused(
                "not_baileys", "no key in the dump has the name of an item that Baileys keeps"
            )
        if wanted is None:
            fitting = [name for name, has_creds in self._found.items() if has_creds] or everything
        elif wanted in self._found:
            fitting = [wanted]
        else:
            fitting = [name for name in everything if wanted in _short_names(name)]
        if not fitting:
            choices = tuple(everything[:MAX_CHOICES])
            raise SourceRefused("session_unknown", "no key in the dump belongs to that session", choices)
        if len(fitting) > 1:
            choices = tuple(sorted(fitting)[:MAX_CHOICES])
            raise SourceRefused("session_several", f"{len(fitting)} sessions: name one of them", choices)
        return fitting[0]


def _rows(items: Iterator[Item]) -> Iterator[Row]:
    """Rows of one session; its name is dropped, since there is no other."""
    for item in items:
        name = _text(item.key if item.field is None else item.field)
        split = split_prefix(name) if item.field is None else None
        yield Row(None, name if split is None else split[1], _value(item))


def _value(item: Item) -> str | Unreadable:
    if item.expired:
        return Unreadable("its time to live was over when the dump was made")
    if item.value is None:
        return Unreadable("more bytes than any item has")
    try:
        return item.value.decode()
    except UnicodeDecodeError:
        return Unreadable("not text")


def _session(database: int, key: bytes, field: bytes | None) -> str:
    """What the session of a hash or a string is called; strings without a prefix are those of a nameless one."""
    text = _text(key)
    split = split_prefix(text) if field is None else None
    name = text if split is None else split[0].removesuffix(":")
    return f"{database}/{name}" if database else name


def _short_names(name: str) -> set[str]:
    database, slash, plain = name.partition("/")
    if not slash or not database.isdigit():
        plain = name
    found = {plain, plain.rpartition(":")[2]}
    match = _HASHES.fullmatch(plain)
    if match is not None:
        found.add(match[1] or match[2])
    return found


def _is_item(name: str) -> bool:
    if name == CREDS:
        return True
    try:
        read_name(name)
    except NameRefused:
        return False
    return True


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
