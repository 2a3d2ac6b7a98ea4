"""What a received message says: its kind, its text, the facts that a reader wants (chapter 04 §9).

Pure. Nothing is lost by a kind that is not described in detail: the row keeps the protobuf as it came.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

from google.protobuf import unknown_fields
from msgspec import Struct

from waD.messaging.message_keys import Key, parse_jid, read_key
from waD.messaging.wrappers import WRAPPERS, unwrap
from waD.proto.e2e_pb2 import ContextInfo, Message, MessageKey

MAX_MENTIONS: Final = 1024
MAX_OPTIONS: Final = 64
MAX_CONTACTS: Final = 256
UNSUPPORTED: Final = "unsupported"
FORWARDED: Final = "forwardingScore"
"""What is in the content of a forwarded message, and of no other."""

NO_CONTENT: Final = frozenset(
    {
        "messageContextInfo",
        "senderKeyDistributionMessage",
        "fastRatchetKeySenderKeyDistributionMessage",
    }
)
"""Fields that accompany a content and are none."""

_Describe: TypeAlias = Callable[[Any], "Description"]


class Description(Struct):
    """What a message says.

    Attributes:
        kind: stable name in snake case.
        body: the text that people read: text, caption, emoji, question, name; None when there is none.
        content: further facts for events and history, camelCase.
        target: the message that this one is about, in the sender's view.
    """

    kind: str
    body: str | None = None
    content: dict[str, Any] = {}
    target: Key | None = None


def text_of(value: str | bytes) -> str:
    """A string field as text: old fields may hold what is no UTF-8, and a text holds no NUL."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    return text.replace("\x00", "\ufffd") if "\x00" in text else text


def describe(message: Message) -> Description | None:
    """Describe a message; None when it has no content, such as one that only distributes a key."""
    if message.HasField("conversation") and len(message.ListFields()) <= 2:
        return Description("text", text_of(message.conversation))
    opened = unwrap(message)
    found = _content(opened.message)
    if found is None:
        return None
    name, value = found
    description = _described(name, value)
    _add_context(description, value)
    _add_wrappers(description, opened.wrappers)
    return description


def _content(message: Message) -> tuple[str, Any] | None:
    for field, value in message.ListFields():
        if field.name not in NO_CONTENT:
            return (UNSUPPORTED if field.name in WRAPPERS else field.name), value
    return (UNSUPPORTED, None) if len(unknown_fields.UnknownFieldSet(message)) else None


def _described(name: str, value: Any) -> Description:
    special = _SPECIAL.get(name)
    if special is not None:
        return special(value)
    kind, body = _KINDS.get(name) or (_snake(name), "")
    content = _facts(value, _FACTS.get(name, ()))
    return Description(kind, _field_text(value, body), content, _target(value))


def _snake(name: str) -> str:
    """`stickerPackMessage` becomes `sticker_pack`."""
    if name == UNSUPPORTED:
        return name
    stem = re.sub(r"Message(V[0-9])?$", r"\1", name)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", stem).lower()


def _field_text(value: Any, name: str) -> str | None:
    return text_of(getattr(value, name)) or None if name and value.HasField(name) else None


def _facts(value: Any, names: Iterable[str]) -> dict[str, Any]:
    """Scalar fields that are set, under their own names."""
    found: dict[str, Any] = {}
    for name in names:
        if value.HasField(name):
            fact = getattr(value, name)
            found[name] = text_of(fact) if isinstance(fact, str | bytes) else fact
    return found


def _target(value: Any) -> Key | None:
    for name in ("key", "targetMessageKey", "pollCreationMessageKey", "eventCreationMessageKey"):
        descriptor = getattr(value, "DESCRIPTOR", None)
        if descriptor is not None and name in descriptor.fields_by_name and value.HasField(name):
            key: MessageKey = getattr(value, name)
            return read_key(key)
    return None


def _text(value: str | bytes) -> Description:
    return Description("text", text_of(value))


def _extended_text(value: Message.ExtendedTextMessage) -> Description:
    content: dict[str, Any] = {}
    if value.matchedText:
        link = {"url": text_of(value.matchedText)} | _facts(value, ("title", "description"))
        content["link"] = link
    return Description("text", text_of(value.text), content)


def _video(value: Message.VideoMessage) -> Description:
    kind = "gif" if value.gifPlayback else "video"
    return Description(kind, _field_text(value, "caption"), _facts(value, _MEDIA_FACTS))


def _audio(value: Message.AudioMessage) -> Description:
    facts = _facts(value, ("mimetype", "fileLength", "seconds"))
    return Description("voice" if value.ptt else "audio", None, facts)


def _reaction(value: Message.ReactionMessage) -> Description:
    body = text_of(value.text)
    content: dict[str, Any] = {"removed": True} if not body else {}
    if value.senderTimestampMs:
        content["reactedAt"] = value.senderTimestampMs
    return Description("reaction", body or None, content, read_key(value.key))


def _poll(value: Message.PollCreationMessage) -> Description:
    options = [text_of(option.optionName) for option in value.options[:MAX_OPTIONS]]
    content = {"options": options, "selectable": value.selectableOptionsCount}
    return Description("poll", text_of(value.name), content)


def _contacts(value: Message.ContactsArrayMessage) -> Description:
    cards = [_card(card) for card in value.contacts[:MAX_CONTACTS]]
    return Description("contacts", _field_text(value, "displayName"), {"contacts": cards})


def _contact(value: Message.ContactMessage) -> Description:
    return Description("contact", _field_text(value, "displayName"), {"contacts": [_card(value)]})


def _card(value: Message.ContactMessage) -> dict[str, str]:
    return {"name": text_of(value.displayName), "vcard": text_of(value.vcard)}


