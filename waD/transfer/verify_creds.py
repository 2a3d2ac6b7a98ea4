"""Checks of the device credentials (chapter 08 §5.4 items 1 to 4)."""

from __future__ import annotations

from typing import Final

from waD.e2ee import adv, curve
from waD.e2ee.curve import KeyPair
from waD.link.credentials import Credentials, SignedPreKey
from waD.proto import adv_pb2
from waD.transfer.state import Report

CLOCK_SKEW_MS: Final = 86_400_000
"""A time that far ahead is no difference between two clocks."""


def check(creds: Credentials, now_ms: int, report: Report, *, deep: bool) -> None:
    """Report on credentials; `deep` checks keys and signatures as well."""
    if not creds.registered:
        report.error("not_paired", "creds", "no account has accepted this device")
    _check_times(creds, now_ms, report)
    if deep:
        _check_pairs(creds, report)
        for key in _signed_prekeys(creds):
            if not key.signed_by(creds.identity.public):
                report.error(
                    "signed_prekey_signature_invalid", f"creds/{key.id}", "the identity did not sign it"
                )
        if creds.account is not None:
            _check_account(creds, creds.account, report)


def _signed_prekeys(creds: Credentials) -> tuple[SignedPreKey, ...]:
    staged = () if creds.rotation_candidate is None else (creds.rotation_candidate,)
    return (*creds.signed_prekeys, *staged)


def _check_times(creds: Credentials, now_ms: int, report: Report) -> None:
    ids = [key.id for key in _signed_prekeys(creds)]
    if len(set(ids)) != len(ids):
        report.warn("signed_prekey_id_repeated", "creds", "two signed prekeys have one id")
    newest = max(creds.last_rotation_ms, *(key.created_ms for key in _signed_prekeys(creds)))
    if newest > now_ms + CLOCK_SKEW_MS:
        report.warn("time_in_future", "creds", "a signed prekey is of the future: check the clock")


def _check_pairs(creds: Credentials, report: Report) -> None:
    for pair, code in ((creds.noise, "noise_key_mismatch"), (creds.identity, "identity_key_mismatch")):
        if not fits(pair):
            report.error(code, "creds", "the public key is not that of the private one")
    for key in _signed_prekeys(creds):
        if not fits(key.key):
            report.error(
                "signed_prekey_mismatch", f"creds/{key.id}", "the public key is not that of the private one"
            )


def fits(pair: KeyPair) -> bool:
    """Whether the halves of a pair belong together."""
    try:
        return KeyPair.from_private(pair.private).public == pair.public
    except curve.CurveError:
        return False


def _check_account(creds: Credentials, account: bytes, report: Report) -> None:
    """Both signatures of the device identity: the account's over us, and ours over the account."""
    try:
        signed = adv.parse_signed_identity(account)
        statement = adv.parse_identity(signed.details)
    except adv.AdvError as error:
        report.error("account_signature_invalid", "creds", str(error))
        return
    key, identity = signed.accountSignatureKey, creds.identity.public
    hosted = statement.deviceType == adv_pb2.HOSTED
    if not adv.verify_account_signature(
        key, signed.details, identity, signed.accountSignature, hosted=hosted
    ):
        report.error("account_signature_invalid", "creds", "the account did not sign this device's identity")
    if not adv.verify_device_signature(identity, signed.details, key, signed.deviceSignature):
        report.error("device_signature_invalid", "creds", "this device's identity did not sign the account")
