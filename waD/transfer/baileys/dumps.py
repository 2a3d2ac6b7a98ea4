"""Exported files: CSV, JSON and JSON lines of tables and collections, and what redis-cli prints (chapter 08 §3)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from waD.e2ee.interop.common import ConversionError, unnest
from waD.transfer.baileys.document import is_creds, is_state, plain_json
from waD.transfer.baileys.names import split_prefix
from waD.transfer.baileys.presets import Table
from waD.transfer.baileys.redis import pairs, redis_pairs
from waD.transfer.baileys.rows import Row, read_rows
from waD.transfer.baileys.source import MAX_TOTAL_SIZE, MAX_VALUE, BaileysItems, Unreadable, decode_value
from waD.transfer.sources.errors import SourceRefused
from waD.transfer.sources.files import open_file

Format: TypeAlias = Literal["csv", "json", "jsonl", "redis"]

_KEYS: Final = ("key", "id", "name", "session_key", "_id")
_VALUES: Final = ("value", "data", "session", "creds")
_SESSIONS: Final = ("sessionId", "session_id", "session", "whatsappId")


def read_dump(
    path: Path,
    *,
    form: Format | None = None,
    table: Table | None = None,
    session: str | None = None,
    keeps_deleted: bool = False,
) -> BaileysItems:
    """Read one session from an exported file.

    Args:
        path: the file.
        form: what it is; None: found out.
        table: which columns or fields mean what; None: found out by their names.
        session: which session, when there are several.
        keeps_deleted: the store never deletes an item.

    Raises:
        SourceRefused: it was not read.
    """
    data = _content(path)
    try:
        rows = dump_rows(data, form or _form(path, data), table)
        return read_rows(rows, session=session, keeps_deleted=keeps_deleted)
    except (ConversionError, ValueError, RecursionError, csv.Error) as error:
        detail = error.detail if isinstance(error, ConversionError) else "not of the form it should have"
        raise SourceRefused("source_damaged", f"{path}: {detail}") from None


def dump_rows(data: bytes, form: Format, table: Table | None = None) -> Iterator[Row]:
    """The rows of an exported file.

    Raises:
        ValueError, csv.Error: it is not of that form.
    """
    text = data.decode("utf-8-sig")
    reads: Mapping[Format, Callable[[str, Table | None], Iterator[Row]]] = {
        "csv": _csv_rows,
        "json": lambda text, table: _json_rows(json.loads(text), table),
        "jsonl": _json_lines,
        "redis": lambda text, _: (Row(None, name, value) for name, value in redis_pairs(text)),
    }
    return reads[form](text, table)


def _content(path: Path) -> bytes:
    with open_file(path, limit=MAX_TOTAL_SIZE, other="not_baileys") as file:
        return file.read()


def _form(path: Path, data: bytes) -> Format:
    if path.suffix.lower() == ".csv":
        return "csv"
    start = data[:4096].lstrip(b"\xef\xbb\xbf").lstrip()
    if start[:1] not in (b"{", b"[", b'"'):
        return "redis"
    try:
        json.loads(data)
    except ValueError:
        return "jsonl"
    return "json"


def _csv_rows(text: str, table: Table | None) -> Iterator[Row]:
    csv.field_size_limit(MAX_VALUE)
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    header = set(reader.fieldnames or ())
    if table is not None and (missing := [name for name in table.columns if name not in header]):
        raise SourceRefused("table_missing", f"the file has no column {', '.join(missing)}")
    for record in reader:
        yield _row({name: value for name, value in record.items() if name is not None}, table)


def _json_lines(text: str, table: Table | None) -> Iterator[Row]:
    for line in text.split("\n"):
        if line.strip():
            yield from _json_rows([json.loads(line)], table)


def _json_rows(value: Any, table: Table | None) -> Iterator[Row]:
    value = unnest(value)
    if isinstance(value, dict):
        yield from _object_rows(value, table)
    elif isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        yield from (Row(None, name, item) for name, item in pairs(value))
    elif isinstance(value, list):
        for record in value:
            if not isinstance(record, dict):
                raise ConversionError("item_unreadable", "a row that is not an object")
            yield _row({name: _plain(field) for name, field in record.items()}, table)
    else:
        raise ConversionError("item_unreadable", "neither an object nor a list of them")


def _object_rows(value: Mapping[str, Any], table: Table | None) -> Iterator[Row]:
    """One object: a whole state, one row, or a map of names to values."""
    if is_creds(value) or is_state(value):
        yield Row(None, None, _plain(value))
    elif any(split_prefix(name) is not None for name in value):
        yield from (Row(None, name, _plain(item)) for name, item in value.items() if name != "_id")
    else:
        yield _row({name: _plain(field) for name, field in value.items()}, table)


def _plain(value: Any) -> Any:
    try:
        return plain_json(value)
    except ConversionError as error:
        return Unreadable(error.detail)


def _row(record: Mapping[str, Any], table: Table | None) -> Row:
    if table is not None and all(name in record for name in table.columns):
        return table.row(record)
    session = next((record[name] for name in _SESSIONS if isinstance(record.get(name), str | int)), None)
    key, value = _key(record), _value(record)
    if is_creds(record) or is_state(record):
        value = record
    elif key is None and not _is_whole(value):
        key = ""
    return Row(None if session is None or value is session else str(session), key, value, _kind(record, key))


def _is_whole(value: object) -> bool:
    try:
        decoded = decode_value(value)
    except ConversionError:
        return False
    return is_creds(decoded) or is_state(decoded)


def _key(record: Mapping[str, Any]) -> str | None:
    texts = [record[name] for name in _KEYS if isinstance(record.get(name), str)]
    return next((text for text in texts if split_prefix(text) is not None), texts[0] if texts else None)


def _kind(record: Mapping[str, Any], key: str | None) -> str | None:
    """The type in a column of its own; a document may have a field `type` for other reasons."""
    kind = record.get("type")
    return kind if key is not None and split_prefix(f"{kind}-{key}") and split_prefix(key) is None else None


def _value(record: Mapping[str, Any]) -> Any:
    """The field that holds the value, or all the fields of an item that is stored as a document."""
    if record.get("type") != "Buffer":
        for name in _VALUES:
            if name in record:
                return record[name]
    return {name: item for name, item in record.items() if name != "_id"}
