"""`creds.json` as credentials (chapter 08 §2.3, §5.4)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from waD.e2ee import adv, curve
from waD.e2ee.curve import KeyPair
from waD.e2ee.interop.common import ValueRefusedError, decode_bytes, read_bytes, read_int, read_object, unnest
from waD.e2ee.kdf import hmac_sha256
from waD.e2ee.limits import MAX_PREKEY_ID
from waD.link.credentials import ADV_SECRET_LENGTH, Credentials, CredentialsError, SignedPreKey
from waD.link.prekeys import DAY_MS, ROTATION_MS
from waD.proto import adv_pb2
from waD.transfer.state import Report
from waD.wire.errors import JIDError
from waD.wire.frames import MAX_ROUTING_INFO
from waD.wire.jid import JID

CREDS: Final = "creds"
MAX_TEXT: Final = 512
MAX_KEY_ID: Final = 64
_MAX_TIME_S: Final = 1 << 40
_AGENT: Final = re.compile(r"([0-9]+)\.[0-9]+((?::[0-9]+)?@)", re.ASCII)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_ADV_LABEL: Final = b"waD adv secret"
_PENDING_NAME: Final = "~"
"""What Baileys calls an account while a pairing code is requested."""
_NOT_KEPT: Final = ("accountSettings", "lastAccountSyncTimestamp", "additionalData")
"""Fields that this program has no use for; all of it comes with the next sync of the app state."""
_AS_NEW: Final[tuple[object, ...]] = (None, 0, "", {}, {"unarchiveChats": False})


@dataclass(frozen=True, slots=True)
class ImportedCreds:
    """Credentials, and the counters that the prekeys have a word in.

    Attributes:
        creds: checked; `next_prekey_id` is not final.
        next_prekey_id: as the source says.
        first_unuploaded: as the source says.
    """

    creds: Credentials
    next_prekey_id: int
    first_unuploaded: int


def import_credentials(value: object, report: Report, now_ms: int) -> ImportedCreds | None:
    """Convert and check credentials.

    Args:
        value: decoded `creds.json`.
        report: takes the errors: `creds_unreadable`, `not_paired`, or those of keys and signatures.
        now_ms: current Unix time in ms.

    Returns:
        None when there is an error.
    """
    if not isinstance(value, dict):
        report.error("creds_unreadable", CREDS, "not an object")
        return None
    try:
        me = _paired_address(value)
        if me is None:
            report.error(
                "not_paired", CREDS, "the device was never linked to an account, or only began to be"
            )
            return None
        imported = _convert(value, me, report, now_ms)
    except (ValueRefusedError, CredentialsError, curve.CurveError, adv.AdvError) as error:
        report.error("creds_unreadable", CREDS, str(error))
        return None
    _tell_dropped(value, report)
    return imported if report.ok else None


def _paired_address(value: Mapping[str, Any]) -> JID | None:
    """The own address, when the account accepted this device (§2.3)."""
    me, account = unnest(value.get("me")), unnest(value.get("account"))
    if not isinstance(me, dict) or not isinstance(account, dict):
        return None
    address = _address(me.get("id"))
    details = decode_bytes(account.get("details"), "account.details")
    return address if details and address is not None and address.is_pn and address.device else None


def _convert(value: Mapping[str, Any], me_pn: JID, report: Report, now_ms: int) -> ImportedCreds:
    me = read_object(unnest(value["me"]), "me")
    noise = _pair(value.get("noiseKey"), "noiseKey", "noise_key_mismatch", report)
    identity = _pair(value.get("signedIdentityKey"), "signedIdentityKey", "identity_key_mismatch", report)
    signed_prekey = _signed_prekey(value.get("signedPreKey"), report)
    account = _account(value)
    creds = Credentials(
        noise=noise,
        identity=identity,
        registration_id=read_int(value.get("registrationId"), "registrationId"),
        signed_prekeys=(signed_prekey,),
        adv_secret=_adv_secret(value, noise, report),
        account=account.SerializeToString(),
        me_pn=me_pn,
        me_lid=_own_lid(me, me_pn, report),
        push_name=_text(me.get("name")) if me.get("name") != _PENDING_NAME else "",
        business_name=_text(me.get("verifiedName")),
        platform=_text(value.get("platform")),
        # Messages that use it are on their way; Baileys never rotates it on its own, so it is old.
        last_rotation_ms=max(now_ms - ROTATION_MS + DAY_MS, 1),
        login_counter=1,
        routing_info=_routing_info(value.get("routingInfo"), report),
        props_hash=_text(value.get("lastPropHash")),
        app_state_key_id=_key_id(value.get("myAppStateKeyId"), report),
    )
    _check_signatures(creds, account, report)
    first = read_int(value.get("firstUnuploadedPreKeyId") or 1, "firstUnuploadedPreKeyId", least=1)
    following = read_int(value.get("nextPreKeyId") or 1, "nextPreKeyId", least=1)
    creds = creds.change(server_has_prekeys=first != 1)
    checked = Credentials.parse(creds.serialize()) if report.ok else creds
    return ImportedCreds(checked, _round(following), _round(first))


def _pair(value: object, name: str, code: str, report: Report) -> KeyPair:
    """A key pair; halves that do not fit are an error of the report, not an exception."""
    halves = read_object(unnest(value), name)
    made = KeyPair.from_private(read_bytes(halves.get("private"), curve.KEY_LENGTH, f"{name}.private"))
    public = decode_bytes(halves.get("public"), f"{name}.public") or b""
    if public not in (made.public, curve.serialize_key(made.public)):
        report.error(code, CREDS, f"{name}: the public key is not that of the private one")
    return made


def _signed_prekey(value: object, report: Report) -> SignedPreKey:
    fields = read_object(unnest(value), "signedPreKey")
    created = unnest(fields.get("timestampS"))
    seconds = created if isinstance(created, int) and 0 <= created <= _MAX_TIME_S else 0
    return SignedPreKey(
        id=read_int(fields.get("keyId"), "signedPreKey.keyId", least=1, most=MAX_PREKEY_ID),
        key=_pair(fields.get("keyPair"), "signedPreKey.keyPair", "signed_prekey_mismatch", report),
        signature=read_bytes(fields.get("signature"), curve.SIGNATURE_LENGTH, "signedPreKey.signature"),
        created_ms=seconds * 1000,
    )


def _account(value: Mapping[str, Any]) -> adv_pb2.ADVSignedDeviceIdentity:
    fields = read_object(unnest(value.get("account")), "account")
    account = adv_pb2.ADVSignedDeviceIdentity(
        details=decode_bytes(fields.get("details"), "account.details") or b"",
        accountSignature=decode_bytes(fields.get("accountSignature"), "account.accountSignature") or b"",
        deviceSignature=decode_bytes(fields.get("deviceSignature"), "account.deviceSignature") or b"",
    )
    key = decode_bytes(fields.get("accountSignatureKey"), "account.accountSignatureKey")
    account.accountSignatureKey = key or _primary_key(value) or b""
    return account


def _primary_key(value: Mapping[str, Any]) -> bytes | None:
    """The phone's identity key, where the store has lost it from `account`."""
    identities = unnest(value.get("signalIdentities"))
    if not isinstance(identities, list) or not identities:
        return None
    first = read_object(unnest(identities[0]), "signalIdentities")
    key = decode_bytes(first.get("identifierKey"), "signalIdentities.identifierKey") or b""
    return key[1:] if len(key) == curve.SERIALIZED_KEY_LENGTH else key


