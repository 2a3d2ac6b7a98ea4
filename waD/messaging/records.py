"""Signal state of other devices, read and changed through a unit of work."""

from __future__ import annotations

import logging
from typing import Final

import msgspec

from waD.e2ee.address import SignalAddress
from waD.e2ee.errors import SignalError
from waD.e2ee.groups import SenderKeyRecord
from waD.e2ee.record import SessionRecord
from waD.e2ee.session import archive_current
from waD.link.prekeys import OneTimePreKey
from waD.messaging import kinds
from waD.messaging.values import decode_identity, encode_identity
from waD.store.state import SessionState
from waD.store.unit import Unit
from waD.wire.jid import JID

RESTORE_POINT_KEY: Final = "last"

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
        return await self._state.record(kinds.SESSION, address.text, SessionRecord.parse, unit)

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
