"""The 60-digit security code of two identities (chapter 03 §9).

Comparable between two waD instances. Which identifier bytes WhatsApp itself uses is not known, so it is no
"WhatsApp security code".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

from waD.e2ee.curve import serialize_key

ITERATIONS: Final = 5200
_VERSION: Final = bytes(2)
_GROUPS: Final = 6
_GROUP_BYTES: Final = 5


def security_code(
    local_identifier: bytes,
    local_keys: Iterable[bytes],
    remote_identifier: bytes,
    remote_keys: Iterable[bytes],
) -> str:
    """Return 60 digits, the same for both sides.

    Identifiers are stable names of the two users; keys are the 32-byte identity keys of all their devices.
    Takes some milliseconds on purpose.
    """
    return "".join(sorted((_half(local_identifier, local_keys), _half(remote_identifier, remote_keys))))


def _half(identifier: bytes, keys: Iterable[bytes]) -> str:
    material = b"".join(sorted(serialize_key(key) for key in keys))
    digest = hashlib.sha512(_VERSION + material + identifier + material).digest()
    for _ in range(ITERATIONS - 1):
        digest = hashlib.sha512(digest + material).digest()
    numbers = (
        int.from_bytes(digest[start : start + _GROUP_BYTES], "big") % 100_000
        for start in range(0, _GROUPS * _GROUP_BYTES, _GROUP_BYTES)
    )
    return "".join(f"{number:05}" for number in numbers)
