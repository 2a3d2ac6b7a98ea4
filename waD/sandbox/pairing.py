"""Linking companions: QR references, pair-success, the companion's signature, removal (chapter 02 §3)."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from waD.e2ee import adv
from waD.proto.adv_pb2 import ADVSignedDeviceIdentity, ADVSignedDeviceIdentityHMAC
from waD.proto.payload_pb2 import ClientPairingProps, ClientPayload, DeviceProps
from waD.sandbox.accounts import MAX_COMPANIONS, MAX_DEVICE_ID, Account, Device, DeviceRecord, phash
from waD.sandbox.errors import IqError, SandboxError
from waD.sandbox.links import Link, Pending, Registration
from waD.sandbox.prekeys import KeyStock, SignedKey
from waD.sandbox.qr import parse_qr
from waD.sandbox.world import World
from waD.wire.jid import JID, LID, SERVER
from waD.wire.node import Node, Value

REF_COUNT: Final = 6
FIRST_REF_MS: Final = 60_000
NEXT_REF_MS: Final = 20_000
REF_GRACE_MS: Final = 5_000
"""A code is taken a little longer than it is shown: the scan and the reply take time."""
REF_BYTES: Final = 32
ID_GAP: Final = 5


class PhoneSide(Protocol):
    """What pairing needs of the simulated phones."""

    def account_for(self, push_name: str | None) -> Account:
        """The account a push name selects, made when it is new."""

    def sign_companion(self, account: Account, identity: bytes, key_index: int, secret: bytes) -> bytes:
        """Make the signed identity a phone uploads for a companion."""

    def key_index_list(self, account: Account) -> bytes:
        """The account's signed statement of valid devices, as last published."""

    def publish_list(self, account: Account) -> None:
        """Sign the statement anew."""

    def devices_changed(self, account: Account) -> None:
        """A companion was linked or removed."""


class Scanned(msgspec.Struct, rename="camel"):
    """The answer to a scan."""

    jid: str
    lid: str
    device_id: int


