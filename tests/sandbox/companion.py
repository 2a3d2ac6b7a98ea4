"""A companion for tests of the sandbox, on the wire and end-to-end rooms alone: keys, pairing answers, sessions."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable

from waD.e2ee import adv, curve, session
from waD.e2ee.padding import pad, unpad
from waD.e2ee.record import SessionRecord
from waD.e2ee.x3dh import LocalIdentity
from waD.proto.adv_pb2 import ADVSignedDeviceIdentityHMAC
from waD.proto.e2e_pb2 import Message
from waD.proto.payload_pb2 import ClientPayload, DeviceProps
from waD.sandbox.phone_keys import parse_bundle
from waD.wire.jid import JID, SERVER
from waD.wire.node import Node, Value

PREKEYS = 30


class Companion:
    """Keys and sessions of one linked device, and the stanzas made with them."""

    def __init__(self, name: str | None = None, random: Callable[[int], bytes] = os.urandom) -> None:
        self.name = name
        self.random = random
        self.noise = curve.KeyPair.generate(random)
        self.identity = curve.KeyPair.generate(random)
        self.signed = curve.KeyPair.generate(random)
        self.signature = curve.sign(self.identity.private, curve.serialize_key(self.signed.public), random)
        self.registration_id = 4711
        self.adv_secret = random(32)
        self.local = LocalIdentity(self.identity, self.registration_id)
        self.prekeys: dict[int, curve.KeyPair] = {}
        self.sessions: dict[str, SessionRecord] = {}
        self.jid: JID | None = None
        self.lid: JID | None = None
        self.blob = b""
        self._ids = 0

    def next_id(self) -> str:
        self._ids += 1
        return f"1.2-{self._ids}"

    def registration(self, **changes: bytes) -> bytes:
        """The payload of a client that wants to pair; changes replace fields of the pairing data."""
        payload = ClientPayload(passive=False, pull=False)
        if self.name is not None:
            payload.pushName = self.name
        data = payload.devicePairingData
        data.eRegid = self.registration_id.to_bytes(4, "big")
        data.eKeytype = b"\x05"
        data.eIdent = self.identity.public
        data.eSkeyId = (1).to_bytes(3, "big")
        data.eSkeyVal = self.signed.public
        data.eSkeySig = self.signature
        data.buildHash = hashlib.md5(b"2.3000.0", usedforsecurity=False).digest()
        data.deviceProps = DeviceProps(os="test").SerializeToString()
        for field, value in changes.items():
            setattr(data, field, value)
        return payload.SerializeToString()

    def login(self, *, passive: bool = True) -> bytes:
        assert self.jid is not None
        payload = ClientPayload(
            username=int(self.jid.user), device=self.jid.device, passive=passive, pull=True
        )
        return payload.SerializeToString()

    def qr(self, ref: str, client_type: str = "1") -> str:
        keys = (self.noise.public, self.identity.public, self.adv_secret)
        return ",".join([ref, *(base64.b64encode(key).decode() for key in keys), client_type])

    def accept_pairing(self, iq: Node) -> Node:
        """Check pair-success as a good client does and make the answer."""
        success = iq.child("pair-success")
        assert success is not None
        identity, device = success.child("device-identity"), success.child("device")
        assert identity is not None
        assert device is not None
        outer = ADVSignedDeviceIdentityHMAC.FromString(identity.data)
        assert adv.verify_account_hmac(self.adv_secret, outer.details, outer.hmac)
        signed = adv.parse_signed_identity(outer.details)
        assert adv.verify_account_signature(
            signed.accountSignatureKey,
            signed.details,
            self.identity.public,
            signed.accountSignature,
            hosted=False,
        )
        signed.deviceSignature = adv.sign_device_signature(
            self.identity, signed.details, signed.accountSignatureKey, self.random
        )
        self.blob = signed.SerializeToString()
        self.jid, self.lid = device.jid("jid"), device.jid("lid")
        signed.ClearField("accountSignatureKey")
        index = adv.parse_identity(signed.details).keyIndex
        answer = Node("device-identity", {"key-index": str(index)}, signed.SerializeToString())
        return Node(
            "iq",
            {"to": SERVER, "type": "result", "id": iq.attrs["id"]},
            [Node("pair-device-sign", content=[answer])],
        )

    def upload(self, count: int = PREKEYS) -> Node:
        """An iq that publishes fresh prekeys."""
        keys = []
        for _ in range(count):
            key_id = len(self.prekeys) + 1
            self.prekeys[key_id] = curve.KeyPair.generate(self.random)
            key = [_id(key_id), Node("value", content=self.prekeys[key_id].public)]
            keys.append(Node("key", content=key))
        skey = [
            _id(1),
            Node("value", content=self.signed.public),
            Node("signature", content=self.signature),
        ]
        content = [
            Node("registration", content=self.registration_id.to_bytes(4, "big")),
            Node("type", content=b"\x05"),
            Node("identity", content=self.identity.public),
            Node("list", content=keys),
            Node("skey", content=skey),
        ]
        return self.iq("encrypt", "set", content)

    def iq(self, xmlns: str, kind: str, content: list[Node] | None = None, to: JID = SERVER) -> Node:
        return Node("iq", {"id": self.next_id(), "to": to, "type": kind, "xmlns": xmlns}, content)

    def start_session(self, jid: JID, user: Node) -> None:
        bundle = parse_bundle(user.children())
        base, ratchet = (curve.KeyPair.generate(self.random) for _ in range(2))
        self.sessions[str(jid)] = session.process_bundle(
            self.sessions.get(str(jid)), self.local, bundle, base, ratchet
        )

    def encrypt(self, jid: JID, message: Message) -> Node:
        plaintext = pad(message.SerializeToString(), 3)
        done = session.encrypt(self.sessions[str(jid)], self.local, plaintext)
        self.sessions[str(jid)] = done.record
        return Node("enc", {"v": "2", "type": done.kind}, done.data)

    def decrypt(self, stanza: Node) -> Message:
        """Decrypt a message stanza; sessions are kept by the LID of the sender."""
        sender = stanza.jid("from")
        enc = stanza.child("enc")
        assert sender is not None
        assert enc is not None
        done = session.decrypt(
            self.sessions.get(str(sender)),
            self.local,
            enc.text("type") or "",
            enc.data,
            self.prekeys.get,
            lambda key_id: self.signed if key_id == 1 else None,
            lambda: curve.KeyPair.generate(self.random),
        )
        self.sessions[str(sender)] = done.record
        return Message.FromString(unpad(done.plaintext))

    def message(self, to: JID, encs: dict[JID, Node], message_id: str, **attrs: Value) -> Node:
        """A message stanza with participants."""
        entries = [Node("to", {"jid": jid}, [enc]) for jid, enc in encs.items()]
        content = [Node("participants", content=entries)]
        if any(enc.text("type") == "pkmsg" for enc in encs.values()):
            content.append(Node("device-identity", content=self.blob))
        return Node("message", {"id": message_id, "to": to, "type": "text", **attrs}, content)


def receipt_for(stanza: Node, **attrs: Value) -> Node:
    """The answer of a good client to a message: echo `from`, `participant` and `recipient`."""
    answer: dict[str, Value] = {"id": stanza.attrs["id"], "to": stanza.attrs["from"]}
    if "recipient" in stanza.attrs:
        answer |= {"recipient": stanza.attrs["recipient"], "type": "sender"}
    if stanza.text("category") == "peer":
        answer["type"] = "peer_msg"
    return Node("receipt", answer | attrs)


def ack_for(stanza: Node) -> Node:
    """The plain ack of any stanza."""
    attrs: dict[str, Value] = {
        "class": stanza.tag,
        "id": stanza.attrs["id"],
        "to": stanza.attrs["from"],
    }
    for name in ("type", "participant", "recipient"):
        if name in stanza.attrs:
            attrs[name] = stanza.attrs[name]
    return Node("ack", attrs)


def _id(number: int) -> Node:
    return Node("id", content=number.to_bytes(3, "big"))
