"""Tag bytes of the binary node codec and the limits of a frame (chapter 01 §5.2, §5.8)."""

from __future__ import annotations

from typing import Final

LIST_EMPTY: Final = 0x00
DICTIONARY_0: Final = 0xEC
INTEROP_JID: Final = 0xF5
FB_JID: Final = 0xF6
AD_JID: Final = 0xF7
LIST_8: Final = 0xF8
LIST_16: Final = 0xF9
JID_PAIR: Final = 0xFA
HEX_8: Final = 0xFB
BINARY_8: Final = 0xFC
BINARY_20: Final = 0xFD
BINARY_32: Final = 0xFE
NIBBLE_8: Final = 0xFF

FLAG_COMPRESSED: Final = 0x02
"""The only bit of the flag byte that means anything."""

MAX_DEPTH: Final = 128
"""A node at this depth is refused; the root has depth 0."""
MAX_PACKED: Final = 127
"""Longest string that is written packed."""
MAX_LIST: Final = 0xFFFF
