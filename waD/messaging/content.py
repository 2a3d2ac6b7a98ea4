"""What is said in a message of ours: ids, texts, quotes, mentions, copies for own devices (chapter 04 §1.1, §9)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from google.protobuf.message import DecodeError

from waD.messaging.wrappers import unwrap
from waD.proto.e2e_pb2 import Message
from waD.wire.jid import JID

SECRET_LENGTH: Final = 32
ID_PREFIX: Final = "3EB0"
ID_RANDOM_LENGTH: Final = 16

_ID_HASHED: Final = 9
_ID_OWNER: Final = 20
"""Bytes of the buffer that hold the own address."""
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
    """Make an id: `3EB0` and 18 hex digits, hashed from the buffer that other companions use (chapter 04 §1.1).

    Args:
        now_s: Unix seconds.
        own_user: user part of the own address; empty before there is one.
        random: `ID_RANDOM_LENGTH` fresh bytes.
    """
    owner = f"{own_user}@c.us".encode() if own_user else b""
    hashed = hashlib.sha256(now_s.to_bytes(8, "big") + owner.ljust(_ID_OWNER, b"\0")[:_ID_OWNER] + random)
    return ID_PREFIX + hashed.digest()[:_ID_HASHED].hex().upper()


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
    if mentions:
        context.mentionedJid.extend(str(jid) for jid in mentions)
        context.nonJidMentions = 0  # proto2: a zero that was set is on the wire, as other companions send it
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
    content.CopyFrom(unwrap(message).message)
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


def parse(raw: bytes) -> Message | None:
    """Decode a Message; None when the bytes are none."""
    try:
        return Message.FromString(raw)
    except DecodeError:
        return None
