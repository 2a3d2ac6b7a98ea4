"""The row of a device as credentials (chapter 08 §4.4, §5.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from waD.e2ee import adv, curve
from waD.e2ee.curve import KeyPair
from waD.e2ee.limits import MAX_PREKEY_ID, MAX_UINT32
from waD.link.credentials import ADV_SECRET_LENGTH, Credentials, CredentialsError, SignedPreKey
from waD.link.prekeys import DAY_MS, ROTATION_MS
from waD.proto import adv_pb2
from waD.transfer.state import Report
from waD.transfer.whatsmeow.rows import DeviceRows, current_form
from waD.wire.errors import JIDError
from waD.wire.jid import JID

_LENGTHS: Final = {
    "noise_key": curve.KEY_LENGTH,
    "identity_key": curve.KEY_LENGTH,
    "signed_pre_key": curve.KEY_LENGTH,
    "signed_pre_key_sig": curve.SIGNATURE_LENGTH,
    "adv_key": ADV_SECRET_LENGTH,
    "adv_account_sig": curve.SIGNATURE_LENGTH,
    "adv_account_sig_key": curve.KEY_LENGTH,
    "adv_device_sig": curve.SIGNATURE_LENGTH,
}
MAX_SALT: Final = 1024
MAX_NAME: Final = 256
"""Characters kept of a name: WhatsApp allows 25."""


class _UnreadableError(ValueError):
    """A column does not hold what it must; the text names it."""


def import_credentials(rows: DeviceRows, report: Report, now_ms: int) -> Credentials | None:
    """Build and check the credentials; None, with errors in the report, when they cannot be used.

    Prekey counters and the current app-state key are left as new; the items say what they are.
    """
    if not rows.device.get("jid") or not rows.device.get("adv_details"):
        report.error("not_paired", "creds", "the device was never linked to an account")
        return None
    try:
        creds = _credentials(rows, now_ms)
        _check_signatures(creds, report)
        return Credentials.parse(creds.serialize()) if report.ok else None
    except (_UnreadableError, CredentialsError, curve.CurveError, adv.AdvError) as error:
        report.error("creds_unreadable", "creds", str(error))
        return None


def _credentials(rows: DeviceRows, now_ms: int) -> Credentials:
    device = rows.device
    me_pn = _address(device, "jid")
    private = {name: _bytes(device, name, length) for name, length in _LENGTHS.items()}
    signed_prekey = SignedPreKey(
        id=_number(device, "signed_pre_key_id", 1, MAX_PREKEY_ID),
        key=KeyPair.from_private(private["signed_pre_key"]),
        signature=private["signed_pre_key_sig"],
    )
    account = adv_pb2.ADVSignedDeviceIdentity(
        details=_bytes(device, "adv_details"),
        accountSignatureKey=private["adv_account_sig_key"],
        accountSignature=private["adv_account_sig"],
        deviceSignature=private["adv_device_sig"],
    )
    return Credentials(
        noise=KeyPair.from_private(private["noise_key"]),
        identity=KeyPair.from_private(private["identity_key"]),
        registration_id=_number(device, "registration_id", 0, MAX_UINT32),
        signed_prekeys=(signed_prekey,),
        adv_secret=private["adv_key"],
        account=account.SerializeToString(),
        me_pn=me_pn,
        me_lid=_lid(device, me_pn),
        push_name=_text(device, "push_name"),
        business_name=_text(device, "business_name"),
        platform=_text(device, "platform"),
        # Messages that use it are on their way; the old program never rotated it, so it is old.
        last_rotation_ms=max(now_ms - ROTATION_MS + DAY_MS, 1),
        login_counter=1,
        lid_migrated=_number(device, "lid_migration_ts", -(2**63), 2**63, default=0) > 0,
        nct_salt=rows.salt if isinstance(rows.salt, bytes) and 0 < len(rows.salt) <= MAX_SALT else None,
    )


def _check_signatures(creds: Credentials, report: Report) -> None:
    """Check what makes this device one of the account's (chapter 08 §5.4 items 2 to 4)."""
    identity = creds.identity.public
    if not creds.signed_prekey.signed_by(identity):
        report.error(
            "signed_prekey_signature_invalid", "creds", "the identity did not sign the signed prekey"
        )
    signed = adv.parse_signed_identity(creds.account or b"")
    hosted = adv.parse_identity(signed.details).deviceType == adv_pb2.HOSTED
    key = signed.accountSignatureKey
    if not adv.verify_account_signature(
        key, signed.details, identity, signed.accountSignature, hosted=None if hosted else False
    ):
        report.error("account_signature_invalid", "creds", "the account did not sign this device")
    if not adv.verify_device_signature(identity, signed.details, key, signed.deviceSignature):
        report.error("device_signature_invalid", "creds", "the device did not sign its account")


def _address(device: Mapping[str, object], name: str) -> JID:
    value = device.get(name)
    try:
        return JID.parse(current_form(value if isinstance(value, str) else ""))
    except JIDError:
        raise _UnreadableError(f"{name} is not an address") from None


def _lid(device: Mapping[str, object], me_pn: JID) -> JID | None:
    """The own LID, which early versions of the column had without the device."""
    if not device.get("lid"):
        return None
    lid = _address(device, "lid")
    return lid if lid.device else lid.with_device(me_pn.device)


def _bytes(device: Mapping[str, object], name: str, length: int | None = None) -> bytes:
    value = device.get(name)
    if not isinstance(value, bytes) or (length is not None and len(value) != length):
        raise _UnreadableError(f"{name} is not bytes" + (f" of length {length}" if length else ""))
    return value


def _number(
    device: Mapping[str, object], name: str, low: int, high: int, *, default: int | None = None
) -> int:
    value = device.get(name)
    value = default if value is None else value
    if not isinstance(value, int) or not low <= value <= high:
        raise _UnreadableError(f"{name} is not a number from {low} to {high}")
    return value


def _text(device: Mapping[str, object], name: str) -> str:
    value = device.get(name)
    return value[:MAX_NAME] if isinstance(value, str) else ""
