"""The state of one sandbox, and the few operations every part of the core shares."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Final

import msgspec

from waD.sandbox.accounts import PHONE, Account, AccountRecord, Device, DeviceRecord, Directory
from waD.sandbox.environment import DAY_MS, Environment, Settings
from waD.sandbox.faults import Faults
from waD.sandbox.journal import Journal, MemoryJournal
from waD.sandbox.ledger import Deliveries, KeyLedger
from waD.sandbox.links import Link
from waD.sandbox.queues import Item
from waD.wire.codec import decode, encode
from waD.wire.node import Node

TRAFFIC_KEPT: Final = 2000
COMPLAINTS_KEPT: Final = 500
RELAYED_KEPT: Final = 100_000
AUTHORS_KEPT: Final = 100_000


class StoredItem(msgspec.Struct, array_like=True):
    """A queue item in the journal."""

    seq: int
    stanza: bytes
    queued_ms: int
    expires_ms: int | None
    needs_ack: bool
    sent: int


class Relayed(msgspec.Struct, array_like=True):
    """What is remembered of a message for a day: which devices got it."""

    until_ms: int
    devices: list[str]


class World:
    """Accounts, links, records, faults. Pure: time and randomness come from the environment.

    Attributes:
        phone_work: devices 0 with something new in their queue.
        on_settled: called when everything that one event caused has happened.
    """

    def __init__(
        self,
        environment: Environment | None = None,
        settings: Settings | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.environment = environment or Environment()
        self.settings = settings or Settings()
        self.journal: Journal = journal or MemoryJournal()
        self.directory = Directory()
        self.faults = Faults()
        self.keys = KeyLedger()
        self.deliveries = Deliveries()
        self.links: dict[int, Link] = {}
        self.phone_work: deque[Device] = deque()
        self.on_settled: Callable[[], None] | None = None
        self.watchers: dict[str, set[Link]] = {}
        self._traffic: deque[tuple[int, str, str, Node]] = deque(maxlen=TRAFFIC_KEPT)
        self._complaints: deque[dict[str, Any]] = deque(maxlen=COMPLAINTS_KEPT)
        self._relayed: OrderedDict[str, Relayed] = OrderedDict()
        self._authors: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._resends: set[tuple[str, str, str]] = set()
        self._last_id = 0

    @property
    def now_ms(self) -> int:
        """Unix time in milliseconds."""
        return self.environment.clock()

    @property
    def now_s(self) -> int:
        """Unix time in seconds."""
        return self.environment.clock() // 1000

    def random(self, length: int) -> bytes:
        """That many unpredictable bytes."""
        return self.environment.random(length)

    def stanza_id(self) -> str:
        """A fresh id for a stanza of the server: digits, never twice, not even after a restart."""
        self._last_id = max(self._last_id + 1, self.now_ms)
        return str(self._last_id)

    def push(
        self, device: Device, stanza: Node, *, ttl_ms: int | None = None, needs_ack: bool = True
    ) -> Item:
        """Queue a stanza for a device and wake whoever delivers it."""
        now = self.now_ms
        item = device.queue.add(stanza, now, now + ttl_ms if ttl_ms else None, needs_ack=needs_ack)
        for gone in device.queue.overflow(now):
            self._forget_item(device, gone)
        if self.journal.enabled and needs_ack:
            self._store_item(device, item)
        if device.is_phone:
            self.phone_work.append(device)
        elif device.link is not None:
            device.link.wake()
        return item

    def remove_item(self, device: Device, item: Item) -> None:
        """Take an item out of a queue for good."""
        device.queue.remove(item)
        self._forget_item(device, item)

    def restore_item(self, device: Device, value: bytes) -> None:
        """Put a journalled item back."""
        stored = msgspec.msgpack.decode(value, type=StoredItem)
        device.queue.restore(
            Item(
                stored.seq,
                decode(stored.stanza),
                stored.queued_ms,
                stored.expires_ms,
                stored.needs_ack,
                stored.sent,
            )
        )

    def save_account(self, account: Account) -> None:
        """Journal an account without its devices."""
        if self.journal.enabled:
            self.journal.put("account", account.number, msgspec.msgpack.encode(account.record))

    def save_device(self, device: Device) -> None:
        """Journal a device."""
        if self.journal.enabled:
            self.journal.put("device", device.key, msgspec.msgpack.encode(device.record))

    def remove_device(self, device: Device) -> None:
        """Forget a device and what is queued for it."""
        for item in device.queue.clear():
            self._forget_item(device, item)
        device.account.devices.pop(device.id, None)
        self.journal.delete("device", device.key)

    def add_account(self, record: AccountRecord, phone: DeviceRecord) -> Account:
        """Take in a new account with its phone."""
        account = Account(record)
        self.directory.add(account)
        account.devices[PHONE] = Device(account, phone, self.settings)
        self.save_account(account)
        self.save_device(account.phone)
        return account

    def relayed(self, sender: Device, message_id: str) -> Relayed | None:
        """What a message with this id has reached already, when it came within the last day."""
        entry = self._relayed.get(f"{sender.key}|{message_id}")
        return entry if entry is not None and entry.until_ms > self.now_ms else None

    def note_relayed(self, sender: Device, message_id: str, devices: list[str]) -> None:
        """Remember which devices a message was queued for, and which device wrote it."""
        key = f"{sender.key}|{message_id}"
        known = self.relayed(sender, message_id)
        entry = Relayed(self.now_ms + DAY_MS, [*(known.devices if known else []), *devices])
        self._relayed[key] = entry
        if self.journal.enabled:
            self.journal.put("relayed", key, msgspec.msgpack.encode(entry))
        while len(self._relayed) > RELAYED_KEPT:
            oldest, _ = self._relayed.popitem(last=False)
            self.journal.delete("relayed", oldest)
        self.note_author(sender, message_id)

    def restore_relayed(self, key: str, value: bytes) -> None:
        """Put a journalled entry back, unless its day is over."""
        entry = msgspec.msgpack.decode(value, type=Relayed)
        if entry.until_ms > self.now_ms:
            self._relayed[key] = entry
        else:
            self.journal.delete("relayed", key)

    def note_author(self, sender: Device, message_id: str) -> None:
        """Remember the device that wrote a message."""
        self._authors[(sender.account.number, message_id)] = sender.id
        if len(self._authors) > AUTHORS_KEPT:
            self._authors.popitem(last=False)

    def author_of(self, account: Account, message_id: str) -> Device | None:
        """The device of an account that wrote a message, if that is known and the device still exists."""
        device_id = self._authors.get((account.number, message_id))
        return None if device_id is None else account.devices.get(device_id)

    def expect_resend(self, author: Device, message_id: str, requester: Device) -> None:
        """A device asked for a message again: it may get the same id once more."""
        self._resends.add((author.key, message_id, requester.key))

    def take_resend(self, author: Device, message_id: str, requester: Device) -> bool:
        """Whether a device is waiting for a message again; asking uses it up."""
        key = (author.key, message_id, requester.key)
        if key in self._resends:
            self._resends.discard(key)
            return True
        return False

    def note_traffic(self, direction: str, who: str, node: Node) -> None:
        """Record a stanza for `GET /admin/traffic`; direction `in` is from a client."""
        self._traffic.append((self.now_ms, direction, who, node))

    def complain(self, device: Device | None, text: str) -> None:
        """Record something a client did that the real service would not like."""
        self._complaints.append({"time": self.now_ms, "device": device.key if device else None, "text": text})

    def traffic(self, device: str | None = None) -> list[dict[str, Any]]:
        """The last stanzas, content as its size."""
        return [
            {"time": at, "direction": direction, "device": who, "xml": node.xml()}
            for at, direction, who, node in self._traffic
            if device in (None, who, who.partition(":")[0])
        ]

    def complaints(self) -> list[dict[str, Any]]:
        """What clients did wrong."""
        return list(self._complaints)

    def _store_item(self, device: Device, item: Item) -> None:
        stored = StoredItem(
            item.seq, encode(item.stanza), item.queued_ms, item.expires_ms, item.needs_ack, item.sent
        )
        self.journal.put("item", f"{device.key}|{item.seq:012d}", msgspec.msgpack.encode(stored))

    def _forget_item(self, device: Device, item: Item) -> None:
        if self.journal.enabled and item.needs_ack:
            self.journal.delete("item", f"{device.key}|{item.seq:012d}")
