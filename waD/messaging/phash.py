"""Hashes over lists of devices and over contacts (chapter 04 §2.3, §2.4)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from typing import Final

from waD.wire.jid import JID

_PREFIX: Final = "2:"
_KEPT: Final = 6
_CONTACT_KEPT: Final = 3


def device_hash(devices: Iterable[JID]) -> str:
    """The hash of a list of devices, whatever its order: `2:` and 8 characters."""
    names = sorted(f"{jid.user}.0:{jid.device}@{jid.server}" if jid.user else jid.server for jid in devices)
    digest = hashlib.sha256("".join(names).encode()).digest()
    return _PREFIX + base64.b64encode(digest[:_KEPT]).decode()


def contact_hash(user: str) -> str:
    """What names a contact in a notification without revealing it: 4 characters."""
    digest = hashlib.md5(f"{user}WA_ADD_NOTIF".encode(), usedforsecurity=False).digest()
    return base64.b64encode(digest[:_CONTACT_KEPT]).decode()
