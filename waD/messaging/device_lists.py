"""Which devices people have: the stored lists, and asking for them.

Chapter 04 §2, chapter 06 §1.4. A list is kept until something says that it changed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from waD.e2ee import adv
from waD.e2ee.address import AddressError, SignalAddress
from waD.link.devices import DeviceAnswer, DeviceList, ListState, device_jids, query_devices, resolve
from waD.link.errors import RequestError
from waD.link.stanzas import Requester
from waD.link.usync import DevicesAnswer, ListedDevice, UserQuery
from waD.messaging import kinds
from waD.messaging.context import Context
from waD.store.unit import Unit
from waD.wire.errors import JIDError
from waD.wire.jid import JID

UNVERIFIED_LIFE_MS: Final = 3_600_000
"""How long a list is used whose signature could not be checked or did not hold."""

_log = logging.getLogger(__name__)


class DeviceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The stored device list of one account.

    Attributes:
        devices: those to write to, device 0 included.
        state: how far it can be trusted, see `ListState`.
        hash: the server's hash, to ask whether anything changed.
        namespace: server of the addresses that the hash is over.
        ts: seconds, of the signed list.
        raw_id: the account's epoch.
        hosted: a business that Meta runs: its hosted devices get direct messages (chapter 04 §2.2).
        signed: the signed key-index list while it could not be verified.
        stored_ms: Unix milliseconds.
    """

    devices: tuple[ListedDevice, ...]
    state: ListState
    hash: str | None = None
    namespace: str = ""
    ts: int = 0
    raw_id: int | None = None
    hosted: bool = False
    signed: bytes | None = None
    stored_ms: int = 0

    def serialize(self) -> bytes:
        """The stored form."""
        return _encode(self)

    @classmethod
    def parse(cls, data: bytes) -> DeviceRecord:
        """Read the stored form; raises msgspec.DecodeError."""
        return _decode(data)

    def usable_at(self, now_ms: int) -> bool:
        """Whether the list may be used without asking again."""
        return self.state == "verified" or now_ms - self.stored_ms < UNVERIFIED_LIFE_MS


_encode: Final = msgspec.json.Encoder(order="sorted").encode
_decode: Final = msgspec.json.Decoder(DeviceRecord).decode


