"""All simulated phones: making accounts, signing companions, restoring, changing identity."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from waD.e2ee import adv
from waD.proto.appstate_pb2 import SyncdPatch
from waD.sandbox.accounts import (
    PHONE,
    Account,
    AccountRecord,
    Device,
    DeviceRecord,
    check_number,
)
from waD.sandbox.errors import SandboxError
from waD.sandbox.phone import Network, Phone
from waD.sandbox.phone_keys import PhoneKeys, PhoneRecord, add_prekeys, new_phone_record, new_stock
from waD.sandbox.world import World
from waD.wire.node import Node, Value

MAX_NAME: Final = 256
RAW_ID_BYTES: Final = 4


class Phones:
    """Every account's device 0, by number."""

    def __init__(self, world: World, network: Network) -> None:
        self._world = world
        self._network = network
        self._phones: dict[str, Phone] = {}
        self._lists: dict[str, bytes] = {}
        self._anonymous = 0

    def __iter__(self) -> Iterator[Phone]:
        return iter(list(self._phones.values()))

    def of(self, account: Account) -> Phone:
        """The phone of an account."""
        return self._phones[account.number]

    def by_number(self, number: str) -> Phone:
        """The phone with a number, however it is written; raises SandboxError(404)."""
        phone = self._phones.get(check_number(number))
        if phone is None:
            raise SandboxError(f"there is no phone {number}", 404)
        return phone

    def create(self, name: str | None = None, number: str | None = None) -> Phone:
        """Make an account with its phone; an existing one with that name or number is returned as it is.

        Raises:
            SandboxError: the number is not one, or belongs to an account of another name.
        """
        if name is not None and len(name) > MAX_NAME:
            raise SandboxError(f"a name has at most {MAX_NAME} characters")
        if number is not None:
            number = check_number(number)
            known = self._phones.get(number)
            if known is not None:
                return known
            return self._make(f"number:{number}" if name is None else name, name or number, number)
        if name is None:
            return self._anonymous_phone()
        account = self._world.directory.by_key(name)
        return self.of(account) if account else self._make(name, name, None)

    def account_for(self, push_name: str | None) -> Account:
        """The account a push name selects, made when it is new."""
        return self.create(name=push_name or None).account

    def sign_companion(self, account: Account, identity: bytes, key_index: int, secret: bytes) -> bytes:
        """Make the signed identity a phone uploads for a companion."""
        phone = self.of(account)
        return adv.make_device_identity(
            phone.keys.identity,
            identity,
            account.record.raw_id,
            key_index,
            self._world.now_s,
            secret,
            self._world.random,
        )

    def key_index_list(self, account: Account) -> bytes:
        """The account's signed statement of valid devices, as last published."""
        if account.number not in self._lists:
            self._sign_list(account)
        return self._lists[account.number]

    def publish_list(self, account: Account) -> None:
        """Sign the statement anew, with a later time."""
        record = account.record
        record.list_time_s = max(record.list_time_s + 1, self._world.now_s)
        self._world.save_account(account)
        self._sign_list(account)

    def devices_changed(self, account: Account) -> None:
        """A companion was linked or removed: after a removal the others get a new app-state key."""
        self.of(account).app_state.renew_key()

    def reseal(self, account: Account, collection: str, patch: SyncdPatch) -> None:
        """Sign a patch of an account again, whatever its snapshot MAC is."""
        self.of(account).app_state.reseal(collection, patch)

    def refill(self, device: Device) -> None:
        """A phone's published prekeys run low."""
        phone = self.of(device.account)
        add_prekeys(phone.keys.record, device.record.keys, self._world.random)
        phone.keys.save()
        self._world.save_device(device)

    def companion_uploaded(self, device: Device) -> None:
        """A companion published keys: the first time, its phone starts to talk to it."""
        if not device.is_phone and not device.record.started:
            device.record.started = True
            self.of(device.account).start_companion(device)

    def change_identity(self, phone: Phone) -> None:
        """The phone registers anew: other keys, another epoch, and everybody who knows it is told."""
        account = phone.account
        record = new_phone_record(self._world.random)
        old = phone.keys.record
        for name in ("online", "auto_read", "auto_reply"):
            setattr(record, name, getattr(old, name))
        phone.keys.drop_sessions()
        phone.keys.record = record
        phone.keys.load_identity()
        account.phone.record.keys = new_stock(record, self._world.random)
        account.record.raw_id = self._raw_id()
        phone.keys.save()
        self._world.save_device(account.phone)
        self.publish_list(account)
        account.record.patches.clear()
        phone.app_state.start()
        for number in account.record.contacts:
            contact = self._world.directory.by_number(number)
            for device in contact.devices.values() if contact else ():
                attrs: dict[str, Value] = {
                    "from": account.pn_jid,
                    "type": "encrypt",
                    "id": self._world.stanza_id(),
                    "t": str(self._world.now_s),
                    "lid": account.lid_jid,
                }
                self._world.push(device, Node("notification", attrs, [Node("identity")]))

    def restore(self, account: Account, data: bytes) -> Phone:
        """Put a journalled phone back."""
        return self._attach(account, msgspec.msgpack.decode(data, type=PhoneRecord))

    def _anonymous_phone(self) -> Phone:
        while True:
            self._anonymous += 1
            key = f"number:anonymous {self._anonymous}"
            if self._world.directory.by_key(key) is None:
                return self._make(key, "", None)

    def _make(self, key: str, name: str, number: str | None) -> Phone:
        directory = self._world.directory
        if directory.by_key(key) is not None:
            raise SandboxError(f"the name {key!r} belongs to another number already", 409)
        record = new_phone_record(self._world.random)
        account_record = AccountRecord(
            number=number or directory.free_number(key),
            lid=directory.free_lid(key),
            key=key,
            name=name,
            raw_id=self._raw_id(),
            list_time_s=self._world.now_s,
        )
        stock = new_stock(record, self._world.random)
        account = self._world.add_account(
            account_record, DeviceRecord(PHONE, 0, b"", stock, platform="phone")
        )
        for flag in account.unknown_flags:
            self._world.complain(account.phone, f"unknown flag {flag!r} in the push name")
        phone = self._attach(account, record)
        phone.app_state.start()
        return phone

    def _attach(self, account: Account, record: PhoneRecord) -> Phone:
        phone = Phone(self._world, self._network, account, PhoneKeys(self._world, account.number, record))
        self._phones[account.number] = phone
        return phone

    def _sign_list(self, account: Account) -> None:
        self._lists[account.number] = adv.make_key_index_list(
            self.of(account).keys.identity,
            account.record.raw_id,
            account.record.list_time_s,
            account.record.current_index,
            account.valid_indexes,
            self._world.random,
        )

    def _raw_id(self) -> int:
        return 1 + int.from_bytes(self._world.random(RAW_ID_BYTES), "big") % 0x7FFFFFFE
