"""Signal state of other devices, read and changed through a unit of work."""

from __future__ import annotations

import logging
from typing import Final

import msgspec

from waD.e2ee.address import DOMAIN_LID, DOMAIN_PN, SignalAddress
from waD.e2ee.errors import SignalError
from waD.e2ee.groups import SenderKeyRecord
from waD.e2ee.record import SessionRecord
from waD.e2ee.session import archive_current, merge
from waD.link.prekeys import OneTimePreKey
from waD.messaging import kinds
from waD.messaging.values import decode_identity, encode_identity
from waD.store.state import SessionState
from waD.store.unit import Unit
from waD.wire.jid import JID

RESTORE_POINT_KEY: Final = "last"
BARE_LIDS_KEY: Final = "baileys"

_log = logging.getLogger(__name__)


class _Point(msgspec.Struct):
    """The part of the note about a restore that counts here."""

    backup: int = 0


_decode_point: Final = msgspec.json.Decoder(_Point).decode


class Records:
    """Pairwise records, identities, one-time prekeys and sender keys of one session."""

    def __init__(self, state: SessionState) -> None:
        self._state = state

    async def session(self, address: SignalAddress, unit: Unit | None = None) -> SessionRecord | None:
        """The pairwise record of a device.

        Raises:
            SignalError: the stored record is damaged.
        """
        found = await self._state.record(kinds.SESSION, address.text, SessionRecord.parse, unit)
        if found is None and (key := await self._bare(kinds.SESSION, address, unit)) is not None:
            found = await self._state.record(kinds.SESSION, key, SessionRecord.parse, unit)
        return found

    async def _bare(self, kind: str, address: SignalAddress, unit: Unit | None) -> str | None:
        """Where what is missing under an address is, when the store that it came from left out the domain of LIDs.

        With a unit it is moved; without one it is only looked at (chapter 08 §2.7).
        """
        if address.domain != DOMAIN_LID:
            return None
        if await self._state.item(kinds.BARE_LIDS, BARE_LIDS_KEY, unit) is None:
            return None
        bare = SignalAddress(address.user, DOMAIN_PN, address.device).text
        if await self._state.item(kind, bare, unit) is None:
            return None
        if unit is None:
            return bare
        await self.adopt(address.user, unit)
        return address.text

    async def adopt(self, lid_user: str, unit: Unit) -> None:
        """Move everything of a LID's devices that is filed without its domain; what is in place wins.

        It cannot be told apart from that of a phone number before somebody asks for the LID.
        """
        if await self._state.item(kinds.BARE_LIDS, BARE_LIDS_KEY, unit) is None:
            return
        for key in await self._state.item_keys(kinds.IDENTITY, f"{lid_user}.", unit):
            stored = await self._state.item(kinds.IDENTITY, key, unit)
            new = SignalAddress(lid_user, DOMAIN_LID, SignalAddress.parse(key).device).text
            if stored is not None and await self._state.item(kinds.IDENTITY, new, unit) is None:
                unit.put(kinds.IDENTITY, new, stored)
            unit.delete(kinds.IDENTITY, key)
        for key in await self._state.item_keys(kinds.SESSION, f"{lid_user}.", unit):
            await self._adopt_session(key, lid_user, unit)

    async def _adopt_session(self, key: str, lid_user: str, unit: Unit) -> None:
        new = SignalAddress(lid_user, DOMAIN_LID, SignalAddress.parse(key).device).text
        try:
            old = await self._state.record(kinds.SESSION, key, SessionRecord.parse, unit)
            merged = merge(await self._state.record(kinds.SESSION, new, SessionRecord.parse, unit), old)
        except SignalError:
            _log.error("a stored session record is damaged and was left as it is")
            return
        if merged is not None:
            unit.put(kinds.SESSION, new, merged)
        unit.delete(kinds.SESSION, key)

    def put_session(self, unit: Unit, address: SignalAddress, record: SessionRecord) -> None:
        """Replace a pairwise record."""
        unit.put(kinds.SESSION, address.text, record)

    async def archive_session(self, unit: Unit, address: SignalAddress, now_ms: int) -> bool:
        """Make the next message to a device need a new session; late ones of the device still decrypt.

        Returns:
            Whether there was a session to archive; a damaged record is left as it is.
        """
        try:
            record = await self.session(address, unit)
        except SignalError:
            _log.error("a stored session record is damaged and was left as it is")
            return False
        if record is None or record.current is None:
            return False
        self.put_session(unit, address, archive_current(record, now_ms))
        return True

    def delete_session(self, unit: Unit, address: SignalAddress) -> None:
        """Remove a pairwise record (chapter 03 §7.6 says when)."""
        unit.delete(kinds.SESSION, address.text)

    async def identity(self, address: SignalAddress, unit: Unit | None = None) -> bytes | None:
        """The 32-byte identity key last trusted for a device.

        Raises:
            ValueDamaged: the stored key is damaged.
        """
        stored = await self._state.item(kinds.IDENTITY, address.text, unit)
        if stored is None and (key := await self._bare(kinds.IDENTITY, address, unit)) is not None:
            stored = await self._state.item(kinds.IDENTITY, key, unit)
        return None if stored is None else decode_identity(stored)

    def put_identity(self, unit: Unit, address: SignalAddress, key: bytes) -> None:
        """Trust an identity key, after a message or bundle proved it (chapter 03 §7.1)."""
        unit.put(kinds.IDENTITY, address.text, encode_identity(key))

    async def prekey(self, key_id: int, unit: Unit | None = None) -> OneTimePreKey | None:
        """An own one-time prekey that was not used yet; raises PreKeyRecordError."""
        stored = await self._state.item(kinds.PREKEY, str(key_id), unit)
        return None if stored is None else OneTimePreKey.parse(key_id, stored)

    async def saved_ms(self, unit: Unit | None = None) -> int:
        """When the state was saved that the last restore put in place, Unix milliseconds; 0 if it never was one."""
        note = await self._state.item(kinds.RESTORE_POINT, RESTORE_POINT_KEY, unit)
        try:
            return 0 if note is None else _decode_point(note).backup
        except msgspec.DecodeError:
            return 0

    def delete_prekey(self, unit: Unit, key_id: int) -> None:
        """Forget a prekey, in the unit that stores the session made with it."""
        unit.delete(kinds.PREKEY, str(key_id))

    async def sender_key(
        self, group: JID, author: SignalAddress, unit: Unit | None = None
    ) -> SenderKeyRecord | None:
        """The sender key of an author's device in a group.

        Raises:
            SignalError: the stored record is damaged.
        """
        key = sender_key_name(group, author)
        return await self._state.record(kinds.SENDER_KEY, key, SenderKeyRecord.parse, unit)

    def put_sender_key(self, unit: Unit, group: JID, author: SignalAddress, record: SenderKeyRecord) -> None:
        """Replace a sender key."""
        unit.put(kinds.SENDER_KEY, sender_key_name(group, author), record)


def sender_key_name(group: JID, author: SignalAddress) -> str:
    """The item key of a sender key."""
    return f"{group}|{author.text}"
