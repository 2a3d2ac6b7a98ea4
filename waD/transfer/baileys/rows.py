"""Key-value rows, whatever they come from: SQL tables, dumps, Redis, collections of documents (chapter 08 §3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from waD.e2ee.interop.common import ConversionError
from waD.transfer.baileys.document import is_creds, is_state, put_state, refuse_encrypted
from waD.transfer.baileys.names import CREDS, shown, split_prefix, type_named
from waD.transfer.baileys.source import MAX_ITEMS, BaileysItems, Collector, decode_value
from waD.transfer.sources.errors import SourceRefused

MAX_SESSIONS: Final = 10_000
MAX_CHOICES: Final = 20
_NOT_ITEMS: Final = frozenset({"metadata", "meta", "__v"})
"""What stores keep beside the items."""


class Row(NamedTuple):
    """One row.

    Attributes:
        session: which session it belongs to, None when only its key tells, or nothing.
        key: name of the item with whatever the store puts in front; None: the value is credentials or a whole state.
        value: text, bytes or decoded JSON.
        kind: type of the item, when the key is its id alone.
    """

    session: str | None
    key: str | None
    value: object
    kind: str | None = None


class _Sessions:
    """Collectors by session: the column's word, and what stands in front of the keys."""

    def __init__(self, *, wanted: str | None, keeps_deleted: bool) -> None:
        self._wanted = wanted
        self._keeps_deleted = keeps_deleted
        self._found: dict[tuple[str | None, str], Collector] = {}
        self._stray: dict[str | None, list[str]] = {}
        self._strays = 0

    def take(self, row: Row) -> None:
        if self._wanted is not None and row.session not in (None, self._wanted):
            return
        if row.key is None or row.kind is not None:
            self._take_whole(row)
            return
        split = split_prefix(row.key)
        if split is None:
            self._take_unnamed(row, row.key)
        elif self._wanted is None or row.session is not None or _names(split[0], self._wanted):
            self._put(self._collector(row.session, split[0]), split[1], row.value)

    def _take_whole(self, row: Row) -> None:
        collector = self._collector(row.session, "")
        if row.kind is None:
            _put_whole(collector, row.value)
        elif (kind := type_named(row.kind)) is not None:
            self._put(collector, f"{kind}-{row.key}", row.value)
        elif row.kind == CREDS:
            self._put(collector, CREDS, row.value)
        else:
            collector.note("warning", "unknown_item", shown(f"{row.kind}-{row.key}"), "not a type of Baileys")

    def _take_unnamed(self, row: Row, key: str) -> None:
        """Credentials under a name of their own; anything else is no item."""
        try:
            value = _decoded(row.value)
        except ConversionError:
            value = None
        if is_creds(value):
            self._put(self._collector(row.session, ""), CREDS, value)
        elif is_state(value) and (self._wanted is None or key == self._wanted or row.session is not None):
            put_state(self._collector(row.session or key, ""), value)
        elif key.rpartition(":")[2] not in _NOT_ITEMS:
            self._strays += 1
            if self._strays > MAX_ITEMS:
                raise SourceRefused("source_too_large", f"more than {MAX_ITEMS} rows that are no items")
            self._stray.setdefault(row.session, []).append(key)

    def _put(self, collector: Collector, name: str, value: object) -> None:
        put_row(collector, name, value)

    def _collector(self, session: str | None, prefix: str) -> Collector:
        name = (session, prefix)
        if name not in self._found:
            if len(self._found) >= MAX_SESSIONS:
                raise SourceRefused("source_too_large", f"more than {MAX_SESSIONS} sessions")
            self._found[name] = Collector(keeps_deleted=self._keeps_deleted)
        return self._found[name]

    def chosen(self) -> Collector:
        """The one that was asked for, or the only one there is.

        Raises:
            SourceRefused: there is none, or several.
        """
        choices = tuple(sorted({_label(name) for name in self._found}))[:MAX_CHOICES]
        candidates = [*self._found]
        if len(candidates) > 1:
            candidates = [name for name in candidates if self._found[name].has_creds] or candidates
        if not candidates and self._wanted is not None:
            raise SourceRefused("session_unknown", "no row belongs to that session", choices)
        if not candidates:
            raise SourceRefused("not_baileys", "no row has the name of an item that Baileys keeps")
        if len(candidates) > 1:
            raise SourceRefused("session_several", f"{len(candidates)} sessions: name one of them", choices)
        collector = self._found[candidates[0]]
        for key in self._stray.get(candidates[0][0], ()):
            collector.note(
                "warning", "unknown_item", shown(key), "not the name of an item that Baileys keeps"
            )
        return collector


def read_rows(
    rows: Iterable[Row], *, session: str | None = None, keeps_deleted: bool = False
) -> BaileysItems:
    """Gather the rows of one session; what stands in front of the keys is found out.

    Args:
        rows: of one or of many sessions.
        session: which one, when there are several.
        keeps_deleted: the store never deletes an item.

    Raises:
        SourceRefused: no such session, or several to choose from; more rows than any session has.
    """
    sessions = _Sessions(wanted=session, keeps_deleted=keeps_deleted)
    for row in rows:
        sessions.take(row)
    collector = sessions.chosen()
    items = collector.finish()
    if items.creds is None and not any(note.code == "creds_unreadable" for note in items.notes):
        collector.note("error", "creds_unreadable", CREDS, "no row holds credentials")
        items = collector.finish()
    return items


def put_row(collector: Collector, name: str, value: object) -> None:
    """Decode the value of a row and take it under its name."""
    if isinstance(value, str | bytes):
        collector.spend(len(value))
    try:
        decoded = _decoded(value)
    except ConversionError as error:
        if name == CREDS:
            collector.note("error", "creds_unreadable", CREDS, error.detail)
        else:
            collector.note("warning", "item_unreadable", shown(name), error.detail)
        return
    if name != CREDS:
        collector.put_named(name, decoded)
    elif is_state(decoded):
        put_state(collector, decoded)
    else:
        collector.put_creds(decoded)


def _put_whole(collector: Collector, value: object) -> None:
    """A row that is credentials, or credentials and keys at once."""
    if value is not None and value != "":
        put_row(collector, CREDS, value)


def _decoded(value: object) -> Any:
    """Decode a value, out of the wrapper that Keyv puts around it; encrypted ones are refused."""
    decoded = decode_value(value)
    if isinstance(decoded, dict) and "value" in decoded and decoded.keys() <= {"value", "expires"}:
        decoded = decode_value(decoded["value"])
    refuse_encrypted(decoded)
    return decoded


def _names(prefix: str, session: str) -> bool:
    plain = prefix.removesuffix(":")
    return plain == session or plain.endswith(f":{session}") or session == prefix


def _label(name: tuple[str | None, str]) -> str:
    session, prefix = name
    return session if session is not None else prefix.removesuffix(":")
