"""Credentials as `creds.json` of Baileys 7, and back (chapter 08 §2.3)."""

from __future__ import annotations

from typing import Any, Final

from waD.e2ee.curve import KeyPair, serialize_key
from waD.e2ee.kdf import hmac_sha256
from waD.link.credentials import Credentials, CredentialsError, SignedPreKey
from waD.proto import adv_pb2
from waD.store.canonical import canonical
from waD.store.errors import StoreDamaged
from waD.transfer.baileys.credentials import import_credentials
from waD.transfer.legacy.form import UNUSABLE, buffer, parsed
from waD.transfer.state import Report

_PAIRING_LABEL: Final = b"waD pairing pair"
_TAKEN: Final = (
    "account",
    "adv_secret",
    "app_state_key_id",
    "business_name",
    "me_lid",
    "me_pn",
    "next_prekey_id",
    "platform",
    "props_hash",
    "push_name",
    "registration_id",
    "routing_info",
)
"""What Baileys knows as well, and may have changed."""


def write(document: bytes) -> bytes:
    """The value of the row `creds`; raises CredentialsError."""
    creds = Credentials.parse(document)
    # Baileys asks for it before a pairing by code only, but never without; nobody else can compute it.
    pairing = KeyPair.from_private(hmac_sha256(creds.noise.private, _PAIRING_LABEL))
    value: dict[str, Any] = {
        "noiseKey": _pair(creds.noise),
        "pairingEphemeralKeyPair": _pair(pairing),
        "signedIdentityKey": _pair(creds.identity),
        "signedPreKey": _signed_prekey(creds.signed_prekey),
        "registrationId": creds.registration_id,
        "advSecretKey": creds.adv_secret,
        "processedHistoryMessages": [],
        "nextPreKeyId": creds.next_prekey_id,
        # It makes new ones from here on: an id of ours that it would look for in vain stops its uploads.
        "firstUnuploadedPreKeyId": creds.next_prekey_id,
        # Else Baileys waits 20 s at every start for a history that comes to new devices only.
        "accountSyncCounter": 1 if creds.login_counter else 0,
        "accountSettings": {"unarchiveChats": False},
        "registered": False,
    }
    value |= _account(creds)
    optional = {
        "platform": creds.platform or None,
        "lastPropHash": creds.props_hash or None,
        "routingInfo": None if creds.routing_info is None else buffer(creds.routing_info),
        "myAppStateKeyId": creds.app_state_key_id,
    }
    return canonical(value | {name: found for name, found in optional.items() if found is not None})


def _account(creds: Credentials) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if creds.me_pn is not None:
        me = {"id": str(creds.me_pn), "name": creds.push_name}
        if creds.me_lid is not None:
            me["lid"] = str(creds.me_lid)
        if creds.business_name:
            me["verifiedName"] = creds.business_name
        found["me"] = me
    if creds.account is None:
        return found
    account = adv_pb2.ADVSignedDeviceIdentity.FromString(creds.account)
    found["account"] = {
        "details": account.details,
        "accountSignatureKey": account.accountSignatureKey,
        "accountSignature": account.accountSignature,
        "deviceSignature": account.deviceSignature,
    }
    name = creds.me_lid or creds.me_pn
    if name is not None and creds.account_key is not None:
        identity = {
            "identifier": {"name": str(name), "deviceId": 0},
            "identifierKey": buffer(serialize_key(creds.account_key)),
        }
        found["signalIdentities"] = [identity]
    return found


def _pair(pair: KeyPair) -> dict[str, Any]:
    return {"private": buffer(pair.private), "public": buffer(pair.public)}


def _signed_prekey(key: SignedPreKey) -> dict[str, Any]:
    found = {"keyPair": _pair(key.key), "signature": buffer(key.signature), "keyId": key.id}
    return found | ({"timestampS": key.created_ms // 1000} if key.created_ms else {})


def read(value: bytes, kept: bytes | None) -> bytes:
    """The document for a row `creds` that a Node service wrote or changed.

    Args:
        value: of the row.
        kept: the document that an earlier version of the row was made from, for what Baileys does not know.

    Raises:
        StoreDamaged: these are not the credentials of a linked device.
    """
    report = Report()
    try:
        imported = import_credentials(parsed(value), report, 0)
    except UNUSABLE:
        raise StoreDamaged(
            "the key-value row of the credentials is not JSON: restore a backup of it"
        ) from None
    if imported is None:
        codes = ", ".join(note.code for note in report.errors)
        raise StoreDamaged(
            f"the key-value row of the credentials cannot be used ({codes}): restore a backup of it"
        )
    found = imported.creds.change(next_prekey_id=imported.next_prekey_id)
    before = _before(kept)
    if before is None or (before.identity, before.noise) != (found.identity, found.noise):
        return found.serialize()
    return _merged(before, found).serialize()


def _before(kept: bytes | None) -> Credentials | None:
    try:
        return None if kept is None else Credentials.parse(kept)
    except CredentialsError:
        return None


def _merged(before: Credentials, found: Credentials) -> Credentials:
    merged = before.change(**{name: getattr(found, name) for name in _TAKEN})
    signed = found.signed_prekey
    if signed.key.public == before.signed_prekey.key.public:
        return merged
    known = before.find_signed_prekey(signed.id)
    fresh = known if known is not None and known.key.public == signed.key.public else signed
    older = tuple(key for key in before.signed_prekeys if key.key.public != fresh.key.public)
    rotated = merged.change(signed_prekeys=older or before.signed_prekeys)
    return rotated.with_new_signed_prekey(fresh, max(fresh.created_ms, before.last_rotation_ms))
