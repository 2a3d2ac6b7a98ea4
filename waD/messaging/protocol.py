"""Messages about messages and about the account: `protocolMessage` (chapter 04 §8.2)."""

from __future__ import annotations

import logging
from typing import Final

from msgspec import structs

from waD.messaging import kinds, peer_out
from waD.messaging.appstate.keys import AppStateKeys
from waD.messaging.asking import Asking
from waD.messaging.changing import Changing
from waD.messaging.context import Context
from waD.messaging.delivery import history_receipt
from waD.messaging.incoming_content import Description, describe, text_of
from waD.messaging.message_keys import Key, parse_jid, read_key
from waD.messaging.migration import MappingError, parse_mappings
from waD.messaging.peer import resent_messages
from waD.messaging.reaction import Reaction, SyncAppState
from waD.messaging.recording import Place, Recorder
from waD.messaging.stanza import Incoming
from waD.proto.e2e_pb2 import Message
from waD.proto.history_pb2 import WebMessageInfo
from waD.store.model import UNDECRYPTABLE, MessageRow
from waD.store.unit import Unit
from waD.wire.jid import JID, LID, PN

MAX_LABEL: Final = 30
"""Characters of a member's label."""

_Type = Message.ProtocolMessage

SELF_ONLY: Final = frozenset(
    {
        _Type.HISTORY_SYNC_NOTIFICATION,
        _Type.APP_STATE_SYNC_KEY_SHARE,
        _Type.APP_STATE_SYNC_KEY_REQUEST,
        _Type.MSG_FANOUT_BACKFILL_REQUEST,
        _Type.INITIAL_SECURITY_NOTIFICATION_SETTING_SYNC,
        _Type.APP_STATE_FATAL_EXCEPTION_NOTIFICATION,
        _Type.PEER_DATA_OPERATION_REQUEST_MESSAGE,
        _Type.PEER_DATA_OPERATION_REQUEST_RESPONSE_MESSAGE,
        _Type.MEDIA_NOTIFY_MESSAGE,
        _Type.LID_MIGRATION_MAPPING_SYNC,
    }
)
"""Valid from the own account only."""
PHONE_ONLY: Final = frozenset(
    {
        _Type.HISTORY_SYNC_NOTIFICATION,
        _Type.INITIAL_SECURITY_NOTIFICATION_SETTING_SYNC,
        _Type.PEER_DATA_OPERATION_REQUEST_RESPONSE_MESSAGE,
        _Type.LID_MIGRATION_MAPPING_SYNC,
    }
)
"""Of these, valid from the phone only."""

_log = logging.getLogger(__name__)


