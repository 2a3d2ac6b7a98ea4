"""What a stanza says about the message inside it: type, mediatype, edit, decrypt-fail (chapter 04 §1.3 to §1.6).

The server routes and drops by these attributes, so the four tables are used together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from waD.messaging.wrappers import EDITED, unwrap
from waD.proto.e2e_pb2 import Message

StanzaType: TypeAlias = Literal["text", "media", "poll", "reaction", "event"]

EDIT: Final = "1"
PIN: Final = "2"
REVOKE: Final = "7"
REVOKE_BY_ADMIN: Final = "8"

_Protocol = Message.ProtocolMessage
_Secret = Message.SecretEncryptedMessage

_POLLS: Final = (
    "pollCreationMessage",
    "pollCreationMessageV2",
    "pollCreationMessageV3",
    "pollCreationMessageV5",
    "pollCreationMessageV6",
    "pollUpdateMessage",
)
_TEXTS: Final = (
    "conversation",
    "protocolMessage",
    "keepInChatMessage",
    "editedMessage",
    "pinInChatMessage",
    "interactiveMessage",
    "templateButtonReplyMessage",
    "requestPhoneNumberMessage",
    "encCommentMessage",
    "newsletterAdminInviteMessage",
    "newsletterFollowerInviteMessageV2",
    "messageHistoryNotice",
    "albumMessage",
    "requestPaymentMessage",
    "sendPaymentMessage",
    "declinePaymentRequestMessage",
    "cancelPaymentRequestMessage",
    "paymentInviteMessage",
    "pollResultSnapshotMessage",
    "pollResultSnapshotMessageV3",
)
_TYPES: Final[tuple[tuple[StanzaType, tuple[str, ...]], ...]] = (
    ("reaction", ("reactionMessage", "encReactionMessage")),
    ("event", ("eventMessage", "encEventResponseMessage")),
    ("poll", _POLLS),
    ("text", _TEXTS),
)
_SECRET_TYPES: Final[dict[int, StanzaType]] = {
    _Secret.EVENT_EDIT: "event",
    _Secret.MESSAGE_EDIT: "text",
    _Secret.POLL_EDIT: "poll",
    _Secret.POLL_ADD_OPTION: "poll",
}
_MEDIA: Final = {
    "stickerMessage": "sticker",
    "stickerPackMessage": "sticker_pack",
    "imageMessage": "image",
    "ptvMessage": "ptv",
    "documentMessage": "document",
    "liveLocationMessage": "livelocation",
    "contactMessage": "vcard",
    "contactsArrayMessage": "contact_array",
    "groupInviteMessage": "url",
    "listMessage": "list",
    "listResponseMessage": "list_response",
    "buttonsResponseMessage": "buttons_response",
    "orderMessage": "order",
    "productMessage": "product",
    "interactiveResponseMessage": "native_flow_response",
    "messageHistoryBundle": "group_history",
}
_HIDDEN: Final = (
    "reactionMessage",
    "encReactionMessage",
    "pinInChatMessage",
    "editedMessage",
    "keepInChatMessage",
    "encEventResponseMessage",
    "messageHistoryNotice",
)
_HIDDEN_SECRETS: Final = frozenset({_Secret.EVENT_EDIT, _Secret.POLL_EDIT, _Secret.POLL_ADD_OPTION})
_HIDDEN_PROTOCOL: Final = frozenset(
    {
        _Protocol.EPHEMERAL_SYNC_RESPONSE,
        _Protocol.REQUEST_WELCOME_MESSAGE,
        _Protocol.GROUP_MEMBER_LABEL_CHANGE,
    }
)


@dataclass(frozen=True, slots=True)
class Classified:
    """The attributes of a stanza that follow from its content.

    Attributes:
        type: of `<message>`.
        mediatype: of `<enc>`, or None.
        edit: of `<message>`, or None.
        hide: whether `<enc>` carries `decrypt-fail="hide"`.
    """

    type: StanzaType
    mediatype: str | None
    edit: str | None
    hide: bool


def classify(message: Message) -> Classified:
    """Find what the stanza of a message says about it."""
    content = _routed(message)
    edit = edit_of(content)
    return Classified(type_of(content), media_of(message), edit, _hidden(content, edit))


def type_of(message: Message) -> StanzaType:
    """The `type` of the stanza (chapter 04 §1.3)."""
    content = _routed(message)
    if content.HasField("secretEncryptedMessage"):
        secret = _SECRET_TYPES.get(content.secretEncryptedMessage.secretEncType)
        if secret is not None:
            return secret
    present = _present(content)
    for name, fields in _TYPES:
        if not present.isdisjoint(fields):
            return name
    if content.HasField("extendedTextMessage") and not content.extendedTextMessage.matchedText.strip():
        return "text"
    return "media"


def media_of(message: Message) -> str | None:
    """The `mediatype` of the `<enc>` (chapter 04 §1.4); None when the attribute is left out."""
    if message.HasField("lottieStickerMessage"):
        return "sticker"
    content = _routed(message)
    for field, value in content.ListFields():
        if field.name in _MEDIA:
            return _MEDIA[field.name]
        match field.name:
            case "videoMessage":
                return "gif" if value.gifPlayback else "video"
            case "audioMessage":
                return "ptt" if value.ptt else "audio"
            case "locationMessage":
                return "livelocation" if value.isLive else "location"
            case "extendedTextMessage" if value.matchedText.strip():
                return "url"
    return None


def edit_of(message: Message) -> str | None:
    """The `edit` of the stanza (chapter 04 §1.5); channels are not served here."""
    content = _routed(message)
    if content.HasField("editedMessage"):
        return EDIT
    if content.HasField("pinInChatMessage"):
        return PIN
    if content.HasField("reactionMessage"):
        return None if content.reactionMessage.text else REVOKE
    if content.HasField("secretEncryptedMessage"):
        kind = content.secretEncryptedMessage.secretEncType
        return EDIT if kind in (_Secret.EVENT_EDIT, _Secret.MESSAGE_EDIT) else None
    if content.HasField("keepInChatMessage"):
        keep = content.keepInChatMessage
        undone = keep.keepType == 2 and keep.key.fromMe
        return REVOKE if undone else None
    return _protocol_edit(content.protocolMessage) if content.HasField("protocolMessage") else None


def _protocol_edit(protocol: Message.ProtocolMessage) -> str | None:
    if protocol.type == _Protocol.MESSAGE_EDIT:
        return EDIT
    if protocol.type == _Protocol.REVOKE and protocol.HasField("type"):
        return REVOKE if protocol.key.fromMe else REVOKE_BY_ADMIN
    return None


def _hidden(content: Message, edit: str | None) -> bool:
    """Whether a receiver that cannot read it shows nothing; the server drops revokes that say so (chapter 04 §1.6)."""
    if edit not in (None, REVOKE, REVOKE_BY_ADMIN) or not _present(content).isdisjoint(_HIDDEN):
        return True
    if content.HasField("pollUpdateMessage"):
        return content.pollUpdateMessage.HasField("vote")
    if content.HasField("secretEncryptedMessage"):
        return content.secretEncryptedMessage.secretEncType in _HIDDEN_SECRETS
    if content.HasField("protocolMessage"):
        protocol = content.protocolMessage
        return protocol.type in _HIDDEN_PROTOCOL or protocol.HasField("editedMessage")
    return False


def _present(content: Message) -> frozenset[str]:
    return frozenset(field.name for field, _ in content.ListFields())


def _routed(message: Message) -> Message:
    """The content that decides: inside every wrapper but `editedMessage`, which is a content of its own."""
    content = message.deviceSentMessage.message if message.HasField("deviceSentMessage") else message
    return unwrap(content, but=EDITED).message
