"""The device's own credentials and one-time prekeys over the stored auth state."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Final

from waD.link.credentials import Credentials
from waD.link.prekeys import OneTimePreKey, PreKeyRecordError, draw_prekeys, next_id, uploaded
from waD.messaging import kinds
from waD.store.errors import StoreDamaged
from waD.store.state import SessionState
from waD.store.unit import Unit
from waD.wire.jid import JID

_SHOWN: Final = ("me_pn", "me_lid", "push_name", "business_name", "platform")
"""Credentials that the session's row repeats for those who look at it."""

_log = logging.getLogger(__name__)


class Account:
    """Who this session is: credentials, prekeys, own addresses.

    Every method that writes is one unit of work and takes the state's lock; those with a `unit` argument add to the
    caller's unit instead, and the caller holds the lock.

    Args:
        state: the session's state; its credentials exist already.
    """

    def __init__(self, state: SessionState) -> None:
        self._state = state
        self._raw: bytes | None = None
        self._parsed: Credentials | None = None
        self._pending: tuple[bytes, Credentials] | None = None

    @property
    def creds(self) -> Credentials:
        """The credentials as last committed.

        Raises:
            StoreDamaged: there are none.
            CredentialsError: they cannot be read.
        """
        raw = self._state.creds
        if raw is None:
            raise StoreDamaged(f"session {self._state.row.name}: the store holds no credentials")
        if self._parsed is None or raw is not self._raw:
            known = self._pending
            self._parsed = known[1] if known is not None and known[0] is raw else Credentials.parse(raw)
            self._raw, self._pending = raw, None
        return self._parsed

    @property
    def paired(self) -> bool:
        """Whether an account accepted this device."""
        return self.creds.registered

    def changed_in(self, unit: Unit) -> Credentials:
        """The credentials as a unit under construction leaves them."""
        if unit.creds is None:
            return self.creds
        if self._pending is not None and self._pending[0] is unit.creds:
            return self._pending[1]
        return Credentials.parse(unit.creds)

    def change_in(self, unit: Unit, change: Callable[[Credentials], Credentials]) -> Credentials:
        """Apply a pure change as part of a unit; the session's row follows."""
        before = self.changed_in(unit)
        after = change(before)
        if after is before:
            return after
        document = after.serialize()
        self._pending = (document, after)
        unit.set_creds(document)
        shown = {
            name: getattr(after, name) for name in _SHOWN if getattr(after, name) != getattr(before, name)
        }
        if shown:
            unit.set_session(**{name: _column(value) for name, value in shown.items()})
        return after

    async def credentials(self) -> Credentials:
        """The credentials as last committed."""
        return self.creds

    async def change_credentials(self, change: Callable[[Credentials], Credentials]) -> Credentials:
        """Apply a pure change and make it durable.

        Raises:
            StoreError: nothing was changed.
        """
        async with self._state.lock:
            unit = self._state.unit()
            after = self.change_in(unit, change)
            await self._state.commit(unit)
        return after

    async def prekeys(self) -> list[OneTimePreKey]:
        """All one-time prekeys there are; damaged ones are left out, as nothing can be done with them."""
        stored = await self._state.all_items(kinds.PREKEY)
        found: list[OneTimePreKey] = []
        for key, value in stored.items():
            with suppress(PreKeyRecordError, ValueError):  # an id that is no number
                found.append(OneTimePreKey.parse(int(key), value))
        if len(found) < len(stored):
            _log.error("%d stored one-time prekeys are damaged: see wactl repair", len(stored) - len(found))
        return found

    async def add_prekeys(self, keys: Sequence[OneTimePreKey], next_prekey_id: int) -> None:
        """Store new keys and the id counter."""
        async with self._state.lock:
            unit = self._state.unit()
            for key in keys:
                unit.put(kinds.PREKEY, str(key.id), key.serialize())
            self.change_in(unit, lambda creds: creds.change(next_prekey_id=next_prekey_id))
            await self._state.commit(unit)

    async def mark_uploaded(self, ids: Collection[int]) -> None:
        """Mark those keys that still exist as being on the server."""
        async with self._state.lock:
            unit = self._state.unit()
            stored = await self._state.items(kinds.PREKEY, [str(key_id) for key_id in ids])
            for text, value in stored.items():
                unit.put(kinds.PREKEY, text, uploaded(OneTimePreKey.parse(int(text), value)).serialize())
            self.change_in(unit, lambda creds: creds.change(server_has_prekeys=True))
            await self._state.commit(unit)

    async def direct_prekey(self, unit: Unit, random: Callable[[int], bytes]) -> OneTimePreKey:
        """A fresh prekey to hand out in a retry receipt; never uploaded (chapter 03 §8.5 P3)."""
        number = self.changed_in(unit).next_prekey_id
        while await self._state.item(kinds.PREKEY, str(number), unit) is not None:
            number = next_id(number)
        (drawn,) = draw_prekeys(number, 1, (), random)
        key = OneTimePreKey(drawn.id, drawn.key, "direct")
        unit.put(kinds.PREKEY, str(key.id), key.serialize())
        self.change_in(unit, lambda creds: creds.change(next_prekey_id=next_id(key.id)))
        return key

    @property
    def device_pn(self) -> JID | None:
        """This device by phone number."""
        return self.creds.me_pn

    @property
    def device_lid(self) -> JID | None:
        """This device by LID, once known."""
        return self.creds.me_lid

    @property
    def own_pn(self) -> JID | None:
        """The own account by phone number, without device."""
        device = self.creds.me_pn
        return None if device is None else device.account

    @property
    def own_lid(self) -> JID | None:
        """The own account by LID, without device."""
        device = self.creds.me_lid
        return None if device is None else device.account

    @property
    def own(self) -> JID:
        """The canonical own address: the LID when it is known.

        Raises:
            StoreDamaged: the session is not paired.
        """
        own = self.own_lid or self.own_pn
        if own is None:
            raise StoreDamaged(f"session {self._state.row.name} is not paired")
        return own

    def is_own(self, jid: JID) -> bool:
        """Whether an address belongs to the own account, in its own namespace (chapter 04 §6.2)."""
        return jid.is_user and jid.account in (self.own_pn, self.own_lid)

    def is_this_device(self, jid: JID) -> bool:
        """Whether an address is this very device, by phone number or by LID."""
        creds = self.creds
        own = creds.me_pn if jid.is_pn else creds.me_lid
        return own is not None and jid.account == own.account and jid.device == own.device


def _column(value: object) -> str | None:
    return str(value) if value else None