def _check_signatures(creds: Credentials, account: adv_pb2.ADVSignedDeviceIdentity, report: Report) -> None:
    """Check what makes this device one of the account's; Baileys itself never does (§2.8)."""
    identity, details, key = creds.identity.public, account.details, account.accountSignatureKey
    if not creds.signed_prekey.signed_by(identity):
        report.error("signed_prekey_signature_invalid", CREDS, "the identity did not sign the signed prekey")
    hosted = adv.parse_identity(details).deviceType == adv_pb2.HOSTED
    if not adv.verify_account_signature(key, details, identity, account.accountSignature, hosted=hosted):
        report.error("account_signature_invalid", CREDS, "the account did not sign this device's identity")
    if not adv.verify_device_signature(identity, details, key, account.deviceSignature):
        report.error("device_signature_invalid", CREDS, "this device's identity did not sign the account")


def _adv_secret(value: Mapping[str, Any], noise: KeyPair, report: Report) -> bytes:
    """The secret of the pairing; a device that is linked works without, and pairing anew draws another."""
    secret = decode_bytes(value.get("advSecretKey"), "advSecretKey")
    if secret is not None and len(secret) == ADV_SECRET_LENGTH:
        return secret
    report.warn(
        "adv_secret_missing", CREDS, "the secret of the pairing is gone, which nothing needs any more"
    )
    return hmac_sha256(noise.private, _ADV_LABEL)


def _own_lid(me: Mapping[str, Any], me_pn: JID, report: Report) -> JID | None:
    if not me.get("lid"):
        return None
    lid = _address(me["lid"])
    if lid is None or not lid.is_lid:
        report.warn("own_lid_unreadable", CREDS, "me.lid is no LID; the next login brings it")
        return None
    return lid if lid.device else lid.with_device(me_pn.device)


def _routing_info(value: object, report: Report) -> bytes | None:
    data = _optional(value, "routingInfo", report)
    return data if data and len(data) <= MAX_ROUTING_INFO else None


def _key_id(value: object, report: Report) -> bytes | None:
    data = _optional(value, "myAppStateKeyId", report)
    return data if data and len(data) <= MAX_KEY_ID else None


def _optional(value: object, name: str, report: Report) -> bytes | None:
    """Bytes that the device works without."""
    try:
        return decode_bytes(value, name)
    except ValueRefusedError as error:
        report.warn("creds_field_dropped", f"{CREDS}/{name}", str(error))
        return None


def _tell_dropped(value: Mapping[str, Any], report: Report) -> None:
    if value.get("processedHistoryMessages"):
        report.warn(
            "creds_field_dropped",
            f"{CREDS}/processedHistoryMessages",
            "history that the phone sends once more is handled once more",
        )
    if lost := [name for name in _NOT_KEPT if value.get(name) not in _AS_NEW]:
        report.warn(
            "creds_field_dropped", f"{CREDS}/{','.join(lost)}", "not kept; fetched anew where it matters"
        )


def _address(value: object) -> JID | None:
    """An address, also in the form of early versions that has an agent (`user.0:5@…`)."""
    if not isinstance(value, str):
        return None
    try:
        return JID.parse(_AGENT.sub(r"\1\2", value, count=1))
    except JIDError:
        return None


def _text(value: object) -> str:
    return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", value)[:MAX_TEXT] if isinstance(value, str) else ""


def _round(number: int) -> int:
    """A counter that Baileys let run past 24 bits."""
    return (number - 1) % MAX_PREKEY_ID + 1
