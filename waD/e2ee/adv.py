"""Signed device identities: who may be a companion of an account (chapter 02 §3, chapter 03 §7.2).

The account key is the identity key of the phone (device 0). It signs each companion's identity key and the
list of valid key indexes; the companion signs back.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from google.protobuf.message import DecodeError, Message

from waD.e2ee import curve
from waD.e2ee.kdf import hmac_sha256
from waD.e2ee.limits import MAX_ADV_BLOB_SIZE, MAX_KEY_INDEXES
from waD.proto import adv_pb2

ACCOUNT_PREFIX: Final = b"\x06\x00"
DEVICE_PREFIX: Final = b"\x06\x01"
KEY_INDEX_LIST_PREFIX: Final = b"\x06\x02"
HOSTED_ACCOUNT_PREFIX: Final = b"\x06\x05"
HOSTED_DEVICE_PREFIX: Final = b"\x06\x06"
HOSTED_KEY_INDEX_LIST_PREFIX: Final = b"\x06\x07"
PRIMARY_DEVICE: Final = 0
"""The phone."""

AdvCode: TypeAlias = Literal[
    "account_signature",
    "device_signature",
    "hmac_mismatch",
    "list_signature",
    "malformed",
    "no_account_key",
]
"""`no_account_key`: the blob has no key and the identity of the account's phone is not known."""


