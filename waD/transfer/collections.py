"""Collections of the app state in an auth state at rest: are they whole, and as one document (chapter 08 §5.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TypeAlias

from msgspec import structs

from waD.e2ee.syncd.lthash import lt_hash
from waD.messaging import kinds
from waD.messaging.appstate.stored import START, Damaged, Head, Part, decode_part, part_place, whole

Items: TypeAlias = Mapping[tuple[str, str], bytes]


def sound_heads(items: Items) -> dict[str, Head]:
    """The heads that can be read, by collection."""
    found: dict[str, Head] = {}
    for (kind, name), document in items.items():
        if kind == kinds.APP_STATE_VERSION:
            with suppress(Damaged):
                found[name] = Head.parse(document)
    return found


def value_macs(items: Items, name: str, head: Head) -> dict[str, bytes]:
    """Value MACs of all live entries of a collection that can be read, by base64 of the index MAC."""
    return whole(name, head, _parts(items, name))


def _parts(items: Items, name: str) -> Iterator[tuple[str, Part]]:
    for (kind, key), document in items.items():
        if kind == kinds.APP_STATE_ENTRIES and key.startswith(f"{name}|"):
            with suppress(Damaged):
                part_place(key)
                yield key, decode_part(document)


def sums_up(items: Items, name: str, head: Head) -> bool:
    """Whether a collection has the hash that its entries sum up to."""
    return lt_hash(value_macs(items, name, head).values()) == head.hash


def plain(items: Items) -> dict[tuple[str, str], bytes]:
    """The same items with every collection in one document, as other programs keep it; what only we know is lost."""
    found = {item: value for item, value in items.items() if item[0] != kinds.APP_STATE_ENTRIES}
    for name, head in sound_heads(items).items():
        one = structs.replace(START, version=head.version, hash=head.hash, macs=value_macs(items, name, head))
        found[kinds.APP_STATE_VERSION, name] = one.serialize()
    return found


def without_broken(items: dict[tuple[str, str], bytes]) -> list[str]:
    """Remove the collections that are not whole, so that they are fetched anew; returns their names (§7.5)."""
    broken = [name for name, head in sound_heads(items).items() if not sums_up(items, name, head)]
    for name in broken:
        del items[kinds.APP_STATE_VERSION, name]
        for kind, key in [*items]:
            if kind == kinds.APP_STATE_ENTRIES and key.startswith(f"{name}|"):
                del items[kind, key]
    return broken
