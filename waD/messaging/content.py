"""What is said in a message of ours: ids, texts, quotes, mentions, copies for own devices (chapter 04 §1.1, §9)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from google.protobuf.message import DecodeError

from waD.proto.e2e_pb2 import Message
from waD.wire.jid import JID

SECRET_LENGTH: Final = 32
ID_PREFIX: Final = "3EB0"
ID_RANDOM_LENGTH: Final = 16
MAX_WRAPPERS: Final = 5
"""Wrappers that are opened; deeper content stays closed (chapter 04 §6.4)."""

_ID_HASHED: Final = 9
_NOT_TEXT: Final = re.compile("[\x00\ud800-\udfff]")
"""What no text of a message can hold: NUL, and half a character that UTF-8 cannot spell."""

ContentFault: TypeAlias = Literal[
    "empty_text",
    "text_too_long",
    "not_text",
    "unknown_quote",
    "bad_recipient",
    "bad_mention",
    "bad_reference",
    "unknown_message",
    "not_paired",
]


class ContentError(ValueError):
    """An order to send or to mark cannot be carried out as it stands; nothing was changed.

    Attributes:
        code: stable name of the fault.
    """

    def __init__(self, code: ContentFault, message: str) -> None:
        super().__init__(message)
        self.code: ContentFault = code


@dataclass(frozen=True, slots=True)
class Quote:
    """The message that is answered.

    Attributes:
        message_id: its id.
        author: bare address of who wrote it, in the namespace of the chat.
        content: the quoted Message, from `quotable`.
    """

    message_id: str
    author: JID
    content: Message


def message_id(now_s: int, own_user: str, random: bytes) -> str:
    """Make an id: `3EB0` and 18 hex digits (chapter 04 §1.1).

    Args:
        now_s: Unix seconds.
        own_user: user part of the own address.
        random: `ID_RANDOM_LENGTH` fresh bytes.
    """
    hashed = hashlib.sha256(now_s.to_bytes(8, "big") + f"{own_user}@c.us".encode() + random).digest()
    return ID_PREFIX + hashed[:_ID_HASHED].hex().upper()


def check_text(text: str, longest: int) -> None:
    """Accept the text of a message; nothing is ever cut (chapter 04 §14).

    Raises:
        ContentError: it is empty, longer than `longest` characters, or no text.
    """
    if not text:
        raise ContentError("empty_text", "the text is empty: give at least one character")
    if len(text) > longest:
        raise ContentError(
            "text_too_long",
            f"the text has {len(text)} characters and at most {longest} are sent: split it, or raise the limit",
        )
    found = _NOT_TEXT.search(text)
    if found is not None:
        raise ContentError(
            "not_text",
            f"character {found.start() + 1} of the text is U+{ord(found[0]):04X}, which no message can hold",
        )


def is_text(text: str) -> bool:
    """Whether a text can be stored and sent as it is."""
    return _NOT_TEXT.search(text) is None


def text_message(
    text: str, secret: bytes, *, quote: Quote | None = None, mentions: Sequence[JID] = ()
) -> Message:
    """Build a text: plain, or extended when it quotes or mentions (chapter 04 §9.3).

    Args:
        text: accepted by `check_text`.
        secret: 32 fresh bytes, kept for reactions and edits of others (chapter 04 §9.1).
        quote: what is answered.
        mentions: bare addresses in the namespace of the chat.
    """
    message = Message()
    message.messageContextInfo.messageSecret = secret
    if quote is None and not mentions:
        message.conversation = text
        return message
    message.extendedTextMessage.text = text
    context = message.extendedTextMessage.contextInfo
    if quote is not None:
        context.stanzaId = quote.message_id
        context.participant = str(quote.author)
        context.quotedMessage.CopyFrom(quote.content)
    context.mentionedJid.extend(str(jid) for jid in mentions)
    return message


def quotable(raw: bytes) -> Message | None:
    """What of a received or sent Message goes into a quote: the content without what it quotes itself.

    Args:
        raw: the serialised Message.

    Returns:
        The bare content, or None when there is nothing to quote.
    """
    message = parse(raw)
    if message is None:
        return None
    content = Message()
    content.CopyFrom(unwrap(message))
    content.ClearField("messageContextInfo")
    content.ClearField("senderKeyDistributionMessage")
    for field, value in content.ListFields():
        if field.message_type is not None and "contextInfo" in field.message_type.fields_by_name:
            value.ClearField("contextInfo")
    return content if content.ByteSize() else None


def device_sent(message: Message, chat: JID) -> Message:
    """The copy of a message for an own other device (chapter 04 §1.2); `chat` is bare."""
    copy = Message()
    copy.deviceSentMessage.destinationJid = str(chat)
    copy.deviceSentMessage.message.CopyFrom(message)
    if message.HasField("messageContextInfo"):
        copy.messageContextInfo.CopyFrom(message.messageContextInfo)
    return copy


def unwrap(message: Message) -> Message:
    """The content inside wrappers and own-device copies, at most `MAX_WRAPPERS` deep (chapter 04 §9.2).

    `editedMessage` is a wrapper here; that it is none for the type of a stanza is `classify`'s business.
    """
    for _ in range(MAX_WRAPPERS):
        inner = _inner(message)
        if inner is None:
            return message
        message = inner
    return message


def _inner(message: Message) -> Message | None:
    if message.HasField("deviceSentMessage"):
        return message.deviceSentMessage.message
    for field, value in message.ListFields():
        if field.name in WRAPPERS and value.HasField("message"):
            found: Message = value.message
            return found
    return None


def parse(raw: bytes) -> Message | None:
    """Decode a Message; None when the bytes are none."""
    try:
        return Message.FromString(raw)
    except DecodeError:
        return None


WRAPPERS: Final = frozenset(
    field.name
    for field in Message.DESCRIPTOR.fields
    if field.message_type is not None and field.message_type is Message.FutureProofMessage.DESCRIPTOR
)
"""Fields that hold another Message and say something about it (chapter 04 §9.2)."""
