"""The keys and sessions of one simulated phone: real end-to-end encryption with every device (chapter 03)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from waD.e2ee import adv, curve, session
from waD.e2ee.address import DOMAIN_LID, SignalAddress
from waD.e2ee.errors import SignalError
from waD.e2ee.record import SessionRecord
from waD.e2ee.x3dh import LocalIdentity, PreKeyBundle
from waD.sandbox.appstate_keys import AppKey
from waD.sandbox.environment import Random
from waD.sandbox.prekeys import KeyStock, SignedKey
from waD.sandbox.world import World
from waD.wire.node import Node

if TYPE_CHECKING:
    from waD.sandbox.accounts import Device

PREKEYS: Final = 100
MAX_REGISTRATION_ID: Final = 16380


class PhoneRecord(msgspec.Struct):
    """What is kept of a phone's secrets and habits. Private keys are 32 bytes.

    `app_key` is the app-state key of a phone that was kept before there could be several in `app_keys`.
    """

    identity: bytes
    registration_id: int
    signed_id: int
    signed: bytes
    prekeys: dict[int, bytes]
    next_prekey: int
    app_key: bytes = b""
    app_keys: list[AppKey] = []
    online: bool = True
    auto_read: bool = False
    auto_reply: str | None = None

    def __repr__(self) -> str:
        return f"PhoneRecord({self.registration_id}, {len(self.prekeys)} prekeys)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("registration_id", self.registration_id)]


def new_phone_record(random: Random) -> PhoneRecord:
    """Draw a fresh phone."""
    identity = curve.KeyPair.generate(random)
    registration_id = 1 + int.from_bytes(random(2), "big") % MAX_REGISTRATION_ID
    signed = curve.KeyPair.generate(random)
    return PhoneRecord(identity.private, registration_id, 1, signed.private, {}, 1)


def new_stock(record: PhoneRecord, random: Random) -> KeyStock:
    """Publish a phone's keys, with a first stock of one-time prekeys."""
    identity = curve.KeyPair.from_private(record.identity)
    signed = curve.KeyPair.from_private(record.signed)
    signature = curve.sign(identity.private, curve.serialize_key(signed.public), random)
    stock = KeyStock(
        record.registration_id, identity.public, SignedKey(record.signed_id, signed.public, signature)
    )
    add_prekeys(record, stock, random)
    return stock


def add_prekeys(record: PhoneRecord, stock: KeyStock, random: Random) -> None:
    """Fill a phone's published one-time prekeys up again."""
    while len(stock.one_time) < PREKEYS:
        pair = curve.KeyPair.generate(random)
        record.prekeys[record.next_prekey] = pair.private
        stock.one_time[record.next_prekey] = pair.public
        record.next_prekey += 1
        stock.published += 1


