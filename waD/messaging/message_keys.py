"""Keys of messages inside content, turned from the sender's view to ours (chapter 04 §6.2, last paragraph)."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from waD.messaging.stanza import is_usable_id
from waD.proto.e2e_pb2 import MessageKey
from waD.wire.errors import JIDError
from waD.wire.jid import JID

MAX_JID_TEXT: Final = 160
"""Characters of an address inside content; longer ones are none."""


class Key(Struct, frozen=True):
    """Which message is meant, as we see it.

    Attributes:
        chat: bare, hosted servers folded in; None when content names none.
        participant: the author in groups and lists, where it is named.
    """

    chat: JID | None
    id: str
    from_me: bool
    participant: JID | None = None


def parse_jid(text: str | bytes | None) -> JID | None:
    """An address inside content, bare and on the plain server; None when it is none."""
    if not text or len(text) > MAX_JID_TEXT or isinstance(text, bytes):
        return None
    try:
        return JID.parse_any_server(text).account
    except JIDError:
        return None


def read_key(key: MessageKey) -> Key | None:
    """The protobuf as a value, still in the sender's view; None without a usable id."""
    found: str | bytes = key.id  # bytes when it is no UTF-8
    if isinstance(found, bytes) or not is_usable_id(found):
        return None
    return Key(parse_jid(key.remoteJid), found, key.fromMe, parse_jid(key.participant))


def author_of(key: Key, carrier_sender: JID, carrier_from_me: bool, own: JID | None) -> JID | None:
    """Who wrote the message that content names; None when it cannot be told.

    Args:
        key: in the view of whoever sent the content.
        carrier_sender: who that is.
        carrier_from_me: whether it is the own account.
        own: the own address, for direct chats.
    """
    if key.from_me:
        return carrier_sender.account
    if key.participant is not None:
        return key.participant
    if key.chat is None or key.chat.is_group or key.chat.is_broadcast:
        return None
    return key.chat if carrier_from_me else own
