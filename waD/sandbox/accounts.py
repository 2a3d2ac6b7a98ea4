"""Accounts, their devices, and how they are found by address (chapter 07 §2)."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from waD.sandbox.environment import Settings
from waD.sandbox.errors import SandboxError
from waD.sandbox.prekeys import KeyStock
from waD.sandbox.queues import DeviceQueue
from waD.sandbox.scenario import parse_flags
from waD.wire.jid import JID, LID, PN

if TYPE_CHECKING:
    from waD.sandbox.links import Link

PHONE: Final = 0
MAX_COMPANIONS: Final = 4
MAX_DEVICE_ID: Final = 98
MAX_ACCOUNTS: Final = 10_000
NUMBER_PREFIX: Final = "1555"
NUMBER_DIGITS: Final = 7
LID_DIGITS: Final = 15
PRIVACY_DEFAULTS: Final = {
    "last": "all",
    "online": "all",
    "profile": "all",
    "status": "all",
    "groupadd": "all",
    "readreceipts": "all",
    "calladd": "all",
    "messages": "all",
    "defense": "off",
    "stickers": "contacts",
}

_NUMBER: Final = re.compile(r"[1-9][0-9]{6,14}", re.ASCII)
_BOT: Final = re.compile(r"1313555[0-9]{4}|131655500[0-9]{2}", re.ASCII)


class DeviceRecord(msgspec.Struct):
    """What is kept of a device: `keys` are its published ones, `blob` a companion's signed identity.

    `noise_key` is empty for the phone. `key_index` 0 is the phone.
    """

    id: int
    key_index: int
    noise_key: bytes
    keys: KeyStock
    blob: bytes | None = None
    platform: str = ""
    paired_ms: int = 0
    last_seen_ms: int = 0
    logins: int = 0
    started: bool = False


class AccountRecord(msgspec.Struct):
    """What is kept of an account, devices apart. `key` is what selected it, a push name or `number:…`."""

    number: str
    lid: str
    key: str
    name: str
    raw_id: int
    list_time_s: int = 0
    next_device: int = 1
    current_index: int = 0
    addressing: str = LID
    about: str = ""
    about_time_s: int = 0
    privacy: dict[str, str] = {}
    blocked: list[str] = []
    contacts: list[str] = []
    patches: dict[str, list[bytes]] = {}
    disappearing_s: int = 0


class Device:
    """One login of an account; `queue` is what is pushed to it, `link` its live connection."""

    def __init__(self, account: Account, record: DeviceRecord, settings: Settings) -> None:
        self.account = account
        self.record = record
        self.queue = DeviceQueue(settings.queue_items, settings.queue_days)
        self.link: Link | None = None
        self.available = False
        self.remembered_subjects: dict[str, JID] = {}
        self.remembered_until_ms = 0

    @property
    def id(self) -> int:
        """Device number; 0 is the phone."""
        return self.record.id

    @property
    def is_phone(self) -> bool:
        """Whether this is the simulated phone."""
        return self.record.id == PHONE

    @property
    def key(self) -> str:
        """Name for logs, records and admin calls: `number:device`."""
        return f"{self.account.number}:{self.record.id}"

    @property
    def pn(self) -> JID:
        """Address by phone number."""
        return JID(self.account.number, PN, self.record.id)

    @property
    def lid(self) -> JID:
        """Address by LID."""
        return JID(self.account.lid, LID, self.record.id)

    def jid(self, *, lid: bool) -> JID:
        """Address in one of the two forms."""
        return self.lid if lid else self.pn

    def __repr__(self) -> str:
        return f"Device({self.key})"


class Account:
    """A phone number with its LID and devices."""

    def __init__(self, record: AccountRecord) -> None:
        self.record = record
        self.devices: dict[int, Device] = {}
        self.last_seen_s = 0
        self.flags, self.unknown_flags = parse_flags(record.key)

    @property
    def number(self) -> str:
        """Digits of the phone number."""
        return self.record.number

    @property
    def lid(self) -> str:
        """Digits of the LID."""
        return self.record.lid

    @property
    def pn_jid(self) -> JID:
        """Address by phone number, without device."""
        return JID(self.record.number, PN)

    @property
    def lid_jid(self) -> JID:
        """Address by LID, without device."""
        return JID(self.record.lid, LID)

    def jid(self, *, lid: bool) -> JID:
        """Address in one of the two forms, without device."""
        return self.lid_jid if lid else self.pn_jid

    @property
    def phone(self) -> Device:
        """Device 0."""
        return self.devices[PHONE]

    @property
    def companions(self) -> list[Device]:
        """Linked devices, oldest first."""
        return [device for device in self.devices.values() if not device.is_phone]

    @property
    def available(self) -> bool:
        """Whether any device says that somebody is there."""
        return any(device.available for device in self.devices.values())

    @property
    def valid_indexes(self) -> list[int]:
        """Key indexes of the phone and all companions."""
        return sorted(device.record.key_index for device in self.devices.values())

    def others(self, device: Device) -> list[Device]:
        """All devices but one."""
        return [other for other in self.devices.values() if other is not device]

    def add_contact(self, other: Account) -> bool:
        """Remember that the two have talked; True when that is new."""
        if other is self or other.number in self.record.contacts:
            return False
        self.record.contacts.append(other.number)
        return True

    def view(self) -> dict[str, Any]:
        """The account for people."""
        return {
            "number": self.number,
            "jid": str(self.pn_jid),
            "lid": str(self.lid_jid),
            "name": self.record.name,
            "devices": [
                {
                    "id": device.id,
                    "jid": str(device.pn),
                    "lid": str(device.lid),
                    "keyIndex": device.record.key_index,
                    "platform": device.record.platform,
                    "online": device.is_phone or device.link is not None,
                    "queued": len(device.queue),
                    "prekeys": len(device.record.keys.one_time),
                    "logins": device.record.logins,
                }
                for device in self.devices.values()
            ],
        }


class Directory:
    """All accounts, by number, LID and selecting key."""

    def __init__(self) -> None:
        self._by_number: dict[str, Account] = {}
        self._by_lid: dict[str, Account] = {}
        self._by_key: dict[str, Account] = {}

    def __iter__(self) -> Iterator[Account]:
        return iter(list(self._by_number.values()))

    def __len__(self) -> int:
        return len(self._by_number)

    def add(self, account: Account) -> None:
        """Take an account in; raises SandboxError when there are too many."""
        if len(self._by_number) >= MAX_ACCOUNTS:
            raise SandboxError(f"there are already {MAX_ACCOUNTS} accounts", 409)
        self._by_number[account.number] = account
        self._by_lid[account.lid] = account
        self._by_key[account.record.key] = account

    def by_key(self, key: str) -> Account | None:
        """The account a push name has selected before."""
        return self._by_key.get(key)

    def by_number(self, number: str) -> Account | None:
        """The account of a phone number."""
        return self._by_number.get(number)

    def find(self, jid: JID | None) -> Account | None:
        """The account of a person or device, by either address."""
        if jid is None:
            return None
        if jid.is_lid:
            return self._by_lid.get(jid.user)
        return self._by_number.get(jid.user) if jid.is_pn else None

    def device(self, jid: JID | None) -> Device | None:
        """The device of an address."""
        account = self.find(jid)
        return account.devices.get(jid.device) if account and jid else None

    def free_number(self, name: str) -> str:
        """The number a push name gives: 1555 and seven digits of its hash, the next free one on collision."""
        size = 10**NUMBER_DIGITS
        start = _hash(name) % size
        for step in range(size):
            number = f"{NUMBER_PREFIX}{(start + step) % size:0{NUMBER_DIGITS}d}"
            if number not in self._by_number and not _BOT.fullmatch(number):
                return number
        raise SandboxError("all numbers are taken", 409)

    def free_lid(self, name: str) -> str:
        """The LID a push name gives: 15 digits of its hash, the next free one on collision."""
        least = 10 ** (LID_DIGITS - 1)
        lid = least + _hash(f"lid {name}") % (9 * least)
        while str(lid) in self._by_lid:
            lid = lid + 1 if lid + 1 < 10 * least else least
        return str(lid)


def check_number(text: str) -> str:
    """Return the digits of a phone number, or raise SandboxError."""
    number = re.sub(r"[+\s().-]", "", text)
    if not _NUMBER.fullmatch(number) or _BOT.fullmatch(number):
        raise SandboxError(f"{text!r} is not a phone number: 7 to 15 digits, the first not 0")
    return number


def phash(devices: Iterable[JID]) -> str:
    """The hash of a list of devices (chapter 04 §2.3)."""
    names = sorted(f"{jid.user}.0:{jid.device}@{jid.server}".encode() for jid in devices)
    return "2:" + base64.b64encode(hashlib.sha256(b"".join(names)).digest()[:6]).decode()


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")