def _pin(value: Message.PinInChatMessage) -> Description:
    return Description("pin", None, {"pinned": value.type != value.UNPIN_FOR_ALL}, read_key(value.key))


def _event_invite(value: Message.EventMessage) -> Description:
    facts = _facts(value, ("description", "startTime", "endTime", "joinLink", "isCanceled"))
    return Description("event", _field_text(value, "name"), facts)


_MEDIA_FACTS: Final = ("mimetype", "fileLength", "seconds", "width", "height", "viewOnce")

_SPECIAL: Final[dict[str, _Describe]] = {
    "conversation": _text,
    "extendedTextMessage": _extended_text,
    "videoMessage": _video,
    "audioMessage": _audio,
    "reactionMessage": _reaction,
    "pollCreationMessage": _poll,
    "pollCreationMessageV2": _poll,
    "pollCreationMessageV3": _poll,
    "pollCreationMessageV5": _poll,
    "pollCreationMessageV6": _poll,
    "contactMessage": _contact,
    "contactsArrayMessage": _contacts,
    "pinInChatMessage": _pin,
    "eventMessage": _event_invite,
}

_KINDS: Final = {
    "imageMessage": ("image", "caption"),
    "ptvMessage": ("video_note", "caption"),
    "documentMessage": ("document", "caption"),
    "stickerMessage": ("sticker", ""),
    "stickerPackMessage": ("sticker_pack", "caption"),
    "locationMessage": ("location", "name"),
    "liveLocationMessage": ("live_location", "caption"),
    "pollUpdateMessage": ("poll_vote", ""),
    "pollResultSnapshotMessage": ("poll_result", "name"),
    "pollResultSnapshotMessageV3": ("poll_result", "name"),
    "encEventResponseMessage": ("event_response", ""),
    "encReactionMessage": ("encrypted_reaction", ""),
    "encCommentMessage": ("encrypted_comment", ""),
    "secretEncryptedMessage": ("encrypted_change", ""),
    "keepInChatMessage": ("keep", ""),
    "groupInviteMessage": ("group_invite", "caption"),
    "newsletterAdminInviteMessage": ("channel_admin_invite", "caption"),
    "newsletterFollowerInviteMessageV2": ("channel_invite", "caption"),
    "productMessage": ("product", "body"),
    "orderMessage": ("order", "message"),
    "buttonsMessage": ("buttons", "contentText"),
    "buttonsResponseMessage": ("buttons_reply", "selectedDisplayText"),
    "listMessage": ("list", "description"),
    "listResponseMessage": ("list_reply", "title"),
    "templateButtonReplyMessage": ("template_reply", "selectedDisplayText"),
    "interactiveResponseMessage": ("interactive_reply", ""),
    "callLogMesssage": ("call_log", ""),
    "requestPhoneNumberMessage": ("phone_number_request", ""),
}
"""Kind and the field that holds the text; kinds that are missing here are named after their field."""

_FACTS: Final = {
    "imageMessage": _MEDIA_FACTS[:2] + _MEDIA_FACTS[3:],
    "ptvMessage": _MEDIA_FACTS,
    "documentMessage": ("mimetype", "fileLength", "fileName", "title", "pageCount"),
    "stickerMessage": ("mimetype", "fileLength", "isAnimated"),
    "locationMessage": ("degreesLatitude", "degreesLongitude", "address", "isLive"),
    "liveLocationMessage": ("degreesLatitude", "degreesLongitude"),
    "groupInviteMessage": ("groupJid", "groupName", "inviteCode", "inviteExpiration"),
    "buttonsResponseMessage": ("selectedButtonId",),
    "templateButtonReplyMessage": ("selectedId",),
    "keepInChatMessage": ("keepType",),
}


def _add_context(description: Description, value: Any) -> None:
    """Quotes, mentions, forwarding, lifetime (chapter 04 §9.1)."""
    descriptor = getattr(value, "DESCRIPTOR", None)
    if (
        descriptor is None
        or "contextInfo" not in descriptor.fields_by_name
        or not value.HasField("contextInfo")
    ):
        return
    context: ContextInfo = value.contextInfo
    more: dict[str, Any] = {}
    if context.stanzaId:
        more["quoted"] = _quoted(context)
    mentions = [str(jid) for text in context.mentionedJid[:MAX_MENTIONS] if (jid := parse_jid(text))]
    if mentions:
        more["mentions"] = mentions
    if context.isForwarded:
        more[FORWARDED] = context.forwardingScore
    if context.expiration:
        more["expiresAfter"] = context.expiration
    if more:
        description.content = description.content | more


def _quoted(context: ContextInfo) -> dict[str, Any]:
    quoted: dict[str, Any] = {"messageId": text_of(context.stanzaId)}
    for name, jid in (("sender", parse_jid(context.participant)), ("chat", parse_jid(context.remoteJid))):
        if jid is not None:
            quoted[name] = str(jid)
    found = _content(unwrap(context.quotedMessage).message)
    if found is not None:
        inner = _described(*found)
        quoted["kind"] = inner.kind
        if inner.body is not None:
            quoted["body"] = inner.body
    return quoted


_FLAGS: Final = {
    "viewOnceMessage": "viewOnce",
    "viewOnceMessageV2": "viewOnce",
    "viewOnceMessageV2Extension": "viewOnce",
    "ephemeralMessage": "ephemeral",
    "editedMessage": "edited",
    "spoilerMessage": "spoiler",
    "groupStatusMessage": "groupStatus",
    "groupStatusMessageV2": "groupStatus",
}


def _add_wrappers(description: Description, wrappers: tuple[str, ...]) -> None:
    flags = {_FLAGS[name]: True for name in wrappers if name in _FLAGS}
    if flags:
        description.content = description.content | flags
