"""The binary node codec: frame plaintext to node and back (chapter 01 §5)."""

from __future__ import annotations

from waD.wire._decode import MAX_ATTRIBUTES, MAX_INFLATED, MAX_NODES, decode
from waD.wire._encode import encode, encode_value
from waD.wire._tags import MAX_DEPTH

__all__ = [
    "MAX_ATTRIBUTES",
    "MAX_DEPTH",
    "MAX_INFLATED",
    "MAX_NODES",
    "decode",
    "encode",
    "encode_value",
]