class Protocol:
    """Handles the protocol messages of one session."""

    def __init__(self, context: Context, recorder: Recorder, changing: Changing, asking: Asking) -> None:
        self._context = context
        self._recorder = recorder
        self._changing = changing
        self._asking = asking
        self._keys = AppStateKeys(context.state, context.account)

    async def handle(
        self,
        unit: Unit,
        incoming: Incoming,
        place: Place,
        message: Message.ProtocolMessage,
        reaction: Reaction,
    ) -> Description | None:
        """Do what a protocol message orders, if its sender may; returns what belongs into the history."""
        kind = message.type
        if kind in SELF_ONLY and not _trusted(incoming, kind):
            _log.warning("a protocol message of type %d from somebody who may not send it was dropped", kind)
            return None
        match kind:
            case _Type.REVOKE if message.HasField("type"):  # an unknown number reads as the first one
                return await self._revoke(unit, incoming, place, message)
            case _Type.MESSAGE_EDIT:
                await self._changing.edit(unit, incoming, place, message)
            case _Type.HISTORY_SYNC_NOTIFICATION:
                reaction.add(history_receipt(incoming))
            case _Type.APP_STATE_SYNC_KEY_SHARE:
                if await self._keys.take(unit, message.appStateSyncKeyShare, incoming.sender):
                    reaction.work.append(SyncAppState((), keys=True))
            case _Type.LID_MIGRATION_MAPPING_SYNC:
                await self._take_mappings(unit, message.lidMigrationMappingSyncMessage.encodedMappingPayload)
            case _Type.PEER_DATA_OPERATION_REQUEST_RESPONSE_MESSAGE:
                await self._take_answer(unit, incoming, message.peerDataOperationRequestResponseMessage)
            case _:
                return _setting(incoming, message)
        return None

    async def _revoke(
        self, unit: Unit, incoming: Incoming, place: Place, message: Message.ProtocolMessage
    ) -> Description | None:
        order = await self._changing.revoke(unit, incoming, place, message)
        if order is None or await self._changing.revoke_as_admin(unit, incoming, place, order):
            return None
        return order

    async def _take_mappings(self, unit: Unit, payload: bytes) -> None:
        """From now on the account's chats are addressed by LID (§8.4)."""
        try:
            mappings = parse_mappings(payload)
        except MappingError as error:
            _log.warning("the phone's list of LIDs was not taken over: %s", error)
            return
        own = (self._context.account.own_pn, self._context.account.own_lid)
        for number, lid in mappings:
            pair = (JID(str(number), PN), JID(str(lid), LID))
            if pair[0] not in own and pair[1] not in own:
                await self._context.addresses.learn(unit, *pair, "directed")
        self._context.account.change_in(unit, lambda creds: creds.change(lid_migrated=True))

    async def _take_answer(
        self, unit: Unit, incoming: Incoming, answer: Message.PeerDataOperationRequestResponseMessage
    ) -> None:
        """The phone's copies of messages that could not be read; unsolicited ones are dropped (§7.5)."""
        request_id = text_of(answer.stanzaId)
        request = await peer_out.request_of(self._context, request_id, unit)
        if request is None:
            _log.debug("the phone answered a question that is not open")
            return
        wanted = Key(parse_jid(request.chat), request.message_id, False, parse_jid(request.sender))
        for info in resent_messages(answer):
            if await self._take_copy(unit, incoming, info, wanted):
                unit.delete(kinds.PEER_REQUEST, request_id)

    async def _take_copy(self, unit: Unit, incoming: Incoming, info: WebMessageInfo, wanted: Key) -> bool:
        """Resolve a placeholder with the phone's copy; says whether it was the message that was asked for."""
        key = read_key(info.key)
        if key is None or key.chat is None:
            return False
        chat, sender = await self._place_of(unit, key)
        if sender is None or not await self._is_wanted(unit, wanted, chat, sender, key.id):
            return False
        place = Place(chat, sender, key.id, key.chat)
        known = await self._recorder.known(unit, place)
        if known is not None and known.kind == UNDECRYPTABLE:
            await self._resolve(unit, incoming, place, known, info.message)
        return True

    async def _resolve(
        self, unit: Unit, incoming: Incoming, place: Place, known: MessageRow, content: Message
    ) -> None:
        description = describe(content)
        if description is None:
            return
        original = structs.replace(
            incoming,
            from_me=known.from_me,
            sender=parse_jid(known.wire_sender) or place.sender,
            time_s=known.ts // 1000,
            peer=False,
            sender_alt=None,
            push_name="",
        )
        await self._recorder.record(unit, original, place, description, content.SerializeToString(), known)
        await self._asking.resolved(unit, place)

    async def _is_wanted(self, unit: Unit, wanted: Key, chat: JID, sender: JID, message_id: str) -> bool:
        """Whether a copy is of the message that was asked for; its addresses may be known better by now."""
        if wanted.chat is None or wanted.participant is None or wanted.id != message_id:
            return False
        addresses = self._context.addresses
        return (
            await addresses.canonical(wanted.chat, unit) == chat
            and await addresses.canonical(wanted.participant, unit) == sender
        )

    async def _place_of(self, unit: Unit, key: Key) -> tuple[JID, JID | None]:
        """Canonical chat and author of a key that the own phone wrote."""
        assert key.chat is not None
        addresses = self._context.addresses
        chat = await addresses.canonical(key.chat, unit)
        if key.from_me:
            return chat, await addresses.canonical(self._context.account.own, unit)
        author = key.participant if key.participant is not None else key.chat
        return chat, await addresses.canonical(author, unit) if author.is_user or author.is_bot else None


def _trusted(incoming: Incoming, kind: int) -> bool:
    """Whether the device whose session decrypted this may say so (chapter 03 §7.5)."""
    return incoming.own and (kind not in PHONE_ONLY or incoming.sender.device == 0)


def _setting(incoming: Incoming, message: Message.ProtocolMessage) -> Description | None:
    """Settings of a chat that people see; all else is acknowledged and left alone."""
    match message.type:
        case _Type.EPHEMERAL_SETTING | _Type.EPHEMERAL_SYNC_RESPONSE if incoming.kind == "user":
            content = {"seconds": message.ephemeralExpiration, "setAt": message.ephemeralSettingTimestamp}
            return Description("ephemeral_setting", None, content)
        case _Type.SHARE_PHONE_NUMBER if incoming.kind == "user":
            return Description("phone_number_shared")
        case _Type.LIMIT_SHARING:
            return Description("limit_sharing", None, {"limited": message.limitSharing.sharingLimited})
        case _Type.GROUP_MEMBER_LABEL_CHANGE if incoming.kind == "group":
            return Description("member_label", text_of(message.memberLabel.label)[:MAX_LABEL])
        case kind:
            _log.debug("a protocol message of type %d needs nothing", kind)
            return None
