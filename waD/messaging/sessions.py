"""Pairwise sessions for sending: fetch bundles, check them, build sessions (chapter 03 §2.2, §7; chapter 04 §3).

A new session is made durable before anything is encrypted with it, in a unit of its own; a send then finds everything
it needs in the store and awaits nothing from the network.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio

from waD.e2ee import session as signal
from waD.e2ee.address import SignalAddress
from waD.e2ee.adv import PRIMARY_DEVICE
from waD.e2ee.curve import KeyPair
from waD.e2ee.errors import SignalError
from waD.e2ee.record import SessionRecord
from waD.e2ee.x3dh import PreKeyBundle
from waD.link.bundles import NOT_ACCEPTABLE, DeviceBundle, fetch_bundles
from waD.link.stanzas import Requester
from waD.messaging.context import Context
from waD.messaging.device_lists import is_device
from waD.messaging.devices import Devices
from waD.messaging.identity_news import IdentityNews
from waD.store.unit import Unit
from waD.wire.jid import JID

REFUSED_LIFE_S: Final = 600.0
"""How long a device without a usable bundle is left out before it is tried again."""
MAX_REFUSED: Final = 4096

_log = logging.getLogger(__name__)


class Sessions:
    """Builds sessions with other devices of one session's peers.

    Args:
        context: whose.
        devices: the device lists, which new identities may overturn.
    """

    def __init__(self, context: Context, devices: Devices) -> None:
        self._context = context
        self._devices = devices
        self._news = IdentityNews(context)
        self._locks: dict[SignalAddress, tuple[trio.Lock, int]] = {}
        self._refused: dict[SignalAddress, float] = {}

    async def usable(self, device: JID, unit: Unit | None = None) -> bool:
        """Whether a message to a device can be encrypted now."""
        address = await self._context.addresses.signal_address(device, unit)
        return self._sends(await self._context.records.session(address, unit))

    def _sends(self, record: SessionRecord | None) -> bool:
        return (
            record is not None
            and record.has_usable_session
            and record.current is not None
            and record.current.local_identity == self._context.account.creds.identity.public
        )

    async def split(self, devices: Iterable[JID], unit: Unit | None = None) -> tuple[list[JID], list[JID]]:
        """Sort devices into those with a session and those that need one; hopeless ones are in neither."""
        ready, missing = [], []
        for device in devices:
            if not is_device(device):
                _log.warning("a device list holds an address that no device can have; it is left out")
                continue
            address = await self._context.addresses.signal_address(device, unit)
            if self._sends(await self._context.records.session(address, unit)):
                ready.append(device)
            elif self._refused.get(address, 0.0) <= trio.current_time():
                missing.append(device)
        return ready, missing

    async def ensure(
        self,
        devices: Sequence[JID],
        connection: Requester,
        *,
        reason: str | None = None,
        renew: bool = False,
    ) -> None:
        """Build sessions with those of some devices that have none; afterwards they have one or count as hopeless.

        Args:
            devices: addresses with device.
            connection: where to ask for bundles.
            reason: None, `identity` or `retry`, told to the server.
            renew: replace sessions that exist.

        Raises:
            RequestError: the server refused for now.
            RequestTimeout, Disconnected, MalformedReply: no usable answer.
            StoreError: the sessions could not be stored.
        """
        async with self._reserved(devices):
            wanted = list(devices) if renew else (await self.split(devices))[1]
            if not wanted:
                return
            accounts = {device.account for device in wanted}
            keys = {user: await self._devices.identity_of_phone(user) for user in accounts}
            # A companion is only as good as its phone's word, so the phone's key comes with it when it is not known.
            phones = [user for user, key in keys.items() if key is None and user not in wanted]
            known = {user: key for user, key in keys.items() if key is not None}
            found = await fetch_bundles(connection, [*wanted, *phones], known, reason=reason)
            async with self._context.state.lock:
                unit = self._context.state.unit()
                for item in sorted(found, key=lambda bundle: bundle.jid.device != PRIMARY_DEVICE):
                    await self._take(unit, item)
                await self._context.state.commit(unit)

    @asynccontextmanager
    async def _reserved(self, devices: Iterable[JID]) -> AsyncIterator[None]:
        """Let no two tasks fetch bundles for one device; locks are taken in one order."""
        addresses = sorted({await self._context.addresses.signal_address(device) for device in devices})
        taken: list[SignalAddress] = []
        try:
            for address in addresses:
                lock, users = self._locks.get(address, (trio.Lock(), 0))
                self._locks[address] = (lock, users + 1)
                taken.append(address)
                await lock.acquire()
            yield
        finally:
            for address in taken:
                lock, users = self._locks[address]
                if lock.statistics().owner is trio.lowlevel.current_task():
                    lock.release()
                if users == 1:
                    del self._locks[address]
                else:
                    self._locks[address] = (lock, users - 1)

    async def _take(self, unit: Unit, item: DeviceBundle) -> None:
        address = await self._context.addresses.signal_address(item.jid, unit)
        if item.bundle is None:
            await self._refuse(unit, address, item)
        elif not item.verified and item.jid.device != PRIMARY_DEVICE:
            _log.warning("a companion whose phone's key cannot be had is left out")
            self._give_up(address)
        elif self._is_false_phone(item.jid, item.bundle):
            _log.error("the server offers another phone than the one that linked this device; it is left out")
            self._give_up(address)
        else:
            await self._build(unit, item.jid, address, item.bundle)

    def _is_false_phone(self, device: JID, bundle: PreKeyBundle) -> bool:
        """Whether a bundle is not of the own phone, whose key is known since pairing (chapter 03 §7.5)."""
        account = self._context.account
        if device.device != PRIMARY_DEVICE or not account.is_own(device):
            return False
        return bundle.identity != account.creds.account_key

    async def _refuse(self, unit: Unit, address: SignalAddress, item: DeviceBundle) -> None:
        _log.warning("no session with device %d of a contact: %s", item.jid.device, item.error)
        self._give_up(address)
        if item.code == NOT_ACCEPTABLE:
            await self._devices.invalidate(unit, item.jid)

    def _give_up(self, address: SignalAddress) -> None:
        now = trio.current_time()
        if len(self._refused) >= MAX_REFUSED:
            self._refused = {known: until for known, until in self._refused.items() if until > now}
        self._refused[address] = now + REFUSED_LIFE_S

    async def _build(self, unit: Unit, device: JID, address: SignalAddress, bundle: PreKeyBundle) -> None:
        try:
            await self.process(unit, device, bundle)
        except SignalError as refusal:
            _log.warning("a bundle of device %d of a contact is unusable: %s", device.device, refusal.code)
            self._give_up(address)
        else:
            self._refused.pop(address, None)

    async def process(self, unit: Unit, device: JID, bundle: PreKeyBundle) -> None:
        """Start a session from a checked bundle as part of a unit; another identity than before is announced.

        Raises:
            SignalError: the bundle or the stored record is unusable; nothing was changed.
        """
        context = self._context
        address = await context.addresses.signal_address(device, unit)
        before = await context.records.session(address, unit)
        base, ratchet = KeyPair.generate(context.random), KeyPair.generate(context.random)
        local = context.account.creds.local_identity()
        record = signal.process_bundle(before, local, bundle, base, ratchet, context.now_ms())
        context.records.put_session(unit, address, record)
        known = await context.records.identity(address, unit)
        if known == bundle.identity:
            return
        context.records.put_identity(unit, address, bundle.identity)
        if device.device == PRIMARY_DEVICE and not context.account.is_own(device):
            await self._phone_is(unit, device, bundle.identity, known)

    async def _phone_is(self, unit: Unit, device: JID, identity: bytes, known: bytes | None) -> None:
        """A phone's identity was learned, or is another one: lists and companions hang on it (chapter 03 §7.3)."""
        if known is not None:
            await self._news.proved(unit, device)
            for companion in await self._devices.companions(device, unit):
                await self.archive(unit, companion)
        await self._devices.recheck(unit, device, identity)

    async def archive(self, unit: Unit, device: JID) -> None:
        """Make the next message to a device need a new session; late ones of the device still decrypt."""
        context = self._context
        address = await context.addresses.signal_address(device, unit)
        await context.records.archive_session(unit, address, context.now_ms())
