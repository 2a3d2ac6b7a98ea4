"""Sender keys of others: learning them, reading with them (chapter 03 §6)."""

from __future__ import annotations

import logging

from waD.e2ee import groups
from waD.e2ee.address import AddressError, SignalAddress
from waD.e2ee.errors import SignalError
from waD.e2ee.groups import SenderKeyRecord
from waD.e2ee.messages import parse_sender_key_message
from waD.messaging import kinds
from waD.messaging.context import Context
from waD.messaging.records import sender_key_name
from waD.store.unit import Unit
from waD.wire.jid import JID

_log = logging.getLogger(__name__)


class GroupKeys:
    """The sender keys of other devices in groups, lists and status."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._records = context.records

    async def learn(self, unit: Unit, group: JID, author: SignalAddress, distribution: bytes) -> None:
        """Install a key; what is no distribution is left out, with a line in the log (§6.6)."""
        before = await self._record(unit, group, author)
        try:
            after = groups.process_distribution(before, distribution)
        except SignalError as error:
            _log.warning("a sender key was not taken over: %s", error.code)
            return
        if groups.replaced_key(before, after) is not None:
            _log.warning("a device replaced a sender key under its old id, which no honest client does")
        if after is not before:
            self._records.put_sender_key(unit, group, author, after)

    async def decrypt(self, unit: Unit, group: JID, author: SignalAddress, data: bytes) -> bytes:
        """Decrypt a `skmsg`; the result is padded.

        Raises:
            SignalError: with a code of chapter 03 §6.5; nothing has changed.
        """
        now_ms = self._context.now_ms()
        record = await self._record(unit, group, author)
        try:
            after, plaintext = groups.decrypt(record, data, now_ms)
        except SignalError as error:
            if error.code != "no_sender_key_state":
                raise
            return await self._decrypt_elsewhere(unit, group, author, record, data, error)
        self._records.put_sender_key(unit, group, author, after)
        return plaintext

    async def _decrypt_elsewhere(
        self,
        unit: Unit,
        group: JID,
        author: SignalAddress,
        record: SenderKeyRecord | None,
        data: bytes,
        error: SignalError,
    ) -> bytes:
        """The key may be filed under the person's other address or another device (§6.3); ids are random."""
        key_id = parse_sender_key_message(data).key_id
        for address in await self._others(unit, group, author):
            other = await self._record(unit, group, address)
            if other is None or all(state.key_id != key_id for state in other.states):
                continue
            merged = groups.merge(record, other) if address.device == author.device else other
            after, plaintext = groups.decrypt(merged, data, self._context.now_ms())
            if address.device == author.device:
                unit.delete(kinds.SENDER_KEY, sender_key_name(group, address))
                address = author
            self._records.put_sender_key(unit, group, address, after)
            return plaintext
        raise error

    async def _others(self, unit: Unit, group: JID, author: SignalAddress) -> list[SignalAddress]:
        """Every other address of the author that has keys in this group."""
        users = {author.user}
        for server in ("lid", "s.whatsapp.net"):
            for form in await self._context.addresses.spellings(JID(author.user, server), unit):
                users.add(form.user)
        found: list[SignalAddress] = []
        for user in sorted(users):
            prefix = f"{group}|"
            for key in await self._context.state.item_keys(kinds.SENDER_KEY, prefix + user, unit):
                address = _parse(key[len(prefix) :])
                if address is not None and address.user == user and address != author:
                    found.append(address)
        return found

    async def _record(self, unit: Unit, group: JID, author: SignalAddress) -> SenderKeyRecord | None:
        try:
            return await self._records.sender_key(group, author, unit)
        except SignalError:
            _log.error("a stored sender key is damaged and is treated as missing")
            return None


def _parse(text: str) -> SignalAddress | None:
    try:
        return SignalAddress.parse(text)
    except AddressError:
        return None
