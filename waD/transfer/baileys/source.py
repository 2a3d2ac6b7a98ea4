"""What every reader produces: the items of one session as decoded JSON (chapter 08 §2, §3)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from waD.e2ee.interop.common import ConversionError, decode_bytes, unnest
from waD.e2ee.limits import MAX_FOREIGN_RECORD_SIZE
from waD.transfer.baileys.message_store import StoredSecret
from waD.transfer.baileys.names import NameRefused, read_id, read_name, shown
from waD.transfer.sources.errors import SourceRefused
from waD.transfer.state import Note, Severity

MAX_ITEMS: Final = 1_000_000
"""Items of one session: an account that talks to a hundred thousand devices stays far below."""
MAX_TOTAL_SIZE: Final = 1 << 30
"""Bytes of all values of one session."""
MAX_VALUE: Final = MAX_FOREIGN_RECORD_SIZE
QUIET_MS: Final = 60_000
"""How long a source must have been untouched (chapter 08 §2.9)."""

Name: TypeAlias = tuple[str, str]
"""Type and id, the id in Baileys' own spelling."""


@dataclass(frozen=True, slots=True, repr=False)
class BaileysItems:
    """One session as a Baileys store holds it.

    Attributes:
        creds: the decoded value of `creds`, None when there is none or it cannot be read (then a note says so).
        items: decoded values by type and id; nothing about their form is certain.
        times: when an item was last written, Unix ms, where the source knows it.
        keeps_deleted: the store never deletes, so what was used up is still in it.
        notes: what was noticed while reading.
        secrets: of messages that are kept beside the keys.
    """

    creds: object | None
    items: Mapping[Name, object]
    times: Mapping[Name, int] = field(default_factory=dict)
    keeps_deleted: bool = False
    notes: tuple[Note, ...] = ()
    secrets: tuple[StoredSecret, ...] = ()

    def __repr__(self) -> str:
        return (
            f"BaileysItems({'with' if self.creds is not None else 'without'} creds, {len(self.items)} items)"
        )


class Collector:
    """Gathers what a reader finds, within limits."""

    def __init__(self, *, keeps_deleted: bool = False) -> None:
        self._creds: object | None = None
        self._items: dict[Name, object] = {}
        self._times: dict[Name, int] = {}
        self._notes: list[Note] = []
        self._secrets: list[StoredSecret] = []
        self._keeps_deleted = keeps_deleted
        self._size = 0

    @property
    def has_creds(self) -> bool:
        """Whether credentials were found."""
        return self._creds is not None

    @property
    def has_items(self) -> bool:
        """Whether any item was found, readable or not."""
        return bool(self._items) or any(note.code == "item_unreadable" for note in self._notes)

    def note(self, severity: Severity, code: str, item: str, detail: str) -> None:
        """Keep something for the report."""
        if len(self._notes) >= MAX_ITEMS:
            raise SourceRefused("source_too_large", f"more than {MAX_ITEMS} things to complain of")
        self._notes.append(Note(severity, code, item, detail))

    def spend(self, size: int) -> None:
        """Count bytes that were read.

        Raises:
            SourceRefused: too many.
        """
        self._size += size
        if self._size > MAX_TOTAL_SIZE:
            raise SourceRefused("source_too_large", f"the values have more than {MAX_TOTAL_SIZE >> 20} MiB")

    def put_creds(self, value: object) -> None:
        """Take a decoded value as credentials; null counts as none."""
        if isinstance(value, dict):
            self._creds = value
        elif value is not None:
            self.note("error", "creds_unreadable", "creds", "the value is not an object")

    def put_named(self, name: str, value: object, time_ms: int = 0) -> None:
        """Take a decoded value by its whole name; an unknown name is told and left out."""
        try:
            self.put(read_name(name), value, time_ms)
        except NameRefused as error:
            self.note("warning", "unknown_item", shown(name), str(error))

    def put_typed(self, kind: str, text: str, value: object) -> None:
        """Take a decoded value by its type and its id in any spelling."""
        try:
            self.put((kind, read_id(kind, text)), value)
        except NameRefused as error:
            self.note("warning", "unknown_item", shown(f"{kind}/{text}"), str(error))

    def put(self, name: Name, value: object, time_ms: int = 0) -> None:
        """Take an item; null means deleted, and of two spellings of one name the one written last counts."""
        if value is None:
            return
        if name in self._items:
            self.note(
                "warning", "item_repeated", "/".join(name), "it is there twice; the newer one was taken"
            )
            if time_ms < self._times.get(name, 0):
                return
        if len(self._items) >= MAX_ITEMS:
            raise SourceRefused("source_too_large", f"more than {MAX_ITEMS} items")
        self._items[name] = value
        if time_ms:
            self._times[name] = time_ms

    def put_secrets(self, found: Iterable[StoredSecret]) -> None:
        """Take secrets of messages."""
        self._secrets += found

    def finish(self) -> BaileysItems:
        """What was gathered."""
        return BaileysItems(
            self._creds,
            self._items,
            self._times,
            self._keeps_deleted,
            tuple(self._notes),
            tuple(self._secrets),
        )


def combine(sources: Iterable[BaileysItems]) -> BaileysItems:
    """Put one session together whose parts lie in several places; of what is there twice the first counts.

    Evolution keeps credentials in SQL and items in files or Redis, for one.
    """
    parts = [*sources]
    items: dict[Name, object] = {}
    times: dict[Name, int] = {}
    for part in reversed(parts):
        items.update(part.items)
        times.update(part.times)
    creds = next((part.creds for part in parts if part.creds is not None), None)
    lost = "creds_unreadable" if creds is not None else ""
    notes = tuple(note for part in parts for note in part.notes if note.code != lost)
    secrets = tuple(secret for part in parts for secret in part.secrets)
    return BaileysItems(creds, items, times, any(part.keeps_deleted for part in parts), notes, secrets)


def decode_text(data: bytes | str) -> Any:
    """Decode the text of a value, also when it was encoded several times.

    Raises:
        ConversionError: `item_unreadable`.
    """
    if len(data) > MAX_VALUE:
        raise ConversionError("item_unreadable", f"{len(data)} bytes, more than any item has")
    if not data.strip():
        raise ConversionError("item_unreadable", "empty")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise ConversionError("item_unreadable", "not JSON, or cut short") from None
    return unnest(value)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands for a value that a reader could not decode."""

    detail: str


def decode_value(value: object) -> Any:
    """Decode a value that a database gives, which may be text or be decoded already.

    Raises:
        ConversionError: `item_unreadable`.
    """
    if isinstance(value, Unreadable):
        raise ConversionError("item_unreadable", value.detail)
    if isinstance(value, memoryview | bytearray):
        value = bytes(value)
    if isinstance(value, dict) and value.keys() <= {"$binary", "$type"}:
        value = _text_in_binary(value)
    if isinstance(value, bytes):
        return decode_text(value)
    if isinstance(value, str) and (not value or value[0].isspace() or value[0] in '{["'):
        return decode_text(value)
    return unnest(value)


def _text_in_binary(value: Mapping[str, object]) -> object:
    """MongoDB's byte strings may hold the text of an item; those that are keys stay."""
    try:
        data = decode_bytes(value, "binary")
        return json.loads(data) if data and data[:1] in (b"{", b"[", b'"') else value
    except (ValueError, RecursionError):
        return value
