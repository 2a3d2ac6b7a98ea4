"""What one kind of item looks like in a row of Baileys 7."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec

from waD.e2ee.address import AddressError
from waD.e2ee.curve import CurveError
from waD.e2ee.errors import SignalError
from waD.e2ee.interop.common import ConversionError, ValueRefusedError
from waD.store.codec import LegacyKey
from waD.wire.errors import JIDError

UNUSABLE: Final = (
    ValueError,
    OverflowError,
    RecursionError,
    AddressError,
    ConversionError,
    CurveError,
    JIDError,
    SignalError,
)
"""What a damaged or foreign value makes of a conversion."""

Rows: TypeAlias = Mapping[LegacyKey, bytes]
_decode: Final = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Other:
    """What is known when a row is read.

    Attributes:
        creds: the row of the credentials, for what a session of Baileys leaves to them.
        kept: the document that an earlier version of the row was made from.
    """

    creds: bytes | None = None
    kept: bytes | None = None

    def __repr__(self) -> str:
        return "Other()"


@dataclass(frozen=True, slots=True)
class Form:
    """How items of one kind are written for Baileys; every function may raise one of UNUSABLE.

    Attributes:
        kind: of the item here.
        type: of the row.
        id_of: from the item's key to the row's id.
        key_of: and back; None for rows that hold nothing of this kind.
        write: from the document to the row's value, both canonical JSON.
        read: and back.
        loses: whether a row surely does not hold all of a document; otherwise the way back is tried.
        needs_creds: whether `read` asks for the credentials.
    """

    kind: str
    type: str
    id_of: Callable[[str], str]
    key_of: Callable[[str], str | None]
    write: Callable[[bytes], bytes]
    read: Callable[[bytes, Other], bytes]
    loses: Callable[[bytes], bool] = lambda _: False
    needs_creds: bool = False


def buffer(data: bytes) -> dict[str, object]:
    """Bytes as Baileys writes them into JSON (chapter 08 §2.2)."""
    return {"type": "Buffer", "data": data}


def parsed(value: bytes) -> Any:
    """A JSON value; raises msgspec.DecodeError."""
    return _decode(value)


def fields(document: bytes, *wanted: str) -> dict[str, Any]:
    """The fields of a document that has these and no others; raises ValueRefusedError."""
    found = parsed(document)
    if not isinstance(found, dict) or found.keys() != set(wanted):
        raise ValueRefusedError("a document with other fields")
    return found
