"""Telling of a person's new identity: once for each change, whoever notices it first (chapter 03 §7.3)."""

from __future__ import annotations

from typing import Final

from waD.e2ee.address import SignalAddress
from waD.events import model as events
from waD.messaging import kinds
from waD.messaging.context import Context
from waD.messaging.values import decode_text, encode_text
from waD.store.unit import Unit
from waD.wire.jid import JID

_TOLD: Final = encode_text("told")
"""The change is announced, and the new key has not proved itself yet."""


class IdentityNews:
    """What one session's operator was told about identities; kept by phone."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def rumoured(self, unit: Unit, user: JID, *, implicit: bool) -> None:
        """Somebody says that a phone has a new identity; the new key has not proved itself.

        Args:
            unit: what to add to.
            user: any address of the person.
            implicit: noticed in a message, not told by the server.
        """
        address = await self._address(user, unit)
        if await self._known(address, unit) != _TOLD:
            unit.put(kinds.IDENTITY_CHANGE, address.text, _TOLD)
            await self._announce(unit, user, implicit=implicit)

    async def proved(self, unit: Unit, user: JID) -> None:
        """A phone's new identity proved itself; that is news unless it was told before."""
        address = await self._address(user, unit)
        known = await self._known(address, unit)
        unit.put(kinds.IDENTITY_CHANGE, address.text, encode_text(str(self._context.now_ms())))
        if known != _TOLD:
            await self._announce(unit, user, implicit=True)

    async def proved_since(self, unit: Unit, user: JID, time_ms: int) -> bool:
        """Whether the identity that is stored proved itself at a time, Unix milliseconds, or later."""
        known = await self._known(await self._address(user, unit), unit)
        return known is not None and known != _TOLD and int(decode_text(known)) >= time_ms

    async def _address(self, user: JID, unit: Unit) -> SignalAddress:
        return await self._context.addresses.signal_address(user.account, unit)

    async def _known(self, address: SignalAddress, unit: Unit) -> bytes | None:
        return await self._context.state.item(kinds.IDENTITY_CHANGE, address.text, unit)

    async def _announce(self, unit: Unit, user: JID, *, implicit: bool) -> None:
        canonical = await self._context.addresses.canonical(user, unit)
        unit.event(*events.identity_changed(str(canonical), implicit=implicit))
