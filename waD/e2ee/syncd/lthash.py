"""The hash over a collection of the app state (chapter 05 §4.7).

It is the sum of all value MACs, each stretched to 64 words of 16 bits, little-endian, every word on its own.
Half of the words are added at once, as one integer of every second word, which leaves 16 spare bits for each carry.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from waD.e2ee.kdf import hkdf

HASH_LENGTH: Final = 128
MAC_LENGTH: Final = 32
EMPTY: Final = bytes(HASH_LENGTH)
_INFO: Final = b"WhatsApp Patch Integrity"
_WORD: Final = 16
_LANES: Final = int.from_bytes(b"\xff\xff\x00\x00" * (HASH_LENGTH // 4), "little")
_CARRIES: Final = int.from_bytes(b"\x00\x00\x01\x00" * (HASH_LENGTH // 4), "little")
"""One in the bit above every word: what a word borrows from when more is taken away than it holds."""


def updated(before: bytes, added: Iterable[bytes], removed: Iterable[bytes]) -> bytes:
    """The 128-byte hash after value MACs of 32 bytes came and went, in any order."""
    even, odd = _split(before)
    for mac in added:
        more_even, more_odd = _split(_stretch(mac))
        even, odd = even + more_even & _LANES, odd + more_odd & _LANES
    for mac in removed:
        less_even, less_odd = _split(_stretch(mac))
        even, odd = (even | _CARRIES) - less_even & _LANES, (odd | _CARRIES) - less_odd & _LANES
    return (even | odd << _WORD).to_bytes(HASH_LENGTH, "little")


def lt_hash(value_macs: Iterable[bytes]) -> bytes:
    """128 bytes over the 32-byte value MACs of all entries, in any order."""
    return updated(EMPTY, value_macs, ())


def _stretch(mac: bytes) -> bytes:
    return hkdf(mac, None, _INFO, HASH_LENGTH)


def _split(words: bytes) -> tuple[int, int]:
    number = int.from_bytes(words, "little")
    return number & _LANES, number >> _WORD & _LANES
