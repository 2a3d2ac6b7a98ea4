"""What a stanza says about its message, against the tables of chapter 04 §1.3 to §1.6 and the examples of §9.6."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from waD.messaging.classify import Classified, classify
from waD.messaging.content import device_sent
from waD.proto.e2e_pb2 import Message
from waD.wire.jid import JID

OWN = {"remoteJid": "1@lid", "fromMe": True, "id": "AB"}
OTHER = {"remoteJid": "1@g.us", "fromMe": False, "id": "AB", "participant": "3@lid"}


def message(fields: dict[str, Any]) -> Message:
    if "pollCreationMessageV4" in fields:
        return ParseDict({"pollCreationMessageV4": {"message": fields["pollCreationMessageV4"]}}, Message())
    return ParseDict(fields, Message())


TABLE: list[tuple[dict[str, Any], str, str | None, str | None, bool]] = [
    ({"conversation": "hi"}, "text", None, None, False),
    ({"extendedTextMessage": {"text": "hi"}}, "text", None, None, False),
    ({"extendedTextMessage": {"text": "hi", "matchedText": "  "}}, "text", None, None, False),
    ({"extendedTextMessage": {"text": "x", "matchedText": "https://e.org"}}, "media", "url", None, False),
    ({"imageMessage": {"caption": "c"}}, "media", "image", None, False),
    ({"videoMessage": {"seconds": 3}}, "media", "video", None, False),
    ({"videoMessage": {"gifPlayback": True}}, "media", "gif", None, False),
    ({"ptvMessage": {"seconds": 3}}, "media", "ptv", None, False),
    ({"audioMessage": {"seconds": 3}}, "media", "audio", None, False),
    ({"audioMessage": {"ptt": True}}, "media", "ptt", None, False),
    ({"documentMessage": {"fileName": "a"}}, "media", "document", None, False),
    ({"documentWithCaptionMessage": {"message": {"documentMessage": {}}}}, "media", "document", None, False),
    ({"stickerMessage": {"width": 1}}, "media", "sticker", None, False),
    ({"stickerPackMessage": {"name": "x"}}, "media", "sticker_pack", None, False),
    ({"lottieStickerMessage": {"message": {"stickerMessage": {}}}}, "media", "sticker", None, False),
    ({"viewOnceMessageV2": {"message": {"imageMessage": {"viewOnce": True}}}}, "media", "image", None, False),
    ({"locationMessage": {"name": "x"}}, "media", "location", None, False),
    ({"locationMessage": {"isLive": True}}, "media", "livelocation", None, False),
    ({"liveLocationMessage": {"caption": "x"}}, "media", "livelocation", None, False),
    ({"contactMessage": {"displayName": "A"}}, "media", "vcard", None, False),
    ({"contactsArrayMessage": {"displayName": "A"}}, "media", "contact_array", None, False),
    ({"groupInviteMessage": {"groupName": "x"}}, "media", "url", None, False),
    ({"productMessage": {"body": "x"}}, "media", "product", None, False),
    ({"orderMessage": {"message": "x"}}, "media", "order", None, False),
    ({"listMessage": {"title": "x"}}, "media", "list", None, False),
    ({"listResponseMessage": {"title": "x"}}, "media", "list_response", None, False),
    ({"buttonsResponseMessage": {"selectedDisplayText": "x"}}, "media", "buttons_response", None, False),
    ({"interactiveResponseMessage": {}}, "media", "native_flow_response", None, False),
    ({"messageHistoryBundle": {}}, "media", "group_history", None, False),
    ({"reactionMessage": {"text": "👍"}}, "reaction", None, None, True),
    ({"reactionMessage": {"text": ""}}, "reaction", None, "7", True),
    ({"encReactionMessage": {}}, "reaction", None, None, True),
    ({"protocolMessage": {"type": "MESSAGE_EDIT", "key": OWN}}, "text", None, "1", True),
    ({"editedMessage": {"message": {"imageMessage": {}}}}, "text", None, "1", True),
    ({"protocolMessage": {"type": "REVOKE", "key": OWN}}, "text", None, "7", False),
    ({"protocolMessage": {"type": "REVOKE", "key": OTHER}}, "text", None, "8", False),
    ({"protocolMessage": {"type": "EPHEMERAL_SETTING"}}, "text", None, None, False),
    ({"protocolMessage": {"type": "EPHEMERAL_SYNC_RESPONSE"}}, "text", None, None, True),
    ({"protocolMessage": {"type": "REQUEST_WELCOME_MESSAGE"}}, "text", None, None, True),
    ({"protocolMessage": {"type": "GROUP_MEMBER_LABEL_CHANGE"}}, "text", None, None, True),
    ({"pinInChatMessage": {"type": "PIN_FOR_ALL", "key": OWN}}, "text", None, "2", True),
    ({"keepInChatMessage": {"keepType": "KEEP_FOR_ALL", "key": OWN}}, "text", None, None, True),
    ({"keepInChatMessage": {"keepType": "UNDO_KEEP_FOR_ALL", "key": OWN}}, "text", None, "7", True),
    ({"keepInChatMessage": {"keepType": "UNDO_KEEP_FOR_ALL", "key": OTHER}}, "text", None, None, True),
    ({"pollCreationMessage": {"name": "Q"}}, "poll", None, None, False),
    ({"pollCreationMessageV2": {"name": "Q"}}, "poll", None, None, False),
    ({"pollCreationMessageV3": {"name": "Q"}}, "poll", None, None, False),
    ({"pollCreationMessageV4": {"pollCreationMessage": {"name": "Q"}}}, "poll", None, None, False),
    ({"pollCreationMessageV5": {"name": "Q"}}, "poll", None, None, False),
    ({"pollUpdateMessage": {"vote": {}}}, "poll", None, None, True),
    ({"pollUpdateMessage": {}}, "poll", None, None, False),
    ({"pollResultSnapshotMessage": {"name": "Q"}}, "text", None, None, False),
    ({"eventMessage": {"name": "Party"}}, "event", None, None, False),
    ({"encEventResponseMessage": {}}, "event", None, None, True),
    ({"secretEncryptedMessage": {"secretEncType": "EVENT_EDIT"}}, "event", None, "1", True),
    ({"secretEncryptedMessage": {"secretEncType": "MESSAGE_EDIT"}}, "text", None, "1", True),
    ({"secretEncryptedMessage": {"secretEncType": "POLL_EDIT"}}, "poll", None, None, True),
    ({"secretEncryptedMessage": {"secretEncType": "POLL_ADD_OPTION"}}, "poll", None, None, True),
    ({"encCommentMessage": {}}, "text", None, None, False),
    ({"messageHistoryNotice": {}}, "text", None, None, True),
    ({"albumMessage": {"expectedImageCount": 2}}, "text", None, None, False),
    ({"requestPhoneNumberMessage": {}}, "text", None, None, False),
    ({"newsletterAdminInviteMessage": {}}, "text", None, None, False),
    ({"templateButtonReplyMessage": {}}, "text", None, None, False),
    ({}, "media", None, None, False),
]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "kind", "mediatype", "edit", "hide"),
    TABLE,
    ids=[f"{n}-{next(iter(row[0]), '')}" for n, row in enumerate(TABLE)],
)
def test_the_tables(
    fields: dict[str, Any], kind: str, mediatype: str | None, edit: str | None, hide: bool
) -> None:
    content = message(fields)
    wanted = Classified(kind, mediatype, edit, hide)  # type: ignore[arg-type]
    assert classify(content) == wanted
    # The copy for own devices, and a chat with disappearing messages, change nothing about it.
    assert classify(device_sent(content, JID.parse("1@lid"))) == wanted
    wrapped = Message()
    wrapped.ephemeralMessage.message.CopyFrom(content)
    if "lottieStickerMessage" not in fields:
        assert classify(wrapped) == wanted


@given(st.binary(max_size=300))
def test_every_message_has_a_type(raw: bytes) -> None:
    try:
        content = Message.FromString(raw)
    except DecodeError:
        return
    assert classify(content).type in ("text", "media", "poll", "reaction", "event")
