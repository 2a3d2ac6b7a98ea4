"""Whether an auth state is sound: levels 1 and 2 of chapter 08 §7.6, on a state outside of any store: pure.

Each item of a report is named `kind/key`. Codes are stable API.
"""

from __future__ import annotations

from typing import Final

from waD.link.credentials import Credentials, CredentialsError
from waD.messaging import kinds
from waD.transfer import verify_creds, verify_items, verify_signal
from waD.transfer.state import AuthState, Report

STRUCTURE: Final = 1
CRYPTOGRAPHY: Final = 2

CREDENTIAL_FAULTS: Final = frozenset(
    {
        "account_signature_invalid",
        "creds_unreadable",
        "device_signature_invalid",
        "identity_key_mismatch",
        "noise_key_mismatch",
        "not_paired",
        "signed_prekey_mismatch",
        "signed_prekey_signature_invalid",
    }
)
"""Errors that make a whole state useless (chapter 08 §2.9)."""
ITEM_FAULTS: Final = frozenset(
    {"item_unreadable", "pre_key_mismatch", "sender_key_invalid", "session_invalid", "session_self_test"}
)
"""Errors about one item: the state works without it."""


def verify(state: AuthState, now_ms: int, level: int = CRYPTOGRAPHY) -> Report:
    """Check a whole state; nothing of it changes.

    Args:
        state: what an archive, an importer or a store has.
        now_ms: Unix milliseconds.
        level: 1 for structure and limits, 2 for keys, signatures and a trial of every open session as well.

    Returns:
        Errors and warnings. An item that cannot be read, or whose keys do not fit, is an error.
    """
    report = Report()
    deep = level >= CRYPTOGRAPHY
    verify_creds.check(state.creds, now_ms, report, deep=deep)
    verify_signal.check(state, report, deep=deep)
    verify_items.check(state, report, deep=deep)
    _check_unknown(state, report)
    return report


def read_credentials(document: bytes, report: Report) -> Credentials | None:
    """Parse a credentials document; an error of the report says why there are none."""
    try:
        return Credentials.parse(document)
    except CredentialsError as error:
        report.error(_code_of(str(error)), "creds", str(error))
        return None


def _code_of(message: str) -> str:
    """The parser refuses a pair whose halves do not fit; that has a code of its own for some of them."""
    if "not its own" not in message:
        return "creds_unreadable"
    for field in ("noise", "identity"):
        if f"field {field}:" in message:
            return f"{field}_key_mismatch"
    return "signed_prekey_mismatch"


_KNOWN: Final = frozenset(
    {
        kinds.APP_STATE_ENTRIES,
        kinds.APP_STATE_EXPIRY,
        kinds.APP_STATE_KEY,
        kinds.APP_STATE_REQUEST,
        kinds.APP_STATE_VERSION,
        kinds.BARE_LIDS,
        kinds.DEVICES,
        kinds.IDENTITY,
        kinds.IDENTITY_CHANGE,
        kinds.LID_OF_PN,
        kinds.NUMBER_ALIAS,
        kinds.PEER_REQUEST,
        kinds.PN_OF_LID,
        kinds.PREKEY,
        kinds.RETRY,
        kinds.SENDER_KEY,
        kinds.SENDER_KEY_MEMORY,
        kinds.SESSION,
        kinds.TRUSTED_CONTACT,
        kinds.RESTORE_POINT,
    }
)


def _check_unknown(state: AuthState, report: Report) -> None:
    for kind, count in state.counts().items():
        if kind not in _KNOWN:
            report.warn(
                "unknown_item", kind, f"{count} items of a kind that this version does not know; kept"
            )
