"""Checksums of an auth state: one per item, and their sum in its head (chapter 08 §6.4): pure."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from typing import Final

LENGTH: Final = 32
_MODULUS: Final = 1 << 256
_PREFIX: Final = b"wad-item-1\0"


def item_checksum(kind: str, key: str, version: int, document: bytes, mac_key: bytes | None = None) -> bytes:
    """32 bytes over an item as it is stored.

    Args:
        kind: type of the item; `creds` with an empty key is the credentials document.
        key: its id.
        version: of the auth state that changed it last.
        document: canonical JSON as it is stored.
        mac_key: where the state is encrypted at rest, the key that makes this an HMAC.
    """
    kind_bytes, key_bytes = kind.encode(), key.encode()
    message = b"".join(
        (
            _PREFIX,
            len(kind_bytes).to_bytes(4, "big"),
            kind_bytes,
            len(key_bytes).to_bytes(4, "big"),
            key_bytes,
            version.to_bytes(8, "big"),
            hashlib.sha256(document).digest(),
        )
    )
    if mac_key is None:
        return hashlib.sha256(message).digest()
    return hmac.digest(mac_key, message, "sha256")


def creds_checksum(version: int, document: bytes, mac_key: bytes | None = None) -> bytes:
    """The credentials document as an item."""
    return item_checksum("creds", "", version, document, mac_key)


def changed(total: bytes, old: bytes | None, new: bytes | None) -> bytes:
    """The sum after one of its parts changed; None is a part that is not there."""
    number = int.from_bytes(total, "big")
    number += 0 if new is None else int.from_bytes(new, "big")
    number -= 0 if old is None else int.from_bytes(old, "big")
    return (number % _MODULUS).to_bytes(LENGTH, "big")


def total(parts: Iterable[bytes]) -> bytes:
    """The sum of all parts."""
    return (sum(int.from_bytes(part, "big") for part in parts) % _MODULUS).to_bytes(LENGTH, "big")
