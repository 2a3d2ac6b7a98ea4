"""Directories that real Baileys wrote, and the same items in the shapes of other stores."""

from __future__ import annotations

import base64
import json
from functools import cache
from pathlib import Path
from typing import Any

from waD.transfer.baileys import BaileysItems, convert, read_directory
from waD.transfer.baileys.names import TYPES as TYPES
from waD.transfer.state import AuthState, Report

VECTORS = Path(__file__).parents[2] / "vectors" / "baileys_auth_dirs.json"
NOW_MS = 1_763_100_000_000
FULL = "lid-full-inventory"
GROUPS = "group-sender-keys"
OLD = "v6-layout"
PLAIN = "pn-session-clean"
ALL = (PLAIN, FULL, GROUPS, OLD, "encoding-variants", "skipped-message-keys")


@cache
def _cases() -> dict[str, dict[str, Any]]:
    return {case["name"]: case for case in json.loads(VECTORS.read_text())["cases"]}


def files(name: str = FULL) -> dict[str, str]:
    """File names and contents of one directory."""
    return dict(_cases()[name]["files"])


def write(directory: Path, contents: dict[str, str]) -> Path:
    for name, content in contents.items():
        (directory / name).write_text(content)
    return directory


def read(directory: Path, contents: dict[str, str]) -> BaileysItems:
    return read_directory(write(directory, contents), now_ms=NOW_MS, stopped=True)


def creds(name: str = FULL) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(files(name)["creds.json"])
    return loaded


def values(source: BaileysItems) -> dict[str, Any]:
    """Every value by its name as Baileys asks for it, the credentials among them."""
    return {"creds": source.creds} | {f"{kind}-{text}": value for (kind, text), value in source.items.items()}


def converted(source: BaileysItems) -> tuple[AuthState, Report]:
    state, report = convert(source, NOW_MS)
    assert state is not None, [str(note) for note in report.notes]
    return state, report


def only(**changes: Any) -> BaileysItems:
    """Valid credentials with some fields changed, and no items; None removes a field."""
    fields = creds() | changes
    return BaileysItems({name: value for name, value in fields.items() if value is not None}, {})


def buffer(data: bytes) -> dict[str, str]:
    return {"type": "Buffer", "data": base64.b64encode(data).decode()}


def as_numbers(value: Any) -> Any:
    """What JSON.stringify makes of it without Baileys' replacer."""
    if isinstance(value, dict):
        if value.get("type") == "Buffer" and isinstance(value["data"], str):
            return {"type": "Buffer", "data": [*base64.b64decode(value["data"])]}
        return {name: as_numbers(item) for name, item in value.items()}
    return [as_numbers(item) for item in value] if isinstance(value, list) else value


def as_indexes(value: Any) -> Any:
    """What JSON.stringify makes of a Uint8Array."""
    if isinstance(value, dict):
        if value.get("type") == "Buffer" and isinstance(value["data"], str):
            return {str(index): octet for index, octet in enumerate(base64.b64decode(value["data"]))}
        return {name: as_indexes(item) for name, item in value.items()}
    return [as_indexes(item) for item in value] if isinstance(value, list) else value


def as_binary(value: Any) -> Any:
    """What a MongoDB export makes of it."""
    if isinstance(value, dict):
        if value.get("type") == "Buffer" and isinstance(value["data"], str):
            return {"$binary": {"base64": value["data"], "subType": "00"}}
        return {name: as_binary(item) for name, item in value.items()}
    if isinstance(value, list):
        return [as_binary(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return {"$numberLong": str(value)}
    return value
