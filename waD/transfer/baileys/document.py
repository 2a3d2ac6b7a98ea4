"""States in one JSON document: credentials and keys together (chapter 08 §3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeGuard

from waD.e2ee.interop.common import ConversionError, unnest
from waD.transfer.baileys.names import CREDS, shown, type_named
from waD.transfer.baileys.source import Collector, decode_value
from waD.transfer.sources.errors import SourceRefused

MAX_DEPTH: Final = 32
"""Objects inside objects: a session record has six."""
_SHORT: Final = 20
"""Text in place of credentials that is no longer than that is a mistake, not a ciphertext."""
_NUMBERS: Final = ("$numberInt", "$numberLong", "$numberDouble")


def is_creds(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether a decoded value is what Baileys calls credentials."""
    return isinstance(value, dict) and "noiseKey" in value


def is_state(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether a decoded value is credentials and keys in one object."""
    return isinstance(value, dict) and "noiseKey" not in value and CREDS in value and _is_whole(value)


def put_state(collector: Collector, value: Mapping[str, Any]) -> None:
    """Take `{creds, keys: {type: {id: value}}}`; both halves may be encoded once more, and null means deleted.

    Raises:
        SourceRefused: `source_encrypted`.
    """
    try:
        creds, keys = decode_value(value.get(CREDS)), decode_value(value.get("keys"))
    except ConversionError as error:
        collector.note("error", "creds_unreadable", CREDS, error.detail)
        return
    refuse_encrypted(creds)
    collector.put_creds(creds)
    if keys is None:
        return
    if not isinstance(keys, dict):
        collector.note("warning", "item_unreadable", "keys", "not an object")
        return
    for name, inner in keys.items():
        _put_type(collector, name, inner)


def refuse_encrypted(value: object) -> None:
    """Refuse what only the operator's master key opens (baileys-store-core, in Redis and in MongoDB).

    Raises:
        SourceRefused: `source_encrypted`.
    """
    if isinstance(value, dict) and {"ciphertext", "nonce"} <= value.keys():
        how = "the store encrypts its values with a master key of its operator (baileys-store-core)"
    elif isinstance(value, str) and len(value) > _SHORT:
        how = "the credentials are encrypted text and no JSON"
    else:
        return
    raise SourceRefused("source_encrypted", f"{how}: export them decrypted with the program that wrote them")


def plain_json(value: Any, depth: int = 0) -> Any:
    """Undo the numbers of MongoDB's extended JSON; byte strings are read where they are used.

    Raises:
        ConversionError: `item_unreadable`, when it is nested too deep.
    """
    if depth > MAX_DEPTH:
        raise ConversionError("item_unreadable", f"nested more than {MAX_DEPTH} deep")
    if isinstance(value, list):
        return [plain_json(item, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        (name, inner), *_ = value.items()
        if name in _NUMBERS:
            return _number(name, inner)
    return {name: plain_json(inner, depth + 1) for name, inner in value.items()}


def _number(name: str, text: object) -> int | float:
    try:
        return float(str(text)[:32]) if name == "$numberDouble" else int(str(text)[:32])
    except (ValueError, OverflowError):
        raise ConversionError("item_unreadable", "a number that is none") from None


def _is_whole(value: Mapping[str, Any]) -> bool:
    """Credentials inside, or the name of credentials beside keys; not a map of names to values."""
    return "keys" in value or value.keys() <= {CREDS, "_id", "id"}


def _put_type(collector: Collector, name: str, inner: object) -> None:
    kind = type_named(name)
    inner = unnest(inner)
    if kind is None:
        collector.note("warning", "unknown_item", shown(name), "not a type of items that Baileys keeps")
    elif isinstance(inner, dict):
        for text, value in inner.items():
            _put_item(collector, kind, text, value)
    elif inner is not None:
        collector.note("warning", "item_unreadable", kind, "not an object of items by id")


def _put_item(collector: Collector, kind: str, text: str, value: object) -> None:
    try:
        collector.put_typed(kind, text, decode_value(value))
    except ConversionError as error:
        collector.note("warning", "item_unreadable", shown(f"{kind}/{text}"), error.detail)
