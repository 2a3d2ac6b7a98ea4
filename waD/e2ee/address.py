"""The local key of a pairwise session: one device of one user (chapter 03 §4)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

DOMAIN_PN: Final = 0
DOMAIN_LID: Final = 1
DOMAIN_HOSTED_PN: Final = 128
DOMAIN_HOSTED_LID: Final = 129
DOMAINS: Final = frozenset({DOMAIN_PN, DOMAIN_LID, DOMAIN_HOSTED_PN, DOMAIN_HOSTED_LID})
HOSTED_DOMAINS: Final = frozenset({DOMAIN_HOSTED_PN, DOMAIN_HOSTED_LID})

MAX_DEVICE: Final = 255
MAX_USER_LENGTH: Final = 64

_USER: Final = re.compile(rf"[0-9A-Za-z+-]{{1,{MAX_USER_LENGTH}}}")
_TEXT: Final = re.compile(
    rf"(?P<user>[0-9A-Za-z+-]{{1,{MAX_USER_LENGTH}}})(?:_(?P<domain>[1-9][0-9]{{0,2}}))?"
    r"\.(?P<device>0|[1-9][0-9]{0,2})"
)


class AddressError(ValueError):
    """A Signal address has a part that no device can have."""


@dataclass(frozen=True, slots=True, order=True)
class SignalAddress:
    """A device: user without server, domain byte (0 PN, 1 LID, 128 and 129 hosted), device number 0…255.

    Raises AddressError on any other part. Text form: `user.device`, or `user_domain.device` outside domain 0.
    """

    user: str
    domain: int
    device: int

    def __post_init__(self) -> None:
        if _USER.fullmatch(self.user) is None:
            raise AddressError(f"{self.user!r} is not the user part of an address")
        if self.domain not in DOMAINS:
            raise AddressError(f"unknown address domain {self.domain}")
        if not 0 <= self.device <= MAX_DEVICE:
            raise AddressError(f"device {self.device} is outside 0…{MAX_DEVICE}")

    @classmethod
    def parse(cls, text: str) -> SignalAddress:
        """Read the text form; raises AddressError."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise AddressError(f"{text[: 2 * MAX_USER_LENGTH]!r} is not a Signal address")
        return cls(match["user"], int(match["domain"] or DOMAIN_PN), int(match["device"]))

    @property
    def text(self) -> str:
        """The form that keys the store."""
        if self.domain == DOMAIN_PN:
            return f"{self.user}.{self.device}"
        return f"{self.user}_{self.domain}.{self.device}"

    @property
    def hosted(self) -> bool:
        """Whether the device lives on a hosted server."""
        return self.domain in HOSTED_DOMAINS

    def __str__(self) -> str:
        return self.text
