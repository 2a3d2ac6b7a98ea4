"""HMAC-SHA256 and HKDF-SHA256 (RFC 5869), tuned for short inputs.

They run several times per message, so both go straight to OpenSSL's one-shot functions.
"""

from __future__ import annotations

import hmac
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

HASH_LENGTH: Final = 32
MAX_HKDF_LENGTH: Final = 255 * HASH_LENGTH
"""The most RFC 5869 can expand to."""

_SHA256: Final = hashes.SHA256()


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """Return the 32-byte HMAC-SHA256 of `message` under `key`."""
    return hmac.digest(key, message, "sha256")


def hkdf(ikm: bytes, salt: bytes | None, info: bytes, length: int) -> bytes:
    """Extract and expand `ikm` to `length` bytes; no salt (None or empty) means 32 zero bytes.

    Raises ValueError when `length` is not in 1…8160.
    """
    if not 0 < length <= MAX_HKDF_LENGTH:
        raise ValueError(f"HKDF-SHA256 makes 1 to {MAX_HKDF_LENGTH} bytes, not {length}")
    return HKDF(_SHA256, length, salt, info).derive(ikm)
