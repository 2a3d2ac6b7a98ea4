"""A phone that links companions, and one that does it wrong on purpose (chapter 02 §3.6)."""

from __future__ import annotations

import os
from typing import Any

from waD.e2ee import adv
from waD.e2ee.curve import KeyPair
from waD.proto import adv_pb2
from waD.proto.adv_pb2 import ADVDeviceIdentity, ADVSignedDeviceIdentity, ADVSignedDeviceIdentityHMAC
from waD.proto.payload_pb2 import ClientPairingProps
from waD.sandbox.qr import parse_qr
from waD.wire.jid import JID, SERVER
from waD.wire.node import Node, Value

ACCOUNT = KeyPair.generate(os.urandom)
PN = JID("15550000001", "s.whatsapp.net", 17)
LID = JID("100000000000001", "lid", 17)
RAW_ID = 77
TIME_S = 1_764_814_148


class Blob:
    """The parts of a device identity; change any before `build` to make a wrong one."""

    def __init__(
        self,
        identity: bytes,
        adv_secret: bytes,
        *,
        account: KeyPair = ACCOUNT,
        key_index: int | None = 1,
        hosted_account: bool = False,
        hosted_device: bool = False,
        hosted_mac: bool | None = None,
        hosted_signature: bool | None = None,
    ) -> None:
        statement = ADVDeviceIdentity(rawId=RAW_ID, timestamp=TIME_S)
        if key_index is not None:
            statement.keyIndex = key_index
        statement.accountType = adv_pb2.HOSTED if hosted_account else adv_pb2.E2EE
        statement.deviceType = adv_pb2.HOSTED if hosted_device else adv_pb2.E2EE
        self.details = statement.SerializeToString()
        self.account_key = account.public
        self.hosted_account = hosted_account
        self.hosted_mac = hosted_account if hosted_mac is None else hosted_mac
        self.signature = adv.sign_account_signature(
            account,
            self.details,
            identity,
            os.urandom,
            hosted=hosted_device if hosted_signature is None else hosted_signature,
        )
        self.secret = adv_secret

    def build(self) -> bytes:
        signed = ADVSignedDeviceIdentity(
            details=self.details, accountSignatureKey=self.account_key, accountSignature=self.signature
        ).SerializeToString()
        return self.wrap(signed)

    def wrap(self, signed: bytes) -> bytes:
        mac = adv.account_hmac(self.secret, signed, hosted=self.hosted_mac)
        outer = ADVSignedDeviceIdentityHMAC(details=signed, hmac=mac)
        if self.hosted_account:
            outer.accountType = adv_pb2.HOSTED
        return outer.SerializeToString()


def pair_success(
    blob: bytes | None,
    *,
    device: dict[str, Value] | None = None,
    extra: tuple[Node, ...] = (),
    **attrs: Value,
) -> Node:
    """The stanza around a blob; `extra` nodes come first, because the order means nothing."""
    children = [*extra, Node("platform", {"name": "android"})]
    if blob is not None:
        children.append(Node("device-identity", {}, blob))
    if device is None:
        device = {"jid": PN, "lid": LID}
    if device:
        children.append(Node("device", device))
    head: dict[str, Value] = {"from": SERVER, "type": "set", "xmlns": "md", "id": "P1"}
    return Node("iq", head | attrs, [Node("pair-success", {}, children)])


def props(**fields: Any) -> Node:
    return Node("client-props", {}, ClientPairingProps(**fields).SerializeToString())


def scan(text: str, **options: Any) -> Node:
    """What the server sends after an honest phone has scanned this code."""
    code = parse_qr(text)
    return pair_success(Blob(code.identity, code.adv_secret, **options).build())


def check_sign(answer: Node, identity: bytes, blob: bytes) -> str:
    """Check pair-device-sign as the server does; returns the key index."""
    sign = answer.child("pair-device-sign")
    assert sign is not None
    sent = sign.child("device-identity")
    assert sent is not None
    ours = adv.parse_signed_identity(sent.data)
    offered = adv.parse_signed_identity(ADVSignedDeviceIdentityHMAC.FromString(blob).details)
    assert not ours.HasField("accountSignatureKey")
    assert (ours.details, ours.accountSignature) == (offered.details, offered.accountSignature)
    assert adv.verify_device_signature(
        identity, offered.details, offered.accountSignatureKey, ours.deviceSignature
    )
    return str(sent.attrs["key-index"])
