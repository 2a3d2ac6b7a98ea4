"""What a phone answers when its own companion asks for something (chapter 05 §5.4)."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Final

from waD.proto.e2e_pb2 import Message
from waD.proto.history_pb2 import HistorySync
from waD.sandbox.phone_content import conversation, history_notification, web_message

if TYPE_CHECKING:
    from waD.sandbox.accounts import Device
    from waD.sandbox.phone import Phone

ProtocolMessage = Message.ProtocolMessage
MAX_HISTORY: Final = 200


def answer_request(phone: Phone, companion: Device, request_id: str, message: Message) -> None:
    """Answer a peer message, or only remember it when it asks for nothing a phone knows."""
    protocol = message.protocolMessage
    phone.requests.append(
        {"device": companion.key, "id": request_id, "type": ProtocolMessage.Type.Name(protocol.type)}
    )
    if lost := list(protocol.appStateFatalExceptionNotification.collectionNames):
        phone.requests[-1]["collections"] = lost
    if protocol.type == ProtocolMessage.APP_STATE_SYNC_KEY_REQUEST:
        asked = [one.keyId for one in protocol.appStateSyncKeyRequest.keyIds]
        phone.app_state.share(companion, asked)
    elif protocol.type == ProtocolMessage.APP_STATE_SYNC_KEY_SHARE:
        phone.app_state.accept(protocol.appStateSyncKeyShare)
    elif protocol.type == ProtocolMessage.PEER_DATA_OPERATION_REQUEST_MESSAGE:
        _answer_operation(phone, companion, request_id, protocol.peerDataOperationRequestMessage)


def _answer_operation(
    phone: Phone, companion: Device, request_id: str, request: Message.PeerDataOperationRequestMessage
) -> None:
    kind = request.peerDataOperationRequestType
    if kind == Message.HISTORY_SYNC_ON_DEMAND:
        _send_older(phone, companion, request_id, request.historySyncOnDemandRequest)
        return
    answer = Message()
    answer.protocolMessage.type = ProtocolMessage.PEER_DATA_OPERATION_REQUEST_RESPONSE_MESSAGE
    response = answer.protocolMessage.peerDataOperationRequestResponseMessage
    response.peerDataOperationRequestType = kind
    response.stanzaId = request_id
    if kind == Message.COMPANION_SYNCD_SNAPSHOT_FATAL_RECOVERY:
        collection = phone.app_state.recovery(request.syncdCollectionFatalRecoveryRequest.collectionName)
        if collection is not None:
            recovered = response.peerDataOperationResult.add().syncdSnapshotFatalRecoveryResponse
            recovered.collectionSnapshot = gzip.compress(collection.SerializeToString(), mtime=0)
            recovered.isCompressed = True
    elif kind == Message.PLACEHOLDER_MESSAGE_RESEND:
        for wanted in request.placeholderMessageResendRequest:
            result = response.peerDataOperationResult.add()
            found = phone.message(wanted.messageKey.id)
            chat = phone.directory.by_number(found.chat) if found else None
            if found is not None and chat is not None:
                info = web_message(chat, found).SerializeToString()
                result.placeholderMessageResendResponse.webMessageInfoBytes = info
    phone.send_peer(companion, answer)


def _send_older(
    phone: Phone,
    companion: Device,
    request_id: str,
    request: Message.PeerDataOperationRequestMessage.HistorySyncOnDemandRequest,
) -> None:
    history = HistorySync(syncType=HistorySync.ON_DEMAND, chunkOrder=1, progress=100)
    anchor = phone.message(request.oldestMsgId)
    chat = phone.directory.by_number(anchor.chat) if anchor else None
    if anchor is not None and chat is not None:
        messages = [one for one in phone.messages(chat) if one.kind != "peer"]
        older = messages[: messages.index(anchor)] if anchor in messages else []
        count = min(max(request.onDemandMsgCount, 0), MAX_HISTORY)
        history.conversations.append(conversation(chat, older[-count:] if count else []))
    phone.send_peer(companion, history_notification(history, 1, 100, request_id))
