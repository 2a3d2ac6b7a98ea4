"""One account in the shape of every store that is known."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.transfer.baileys import samples
from waD.transfer.baileys import PRESETS, BaileysItems, Table
from waD.transfer.baileys.names import TYPES, file_name

Encode = Callable[[Any], Any]


def once(value: Any) -> str:
    return json.dumps(value)


def twice(value: Any) -> str:
    return json.dumps(json.dumps(value))


def numbers(value: Any) -> str:
    return json.dumps(samples.as_numbers(value))


def indexes(value: Any) -> str:
    return json.dumps(samples.as_indexes(value))


def fixed(name: str) -> str:
    """The name of an item as a file has it."""
    kind = next((kind for kind in TYPES if name.startswith(f"{kind}-")), None)
    return "creds" if kind is None else file_name(kind, name[len(kind) + 1 :]).removesuffix(".json")


def dashed(name: str) -> str:
    return name.replace(".", "-")


def same(found: BaileysItems, source: BaileysItems) -> None:
    """The states are equal byte for byte, however the values were spelled on the way."""
    assert [str(note) for note in found.notes] == []
    state, report = samples.converted(found)
    wanted, expected = samples.converted(source)
    assert state.creds == wanted.creds
    assert dict(state.items) == dict(wanted.items)
    assert report.notes == expected.notes


def build(path: Path, table: Table, rows: list[tuple[Any, ...]]) -> None:
    with sqlite3.connect(path) as connection:
        columns = ", ".join(f'"{name}"' for name in table.columns)
        connection.execute(f'CREATE TABLE "{table.name}" ({columns})')
        marks = ", ".join("?" * len(table.columns))
        connection.executemany(f'INSERT INTO "{table.name}" VALUES ({marks})', rows)
    connection.close()
    os.utime(path, (1, 1))


def item_rows(source: BaileysItems, session: str, spell: Callable[[str], str], encode: Encode) -> list[Any]:
    return [(session, spell(name), encode(value)) for name, value in samples.values(source).items()]


def unnamed(source: BaileysItems, session: str, spell: Callable[[str], str], encode: Encode) -> list[Any]:
    """Rows of a table whose keys carry the session."""
    return [(spell(f"{session}:{name}"), encode(value)) for name, value in samples.values(source).items()]


SHAPES: dict[str, Callable[[BaileysItems, str], list[list[Any]]]] = {
    "prisma": lambda source, name: [item_rows(source, name, fixed, once)],
    "drizzle": lambda source, name: [item_rows(source, name, fixed, once)],
    "mysql-baileys": lambda source, name: [item_rows(source, name, str, once)],
    "postgres-baileys": lambda source, name: [
        unnamed(source, name, lambda key: key.replace(":creds", ":auth_creds"), numbers)
    ],
    "keyv": lambda source, name: [
        unnamed(
            source,
            name,
            lambda key: f"keyv:{key}",
            lambda value: once({"value": once(value), "expires": None}),
        )
    ],
    "ticketz": lambda source, name: [
        [(name, numbers({"creds": source.creds, "keys": {}}))],
        [(name, text, kind, indexes(value)) for (kind, text), value in source.items.items()],
    ],
    "whaticket": lambda source, name: [
        [(name, once({"creds": source.creds, "keys": {}})), ("unpaired", ""), ("new", None)],
        [(name, text, kind, numbers(value)) for (kind, text), value in source.items.items()],
    ],
    "whaticket-old": lambda source, name: [[(name, once(whole(source, camel=True)))]],
    "whaticket-free": lambda source, name: [
        item_rows(source, name, lambda key: "creds-main" if key == "creds" else key, once)
    ],
    "waha_auth": lambda source, name: [item_rows(source, name, str, numbers)],
    "auth_state": lambda source, name: [[(name, once(whole(source)))]],
    "whatsapp_auth": lambda source, name: [[(name, twice(whole(source)))]],
    "baileys_auth_state": lambda source, name: [
        [(name, once(source.creds), once(whole(source)["keys"]))],
    ],
}


def whole(source: BaileysItems, *, camel: bool = False) -> dict[str, Any]:
    spelled = {
        "pre-key": "preKeys", "session": "sessions", "sender-key": "senderKeys", "sender-key-memory": "senderKeyMemory",
        "app-state-sync-key": "appStateSyncKeys", "app-state-sync-version": "appStateVersions",
    }  # fmt: skip
    keys: dict[str, dict[str, Any]] = {}
    for (kind, text), value in source.items.items():
        keys.setdefault(spelled.get(kind, kind) if camel else kind, {})[text] = value
    keys[spelled["pre-key"] if camel else "pre-key"]["999"] = None
    return {"creds": source.creds, "keys": keys}


def database(path: Path, name: str, source: BaileysItems, *sessions: str) -> Path:
    for number, table in enumerate(PRESETS[name].tables):
        rows = [row for session in sessions for row in SHAPES[name](source, session)[number]]
        build(path, table, [row[-len(table.columns) :] for row in rows])
    return path


def without_used(found: BaileysItems) -> BaileysItems:
    """The same as if its store had deleted what it had to."""
    return BaileysItems(found.creds, found.items, found.times, False, found.notes)


def dump(path: Path, content: str) -> Path:
    path.write_text(content)
    return path
