"""The phone's proof that it linked us, and our answer (chapter 02 §3.4). Pure."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from google.protobuf.message import DecodeError

from waD.e2ee import adv
from waD.e2ee.curve import KEY_LENGTH, SIGNATURE_LENGTH, KeyPair
from waD.link import stanzas
from waD.link.credentials import Credentials
from waD.link.errors import PairingRefused
from waD.proto import adv_pb2
from waD.proto.payload_pb2 import ClientPairingProps
from waD.wire.jid import JID
from waD.wire.node import Node

MAX_IDENTITY_BLOB: Final = 500
MAX_CLIENT_PROPS: Final = 4096
MAX_NAME: Final = 1024

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Paired:
    """What a verified `<pair-success>` says.

    Attributes:
        jid: our device address by phone number; the device is not 0.
        lid: our device address by LID; None from servers that do not tell, then `<success>` does.
        business_name, platform: texts, empty when unknown.
        account: serialised ADVSignedDeviceIdentity with all four fields.
        account_key: identity key of the phone, 32 bytes: the remote identity of device 0.
        raw_id: the account's epoch.
        timestamp: seconds, of the phone's statement.
        key_index: our number in the account's list of valid devices; not the device number.
        hosted: whether the statement says that this device is run by Meta.
        lid_migrated: whether the phone's chats are addressed by LID.
        server_time_s: Unix seconds, or None.
        answer: the iq to send once the pairing is durable.
    """

    jid: JID = field(repr=False)
    lid: JID | None = field(repr=False)
    business_name: str = field(repr=False)
    platform: str
    account: bytes = field(repr=False)
    account_key: bytes = field(repr=False)
    raw_id: int
    timestamp: int
    key_index: int
    hosted: bool
    lid_migrated: bool
    server_time_s: int | None
    answer: Node

    def apply(self, credentials: Credentials) -> Credentials:
        """The credentials of the paired device: nothing is on the server yet, no login was made."""
        return credentials.change(
            account=self.account,
            me_pn=self.jid,
            me_lid=self.lid,
            business_name=self.business_name,
            platform=self.platform,
            lid_migrated=self.lid_migrated,
            server_has_prekeys=False,
            login_counter=0,
        )


def verify(iq: Node, adv_secret: bytes, identity: KeyPair, random: Callable[[int], bytes]) -> Paired:
    """Check a `<pair-success>` in the order of the chapter and sign back.

    Args:
        iq: the whole stanza.
        adv_secret: the secret of the code that is shown, 32 bytes.
        identity: our identity key pair.
        random: source of unpredictable bytes, for the signature.

    Raises:
        PairingRefused: with the answer to give and the cause the connection ends with.
    """
    success = iq.child("pair-success")
    if success is None:
        raise _malformed("no pair-success")
    jid, lid = _device(success)
    signed = _open_outer(success.child("device-identity"), adv_secret)
    statement = _check_signature(signed, identity)
    if not statement.HasField("keyIndex") or statement.keyIndex == 0:
        raise _malformed("the phone's statement has no key index of ours")
    signed.deviceSignature = adv.sign_device_signature(
        identity, signed.details, signed.accountSignatureKey, random
    )
    return Paired(
        jid=jid,
        lid=lid,
        business_name=_name(success.child("biz")),
        platform=_name(success.child("platform")),
        account=signed.SerializeToString(),
        account_key=signed.accountSignatureKey,
        raw_id=statement.rawId,
        timestamp=statement.timestamp,
        key_index=statement.keyIndex,
        hosted=statement.deviceType == adv_pb2.HOSTED,
        lid_migrated=_is_lid_migrated(success.child("client-props")),
        server_time_s=iq.int("t"),
        answer=_answer(iq, signed, statement.keyIndex),
    )


def _device(success: Node) -> tuple[JID, JID | None]:
    device = success.child("device")
    jid = None if device is None else device.jid("jid")
    if device is None or jid is None or not jid.is_pn or not jid.device or not jid.user.isdecimal():
        raise _malformed("no device address of ours")
    lid = device.jid("lid")
    return jid, lid if lid is not None and lid.is_lid and lid.device else None


def _open_outer(node: Node | None, adv_secret: bytes) -> adv_pb2.ADVSignedDeviceIdentity:
    blob = b"" if node is None else node.data
    if not 0 < len(blob) <= MAX_IDENTITY_BLOB:
        raise _malformed(f"a device identity of {len(blob)} bytes")
    try:
        outer = adv_pb2.ADVSignedDeviceIdentityHMAC.FromString(blob)
    except DecodeError:
        raise _malformed("the device identity is not protobuf") from None
    if not outer.details or not outer.hmac:
        raise _malformed("the device identity has no details or no MAC")
    hosted = outer.accountType == adv_pb2.HOSTED
    if not adv.verify_account_hmac(adv_secret, outer.details, outer.hmac, hosted=hosted):
        raise PairingRefused(
            401, "hmac-mismatch", "pair_hmac", "whoever answered did not scan the code that is shown"
        )
    try:
        return adv.parse_signed_identity(outer.details)
    except adv.AdvError as error:
        raise _malformed(str(error)) from None


def _check_signature(signed: adv_pb2.ADVSignedDeviceIdentity, identity: KeyPair) -> adv_pb2.ADVDeviceIdentity:
    key, signature = signed.accountSignatureKey, signed.accountSignature
    if len(key) != KEY_LENGTH or len(signature) != SIGNATURE_LENGTH:
        raise _malformed("the account's key or signature has a wrong length")
    try:
        statement = adv.parse_identity(signed.details)
    except adv.AdvError as error:
        raise _malformed(str(error)) from None
    hosted = statement.deviceType == adv_pb2.HOSTED
    if not adv.verify_account_signature(key, signed.details, identity.public, signature, hosted=hosted):
        raise PairingRefused(
            401,
            "signature-mismatch",
            "pair_sig",
            "the account did not sign our identity: somebody else answered",
        )
    return statement


def _answer(iq: Node, signed: adv_pb2.ADVSignedDeviceIdentity, key_index: int) -> Node:
    sent = adv_pb2.ADVSignedDeviceIdentity()
    sent.CopyFrom(signed)
    sent.ClearField("accountSignatureKey")
    blob = Node("device-identity", {"key-index": str(key_index)}, sent.SerializeToString())
    return stanzas.result(iq, Node("pair-device-sign", {}, [blob]))


def _name(node: Node | None) -> str:
    name = "" if node is None else node.text("name", "")
    if len(name.encode()) > MAX_NAME:
        _log.warning("a name of %d characters in pair-success is left out", len(name))
        return ""
    return name


def _is_lid_migrated(node: Node | None) -> bool:
    if node is None or len(node.data) > MAX_CLIENT_PROPS:
        return False
    try:
        return ClientPairingProps.FromString(node.data).isChatDbLidMigrated
    except DecodeError:
        _log.warning("the client-props of pair-success are not protobuf")
        return False


def _malformed(detail: str) -> PairingRefused:
    return PairingRefused(500, "internal-error", "pair_refused", detail)
