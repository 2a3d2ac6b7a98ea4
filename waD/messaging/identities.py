"""Identity keys of other devices: trusting them, noticing a change (chapter 03 §7.1, §7.3; chapter 04 §3.4)."""

from __future__ import annotations

import logging
from typing import Final

from waD.e2ee.address import AddressError, SignalAddress
from waD.e2ee.adv import PRIMARY_DEVICE
from waD.e2ee.session import Decrypted
from waD.events import model as events
from waD.messaging import kinds
from waD.messaging.context import Context
from waD.messaging.device_lists import DeviceLists
from waD.messaging.identity_news import IdentityNews
from waD.messaging.reaction import FetchDevices, RefreshSession, Work
from waD.messaging.records import sender_key_name
from waD.store.unit import Unit
from waD.wire.jid import JID, STATUS

_DOMAINS_OF: Final = {False: ("", "_128"), True: ("_1", "_129")}
"""Infixes of Signal addresses by namespace: of a phone number, of a LID; plain and hosted."""

_log = logging.getLogger(__name__)


class Identities:
    """What happens when identity keys are seen or change.

    Args:
        context: whose.
        devices: the device lists of the same session.
    """

    def __init__(self, context: Context, devices: DeviceLists) -> None:
        self._context = context
        self._devices = devices
        self._records = context.records
        self._news = IdentityNews(context)

    async def proved(
        self, unit: Unit, sender: JID, address: SignalAddress, decrypted: Decrypted
    ) -> list[Work]:
        """Take over the identity that a decrypted message proved.

        An old message of an archived session never overwrites a newer identity.
        """
        known = await self._records.identity(address, unit)
        if known == decrypted.identity:
            return []
        current = decrypted.record.current
        if known is not None and (current is None or current.remote_identity != decrypted.identity):
            return []
        self._records.put_identity(unit, address, decrypted.identity)
        if sender.device != PRIMARY_DEVICE:
            return []
        self._check_own_phone(unit, sender, decrypted.identity)
        if known is None or self._context.account.is_own(sender):
            await self._devices.recheck(unit, sender.account, decrypted.identity)
            return []
        return await self._changed(unit, sender, address)

    def _check_own_phone(self, unit: Unit, sender: JID, identity: bytes) -> None:
        """The phone that signed this device has one identity; another one means that the account began anew."""
        account = self._context.account
        if not account.is_own(sender):
            return
        expected = account.creds.account_key
        if expected is not None and expected != identity:
            unit.event(
                *events.alert(
                    "critical",
                    "identity",
                    "the own phone has another identity key than the one that linked this device: the account was "
                    "registered anew, and this device will have to be linked again",
                )
            )

    async def _changed(self, unit: Unit, sender: JID, address: SignalAddress) -> list[Work]:
        """A change noticed in a message: the message itself made the new session."""
        await self._devices.invalidate(unit, sender.account)
        await self._archive(unit, sender, keep=address)
        await self._news.proved(unit, sender)
        return [FetchDevices((sender.account,))]

    async def account_changed(self, unit: Unit, sender: JID) -> list[Work]:
        """A companion proved itself with another account key than the one that is stored (§7.2)."""
        await self._devices.invalidate(unit, sender.account)
        await self._news.rumoured(unit, sender, implicit=True)
        return [FetchDevices((sender.account,)), RefreshSession(sender.account)]

    async def told(self, unit: Unit, user: JID, time_s: int | None) -> list[Work]:
        """The server says that a person's phone has a new identity.

        Sessions are archived, so that messages of the old installation can still be read and the next send builds
        a new one; nothing is dropped before the new key has proved itself.
        """
        if user.device != PRIMARY_DEVICE or not user.is_user or self._context.account.is_own(user):
            return []
        try:
            address = await self._context.addresses.signal_address(user.account, unit)
        except AddressError:
            return []
        if time_s is not None and await self._news.proved_since(unit, user, time_s * 1000):
            return []  # a message told us before
        await self._devices.invalidate(unit, user.account)
        stored = await self._records.identity(address, unit) is not None
        archived = await self._archive(unit, user, keep=None if stored else address)
        if not stored:
            return []
        await self._news.rumoured(unit, user, implicit=False)
        await self._drop_status_key(unit)
        return [RefreshSession(user.account)] if archived else []

    async def _archive(self, unit: Unit, user: JID, keep: SignalAddress | None) -> bool:
        """Archive the current sessions with all devices of a person but one; says whether there were any."""
        found = False
        for form in await self._context.addresses.spellings(user.account, unit):
            if form.is_lid:
                await self._records.adopt(form.user, unit)
            for infix in _DOMAINS_OF[form.is_lid]:
                prefix = f"{form.user}{infix}."
                for key in await self._context.state.item_keys(kinds.SESSION, prefix, unit):
                    address = SignalAddress.parse(key)
                    if address != keep:
                        found |= await self._records.archive_session(unit, address, self._context.now_ms())
        return found

    async def _drop_status_key(self, unit: Unit) -> None:
        """The own sender key for status is renewed when a contact's identity changes (chapter 03 §6.7)."""
        account = self._context.account
        for own in (account.device_pn, account.device_lid):
            if own is not None:
                name = sender_key_name(STATUS, SignalAddress(own.user, own.signal_domain, own.device))
                if await self._context.state.item(kinds.SENDER_KEY, name, unit) is not None:
                    unit.delete(kinds.SENDER_KEY, name)
