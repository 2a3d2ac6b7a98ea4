"""Putting a sandbox together again from its journal."""

from __future__ import annotations

from typing import Protocol

import msgspec

from waD.sandbox.accounts import Account, AccountRecord, Device, DeviceRecord
from waD.sandbox.core import Core
from waD.sandbox.media import JOURNAL_KIND


class Rows(Protocol):
    """Where journalled rows are read."""

    def rows(self, kind: str) -> list[tuple[str, bytes]]:
        """All rows of one kind, by key."""


def restore(core: Core, source: Rows) -> None:
    """Fill an empty core with accounts, devices, phones, chats and queues."""
    world = core.world
    accounts: dict[str, Account] = {}
    for number, value in source.rows("account"):
        accounts[number] = Account(msgspec.msgpack.decode(value, type=AccountRecord))
        world.directory.add(accounts[number])
    devices: dict[str, Device] = {}
    for key, value in source.rows("device"):
        record = msgspec.msgpack.decode(value, type=DeviceRecord)
        account = accounts[key.partition(":")[0]]
        devices[key] = Device(account, record, world.settings)
    for device in sorted(devices.values(), key=lambda one: one.record.key_index):
        device.account.devices[device.id] = device
    for number, value in source.rows("phone"):
        core.phones.restore(accounts[number], value)
    for key, value in source.rows("session"):
        number, _, address = key.partition("|")
        core.phones.of(accounts[number]).keys.restore_session(address, value)
    _restore_messages(core, accounts, source)
    for key, value in source.rows("item"):
        device_key, _, _ = key.partition("|")
        if device_key in devices:
            world.restore_item(devices[device_key], value)
    for key, value in source.rows("relayed"):
        world.restore_relayed(key, value)
    for _, value in source.rows(JOURNAL_KIND):
        core.media.restore(value)
    for account in accounts.values():
        core.phones.of(account).app_state.start()
        world.phone_work.append(account.phone)
    core.settle()


def _restore_messages(core: Core, accounts: dict[str, Account], source: Rows) -> None:
    messages: dict[str, list[bytes]] = {}
    for key, value in source.rows("message"):
        messages.setdefault(key.partition("|")[0], []).append(value)
    for number, values in messages.items():
        core.phones.of(accounts[number]).restore_messages(values)