class PhoneKeys:
    """Sessions of one phone. Every address is a LID: the sandbox knows all mappings."""

    def __init__(self, world: World, number: str, record: PhoneRecord) -> None:
        self._world = world
        self._number = number
        self.record = record
        self._sessions: dict[str, SessionRecord] = {}
        self.load_identity()

    def load_identity(self) -> None:
        """Take the identity from the record again."""
        self.identity = curve.KeyPair.from_private(self.record.identity)
        self.local = LocalIdentity(self.identity, self.record.registration_id)
        self._signed = curve.KeyPair.from_private(self.record.signed)

    def has_session(self, device: Device) -> bool:
        """Whether something can be sent to a device without a bundle."""
        record = self._sessions.get(address_of(device))
        return record is not None and record.has_usable_session

    def remote_registration(self, device: Device) -> int | None:
        """The registration id a device had when its session was made."""
        record = self._sessions.get(address_of(device))
        return record.current.remote_registration_id if record and record.current else None

    def start_session(self, device: Device, nodes: list[Node]) -> None:
        """Process a bundle as the server hands it out; raises SignalError or AdvError."""
        bundle = parse_bundle(nodes)
        blob = next((node.data for node in nodes if node.tag == "device-identity"), None)
        if not device.is_phone and blob:
            adv.verify_companion(bundle.identity, blob, device.account.phone.record.keys.identity)
        address = address_of(device)
        record = session.process_bundle(
            self._sessions.get(address), self.local, bundle, self._draw(), self._draw(), self._world.now_ms
        )
        self._store(address, record)

    def encrypt(self, device: Device, plaintext: bytes) -> tuple[str, bytes]:
        """Encrypt for a device there is a session with; returns `<enc>` type and bytes."""
        address = address_of(device)
        record = self._sessions.get(address)
        if record is None:
            raise SignalError("no_session", f"no session with {device.key}")
        done = session.encrypt(record, self.local, plaintext, self._world.now_ms)
        self._store(address, done.record)
        return done.kind, done.data

    def decrypt(self, address: str, kind: str, data: bytes) -> bytes:
        """Decrypt one `<enc>`; raises SignalError and changes nothing then."""
        done = session.decrypt(
            self._sessions.get(address),
            self.local,
            kind,
            data,
            self._find_prekey,
            self._find_signed,
            self._draw,
            self._world.now_ms,
        )
        self._store(address, done.record)
        if done.consumed_prekey is not None:
            self.record.prekeys.pop(done.consumed_prekey, None)
            self.save()
        return done.plaintext

    def archive(self, device: Device) -> None:
        """Make the next send build a new session."""
        address = address_of(device)
        record = self._sessions.get(address)
        if record is not None:
            self._store(address, session.archive_current(record, self._world.now_ms))

    def drop_sessions(self, account_lid: str | None = None) -> int:
        """Forget sessions, all or those with one account; returns how many."""
        chosen = [
            address
            for address in self._sessions
            if account_lid is None or SignalAddress.parse(address).user == account_lid
        ]
        for address in chosen:
            del self._sessions[address]
            self._world.journal.delete("session", f"{self._number}|{address}")
        return len(chosen)

    def restore_session(self, address: str, data: bytes) -> None:
        """Put a journalled session back."""
        self._sessions[address] = SessionRecord.parse(data)

    def fresh_retry_keys(self, stock: KeyStock) -> Node:
        """The `<keys>` of a retry receipt; its one-time prekey is never published (chapter 03 §7.4)."""
        pair = self._draw()
        key_id = self.record.next_prekey
        self.record.next_prekey += 1
        self.record.prekeys[key_id] = pair.private
        self.save()
        key = [Node("id", content=key_id.to_bytes(3, "big")), Node("value", content=pair.public)]
        return Node(
            "keys",
            content=[
                Node("type", content=bytes((curve.KEY_TYPE,))),
                Node("identity", content=self.identity.public),
                Node("key", content=key),
                stock.signed.node(),
            ],
        )

    def save(self) -> None:
        """Journal keys and habits."""
        if self._world.journal.enabled:
            self._world.journal.put("phone", self._number, msgspec.msgpack.encode(self.record))

    def _store(self, address: str, record: SessionRecord) -> None:
        self._sessions[address] = record
        if self._world.journal.enabled:
            self._world.journal.put("session", f"{self._number}|{address}", record.serialize())

    def _draw(self) -> curve.KeyPair:
        return curve.KeyPair.generate(self._world.random)

    def _find_prekey(self, key_id: int) -> curve.KeyPair | None:
        private = self.record.prekeys.get(key_id)
        return None if private is None else curve.KeyPair.from_private(private)

    def _find_signed(self, key_id: int) -> curve.KeyPair | None:
        return self._signed if key_id == self.record.signed_id else None


def address_of(device: Device) -> str:
    """The Signal address of a device, in the store's text form."""
    return SignalAddress(device.account.lid, DOMAIN_LID, device.id).text


def parse_bundle(nodes: list[Node]) -> PreKeyBundle:
    """Read the children of a `<user>` or `<keys>` with its registration."""
    holder = Node("user", content=nodes)
    skey, key = holder.child("skey"), holder.child("key")
    return PreKeyBundle(
        int.from_bytes(_data(holder, "registration"), "big"),
        _data(holder, "identity"),
        int.from_bytes(_data(skey, "id"), "big"),
        _data(skey, "value"),
        _data(skey, "signature"),
        int.from_bytes(_data(key, "id"), "big") if key else None,
        _data(key, "value") if key else None,
    )


def _data(node: Node | None, tag: str) -> bytes:
    child = node.child(tag) if node else None
    return child.data if child else b""
