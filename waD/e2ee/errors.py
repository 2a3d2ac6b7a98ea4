"""The one error of the Signal core: a stable code and public facts, never key material (chapter 03 §3.5)."""

from __future__ import annotations

from typing import Literal, TypeAlias

ErrorCode: TypeAlias = Literal[
    "bad_mac",
    "duplicate",
    "exhausted",
    "invalid_prekey_id",
    "invalid_signature",
    "invalid_signed_prekey_id",
    "malformed",
    "no_sender_key_state",
    "no_session",
    "too_far",
    "untrusted_identity",
]
"""`exhausted`: a sending chain used its last counter. The others are named in chapter 03 §3.5 and §6.5."""


class SignalError(Exception):
    """A Signal operation was refused; nothing has changed.

    `code` is stable. `counter` is the message counter or iteration and `key_id` the prekey or sender-key id
    that the refusal is about, where there is one.
    """

    def __init__(
        self, code: ErrorCode, detail: str, *, counter: int | None = None, key_id: int | None = None
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code: ErrorCode = code
        self.detail = detail
        self.counter = counter
        self.key_id = key_id


def malformed(detail: str) -> SignalError:
    """Build the error for input that no honest peer writes."""
    return SignalError("malformed", detail)
