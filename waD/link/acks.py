"""Answers to stanzas: `<ack>`, with an error code a nack (chapter 01 §7.4, chapter 04 §6.8)."""

from __future__ import annotations

from typing import Final

from waD.wire.jid import JID
from waD.wire.node import Node, Value

NACK_PARSE_ERROR: Final = 487
NACK_UNRECOGNISED_STANZA: Final = 488
NACK_UNRECOGNISED_CLASS: Final = 489
NACK_UNRECOGNISED_TYPE: Final = 490
NACK_INVALID_PROTOBUF: Final = 491
NACK_HOSTED_COMPANION: Final = 493
NACK_MISSING_SECRET: Final = 495
NACK_OLD_COUNTER: Final = 496
NACK_DELETED_ON_PEER: Final = 499
NACK_ADMIN_REVOKE: Final = 550
NACK_LID_GROUP: Final = 551
STORAGE_NACKS: Final = frozenset({500, 552})
"""Never sent: a nacked stanza is not delivered again, so a fault of our own storage leaves it unanswered."""

_ECHOED: Final = ("participant", "recipient")


def ack(stanza: Node, me: JID | None = None, error: int | None = None) -> Node | None:
    """Build the answer to a stanza, copying its addresses exactly as they were typed.

    Args:
        stanza: what was received: message, receipt, notification, call, status or an unknown tag.
        me: own phone-number device address; goes into answers of class `message` only.
        error: a nack code of this module, or None for a plain ack.

    Returns:
        The `<ack>`, or None when the stanza has no `id` or no `from` and so cannot be answered.

    Raises:
        ValueError: `error` is one of `STORAGE_NACKS`.
    """
    if error in STORAGE_NACKS:
        raise ValueError(f"nack {error} would make the server forget a stanza that we failed to store")
    stanza_id, sender = stanza.attrs.get("id"), stanza.attrs.get("from")
    if not stanza_id or not sender:
        return None
    attrs: dict[str, Value] = {"class": stanza.tag, "id": stanza_id, "to": sender}
    for name in _ECHOED:
        if name in stanza.attrs:
            attrs[name] = stanza.attrs[name]
    if "type" in stanza.attrs and not _is_identity_change(stanza):
        attrs["type"] = stanza.attrs["type"]
    if stanza.tag == "message" and me is not None:
        attrs["from"] = me
    if error is not None:
        attrs["error"] = str(error)
    return Node("ack", attrs)


def nack_unrecognised(stanza: Node) -> Node | None:
    """Answer a top-level stanza whose tag we do not know (chapter 01 §7.4)."""
    return ack(stanza, error=NACK_UNRECOGNISED_STANZA)


def _is_identity_change(stanza: Node) -> bool:
    return (
        stanza.tag == "notification"
        and stanza.attrs.get("type") == "encrypt"
        and stanza.child("identity") is not None
    )
