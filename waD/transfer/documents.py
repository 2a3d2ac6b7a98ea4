"""JSON documents of an archive, read with its limits (chapter 08 §7.2)."""

from __future__ import annotations

import re
from typing import Final, TypeVar

import msgspec

from waD.store.canonical import canonicalise
from waD.transfer import archive
from waD.transfer.archive import ArchiveError

T = TypeVar("T")

_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BRACKETS: Final = re.compile(rb"[\[\]{}]")


def canonical_of(data: bytes, name: str) -> bytes:
    """A document in canonical form; raises ArchiveError naming the member, never a value."""
    try:
        document = canonicalise(data)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise ArchiveError("json_invalid", "not a JSON document", name) from None
    check_depth(document, name)
    return document


def decoded(data: bytes, kind: type[T], name: str) -> T:
    """A document as a `kind`; raises ArchiveError naming the member, never a value."""
    try:
        found = msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        # A validation error names types and places, a decode error a position: neither repeats a value.
        detail = str(error) if isinstance(error, msgspec.MsgspecError) else "not a JSON document"
        raise ArchiveError("json_invalid", detail, name) from None
    check_depth(data, name)
    return found


def check_depth(data: bytes, name: str) -> None:
    """Refuse valid JSON that nests too deep for whoever walks through it."""
    if data.count(b"[") + data.count(b"{") <= archive.MAX_DEPTH:
        return
    depth = 0
    for bracket in _BRACKETS.finditer(_STRING.sub(b"", data)):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > archive.MAX_DEPTH:
            raise ArchiveError("json_too_deep", f"more than {archive.MAX_DEPTH} levels", name)
