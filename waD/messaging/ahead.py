"""What a batch of stanzas is going to ask the state for, so that it can be read with few queries.

A guess from the outside of the stanzas: what it misses is read when a handler asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

from waD.e2ee.address import AddressError
from waD.e2ee.errors import SignalError
from waD.e2ee.messages import parse_prekey_message
from waD.messaging import kinds
from waD.messaging.context import Context
from waD.messaging.device_lists import is_device
from waD.messaging.records import BARE_LIDS_KEY, sender_key_name
from waD.store.unit import Unit
from waD.wire.errors import JIDError
from waD.wire.jid import JID
from waD.wire.node import Node

MOST: Final = 2048
"""Keys of a kind, or ids, that are read ahead; a hostile batch may name more."""

_PEOPLE: Final = ("from", "participant", "recipient")
_TOLD: Final = ("message", "receipt", "ack")
"""Stanzas about messages of the history."""


async def read_ahead(context: Context, batch: Sequence[Node], unit: Unit) -> None:
    """Read for a unit what handling a batch will need; the caller holds the state's lock until the commit.

    Raises:
        StoreError: the state could not be read.
    """
    people = {jid for stanza in batch for name in _PEOPLE if (jid := stanza.jid(name)) and is_device(jid)}
    await _mappings(context, unit, people, _message_ids(batch))
    await _keys(context, unit, batch, people)


async def _mappings(context: Context, unit: Unit, people: set[JID], message_ids: list[str]) -> None:
    wanted = {
        kinds.LID_OF_PN: [jid.user for jid in people if jid.is_pn],
        kinds.PN_OF_LID: [jid.user for jid in people if jid.is_lid],
        kinds.BARE_LIDS: [BARE_LIDS_KEY],
    }
    await context.state.read_ahead(unit, _limited(wanted), message_ids)


def _message_ids(batch: Sequence[Node]) -> list[str]:
    found: dict[str, None] = {}
    for stanza in batch:
        if stanza.tag in _TOLD:
            listed = stanza.child("list")
            for node in (stanza, *(() if listed is None else listed.children("item"))):
                found.setdefault(node.text("id", ""))
    return _usable(found)


async def _keys(context: Context, unit: Unit, batch: Sequence[Node], people: set[JID]) -> None:
    wanted = _Wanted()
    for jid in people:
        await _of_person(context, unit, jid, wanted)
    for stanza in batch:
        for enc in stanza.children("enc") if stanza.tag == "message" else ():
            match enc.attrs.get("type"):
                case "skmsg":
                    wanted.add(kinds.SENDER_KEY, await _sender_key(context, unit, stanza))
                case "pkmsg":
                    wanted.add(kinds.PREKEY, _prekey(enc.data))
    await context.state.read_ahead(unit, _limited(wanted.keys))


class _Wanted:
    """Keys of items by kind."""

    def __init__(self) -> None:
        self.keys: dict[str, list[str]] = {}

    def add(self, kind: str, key: str | None) -> None:
        if key is not None:
            self.keys.setdefault(kind, []).append(key)


async def _of_person(context: Context, unit: Unit, device: JID, wanted: _Wanted) -> None:
    address = (await context.addresses.signal_address(device, unit)).text
    account = await context.addresses.canonical(device, unit)
    wanted.add(kinds.SESSION, address)
    wanted.add(kinds.IDENTITY, address)
    wanted.add(kinds.DEVICES, str(account))
    if account.is_lid:
        wanted.add(kinds.PN_OF_LID, account.user)


async def _sender_key(context: Context, unit: Unit, stanza: Node) -> str | None:
    group, author = stanza.jid("from"), stanza.jid("participant")
    if group is None or author is None:
        return None
    try:
        address = await context.addresses.signal_address(author, unit)
    except (JIDError, AddressError):
        return None
    return sender_key_name(group.bare, address)


def _prekey(data: bytes) -> str | None:
    try:
        key_id = parse_prekey_message(data).prekey_id
    except SignalError:
        return None
    return None if key_id is None else str(key_id)


def _limited(wanted: dict[str, list[str]]) -> dict[str, list[str]]:
    return {kind: _usable(dict.fromkeys(keys)) for kind, keys in wanted.items()}


def _usable(keys: Iterable[str]) -> list[str]:
    """Keys that a database can be asked for; nothing is filed under others."""
    return [key for key in islice(keys, MOST) if key and key.isprintable()]
