"""How collections of the app state are stored: a head by collection, entries in small parts (chapter 08 §1.2).

A head says where the collection stands. Its entries are in a *table*: 256 items by the first byte of the index MAC, so
that a patch rewrites a few kilobytes however many contacts there are, and a state loads few rows. A head that was
imported, or written by an earlier version, has its entries within itself, as `macs`; they move into a table with the
first change. A collection that is fetched anew fills another table, and the one before stays until that is complete.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Final, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Struct

from waD.e2ee.syncd.lthash import EMPTY, HASH_LENGTH, MAC_LENGTH

MAX_ENTRIES: Final = 1_000_000
MAX_BLOCKED: Final = 1024
"""Missing keys that are remembered of one collection."""

T = TypeVar("T")

_NAME: Final = re.compile(r"[a-z_]{1,64}", re.ASCII)
_PART: Final = re.compile(r"([a-z_]{1,64})\|([1-9][0-9]{0,15})\|([0-9a-f]{2})", re.ASCII)
_Natural = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Mac = Annotated[bytes, Meta(min_length=MAC_LENGTH, max_length=MAC_LENGTH)]
_KeyId = Annotated[str, Meta(pattern="^([0-9a-f]{2}){1,64}$")]


class Damaged(ValueError):  # noqa: N818 - what is the case
    """A stored head or part of a table is not what this program writes; the message does not repeat it."""


class Entry(Struct, frozen=True, array_like=True):
    """A live entry of a collection.

    Attributes:
        mac: its value MAC.
        key: hexadecimal id of the key it is encrypted with; None when the entry was imported.
        data: the decrypted SyncActionData; None when the entry was imported.
    """

    mac: _Mac
    key: _KeyId | None = None
    data: bytes | None = None

    def __repr__(self) -> str:
        return f"Entry(key={self.key})"


class Head(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a collection stands; with defaults in all but the first three this is the form of an import.

    Attributes:
        version: of the last patch.
        hash: 128 bytes over all entries.
        macs: value MACs by base64 of the index MAC, of entries that are in no table yet.
        table: number of the table with the entries; 0 when they are in `macs`.
        leftover: there may be tables of before.
        kept: number of the one that stays until this one is complete; 0 for none.
        blocked: hexadecimal ids of keys without which it cannot go on.
        mismatch: its hash is not the one that others have, even after it was fetched anew; that is not looked at any
            more (chapter 05 §4.9 row 14).
        retried: it was fetched anew because its hash was not the one that others have.
        resyncs: when it was fetched anew on its own account, Unix milliseconds, oldest first.
        disabled: code of the fault that ended its syncing; empty while it goes on.
    """

    version: _Natural = msgspec.field()
    hash: Annotated[bytes, Meta(min_length=HASH_LENGTH, max_length=HASH_LENGTH)]
    macs: Annotated[dict[str, _Mac], Meta(max_length=MAX_ENTRIES)]
    table: _Natural = 0
    leftover: bool = False
    kept: _Natural = 0
    blocked: Annotated[list[_KeyId], Meta(max_length=MAX_BLOCKED)] = []
    mismatch: bool = False
    retried: bool = False
    resyncs: Annotated[list[_Natural], Meta(max_length=64)] = []
    disabled: Annotated[str, Meta(max_length=64)] = ""

    def __repr__(self) -> str:
        return f"Head(version={self.version}, table={self.table}, disabled={self.disabled!r})"

    def serialize(self) -> bytes:
        """The stored form."""
        return _encode(self)

    @classmethod
    def parse(cls, document: bytes) -> Head:
        """Read the stored form; raises Damaged."""
        head = _read(document, _decode_head.decode)
        for index in head.macs:
            index_of(index)
        return head


Part: TypeAlias = dict[str, Entry]
"""Entries by base64 of the index MAC."""

_encode: Final = msgspec.json.Encoder(order="sorted").encode
_decode_head: Final = msgspec.json.Decoder(Head)
_decode_part: Final[msgspec.json.Decoder[Part]] = msgspec.json.Decoder(dict[str, Entry])

START: Final = Head(version=0, hash=EMPTY, macs={})
"""A collection of which nothing is known."""


def encode_part(entries: Mapping[str, Entry]) -> bytes:
    """The stored form of a part."""
    return _encode(entries)


def decode_part(document: bytes) -> Part:
    """Read a part of a table; raises Damaged."""
    part = _read(document, _decode_part.decode)
    for index in part:
        index_of(index)
    return part


def _read(document: bytes, decode: Callable[[bytes], T]) -> T:
    try:
        return decode(document)
    except msgspec.ValidationError as error:
        raise Damaged(str(error)) from None  # types and places only
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise Damaged("not a JSON document") from None


def index_text(index_mac: bytes) -> str:
    """An index MAC as it is stored."""
    return base64.b64encode(index_mac).decode()


def index_of(text: str) -> bytes:
    """The index MAC of a stored text; raises Damaged."""
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Damaged("an index MAC that is not base64") from None
    if len(found) != MAC_LENGTH:
        raise Damaged("an index MAC of a wrong length")
    return found


def part_of(index_mac: bytes) -> str:
    """The part of a table that an entry is in."""
    return f"{index_mac[0]:02x}"


def part_key(collection: str, table: int, part: str) -> str:
    """Key of the item that holds a part."""
    return f"{collection}|{table}|{part}"


def is_collection(text: str) -> bool:
    """Whether a text can be the name of a collection."""
    return _NAME.fullmatch(text) is not None


def part_place(key: str) -> tuple[str, int]:
    """Collection and table of a part's key; raises Damaged."""
    found = _PART.fullmatch(key)
    if found is None:
        raise Damaged("its key is none of this kind")
    return found[1], int(found[2])


def whole(collection: str, head: Head, parts: Iterable[tuple[str, Part]]) -> dict[str, bytes]:
    """Value MACs of all live entries of a collection, by base64 of the index MAC.

    Args:
        collection: its name.
        head: its head.
        parts: parts of tables by their keys, also of other tables and collections.
    """
    if not head.table:
        return dict(head.macs)
    macs: dict[str, bytes] = {}
    for key, part in parts:
        if part_place(key) == (collection, head.table):
            macs.update({index: entry.mac for index, entry in part.items()})
    return macs