class DeviceLists:
    """The device lists of one session.

    Args:
        context: whose.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._flying: list[set[JID]] = []

    async def record(self, user: JID, unit: Unit | None = None) -> DeviceRecord | None:
        """The stored list of an account, however old; None when there is none that can be read."""
        key = str(await self._context.addresses.canonical(user, unit))
        try:
            return await self._context.state.record(kinds.DEVICES, key, _decode, unit)
        except msgspec.DecodeError:
            _log.warning("a stored device list cannot be read and will be asked for again")
            return None

    async def targets(self, wire: JID, unit: Unit | None = None) -> list[JID] | None:
        """Devices of an account to write to, in the namespace of `wire`, without this device; None: not known.

        Hosted devices are among them only when the account itself is hosted.
        """
        record = await self.record(wire, unit)
        if record is None or not record.usable_at(self._context.now_ms()):
            return None
        account = self._context.account
        own = (account.device_pn, account.device_lid)
        found = device_jids(wire, record.devices, own=own)
        return found if record.hosted else [jid for jid in found if not jid.is_hosted]

    async def companions(self, user: JID, unit: Unit | None = None) -> list[JID]:
        """Known devices of an account but its phone, in the namespace of `user`."""
        record = await self.record(user, unit)
        return [] if record is None else device_jids(user, record.devices, without_phone=True)

    async def knows(self, device: JID, unit: Unit | None = None) -> bool | None:
        """Whether a device is in its account's list; None when no list is stored."""
        record = await self.record(device, unit)
        if record is None:
            return None
        return any(item.id == device.device for item in record.devices)

    async def invalidate(self, unit: Unit, user: JID) -> None:
        """Drop the list of an account; it is asked for before the next message."""
        for form in await self._context.addresses.spellings(user, unit):
            unit.delete(kinds.DEVICES, str(form))
            for flight in self._flying:
                flight.add(form)

    async def identity_of_phone(self, user: JID, unit: Unit | None = None) -> bytes | None:
        """The 32-byte identity of an account's device 0: the key that signs its lists and companions."""
        if self._context.account.is_own(user):
            return self._context.account.creds.account_key
        address = await self._context.addresses.signal_address(user.account, unit)
        return await self._context.records.identity(address, unit)

    async def refresh(self, users: Sequence[JID], connection: Requester) -> dict[JID, RequestError]:
        """Ask for the lists of accounts and store them, with the LIDs the server tells.

        Args:
            users: addresses of persons; each is asked about under the address given.
            connection: where to ask.

        Returns:
            Refusals for single accounts, by the address asked with.

        Raises:
            RequestError: the whole question was refused.
            RequestTimeout, Disconnected, MalformedReply: no usable answer.
            StoreError: nothing was stored.
        """
        people = {await self._context.addresses.canonical(user): user.account for user in reversed(users)}
        queries = [await self._query(user) for user in people.values() if is_device(user) and not user.is_bot]
        if not queries:
            return {}
        changed: set[JID] = set()
        self._flying.append(changed)
        try:
            answers = await query_devices(connection, queries)
            await self._store_all(answers, changed)
        finally:
            self._flying.remove(changed)
        return {answer.user: answer.error for answer in answers if answer.error is not None}

    async def _query(self, user: JID) -> UserQuery:
        """What to ask about an account, under the address it was named by: a number may have another LID now."""
        record = await self.record(user)
        lid = await self._context.addresses.lid_of(user) if user.is_pn else None
        if (
            record is None
            or record.state != "verified"
            or record.hash is None
            or record.namespace != user.server
        ):
            return UserQuery(jid=user, lid=lid)
        return UserQuery(jid=user, lid=lid, device_hash=record.hash, ts=record.ts or None)

    async def _store_all(self, answers: Iterable[DeviceAnswer], changed: set[JID]) -> None:
        async with self._context.state.lock:
            unit = self._context.state.unit()
            for answer in answers:
                if answer.lid is not None and answer.user.is_pn:
                    await self._context.addresses.learn(unit, answer.user, answer.lid, "live")
                # A notification overtook the answer, which may be the older of the two.
                if answer.devices is not None and answer.user not in changed:
                    await self.apply(unit, answer.user, answer.devices)
            await self._context.state.commit(unit)

    async def apply(self, unit: Unit, user: JID, answer: DevicesAnswer) -> DeviceRecord | None:
        """Check a list and store it as part of a unit; an empty one is not stored.

        Returns:
            What is stored now.
        """
        before = await self.record(user, unit)
        identity = await self.identity_of_phone(user, unit)
        listed = resolve(
            answer,
            identity,
            stored_ts=0 if before is None else before.ts,
            stored_raw_id=None if before is None else before.raw_id,
        )
        if listed.state == "outdated":
            return before
        if listed.state in ("invalid", "missing"):
            _log.warning("a device list came without a valid signature; only the phone is written to")
        after = self._record_of(user, listed)
        if listed.re_registered or _names_another_account(before, listed, answer):
            await self._archive(unit, user, (*(before.devices if before else ()), *listed.devices))
        elif before is not None:
            gone = {item.id for item in before.devices} - {item.id for item in after.devices}
            await self._archive(unit, user, [item for item in before.devices if item.id in gone])
        await self._put(unit, user, after if after.devices else None)
        return after if after.devices else None

    def _record_of(self, user: JID, listed: DeviceList) -> DeviceRecord:
        signed = listed.key_index_list
        return DeviceRecord(
            devices=listed.devices,
            state=listed.state,
            hash=listed.hash if listed.state == "verified" else None,
            namespace=user.account.server,
            ts=listed.ts,
            raw_id=listed.raw_id,
            hosted=signed is not None and adv.verify_key_index_list(signed, None).hosted,
            signed=signed if listed.state == "provisional" else None,
            stored_ms=self._context.now_ms(),
        )

    async def _put(self, unit: Unit, user: JID, record: DeviceRecord | None) -> None:
        key = str(await self._context.addresses.canonical(user, unit))
        if record is None:
            unit.delete(kinds.DEVICES, key)
        else:
            unit.put(kinds.DEVICES, key, record)

    async def put_devices(
        self, unit: Unit, user: JID, record: DeviceRecord, devices: Sequence[ListedDevice]
    ) -> None:
        """Store a list with some devices gone; their sessions are archived."""
        kept = {item.id for item in devices}
        await self._archive(unit, user, [item for item in record.devices if item.id not in kept])
        await self._put(unit, user, msgspec.structs.replace(record, devices=tuple(devices), hash=None))

    async def recheck(self, unit: Unit, user: JID, identity: bytes) -> None:
        """Judge a list again, now that the identity of the account's phone is known or another one.

        A provisional list is verified or cut down to the phone; one that the new identity did not sign is dropped.
        """
        record = await self.record(user, unit)
        if record is None:
            return
        if record.signed is None:
            if record.raw_id is not None:
                await self.invalidate(unit, user)
            return
        answer = DevicesAnswer(devices=record.devices, key_index_list=record.signed)
        await self._put(unit, user, self._record_of(user, resolve(answer, identity)))

    async def _archive(self, unit: Unit, user: JID, devices: Iterable[ListedDevice]) -> None:
        """The next message to these devices needs a new session; late ones of theirs still decrypt."""
        context = self._context
        for form in await context.addresses.spellings(user, unit):
            for device in device_jids(form, devices):
                address = await context.addresses.signal_address(device, unit)
                await context.records.archive_session(unit, address, context.now_ms())


def is_device(jid: JID) -> bool:
    """Whether an address can be that of a person's device at all; what stands in a stanza need not be."""
    try:
        SignalAddress(jid.user, jid.signal_domain, jid.device)
    except (JIDError, AddressError):
        return False
    return jid.is_user


def _names_another_account(before: DeviceRecord | None, listed: DeviceList, answer: DevicesAnswer) -> bool:
    """Whether a list that does not verify claims to be of another epoch: the phone's next bundle decides."""
    if before is None or before.raw_id is None or listed.state != "invalid" or answer.key_index_list is None:
        return False
    try:
        return adv.verify_key_index_list(answer.key_index_list, None).raw_id != before.raw_id
    except adv.AdvError:
        return False
