"""Signal state of a device: prekeys, identities, sessions and sender keys (chapter 08 §4.2-4.4, §5.4).

Everything is kept by address here, converted and checked on its own; `merging.py` then looks at it together.
"""

from __future__ import annotations

from typing import Final

from waD.e2ee import curve
from waD.e2ee.address import AddressError, SignalAddress
from waD.e2ee.curve import KeyPair
from waD.e2ee.interop import golang
from waD.e2ee.interop.common import ConversionError
from waD.e2ee.limits import MAX_PREKEY_ID
from waD.e2ee.record import SessionRecord
from waD.e2ee.session import drop_dead
from waD.link.credentials import Credentials
from waD.link.prekeys import OneTimePreKey
from waD.messaging import kinds
from waD.transfer.sources.rows import Row
from waD.transfer.sources.signal import SignalItems
from waD.transfer.state import Report
from waD.transfer.whatsmeow.rows import DeviceRows
from waD.wire.errors import JIDError
from waD.wire.jid import JID

PREKEY_GAP: Final = 1024
"""Ids left out after the highest stored one: the old program may have used up higher ones, and deleted them."""


def import_signal_items(rows: DeviceRows, creds: Credentials, report: Report, now_ms: int) -> SignalItems:
    """Convert all rows; what cannot be used is left out and reported."""
    items = SignalItems()
    for row in rows.prekeys:
        _take_prekey(items, row, report)
    for their_id, key in rows.identities:
        address = read_address(kinds.IDENTITY, their_id, report)
        if address is not None:
            _take_identity(items, address, key, report)
    for their_id, document in rows.sessions:
        address = read_address(kinds.SESSION, their_id, report)
        if address is not None:
            _take_session(items, address, document, creds, report, now_ms)
    for row in rows.sender_keys:
        _take_sender_key(items, row, report, now_ms)
    return items


def next_prekey_id(rows: DeviceRows) -> int:
    """The first id that was surely never used, wrapping from 16777215 to 1."""
    ids = [key_id for key_id, _, _ in rows.prekeys if isinstance(key_id, int) and 0 < key_id <= MAX_PREKEY_ID]
    return (max(ids, default=0) + PREKEY_GAP) % MAX_PREKEY_ID + 1


def read_address(kind: str, their_id: object, report: Report) -> SignalAddress | None:
    """Read `user[_agent]:device`; None, and a warning, for devices that this program knows nothing of."""
    text = their_id if isinstance(their_id, str) else ""
    user, _, device = text.rpartition(":")
    try:
        return SignalAddress.parse(f"{user}.{device}")
    except AddressError:
        report.warn("unknown_item", f"{kind}/{text[:80]}", "not the address of a person's device")
        return None


def _take_prekey(items: SignalItems, row: Row, report: Report) -> None:
    key_id, private, is_uploaded = row
    name = f"{kinds.PREKEY}/{key_id if isinstance(key_id, int) else '?'}"
    if not isinstance(key_id, int) or not 1 <= key_id <= MAX_PREKEY_ID:
        report.warn("item_unreadable", name, "its id is not one of a prekey")
    elif not isinstance(private, bytes) or len(private) != curve.KEY_LENGTH:
        report.warn("item_unreadable", name, "its key is not 32 bytes")
    else:
        pair = KeyPair.from_private(private)
        items.prekeys[key_id] = OneTimePreKey(key_id, pair, "uploaded" if is_uploaded else "new")


def _take_identity(items: SignalItems, address: SignalAddress, key: object, report: Report) -> None:
    if isinstance(key, bytes) and len(key) == curve.KEY_LENGTH:
        items.identities[address] = key
    else:
        report.warn("item_unreadable", f"{kinds.IDENTITY}/{address}", "not 32 bytes")


def _take_session(
    items: SignalItems,
    address: SignalAddress,
    document: object,
    creds: Credentials,
    report: Report,
    now_ms: int,
) -> None:
    name = f"{kinds.SESSION}/{address}"
    try:
        imported = golang.import_session(_document(document), now_ms)
    except ConversionError as error:
        report.warn(error.code, name, error.detail)
        return
    for warning in imported.warnings:
        report.warn("session_invalid", name, warning.removeprefix("session_invalid: "))
    record = _own_states(imported.record, creds)
    lost = len([*imported.record.states()]) - (0 if record is None else len([*record.states()]))
    if lost:
        report.warn("session_invalid", name, f"{lost} sessions of another device of ours")
    if record is not None:
        items.sessions[address] = record


def _own_states(record: SessionRecord, creds: Credentials) -> SessionRecord | None:
    """What was made with the identity and the registration id of this device (chapter 08 §5.4 item 7)."""
    alive = drop_dead(record, creds.identity.public)
    if alive is None:
        return None
    number = creds.registration_id
    archived = tuple(state for state in alive.archived if state.local_registration_id == number)
    current = alive.current
    if current is not None and current.local_registration_id != number:
        current = None
    return (
        None
        if current is None and not archived
        else SessionRecord(current, archived, alive.oldest_skipped_ms)
    )


def _take_sender_key(items: SignalItems, row: Row, report: Report, now_ms: int) -> None:
    chat_id, sender_id, document = row
    address = read_address(kinds.SENDER_KEY, sender_id, report)
    if address is None:
        return
    try:
        chat = JID.parse(chat_id if isinstance(chat_id, str) else "")
        if not (chat.is_group or chat.is_broadcast):
            raise JIDError("bad_server", "not a group")
    except JIDError:
        report.warn("unknown_item", f"{kinds.SENDER_KEY}/{str(chat_id)[:80]}", "not a group")
        return
    name = f"{kinds.SENDER_KEY}/{chat}|{address}"
    try:
        imported = golang.import_sender_key(_document(document), now_ms)
    except ConversionError as error:
        report.warn(error.code, name, error.detail)
        return
    for warning in imported.warnings:
        report.warn("sender_key_invalid", name, warning.removeprefix("sender_key_invalid: "))
    items.sender_keys[chat, address] = imported.record


def _document(value: object) -> object:
    """JSON text as both databases give it; anything else is none."""
    return value if isinstance(value, bytes | str) else b""
