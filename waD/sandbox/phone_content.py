"""What a phone says to its own companions, and how it reads what it gets (chapter 05 §5)."""

from __future__ import annotations

import zlib
from typing import Any, Final

import msgspec

from waD.proto.e2e_pb2 import Message
from waD.proto.history_pb2 import (
    Conversation,
    HistorySync,
    HistorySyncMsg,
    PhoneNumberToLIDMapping,
    Pushname,
    WebMessageInfo,
)
from waD.sandbox.accounts import Account

ProtocolMessage = Message.ProtocolMessage
MAX_UNWRAP: Final = 5
SENT, DELIVERED, READ, PLAYED = 2, 3, 4, 5
_STATUS_NAMES: Final = ("ERROR", "PENDING", "SERVER_ACK", "DELIVERY_ACK", "READ", "PLAYED")


class ChatMessage(msgspec.Struct, rename="camel"):
    """One message in a phone's chats.

    Attributes:
        chat: number of the other side.
        sender: device that wrote it, `number:device`.
        t: unix seconds.
        status: of an own message: 2 sent, 3 delivered, 4 read, 5 played; 0 when refused.
        receipts: type of the best receipt of each device; `delivered` for the one without type.
        body: the Message, serialised.
        copies: how often it came in.
        position: order in the phone, growing.
    """

    id: str
    chat: str
    sender: str
    from_me: bool
    text: str | None
    kind: str
    t: int
    status: int = SENT
    receipts: dict[str, str] = {}
    body: bytes = b""
    copies: int = 1
    position: int = 0
    error: str | None = None

    def view(self) -> dict[str, Any]:
        """For people and tests: without the bytes."""
        fields = msgspec.to_builtins(self)
        del fields["body"], fields["position"]
        return dict(fields)


def text_message(text: str, quoted: ChatMessage | None = None, quoted_author: str = "") -> Message:
    """A text, as a reply if something is quoted."""
    if quoted is None:
        return Message(conversation=text)
    message = Message()
    message.extendedTextMessage.text = text
    context = message.extendedTextMessage.contextInfo
    context.stanzaId, context.participant = quoted.id, quoted_author
    context.quotedMessage.ParseFromString(quoted.body)
    return message


def text_of(message: Message) -> str | None:
    """The text of a message, if it is one."""
    if message.HasField("conversation"):
        return message.conversation
    if message.HasField("extendedTextMessage"):
        return message.extendedTextMessage.text
    return None


def kind_of(message: Message) -> str:
    """The name of the content field."""
    if text_of(message) is not None:
        return "text"
    for descriptor, _ in message.ListFields():
        if descriptor.name not in ("messageContextInfo", "senderKeyDistributionMessage"):
            return str(descriptor.name)
    return "empty"


def history_notification(
    history: HistorySync, chunk: int, progress: int | None, session_id: str | None = None
) -> Message:
    """Wrap a piece of history inline (chapter 05 §1.2, §3.2)."""
    message = Message()
    message.protocolMessage.type = ProtocolMessage.HISTORY_SYNC_NOTIFICATION
    notification = message.protocolMessage.historySyncNotification
    notification.syncType = Message.HistorySyncType.ValueType(history.syncType)
    notification.chunkOrder = chunk
    if progress is not None:
        notification.progress = progress
    if session_id is not None:
        notification.peerDataRequestSessionId = session_id
    notification.initialHistBootstrapInlinePayload = zlib.compress(history.SerializeToString())
    return message


def start_up_history(
    account: Account, contacts: list[Account], chats: dict[Account, list[ChatMessage]]
) -> list[Message]:
    """Bootstrap with mappings and the newest messages, push names, and an end of RECENT."""
    bootstrap = HistorySync(syncType=HistorySync.INITIAL_BOOTSTRAP, chunkOrder=1, progress=100)
    bootstrap.phoneNumberToLidMappings.extend(
        PhoneNumberToLIDMapping(pnJid=str(one.pn_jid), lidJid=str(one.lid_jid))
        for one in (account, *contacts)
    )
    bootstrap.conversations.extend(conversation(chat, messages) for chat, messages in chats.items())
    names = HistorySync(syncType=HistorySync.PUSH_NAME, chunkOrder=1, progress=100)
    names.pushnames.extend(
        Pushname(id=str(one.lid_jid), pushname=one.record.name)
        for one in (account, *contacts)
        if one.record.name
    )
    recent = HistorySync(syncType=HistorySync.RECENT, chunkOrder=1, progress=100)
    return [history_notification(one, 1, 100) for one in (bootstrap, names, recent)]


def conversation(chat: Account, messages: list[ChatMessage]) -> Conversation:
    """One chat of the history, newest message first."""
    result = Conversation(
        id=str(chat.lid_jid),
        pnJid=str(chat.pn_jid),
        lidJid=str(chat.lid_jid),
        name=chat.record.name or chat.number,
        endOfHistoryTransfer=True,
        endOfHistoryTransferType=Conversation.COMPLETE_AND_NO_MORE_MESSAGE_REMAIN_ON_PRIMARY,
    )
    newest = sorted(messages, key=lambda one: one.t, reverse=True)
    result.messages.extend(
        HistorySyncMsg(message=web_message(chat, one), msgOrderId=len(newest) - index)
        for index, one in enumerate(newest)
    )
    if newest:
        result.conversationTimestamp = newest[0].t
    return result


def web_message(chat: Account, message: ChatMessage) -> WebMessageInfo:
    """A stored message the way history and placeholder answers carry it."""
    info = WebMessageInfo(messageTimestamp=message.t)
    info.key.remoteJid, info.key.fromMe, info.key.id = str(chat.lid_jid), message.from_me, message.id
    info.message.ParseFromString(message.body)
    if message.from_me:
        info.status = WebMessageInfo.Status.Value(_STATUS_NAMES[message.status])
    else:
        info.pushName = chat.record.name
    return info
