"""The hash over a collection of the app state (chapter 05 §4.7)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from waD.e2ee.kdf import hkdf

HASH_LENGTH: Final = 128
MAC_LENGTH: Final = 32
EMPTY: Final = bytes(HASH_LENGTH)
_INFO: Final = b"WhatsApp Patch Integrity"
_WORDS: Final = struct.Struct("<64H")


def lt_hash(value_macs: Iterable[bytes]) -> bytes:
    """128 bytes over the 32-byte value MACs of all entries, in any order."""
    words = [0] * (HASH_LENGTH // 2)
    for mac in value_macs:
        expanded = _WORDS.unpack(hkdf(mac, None, _INFO, HASH_LENGTH))
        words = [(word + more) & 0xFFFF for word, more in zip(words, expanded, strict=True)]
    return _WORDS.pack(*words)
