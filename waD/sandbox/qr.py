"""Reading the text of a pairing code, as a phone does (chapter 02 §3.2)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Final

from waD.sandbox.errors import SandboxError

MAX_QR: Final = 1024
KEY_LENGTH: Final = 32
FIELDS: Final = 5


@dataclass(frozen=True, slots=True)
class QrCode:
    """What a code says: whose link it is, the companion's keys, and the secret that proves the scan."""

    ref: str
    noise_key: bytes
    identity: bytes
    adv_secret: bytes = field(repr=False)
    client_type: str = "1"


def parse_qr(text: str) -> QrCode:
    """Read a code with or without the link before it; raises SandboxError(400) with the reason."""
    text = text.strip()
    if not text or len(text) > MAX_QR:
        raise SandboxError(f"a QR text has 1 to {MAX_QR} characters")
    _, hash_sign, rest = text.partition("#")
    parts = (rest if hash_sign else text).split(",")
    if parts and parts[-1].startswith("http"):
        parts.pop()
    if len(parts) == FIELDS - 1:
        raise SandboxError("four fields: the old form without client type, which phones refuse")
    if len(parts) < FIELDS or not all(parts):
        raise SandboxError("a QR text has five fields, none empty")
    *ref, noise, identity, secret, client_type = parts
    if client_type == "0":
        raise SandboxError("client type 0 is refused by phones")
    return QrCode(
        ",".join(ref),
        _key("noise key", noise),
        _key("identity key", identity),
        _key("ADV secret", secret),
        client_type,
    )


def _key(name: str, text: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise SandboxError(f"the {name} is not base64") from None
    if len(key) != KEY_LENGTH:
        raise SandboxError(f"the {name} has {len(key)} bytes, not {KEY_LENGTH}")
    return key
