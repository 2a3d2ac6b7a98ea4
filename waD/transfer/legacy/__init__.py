"""The rows that a Node service reads, and the documents of this program: each from the other (chapter 08 §6.5)."""

from waD.transfer.legacy.codec import LegacyCodec

__all__ = ["LegacyCodec"]
