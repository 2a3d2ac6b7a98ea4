"""Prekeys, identities, sessions and sender keys of Baileys in the forms of this program (chapter 08 §2.4-2.7)."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import Final

from waD.e2ee import curve
from waD.e2ee.address import DOMAIN_LID, DOMAIN_PN, SignalAddress
from waD.e2ee.curve import KeyPair
from waD.e2ee.groups import SenderKeyRecord
from waD.e2ee.interop import node
from waD.e2ee.interop.common import (
    ConversionError,
    Imported,
    ValueRefusedError,
    read_bytes,
    read_object,
    read_public,
)
from waD.e2ee.limits import MAX_PREKEY_ID
from waD.e2ee.record import SessionRecord
from waD.link.credentials import Credentials
from waD.link.prekeys import OneTimePreKey, State, next_id
from waD.messaging import kinds
from waD.messaging.records import sender_key_name
from waD.messaging.values import encode_identity
from waD.transfer.baileys import names
from waD.transfer.baileys.credentials import ImportedCreds
from waD.transfer.baileys.source import BaileysItems
from waD.transfer.sources.signal import SignalItems
from waD.transfer.state import Report

_SESSION_FAULT: Final = "session_invalid: "
_SENDER_KEY_FAULT: Final = "sender_key_invalid: "


def import_signal_items(
    source: BaileysItems, imported: ImportedCreds, report: Report, now_ms: int
) -> SignalItems:
    """Convert everything Signal; what cannot be used is left out and reported under its name in the source."""
    reader = _Reader(source, imported, report, now_ms)
    takers: Mapping[str, Callable[[str, object], None]] = {
        names.PRE_KEY: reader.take_prekey,
        names.IDENTITY: reader.take_identity,
        names.SESSION: reader.take_session,
        names.SENDER_KEY: reader.take_sender_key,
    }
    for (kind, text), value in source.items.items():
        take = takers.get(kind)
        if take is None:
            continue
        try:
            take(text, value)
        except ConversionError as error:
            report.warn(error.code, f"{kind}/{text}", error.detail)
        except (ValueRefusedError, curve.CurveError) as error:
            report.warn("item_unreadable", f"{kind}/{text}", str(error))
    return reader.items


def name_lids(items: SignalItems, lids: frozenset[str]) -> None:
    """Give addresses of LID users their domain, which Baileys up to 6.7 left out (chapter 08 §2.7)."""
    for old in [address for address in items.sessions if _is_bare_lid(address, lids)]:
        new = SignalAddress(old.user, DOMAIN_LID, old.device)
        items.sessions.setdefault(new, items.sessions.pop(old))
    for old in [address for address in items.identities if _is_bare_lid(address, lids)]:
        new = SignalAddress(old.user, DOMAIN_LID, old.device)
        items.identities.setdefault(new, items.identities.pop(old))
    for group, old in [author for author in items.sender_keys if _is_bare_lid(author[1], lids)]:
        new = SignalAddress(old.user, DOMAIN_LID, old.device)
        items.sender_keys.setdefault((group, new), items.sender_keys.pop((group, old)))


def may_hold_lids(items: SignalItems, numbers: Container[str]) -> bool:
    """Whether an address may be a LID's without its domain.

    Args:
        items: after `name_lids`.
        numbers: users that are known to be phone numbers.
    """
    addresses = {*items.sessions, *items.identities, *(author for _, author in items.sender_keys)}
    return any(one.domain == DOMAIN_PN and one.user not in numbers for one in addresses)


def learn_identities(items: SignalItems) -> None:
    """Take the identity of a device from its open session, where the source keeps none: before 7.0 none did."""
    for address, record in items.sessions.items():
        if record.current is not None:
            items.identities.setdefault(address, record.current.remote_identity)


def next_prekey_id(stated: int, used: Iterable[int]) -> int:
    """The first id that is surely new: the counter may have been saved before the keys were (§2.8); ids go round."""
    ahead = [number for number in used if _is_ahead(number, stated)]
    if not ahead:
        return stated
    return next_id(max(ahead, key=lambda number: (number - stated) % MAX_PREKEY_ID))


class _Reader:
    """Converts item by item; raises ConversionError, ValueRefusedError or CurveError."""

    def __init__(self, source: BaileysItems, imported: ImportedCreds, report: Report, now_ms: int) -> None:
        self.items = SignalItems()
        self._creds = imported.creds
        self._first_unuploaded = imported.first_unuploaded
        self._keeps_deleted = source.keeps_deleted
        self._report = report
        self._now_ms = now_ms

    def take_prekey(self, text: str, value: object) -> None:
        number = int(text)
        halves = read_object(value, "the prekey")
        if not 1 <= number <= MAX_PREKEY_ID:
            raise ValueRefusedError("its id is not one of a prekey")
        made = KeyPair.from_private(read_bytes(halves.get("private"), curve.KEY_LENGTH, "the private key"))
        if read_public(halves.get("public"), "the public key") != made.public:
            self._report.warn("pre_key_mismatch", f"{names.PRE_KEY}/{text}", "its halves do not fit")
            return
        self.items.prekeys[number] = OneTimePreKey(number, made, self._state(number))

    def _state(self, number: int) -> State:
        """Ids below the counter were uploaded; where nothing is deleted they may have been used as well."""
        if _is_ahead(number, self._first_unuploaded):
            return "new"
        return "stale" if self._keeps_deleted else "uploaded"

    def take_identity(self, text: str, value: object) -> None:
        self.items.identities[SignalAddress.parse(text)] = read_public(value, "the identity key")

    def take_session(self, text: str, value: object) -> None:
        address = SignalAddress.parse(text)
        if self._keeps_deleted and _is_own_phone(address, self._creds):
            self._report.warn(
                "session_skipped",
                f"{names.SESSION}/{text}",
                "the own phone's, which the store hides and never deletes",
            )
            return
        imported = node.import_session(value, self._creds.local_identity(), self._now_ms)
        self._tell(f"{names.SESSION}/{text}", imported, _SESSION_FAULT, "session_invalid")
        self.items.sessions[address] = imported.record

    def take_sender_key(self, text: str, value: object) -> None:
        imported = node.import_sender_key(value, self._now_ms)
        self._tell(f"{names.SENDER_KEY}/{text}", imported, _SENDER_KEY_FAULT, "sender_key_invalid")
        self.items.sender_keys[names.sender_key_parts(text)] = imported.record

    def _tell(
        self, item: str, imported: Imported[SessionRecord] | Imported[SenderKeyRecord], fault: str, code: str
    ) -> None:
        """Report single states that were left out, and what limits cut off."""
        for warning in imported.warnings:
            self._report.warn(
                code if warning.startswith(fault) else "item_reduced", item, warning.removeprefix(fault)
            )


def _is_bare_lid(address: SignalAddress, lids: frozenset[str]) -> bool:
    return address.domain == DOMAIN_PN and address.user in lids


def _is_own_phone(address: SignalAddress, creds: Credentials) -> bool:
    own = {jid.user for jid in (creds.me_pn, creds.me_lid) if jid is not None}
    return address.device == 0 and address.user in own


def _is_ahead(number: int, counter: int) -> bool:
    """Whether an id is at or after a counter; ids go round, so the nearer half of the circle is."""
    return (number - counter) % MAX_PREKEY_ID < MAX_PREKEY_ID // 2


def documents(items: SignalItems) -> Iterable[tuple[tuple[str, str], bytes]]:
    """All items as they are stored."""
    for key in items.prekeys.values():
        yield (kinds.PREKEY, str(key.id)), key.serialize()
    for address, identity in items.identities.items():
        yield (kinds.IDENTITY, address.text), encode_identity(identity)
    for address, record in items.sessions.items():
        yield (kinds.SESSION, address.text), record.serialize()
    for (group, author), sender_key in items.sender_keys.items():
        yield (kinds.SENDER_KEY, sender_key_name(group, author)), sender_key.serialize()
