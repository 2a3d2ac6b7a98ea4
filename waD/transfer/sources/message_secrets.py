"""What secrets of messages of other programs have in common: the key that they are filed under."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeGuard

from waD.wire.errors import JIDError
from waD.wire.jid import JID, LID

MAX_SECRETS: Final = 200_000
"""So many are taken, the newest: other programs keep them for ever, and those of three months are of use."""
MAX_MESSAGE_ID: Final = 255


def bare(address: object) -> JID | None:
    """A chat or an account, without any device; None for what is no address."""
    try:
        jid = JID.parse(address if isinstance(address, str) else "")
    except JIDError:
        return None
    return jid.account if jid.is_user else jid.bare


def under_lid(jid: JID, lid_of: Mapping[str, str]) -> str:
    """The address that something is filed under: the LID where it is known."""
    return str(JID(lid_of[jid.user], LID) if jid.is_pn and jid.user in lid_of else jid)


def is_message_id(name: object) -> TypeGuard[str]:
    """Whether a message can be called so."""
    return isinstance(name, str) and name.isprintable() and 0 < len(name.encode()) <= MAX_MESSAGE_ID