class Pairing:
    """All links of unpaired clients, found by the reference in their QR code."""

    def __init__(self, world: World, phones: PhoneSide, on_removed: Callable[[Device], None]) -> None:
        self._world = world
        self._phones = phones
        self._on_removed = on_removed
        self._by_ref: dict[str, Link] = {}

    def begin(self, link: Link, payload: ClientPayload) -> None:
        """Offer QR references to a client that wants to pair."""
        refs = [self._new_ref() for _ in range(REF_COUNT)]
        link.registration = Registration(payload.pushName or None, refs, self._world.now_ms)
        link.registration_keys = _keys_of(payload, link.client_static)
        for ref in refs:
            self._by_ref[ref] = link
        content = [Node("ref", content=ref.encode()) for ref in refs]
        link.send(self._md_iq([Node("pair-device", content=content)]))

    def link_gone(self, link: Link) -> None:
        """Forget the references of a link that ended."""
        if link.registration is not None:
            for ref in link.registration.refs:
                self._by_ref.pop(ref, None)

    def scan(self, text: str, account: Account | None = None) -> Scanned:
        """A phone scans a code; without an account, the one the client's push name selects.

        Raises:
            SandboxError: 400 for a bad code, 404 for an unknown or old reference, 409 when the account has
                four companions already.
        """
        code = parse_qr(text)
        link = self._by_ref.get(code.ref)
        registration = link.registration if link else None
        if link is None or registration is None or not self._is_current(registration, code.ref):
            raise SandboxError("the reference of this code is unknown, used or no longer valid", 404)
        if link.client_static != code.noise_key:
            raise SandboxError(
                "the noise key in the code is not the one of the connection that shows it", 400
            )
        keys = link.registration_keys
        if keys is None or keys.keys.identity != code.identity:
            raise SandboxError("the identity key in the code is not the registered one", 400)
        chosen = account or self._phones.account_for(registration.push_name)
        if len(chosen.companions) >= MAX_COMPANIONS:
            raise SandboxError(f"{chosen.number} has {MAX_COMPANIONS} companions already", 409)
        pending = self._offer(link, chosen, code.identity, code.adv_secret)
        registration.pending = pending
        for ref in registration.refs:
            self._by_ref.pop(ref, None)
        return Scanned(
            str(chosen.pn_jid.with_device(pending.device_id)),
            str(chosen.lid_jid.with_device(pending.device_id)),
            pending.device_id,
        )

    def from_unpaired(self, link: Link, node: Node) -> None:
        """A result, error or request of a client that is not paired yet."""
        pending = link.registration.pending if link.registration else None
        if pending is None or node.text("id") != pending.iq_id:
            return
        if node.text("type") == "error":
            error = node.child("error")
            self._world.complain(None, f"pairing refused by the client: {error.xml() if error else '?'}")
            link.close()
            return
        sign = node.child("pair-device-sign")
        blob = sign.child("device-identity") if sign else None
        try:
            self._commit(link, pending, blob)
        except adv.AdvError as error:
            self._world.complain(None, f"pair-device-sign refused: {error}")
            link.close()

    def companion_request(self, link: Link, device: Device, iq: Node) -> list[Node]:
        """`xmlns=md` of a paired client: it may remove itself; raises IqError."""
        remove = iq.child("remove-companion-device")
        if remove is None:
            raise IqError(501, "feature-not-implemented", "only remove-companion-device")
        jid = remove.jid("jid")
        if jid is None or self._world.directory.device(jid) is not device:
            raise IqError(403, "forbidden", "a companion removes only itself")
        link.send(Node("iq", {"from": iq.jid("to") or SERVER, "id": iq.attrs["id"], "type": "result"}))
        self.remove(device)
        return []

    def remove(self, device: Device) -> None:
        """Unlink a companion: its link ends with 401 and it is gone from every list."""
        account = device.account
        if device.is_phone or account.devices.get(device.id) is not device:
            raise SandboxError(f"{device.key} is not a linked companion", 404)
        if device.link is not None:
            link = device.link
            link.send(Node("stream:error", {"code": "401"}, [Node("conflict", {"type": "device_removed"})]))
            link.send(Node("xmlstreamend"))
            link.close()
        gone = (device.pn, device.lid, device.record.key_index)
        self._on_removed(device)
        self._world.remove_device(device)
        self._phones.publish_list(account)
        self._announce(account, "remove", *gone)
        self._phones.devices_changed(account)

    def _offer(self, link: Link, account: Account, identity: bytes, secret: bytes) -> Pending:
        record = account.record
        key_index = max(record.current_index, *account.valid_indexes) + 1
        outer = self._phones.sign_companion(account, identity, key_index, secret)
        signed = ADVSignedDeviceIdentityHMAC.FromString(outer).details
        device_id = self._free_device_id(account)
        record.current_index = key_index
        self._world.save_account(account)
        migrated = record.addressing == LID
        props = ClientPairingProps(isChatDbLidMigrated=migrated, isSyncdPureLidSession=migrated)
        iq = self._md_iq(
            [
                Node(
                    "pair-success",
                    content=[
                        Node("device-identity", content=outer),
                        Node(
                            "device",
                            {
                                "jid": account.pn_jid.with_device(device_id),
                                "lid": account.lid_jid.with_device(device_id),
                            },
                        ),
                        Node("platform", {"name": "android"}),
                        Node("client-props", content=props.SerializeToString()),
                    ],
                )
            ]
        )
        iq.attrs["t"] = str(self._world.now_s)
        link.send(iq)
        return Pending(account, device_id, key_index, str(iq.attrs["id"]), signed)

    def _commit(self, link: Link, pending: Pending, blob: Node | None) -> None:
        keys = link.registration_keys
        if blob is None or keys is None:
            raise adv.AdvError("malformed", "no device-identity in pair-device-sign")
        answered = adv.parse_signed_identity(blob.data)
        offered = ADVSignedDeviceIdentity.FromString(pending.signed)
        account_key = pending.account.phone.record.keys.identity
        if answered.details != offered.details or answered.accountSignature != offered.accountSignature:
            raise adv.AdvError("account_signature", "the answer is about another identity")
        if not adv.verify_device_signature(
            keys.keys.identity, offered.details, account_key, answered.deviceSignature
        ):
            raise adv.AdvError("device_signature", "the companion's signature does not hold")
        offered.deviceSignature = answered.deviceSignature
        account = pending.account
        record = msgspec.structs.replace(
            keys,
            id=pending.device_id,
            key_index=pending.key_index,
            blob=offered.SerializeToString(),
            paired_ms=self._world.now_ms,
        )
        device = Device(account, record, self._world.settings)
        account.devices[device.id] = device
        self._world.save_device(device)
        self._phones.publish_list(account)
        link.send(Node("stream:error", {"code": "515"}))
        link.close()
        self._announce(account, "add", device.pn, device.lid, record.key_index)
        self._phones.devices_changed(account)

    def _announce(self, account: Account, change: str, pn: JID, lid: JID, key_index: int) -> None:
        """Tell the other companions and everybody who has talked to the account (chapter 07 §15)."""
        statement = Node(
            "key-index-list",
            {"ts": str(account.record.list_time_s)},
            self._phones.key_index_list(account),
        )
        hashes: dict[str, Value] = {
            "device_hash": phash(device.pn for device in account.devices.values()),
            "device_lid_hash": phash(device.lid for device in account.devices.values()),
        }
        entry = Node("device", {"jid": pn, "lid": lid, "key-index": str(key_index)})
        for number in account.record.contacts:
            contact = self._world.directory.by_number(number)
            for device in contact.companions if contact else ():
                node = self._notification(
                    "devices", account, [Node(change, dict(hashes), [entry, statement])]
                )
                node.attrs["lid"] = account.lid_jid
                self._world.push(device, node)
        listed = [
            Node("device", {"jid": device.pn, "key-index": str(device.record.key_index)})
            if not device.is_phone
            else Node("device", {"jid": device.pn})
            for device in account.devices.values()
        ]
        own = Node("devices", {"dhash": hashes["device_hash"]}, [*listed, statement])
        for device in account.companions:
            if device.pn != pn:
                self._world.push(device, self._notification("account_sync", account, [own]))

    def _notification(self, kind: str, account: Account, content: list[Node]) -> Node:
        attrs: dict[str, Value] = {
            "from": account.pn_jid,
            "type": kind,
            "id": self._world.stanza_id(),
            "t": str(self._world.now_s),
        }
        return Node("notification", attrs, content)

    def _md_iq(self, content: list[Node]) -> Node:
        attrs: dict[str, Value] = {
            "from": SERVER,
            "type": "set",
            "id": self._world.stanza_id(),
            "xmlns": "md",
        }
        return Node("iq", attrs, content)

    def _new_ref(self) -> str:
        return f"2@{base64.urlsafe_b64encode(self._world.random(REF_BYTES)).decode().rstrip('=')}"

    def _is_current(self, registration: Registration, ref: str) -> bool:
        """Whether a code may still be on the screen: the first for 60 s, each further one for 20 s more."""
        if registration.pending is not None:
            return False
        shown_until = FIRST_REF_MS + NEXT_REF_MS * registration.refs.index(ref) + REF_GRACE_MS
        return self._world.now_ms - registration.started_ms <= shown_until

    def _free_device_id(self, account: Account) -> int:
        """The next device id: growing, with gaps; used ones come back after 98."""
        taken = set(account.devices)
        candidate = account.record.next_device
        while candidate in taken:
            candidate = candidate % MAX_DEVICE_ID + 1
        gap = 1 + self._world.random(1)[0] % ID_GAP
        account.record.next_device = (candidate + gap - 1) % MAX_DEVICE_ID + 1
        return candidate


def _keys_of(payload: ClientPayload, noise_key: bytes) -> DeviceRecord:
    data = payload.devicePairingData
    props = DeviceProps.FromString(data.deviceProps)
    signed = SignedKey(int.from_bytes(data.eSkeyId, "big"), data.eSkeyVal, data.eSkeySig)
    stock = KeyStock(int.from_bytes(data.eRegid, "big"), data.eIdent, signed)
    return DeviceRecord(0, 0, noise_key, stock, platform=props.os[:64])
