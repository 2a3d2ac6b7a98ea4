"""Signal state of a device while it is put together from another program's records."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from waD.e2ee.address import SignalAddress
from waD.e2ee.groups import SenderKeyRecord
from waD.e2ee.record import SessionRecord
from waD.link.prekeys import OneTimePreKey
from waD.wire.jid import JID

Author: TypeAlias = tuple[JID, SignalAddress]
"""A group and the device that sends in it."""


@dataclass(slots=True)
class SignalItems:
    """Signal state by address, in the forms of this program."""

    prekeys: dict[int, OneTimePreKey] = field(default_factory=dict)
    identities: dict[SignalAddress, bytes] = field(default_factory=dict)
    sessions: dict[SignalAddress, SessionRecord] = field(default_factory=dict)
    sender_keys: dict[Author, SenderKeyRecord] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"SignalItems({len(self.sessions)} sessions)"
