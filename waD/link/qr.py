"""What a phone scans: references, the text of a code, and how long each is shown (chapter 02 §3.2, §3.3). Pure."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from waD.link.errors import PairingRefused
from waD.wire.node import Node

QR_LINK: Final = "https://wa.me/settings/linked_devices#"
FIRST_S: Final = 60.0
"""How long a code is shown while `FULL_ROUND` references are left."""
NEXT_S: Final = 20.0
FULL_ROUND: Final = 6
MAX_REFS: Final = 12
MAX_REF: Final = 256
MAX_QR_TEXT: Final = 1024
"""What phones read at most; the limits above keep every code below it."""


@dataclass(frozen=True, slots=True)
class QrCode:
    """One code to show.

    Attributes:
        text: content of the code; a secret, because whoever has it can finish the pairing.
        number: place in the round, from 1.
        of: codes in the round.
        lifetime_s: how long to show it.
    """

    text: str = field(repr=False)
    number: int
    of: int
    lifetime_s: float


def qr_text(ref: str, noise: bytes, identity: bytes, adv_secret: bytes, client_type: str) -> str:
    """Build the text of a code from a reference and 32-byte public keys and secret.

    `client_type` is the one character of `ClientProfile.qr_type`.
    """
    fields = [ref, *(base64.b64encode(part).decode() for part in (noise, identity, adv_secret)), client_type]
    return QR_LINK + ",".join(fields)


def parse_refs(pair_device: Node) -> tuple[str, ...]:
    """Read the references of a `<pair-device>`.

    Raises:
        PairingRefused: there are none, too many, or one is not a printable text of a sensible length.
    """
    nodes = pair_device.children("ref")
    if not 0 < len(nodes) <= MAX_REFS:
        raise _malformed(f"{len(nodes)} references")
    return tuple(_ref(node.data) for node in nodes)


def _ref(data: bytes) -> str:
    if not 0 < len(data) <= MAX_REF:
        raise _malformed(f"a reference of {len(data)} bytes")
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        raise _malformed("a reference that is not text") from None
    if not text.isprintable() or " " in text:
        raise _malformed("a reference that is not printable")
    return text


def _malformed(detail: str) -> PairingRefused:
    return PairingRefused(500, "internal-error", "pair_refused", f"the server offered {detail}")


class QrRound:
    """The references of one `pair-device`, shown one after the other.

    Args:
        refs: at least one.
        now: monotonic seconds at which the first one is shown.
    """

    def __init__(self, refs: Sequence[str], now: float) -> None:
        self._refs = refs
        self._place = 0
        self.deadline = now + self._lifetime_s
        """When the current reference is over."""

    @property
    def ref(self) -> str:
        """The reference to show now."""
        return self._refs[self._place]

    @property
    def number(self) -> int:
        """Its place, from 1."""
        return self._place + 1

    @property
    def of(self) -> int:
        """How many there are."""
        return len(self._refs)

    def advance(self, now: float) -> bool:
        """Go to the next reference; False when there is none, which ends the round."""
        if self.number == self.of:
            return False
        self._place += 1
        self.deadline = now + self._lifetime_s
        return True

    @property
    def _lifetime_s(self) -> float:
        return FIRST_S if self.of - self._place == FULL_ROUND else NEXT_S
