"""Application padding of `<enc v=2>` plaintexts (chapter 03 §5.1)."""

from __future__ import annotations


class PaddingError(Exception):
    """A decrypted payload does not end in consistent padding. Asking for a resend would not help."""


def pad(plaintext: bytes, random_byte: int) -> bytes:
    """Append 1 to 16 bytes that each hold their number, chosen by the low four bits of `random_byte`."""
    count = (random_byte & 15) + 1
    return plaintext + bytes((count,)) * count


def unpad(data: bytes) -> bytes:
    """Remove the padding; more than 16 consistent bytes are accepted.

    Raises PaddingError when the input is empty or its end is inconsistent.
    """
    if not data:
        raise PaddingError("a padded payload has at least one byte")
    count = data[-1]
    if not 1 <= count <= len(data) or data[-count:] != data[-1:] * count:
        raise PaddingError(f"inconsistent padding at the end of a payload of {len(data)} bytes")
    return data[:-count]
