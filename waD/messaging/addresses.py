"""Who is who: phone numbers, LIDs, canonical identities and Signal addresses (chapter 04 §13, chapter 03 §4)."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from waD.e2ee import session as signal
from waD.e2ee.address import DOMAIN_HOSTED_LID, DOMAIN_HOSTED_PN, DOMAIN_LID, DOMAIN_PN, SignalAddress
from waD.messaging import kinds
from waD.messaging.records import Records
from waD.messaging.values import decode_text, encode_text
from waD.store.state import SessionState
from waD.store.unit import Unit
from waD.wire.jid import JID, LID, PN

MappingSource: TypeAlias = Literal["live", "directed", "observed"]
"""How far a statement about a mapping is to be trusted (chapter 04 §13.2): the server's own answer, our own phone,
or something a stanza says on the side."""

_LID_DOMAIN: Final = {DOMAIN_PN: DOMAIN_LID, DOMAIN_HOSTED_PN: DOMAIN_HOSTED_LID}


class Addresses:
    """The PN↔LID map of one session and all that is derived from it."""

    def __init__(self, state: SessionState, records: Records) -> None:
        self._state = state
        self._records = records

    async def lid_of(self, jid: JID, unit: Unit | None = None) -> JID | None:
        """The bare LID of a person; None when it is not known or the address is no person's."""
        if jid.is_lid:
            return jid.account
        if not jid.is_pn:
            return None
        user = await self._state.item(kinds.LID_OF_PN, jid.user, unit)
        return None if user is None else JID(decode_text(user), LID)

    async def pn_of(self, jid: JID, unit: Unit | None = None) -> JID | None:
        """The bare phone-number address of a person; None when it is not known."""
        if jid.is_pn:
            return jid.account
        if not jid.is_lid:
            return None
        user = await self._state.item(kinds.PN_OF_LID, jid.user, unit)
        return None if user is None else JID(decode_text(user), PN)

    async def canonical(self, jid: JID, unit: Unit | None = None) -> JID:
        """The one bare address a person is filed under: the LID when it is known; others as they are."""
        if jid.is_user:
            return await self.lid_of(jid, unit) or jid.account
        return jid.bare

    async def spellings(self, jid: JID, unit: Unit | None = None) -> tuple[JID, ...]:
        """Every bare address of a person, the canonical one first; of anything else the address itself."""
        if not jid.is_user:
            return (jid.bare,)
        known = (await self.lid_of(jid, unit), await self.pn_of(jid, unit))
        return tuple(form for form in known if form is not None)

    async def signal_address(self, device: JID, unit: Unit | None = None) -> SignalAddress:
        """The address that keys a device's Signal state: by LID whenever it is known (chapter 03 §4.1).

        Raises:
            JIDError: the server has no Signal sessions.
            AddressError: no device can have this address.
        """
        domain = device.signal_domain
        lid_domain = _LID_DOMAIN.get(domain)
        lid = None if lid_domain is None else await self.lid_of(device, unit)
        if lid is None or lid_domain is None:
            return SignalAddress(device.user, domain, device.device)
        return SignalAddress(lid.user, lid_domain, device.device)

    async def learn(self, unit: Unit, pn: JID, lid: JID, source: MappingSource) -> bool:
        """Store a mapping, with everything that has to move because of it, in one unit.

        The Signal records of the person's devices are merged under the LID, and rows filed under the phone number are
        filed under the LID. An `observed` mapping only fills a gap: a conflict changes nothing, and the caller asks
        the server. The own account's mapping comes from the login and is fixed.

        Returns:
            Whether the mapping is in force now; False for a conflict that was left alone.
        """
        if not pn.is_pn or not lid.is_lid:
            return False
        known_lid, known_pn = await self.lid_of(pn, unit), await self.pn_of(lid, unit)
        if known_lid == lid.account and known_pn == pn.account:
            return True
        if source == "observed" and (known_lid is not None or known_pn is not None):
            return False
        if known_pn is not None:
            unit.delete(kinds.LID_OF_PN, known_pn.user)
        if known_lid is not None:
            unit.delete(kinds.PN_OF_LID, known_lid.user)
        unit.put(kinds.LID_OF_PN, pn.user, encode_text(lid.user))
        unit.put(kinds.PN_OF_LID, lid.user, encode_text(pn.user))
        await self._move(unit, pn.account, lid.account)
        return True

    async def _move(self, unit: Unit, pn: JID, lid: JID) -> None:
        """Merge records under the LID (chapter 03 §4.1, row *ours*) and re-key rows."""
        await self._records.adopt(lid.user, unit)
        for domain, separator in ((DOMAIN_PN, "."), (DOMAIN_HOSTED_PN, f"_{DOMAIN_HOSTED_PN}.")):
            prefix = f"{pn.user}{separator}"
            for key in await self._state.item_keys(kinds.SESSION, prefix, unit):
                old = SignalAddress.parse(key)
                await self._move_session(unit, old, SignalAddress(lid.user, _LID_DOMAIN[domain], old.device))
            for key in await self._state.item_keys(kinds.IDENTITY, prefix, unit):
                old = SignalAddress.parse(key)
                await self._move_identity(unit, old, SignalAddress(lid.user, _LID_DOMAIN[domain], old.device))
        devices = await self._state.item(kinds.DEVICES, str(pn), unit)
        if devices is not None:
            unit.delete(kinds.DEVICES, str(pn))
        unit.move_person(str(pn), str(lid))

    async def _move_session(self, unit: Unit, old: SignalAddress, new: SignalAddress) -> None:
        merged = signal.merge(await self._records.session(new, unit), await self._records.session(old, unit))
        if merged is not None:
            self._records.put_session(unit, new, merged)
        self._records.delete_session(unit, old)

    async def _move_identity(self, unit: Unit, old: SignalAddress, new: SignalAddress) -> None:
        moved = await self._records.identity(old, unit)
        if moved is not None and await self._records.identity(new, unit) is None:
            self._records.put_identity(unit, new, moved)
        unit.delete(kinds.IDENTITY, old.text)