class AdvError(Exception):
    """A signed device identity or key-index list was refused; `code` is stable."""

    def __init__(self, code: AdvCode, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code: AdvCode = code


@dataclass(frozen=True, slots=True)
class AdvResult:
    """A companion whose two signatures hold. `timestamp` is in seconds; keys are 32 bytes.

    `account_changed`: the blob carries another account key than the stored one, that is, the account has been
    registered again. `key_index` is None when the statement has none.
    """

    account_key: bytes
    account_changed: bool
    raw_id: int
    timestamp: int
    key_index: int | None
    hosted_account: bool
    hosted_device: bool


@dataclass(frozen=True, slots=True)
class KeyIndexList:
    """What the account says about its companions. `timestamp` is in seconds.

    `verified` is False when no key was known to check the signature with: filter provisionally and check
    again once the identity of device 0 is known.
    """

    raw_id: int
    timestamp: int
    current_index: int
    valid_indexes: frozenset[int]
    hosted: bool
    verified: bool

    def allows(self, device: int, key_index: int | None) -> bool:
        """Say whether a device of the account's device list is to be used."""
        if device == PRIMARY_DEVICE:
            return True
        return key_index is not None and (key_index in self.valid_indexes or key_index > self.current_index)

    def keep(self, devices: Iterable[tuple[int, int | None]]) -> list[int]:
        """Filter (device, key index) pairs to the device numbers to use, in order, each once."""
        return list(dict.fromkeys(device for device, index in devices if self.allows(device, index)))


def account_hmac(adv_secret: bytes, details: bytes, *, hosted: bool = False) -> bytes:
    """Return the 32-byte MAC that proves to the companion who scanned its code.

    `details` is a serialised signed identity; `hosted` is the account type of the enclosing message.
    """
    prefix = HOSTED_ACCOUNT_PREFIX if hosted else b""
    return hmac_sha256(adv_secret, prefix + details)


def verify_account_hmac(adv_secret: bytes, details: bytes, mac: bytes, *, hosted: bool = False) -> bool:
    """Compare the MAC of a pairing in constant time."""
    return hmac.compare_digest(account_hmac(adv_secret, details, hosted=hosted), mac)


def sign_account_signature(
    account: curve.KeyPair,
    details: bytes,
    identity: bytes,
    random: Callable[[int], bytes],
    *,
    hosted: bool = False,
) -> bytes:
    """Sign a companion's 32-byte identity key as its account."""
    prefix = HOSTED_ACCOUNT_PREFIX if hosted else ACCOUNT_PREFIX
    return curve.sign(account.private, prefix + details + identity, random)


def verify_account_signature(
    account_key: bytes, details: bytes, identity: bytes, signature: bytes, *, hosted: bool | None = None
) -> bool:
    """Say whether the account signed `identity`; `hosted` None accepts either prefix (peers)."""
    message = details + identity
    return (hosted is not True and curve.verify(account_key, ACCOUNT_PREFIX + message, signature)) or (
        hosted is not False and curve.verify(account_key, HOSTED_ACCOUNT_PREFIX + message, signature)
    )


def sign_device_signature(
    identity: curve.KeyPair, details: bytes, account_key: bytes, random: Callable[[int], bytes]
) -> bytes:
    """Sign back as the companion: always with the plain prefix, hosted or not (chapter 02 §3.4)."""
    return curve.sign(identity.private, DEVICE_PREFIX + details + identity.public + account_key, random)


def verify_device_signature(identity: bytes, details: bytes, account_key: bytes, signature: bytes) -> bool:
    """Say whether the companion signed back; either prefix is accepted."""
    message = details + identity + account_key
    return curve.verify(identity, DEVICE_PREFIX + message, signature) or curve.verify(
        identity, HOSTED_DEVICE_PREFIX + message, signature
    )


def verify_companion(identity: bytes, blob: bytes, stored_account_key: bytes | None) -> AdvResult:
    """Check the `<device-identity>` of a companion with the 32-byte key `identity` (chapter 03 §7.2).

    `stored_account_key` is the known identity of device 0 of the same user. A key inside the blob wins over
    it; the result then says whether they differ. Raises AdvError.
    """
    signed = parse_signed_identity(blob)
    account_key = signed.accountSignatureKey or stored_account_key
    if account_key is None:
        raise AdvError("no_account_key", "neither the blob nor the store has the account's key")
    statement = parse_identity(signed.details)
    if not verify_account_signature(account_key, signed.details, identity, signed.accountSignature):
        raise AdvError(
            "account_signature", f"account {curve.fingerprint(account_key)} did not sign this device"
        )
    if not verify_device_signature(identity, signed.details, account_key, signed.deviceSignature):
        raise AdvError("device_signature", f"device {curve.fingerprint(identity)} did not sign back")
    return AdvResult(
        account_key=account_key,
        account_changed=stored_account_key is not None and account_key != stored_account_key,
        raw_id=statement.rawId,
        timestamp=statement.timestamp,
        key_index=statement.keyIndex if statement.HasField("keyIndex") else None,
        hosted_account=statement.accountType == adv_pb2.HOSTED,
        hosted_device=statement.deviceType == adv_pb2.HOSTED,
    )


def verify_key_index_list(blob: bytes, identity_key: bytes | None) -> KeyIndexList:
    """Decode and check an ADVSignedKeyIndexList against the 32-byte identity of the account's device 0.

    A hosted account's list may bring its own key. Raises AdvError: then only device 0 counts. An older
    timestamp or another raw id than the stored ones is the caller's to judge (chapter 06 §1.4).
    """
    signed = adv_pb2.ADVSignedKeyIndexList()
    _decode(signed, blob)
    details = adv_pb2.ADVKeyIndexList()
    _decode(details, signed.details)
    if not (details.HasField("rawId") and details.HasField("timestamp") and signed.accountSignature):
        raise AdvError("malformed", "a key-index list without raw id, timestamp or signature")
    if len(details.validIndexes) > MAX_KEY_INDEXES:
        raise AdvError("malformed", f"a key-index list of {len(details.validIndexes)} indexes")
    hosted = details.accountType == adv_pb2.HOSTED
    key = signed.accountSignatureKey if hosted and signed.accountSignatureKey else identity_key
    prefix = HOSTED_KEY_INDEX_LIST_PREFIX if hosted else KEY_INDEX_LIST_PREFIX
    if key is not None and not curve.verify(key, prefix + signed.details, signed.accountSignature):
        raise AdvError("list_signature", f"account {curve.fingerprint(key)} did not sign the key-index list")
    return KeyIndexList(
        raw_id=details.rawId,
        timestamp=details.timestamp,
        current_index=details.currentIndex,
        valid_indexes=frozenset(details.validIndexes),
        hosted=hosted,
        verified=key is not None,
    )


def make_device_identity(
    phone_identity: curve.KeyPair,
    companion_identity: bytes,
    raw_id: int,
    key_index: int,
    timestamp: int,
    adv_secret: bytes,
    random: Callable[[int], bytes],
    *,
    hosted: bool = False,
) -> bytes:
    """Return what the phone uploads to link a companion: a serialised ADVSignedDeviceIdentityHMAC.

    `companion_identity` has 32 bytes, `timestamp` is in seconds (chapter 02 §3.6).
    """
    statement = adv_pb2.ADVDeviceIdentity(rawId=raw_id, timestamp=timestamp, keyIndex=key_index)
    if hosted:
        statement.accountType = adv_pb2.HOSTED
        statement.deviceType = adv_pb2.HOSTED
    details = statement.SerializeToString()
    signed = adv_pb2.ADVSignedDeviceIdentity(
        details=details,
        accountSignatureKey=phone_identity.public,
        accountSignature=sign_account_signature(
            phone_identity, details, companion_identity, random, hosted=hosted
        ),
    ).SerializeToString()
    outer = adv_pb2.ADVSignedDeviceIdentityHMAC(
        details=signed, hmac=account_hmac(adv_secret, signed, hosted=hosted)
    )
    if hosted:
        outer.accountType = adv_pb2.HOSTED
    return outer.SerializeToString()


def make_key_index_list(
    phone_identity: curve.KeyPair,
    raw_id: int,
    timestamp: int,
    current_index: int,
    valid_indexes: Iterable[int],
    random: Callable[[int], bytes],
    *,
    hosted: bool = False,
) -> bytes:
    """Return the ADVSignedKeyIndexList a phone publishes; `timestamp` in seconds (chapter 02 §3.6)."""
    listed = adv_pb2.ADVKeyIndexList(
        rawId=raw_id, timestamp=timestamp, currentIndex=current_index, validIndexes=list(valid_indexes)
    )
    if hosted:
        listed.accountType = adv_pb2.HOSTED
    details = listed.SerializeToString()
    prefix = HOSTED_KEY_INDEX_LIST_PREFIX if hosted else KEY_INDEX_LIST_PREFIX
    return adv_pb2.ADVSignedKeyIndexList(
        details=details, accountSignature=curve.sign(phone_identity.private, prefix + details, random)
    ).SerializeToString()


def parse_signed_identity(blob: bytes) -> adv_pb2.ADVSignedDeviceIdentity:
    """Decode an ADVSignedDeviceIdentity and check the lengths of what it holds; raises AdvError."""
    signed = adv_pb2.ADVSignedDeviceIdentity()
    _decode(signed, blob)
    if len(signed.accountSignatureKey) not in (0, curve.KEY_LENGTH):
        raise AdvError("malformed", f"an account key of {len(signed.accountSignatureKey)} bytes")
    return signed


def parse_identity(details: bytes) -> adv_pb2.ADVDeviceIdentity:
    """Decode the signed statement itself; raises AdvError."""
    statement = adv_pb2.ADVDeviceIdentity()
    _decode(statement, details)
    return statement


def _decode(message: Message, data: bytes) -> None:
    """Fill a protobuf message from hostile bytes; raises AdvError."""
    if not 0 < len(data) <= MAX_ADV_BLOB_SIZE:
        raise AdvError("malformed", f"{message.DESCRIPTOR.name} of {len(data)} bytes")
    try:
        message.ParseFromString(data)
    except DecodeError:
        raise AdvError("malformed", f"not a valid {message.DESCRIPTOR.name}") from None
