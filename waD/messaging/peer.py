"""Asking the own phone for a message that nobody else makes readable (chapter 04 §7.5, §8.3)."""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError

from waD.proto.e2e_pb2 import Message
from waD.proto.history_pb2 import WebMessageInfo
from waD.wire.jid import JID

MAX_RESULTS: Final = 64
"""Messages read from one answer; a request of ours names one."""
MAX_AGE_MS: Final = 14 * 24 * 3600 * 1000
"""Older messages are not asked for."""

_Protocol = Message.ProtocolMessage


def resend_request(chat: JID, message_id: str, *, from_me: bool, participant: JID | None = None) -> bytes:
    """The Message that asks for another one by its key.

    Args:
        chat: as the stanza of the missing message spelt it, bare.
        message_id: its id.
        from_me: whether the own account wrote it.
        participant: the author in a group or list, bare; left out for own messages.
    """
    message = Message()
    message.protocolMessage.type = _Protocol.PEER_DATA_OPERATION_REQUEST_MESSAGE
    request = message.protocolMessage.peerDataOperationRequestMessage
    request.peerDataOperationRequestType = Message.PLACEHOLDER_MESSAGE_RESEND
    key = request.placeholderMessageResendRequest.add().messageKey
    key.remoteJid, key.fromMe, key.id = str(chat), from_me, message_id
    if participant is not None and not from_me:
        key.participant = str(participant)
    return message.SerializeToString()


def resent_messages(response: Message.PeerDataOperationRequestResponseMessage) -> list[WebMessageInfo]:
    """What the phone found; anything else it may have answered is left out."""
    if response.peerDataOperationRequestType != Message.PLACEHOLDER_MESSAGE_RESEND:
        return []
    found: list[WebMessageInfo] = []
    for result in response.peerDataOperationResult[:MAX_RESULTS]:
        raw = result.placeholderMessageResendResponse.webMessageInfoBytes
        if not raw:
            continue
        try:
            found.append(WebMessageInfo.FromString(raw))
        except DecodeError:
            continue
    return found
