"""Canonical JSON: keys sorted, no blanks, UTF-8 (chapter 08 §1.4)."""

from __future__ import annotations

from typing import Any, Final

import msgspec

_encode: Final = msgspec.json.Encoder(order="sorted").encode
_decode: Final = msgspec.json.Decoder().decode


def canonical(value: Any) -> bytes:
    """A value as canonical JSON."""
    return _encode(value)


def canonicalise(document: bytes | str) -> bytes:
    """The same document in canonical form; raises msgspec.DecodeError."""
    try:
        return _encode(_decode(document))
    except RecursionError:
        raise msgspec.DecodeError("it is nested too deeply") from None


def as_it_is(kind: str, key: str, value: bytes) -> bytes:  # noqa: ARG001 - the form of an Upgrade
    """Documents stay; other bytes are wrapped, so that nothing is lost."""
    try:
        return canonicalise(value)
    except (msgspec.DecodeError, ValueError):
        return canonical({"$bytes": value})
