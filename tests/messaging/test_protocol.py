"""Messages about messages: edits and revokes by those who may, and what only own devices may say."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.messaging.accounts import OWN_LID, OWN_PN, START_MS
from tests.messaging.inbound_helpers import (
    ANN_LID,
    ANN_PN,
    BOB_LID,
    GROUP,
    Peer,
    Receiver,
    T,
    answer,
    introduce,
    own_phone,
    receiving,
    shapes,
    spoiled,
)
from waD.messaging import kinds
from waD.messaging.context import Context
from waD.messaging.migration import MappingError, parse_mappings
from waD.messaging.peer_out import PeerRequest
from waD.messaging.protocol import PHONE_ONLY, SELF_ONLY
from waD.messaging.reaction import SyncAppState
from waD.proto.e2e_pb2 import Message
from waD.proto.history_pb2 import WebMessageInfo
from waD.store.model import MessageRow
from waD.wire.jid import JID
from waD.wire.node import Node

ProtocolMessage = Message.ProtocolMessage


@pytest.fixture
async def phone(ctx: Context) -> Peer:
    """The own phone."""
    return await own_phone(ctx)


def edit_of(
    target: str, text: str, *, stamp: int = START_MS + 1000, from_me: bool = True, **key: str
) -> Message:
    message = Message()
    message.protocolMessage.type = ProtocolMessage.MESSAGE_EDIT
    message.protocolMessage.key.id = target
    message.protocolMessage.key.fromMe = from_me
    for name, value in key.items():
        setattr(message.protocolMessage.key, name, value)
    message.protocolMessage.editedMessage.conversation = text
    message.protocolMessage.timestampMs = stamp
    return message


def revoke_of(target: str, *, from_me: bool = True, participant: JID | None = None) -> Message:
    message = Message()
    message.protocolMessage.type = ProtocolMessage.REVOKE
    message.protocolMessage.key.id = target
    message.protocolMessage.key.fromMe = from_me
    if participant is not None:
        message.protocolMessage.key.participant = str(participant)
    return message


def wrapped(message: Message) -> Message:
    outer = Message()
    outer.editedMessage.message.CopyFrom(message)
    return outer


async def last(receiver: Receiver) -> MessageRow:
    return (await receiver.rows())[-1]


async def told(receiver: Receiver) -> list[tuple[str, Any]]:
    return [(event.type, event.data.get("reason")) for event in await receiver.events()]


class TestEdits:
    @pytest.mark.parametrize("wrap", [False, True])
    async def test_the_author_edits(self, receiver: Receiver, ann: Peer, wrap: bool) -> None:
        await receiver.take(ann.text("first", message_id="A"))
        content = edit_of("A", "second")
        node = ann.stanza(ann.enc(wrapped(content) if wrap else content), edit="1")
        assert shapes((await receiver.take(node)).answers) == [("receipt", None)]
        (row,) = await receiver.rows()
        assert (row.body, row.edited_at) == ("second", START_MS + 1000)
        assert row.content == {"edited": True}
        assert await told(receiver) == [("message:new", None), ("message:update", "edited")]

    async def test_in_one_unit_with_the_message(self, receiver: Receiver, ann: Peer) -> None:
        await receiver.take(
            ann.text("first", message_id="A"),
            ann.stanza(ann.enc(edit_of("A", "second"))),
            ann.stanza(ann.enc(edit_of("A", "third", stamp=START_MS + 2000))),
        )
        (row,) = await receiver.rows()
        assert row.body == "third"
        assert len(await receiver.events()) == 3

    async def test_the_newest_wins(self, receiver: Receiver, ann: Peer) -> None:
        await receiver.take(ann.text("first", message_id="A"))
        await receiver.take(ann.stanza(ann.enc(edit_of("A", "late", stamp=START_MS + 9000))))
        await receiver.take(ann.stanza(ann.enc(edit_of("A", "early", stamp=START_MS + 5000))))
        await receiver.take(ann.stanza(ann.enc(edit_of("A", "same", stamp=START_MS + 9000))))
        assert (await last(receiver)).body == "late"
        assert len(await told(receiver)) == 2

    async def test_nobody_else_edits(self, receiver: Receiver, ann: Peer, ctx: Context) -> None:
        bob = Peer(BOB_LID)
        await introduce(ctx, bob)
        await receiver.take(ann.group_text(GROUP, "mine", message_id="A"))
        forged = [
            edit_of("A", "forged", from_me=False, participant=str(ANN_LID)),
            edit_of("A", "forged", from_me=False),
        ]
        for content in forged:
            bob.distribution(GROUP)
            node = bob.stanza(bob.enc(bob.distribution(GROUP)), bob.group_enc(GROUP, content), to=GROUP)
            assert shapes((await receiver.take(node)).answers) == [("receipt", None)]
        assert [row.body for row in await receiver.rows()] == ["mine"]
        assert await told(receiver) == [("message:new", None)]

    async def test_an_edit_of_the_same_id_by_another_is_another_message(
        self, receiver: Receiver, ann: Peer, ctx: Context
    ) -> None:
        bob = Peer(BOB_LID)
        await introduce(ctx, bob)
        await receiver.take(ann.group_text(GROUP, "mine", message_id="A"))
        node = bob.stanza(
            bob.enc(bob.distribution(GROUP)), bob.group_enc(GROUP, edit_of("A", "his")), to=GROUP
        )
        await receiver.take(node)
        assert [(row.sender, row.body) for row in await receiver.rows()] == [
            (str(ANN_LID), "mine"),
            (str(BOB_LID), "his"),
        ]

    async def test_too_late(self, receiver: Receiver, ann: Peer) -> None:
        await receiver.take(ann.text("first", message_id="A"))
        for t, body in ((T + 1200, "first"), (T + 1199, "second")):
            await receiver.take(ann.stanza(ann.enc(edit_of("A", "second")), t=str(t)))
            assert (await last(receiver)).body == body

    async def test_before_its_message(self, receiver: Receiver, ann: Peer) -> None:
        first = ann.text("first", message_id="A")
        await receiver.take(ann.stanza(ann.enc(edit_of("A", "second"))))
        assert shapes((await receiver.take(first)).answers) == [("receipt", None)]
        (row,) = await receiver.rows()
        assert (row.message_id, row.body, row.edited_at) == ("A", "second", START_MS + 1000)
        assert await told(receiver) == [("message:new", None)]

    async def test_reactions_are_not_edited(self, receiver: Receiver, ann: Peer) -> None:
        content = Message()
        content.reactionMessage.text = "👍"
        content.reactionMessage.key.id = "X"
        await receiver.take(ann.stanza(ann.enc(content), message_id="A"))
        await receiver.take(ann.stanza(ann.enc(edit_of("A", "text"))))
        assert (await last(receiver)).body == "👍"

    async def test_the_first_secret_stays(self, receiver: Receiver, ann: Peer) -> None:
        first = Message(conversation="first")
        first.messageContextInfo.messageSecret = bytes(range(32))
        await receiver.take(ann.stanza(ann.enc(first), message_id="A"))
        await receiver.take(ann.stanza(ann.enc(edit_of("A", "second"))))
        row = await last(receiver)
        assert Message.FromString(row.raw or b"").conversation == "second"
        assert await receiver.secret(row) == bytes(range(32))

    async def test_own_edits_on_another_device(self, receiver: Receiver, phone: Peer) -> None:
        def copy(content: Message) -> Message:
            outer = Message()
            outer.deviceSentMessage.destinationJid = str(ANN_LID)
            outer.deviceSentMessage.message.CopyFrom(content)
            return outer

        first = phone.stanza(
            phone.enc(copy(Message(conversation="first"))), message_id="A", recipient=ANN_LID
        )
        edit = phone.stanza(phone.enc(copy(edit_of("A", "second"))), recipient=ANN_LID)
        await receiver.take(first, edit)
        (row,) = await receiver.rows()
        assert (row.body, row.from_me) == ("second", True)


class TestRevokes:
    async def test_the_author_revokes(self, receiver: Receiver, ann: Peer) -> None:
        await receiver.take(ann.text("secret", message_id="A"))
        node = ann.stanza(ann.enc(revoke_of("A")), edit="7")
        assert shapes((await receiver.take(node)).answers) == [("receipt", None)]
        (row,) = await receiver.rows()
        assert (row.body, row.raw, row.revoked_at) == (None, None, START_MS)
        assert row.content == {"revokedBy": str(ANN_LID)}
        assert await told(receiver) == [("message:new", None), ("message:update", "revoked")]
        await receiver.take(ann.stanza(ann.enc(revoke_of("A"))))
        await receiver.take(ann.stanza(ann.enc(edit_of("A", "back?"))))
        assert (await last(receiver)).body is None
        assert await told(receiver) == []

    async def test_before_its_message(self, receiver: Receiver, ann: Peer) -> None:
        first = ann.text("secret", message_id="A")
        await receiver.take(ann.stanza(ann.enc(revoke_of("A"))))
        assert shapes((await receiver.take(first)).answers) == [("receipt", None)]
        (row,) = await receiver.rows()
        assert (row.kind, row.body, row.raw, row.revoked_at) == ("revoked", None, None, START_MS)
        assert await told(receiver) == []

    @pytest.mark.parametrize("participant", [None, ANN_LID, OWN_LID.account])
    async def test_in_a_direct_chat_nobody_else(
        self, receiver: Receiver, ann: Peer, phone: Peer, participant: JID | None
    ) -> None:
        outer = Message()
        outer.deviceSentMessage.destinationJid = str(ANN_LID)
        outer.deviceSentMessage.message.conversation = "mine"
        await receiver.take(phone.stanza(phone.enc(outer), message_id="A", recipient=ANN_LID))
        content = revoke_of("A", from_me=False, participant=participant)
        node = ann.stanza(ann.enc(content), edit="8")
        assert shapes((await receiver.take(node)).answers) == [("receipt", None)]
        assert [row.body for row in await receiver.rows()] == ["mine"]

    async def test_by_an_admin_who_cannot_be_checked(
        self, receiver: Receiver, ann: Peer, ctx: Context
    ) -> None:
        bob = Peer(BOB_LID)
        await introduce(ctx, bob)
        await receiver.take(ann.group_text(GROUP, "hers", message_id="A"))
        content = revoke_of("A", from_me=False, participant=ANN_LID)
        await receiver.take(
            bob.stanza(bob.enc(bob.distribution(GROUP)), bob.group_enc(GROUP, content), to=GROUP, edit="8")
        )
        first, order = await receiver.rows()
        assert (first.body, first.revoked_at) == ("hers", None)
        assert (order.kind, order.sender) == ("revoke", str(BOB_LID))
        assert order.content == {
            "applied": False,
            "target": {"messageId": "A", "sender": str(ANN_LID), "fromMe": False},
        }

    async def test_by_the_own_account_as_admin(self, receiver: Receiver, ann: Peer, phone: Peer) -> None:
        await receiver.take(ann.group_text(GROUP, "hers", message_id="A"))
        content = revoke_of("A", from_me=False, participant=ANN_LID)
        node = phone.stanza(
            phone.enc(phone.distribution(GROUP)), phone.group_enc(GROUP, content), to=GROUP, edit="8"
        )
        await receiver.take(node)
        (row,) = await receiver.rows()
        assert row.content == {"revokedBy": str(OWN_LID.account)}

    async def test_an_unknown_type_is_no_revoke(self, receiver: Receiver, ann: Peer) -> None:
        """An enum number that is not known reads as the first one, which is the revoke."""
        await receiver.take(ann.text("stays", message_id="A"))
        content = Message()
        content.protocolMessage.key.id = "A"
        content.protocolMessage.key.fromMe = True
        raw = content.protocolMessage.SerializeToString() + b"\x10\x63"
        outer = b"\x62" + bytes([len(raw)]) + raw + b"\x01"
        assert shapes((await receiver.take(ann.stanza(ann.enc(outer)))).answers) == [("receipt", None)]
        (row,) = await receiver.rows()
        assert row.body == "stays"


class TestSelfOnly:
    @pytest.mark.parametrize("kind", sorted(SELF_ONLY))
    async def test_from_a_contact(
        self, receiver: Receiver, ann: Peer, ctx: Context, kind: ProtocolMessage.Type.ValueType
    ) -> None:
        content = self.filled(kind)
        node = ann.stanza(ann.enc(content), category="peer")
        assert shapes((await receiver.take(node)).answers) == [("receipt", None)]
        assert await ctx.state.all_items(kinds.APP_STATE_KEY) == {}
        assert await ctx.addresses.lid_of(JID.parse("15557777777@s.whatsapp.net")) is None
        assert not ctx.account.creds.lid_migrated
        assert await receiver.rows() == []

    @pytest.mark.parametrize("kind", sorted(PHONE_ONLY))
    async def test_from_a_companion(
        self, receiver: Receiver, ctx: Context, kind: ProtocolMessage.Type.ValueType
    ) -> None:
        companion = Peer(OWN_LID.with_device(3))
        await introduce(ctx, companion)
        node = companion.stanza(companion.enc(self.filled(kind)), category="peer")
        assert shapes((await receiver.take(node)).answers) == [("receipt", "peer_msg")]
        assert not ctx.account.creds.lid_migrated

    def filled(self, kind: ProtocolMessage.Type.ValueType) -> Message:
        """A protocol message of that type with everything in it."""
        message = Message()
        protocol = message.protocolMessage
        protocol.type = kind
        key = protocol.appStateSyncKeyShare.keys.add()
        key.keyId.keyId, key.keyData.keyData = b"abcdef", bytes(32)
        protocol.lidMigrationMappingSyncMessage.encodedMappingPayload = mapping(15557777777, 7, 8)
        return message

    async def test_keys_of_the_app_state(self, receiver: Receiver, phone: Peer, ctx: Context) -> None:
        content = self.filled(ProtocolMessage.APP_STATE_SYNC_KEY_SHARE)
        empty = content.protocolMessage.appStateSyncKeyShare.keys.add()
        empty.keyId.keyId = b"unknown"
        short = content.protocolMessage.appStateSyncKeyShare.keys.add()
        short.keyId.keyId, short.keyData.keyData = b"shorty", bytes(31)
        node = phone.stanza(phone.enc(content), category="peer")
        reaction = await receiver.take(node)
        (receipt,) = reaction.answers
        assert receipt.attrs == {
            "id": node.attrs["id"],
            "to": OWN_LID.with_device(0),
            "type": "peer_msg",
        }
        stored = await ctx.state.all_items(kinds.APP_STATE_KEY)
        assert list(stored) == [b"abcdef".hex()]
        assert json.loads(stored[b"abcdef".hex()]) == {
            "data": base64.b64encode(bytes(32)).decode(),
            "fingerprint": None,
            "ts": 0,
        }
        assert await receiver.rows() == []
        assert reaction.work == [SyncAppState((), keys=True)]
        assert ctx.account.creds.app_state_key_id == b"abcdef"
        # The same key again is no news; with other data it is not believed.
        for data in (bytes(32), bytes([1]) * 32):
            shared = content.protocolMessage.appStateSyncKeyShare.keys[0]
            shared.keyData.keyData = data
            again = await receiver.take(phone.stanza(phone.enc(content), category="peer"))
            assert again.work == []
        assert await ctx.state.all_items(kinds.APP_STATE_KEY) == stored

    async def test_a_key_in_place_of_one_that_is_damaged(
        self, receiver: Receiver, phone: Peer, ctx: Context
    ) -> None:
        unit = ctx.state.unit()
        unit.put(kinds.APP_STATE_KEY, b"abcdef".hex(), b"[]")
        await ctx.state.commit(unit)
        content = self.filled(ProtocolMessage.APP_STATE_SYNC_KEY_SHARE)
        reaction = await receiver.take(phone.stanza(phone.enc(content), category="peer"))
        assert reaction.work == [SyncAppState((), keys=True)]

    async def test_history_gets_two_receipts(self, receiver: Receiver, phone: Peer) -> None:
        content = self.filled(ProtocolMessage.HISTORY_SYNC_NOTIFICATION)
        reaction = await receiver.take(phone.stanza(phone.enc(content), category="peer"))
        assert shapes(reaction.answers) == [("receipt", "hist_sync"), ("receipt", "peer_msg")]
        assert reaction.answers[0].attrs["to"] == OWN_LID.account

    async def test_the_migration_to_lids(self, receiver: Receiver, phone: Peer, ctx: Context) -> None:
        content = self.filled(ProtocolMessage.LID_MIGRATION_MAPPING_SYNC)
        payload = mapping(15557777777, 7, 8) + mapping(15558888888, 9, 0) + mapping(0, 5, 5)
        payload += mapping(int(OWN_PN.user), 666, 666)
        content.protocolMessage.lidMigrationMappingSyncMessage.encodedMappingPayload = payload
        await receiver.take(phone.stanza(phone.enc(content), category="peer"))
        assert await ctx.addresses.lid_of(JID.parse("15557777777@s.whatsapp.net")) == JID("8", "lid")
        assert await ctx.addresses.lid_of(JID.parse("15558888888@s.whatsapp.net")) == JID("9", "lid")
        assert await ctx.addresses.pn_of(JID("666", "lid")) is None
        assert ctx.account.creds.lid_migrated

    async def test_a_damaged_migration_changes_nothing(
        self, receiver: Receiver, phone: Peer, ctx: Context
    ) -> None:
        content = self.filled(ProtocolMessage.LID_MIGRATION_MAPPING_SYNC)
        content.protocolMessage.lidMigrationMappingSyncMessage.encodedMappingPayload = b"\x0a\xff"
        reaction = await receiver.take(phone.stanza(phone.enc(content), category="peer"))
        assert shapes(reaction.answers) == [("receipt", "peer_msg")]
        assert not ctx.account.creds.lid_migrated

    async def test_peer_messages_are_no_history(self, receiver: Receiver, phone: Peer) -> None:
        await receiver.take(phone.stanza(phone.enc(Message(conversation="x")), category="peer"))
        assert await receiver.rows() == []


def number(value: int) -> bytes:
    found = b""
    while value > 0x7F:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])


def mapping(pn: int, assigned: int, latest: int) -> bytes:
    inner = b"\x08" + number(pn) + b"\x10" + number(assigned) + b"\x18" + number(latest)
    return b"\x0a" + number(len(inner)) + inner


class TestMappings:
    def test_other_fields_are_skipped(self) -> None:
        payload = mapping(1, 2, 0) + b"\x10\x05" + b"\x19" + bytes(8) + b"\x25" + bytes(4) + mapping(3, 0, 4)
        assert parse_mappings(payload) == [(1, 2), (3, 4)]
        assert parse_mappings(b"") == []

    @pytest.mark.parametrize(
        "payload", [b"\x0a", b"\x0a\x05a", b"\x0b", b"\xff" * 11, b"\x09\x00", b"\x0a\x02\x08\xff"]
    )
    def test_damaged(self, payload: bytes) -> None:
        with pytest.raises(MappingError):
            parse_mappings(payload)

    @given(st.binary(max_size=200))
    def test_any_bytes(self, payload: bytes) -> None:
        try:
            found = parse_mappings(payload)
        except MappingError:
            return
        assert all(pn > 0 and lid > 0 for pn, lid in found)


class TestPhonesAnswer:
    """Placeholder resend (chapter 04 §7.5)."""

    async def missing(self, receiver: Receiver, ann: Peer, *, request: str = "REQ") -> str:
        """A message of Ann that cannot be read, and a question to the phone about it."""
        await receiver.take(ann.text("introduction"))
        await answer(receiver.ctx, ann)
        node = ann.text("x")
        node.content = [spoiled(node.children("enc")[0])]
        await receiver.take(node)
        message_id = node.text("id", "")
        state = receiver.ctx.state
        async with state.lock:
            unit = state.unit()
            asked = PeerRequest(chat=str(ANN_LID), sender=str(ANN_LID), message_id=message_id, at=START_MS)
            unit.put(kinds.PEER_REQUEST, request, asked.serialize())
            await state.commit(unit)
        await receiver.events()
        return message_id

    def response(self, request: str, *infos: WebMessageInfo | bytes) -> Message:
        message = Message()
        message.protocolMessage.type = ProtocolMessage.PEER_DATA_OPERATION_REQUEST_RESPONSE_MESSAGE
        response = message.protocolMessage.peerDataOperationRequestResponseMessage
        response.peerDataOperationRequestType = Message.PLACEHOLDER_MESSAGE_RESEND
        response.stanzaId = request
        for info in infos:
            raw = info if isinstance(info, bytes) else info.SerializeToString()
            result = response.peerDataOperationResult.add()
            result.placeholderMessageResendResponse.webMessageInfoBytes = raw
        return message

    def copy(self, message_id: str, *, chat: JID = ANN_LID, from_me: bool = False) -> WebMessageInfo:
        info = WebMessageInfo(messageTimestamp=T)
        info.key.remoteJid, info.key.fromMe, info.key.id = str(chat), from_me, message_id
        info.message.conversation = "found"
        return info

    async def test_resolves_the_placeholder(
        self, receiver: Receiver, ann: Peer, phone: Peer, ctx: Context
    ) -> None:
        message_id = await self.missing(receiver, ann)
        content = self.response("REQ", b"\xff", self.copy(message_id))
        reaction = await receiver.take(phone.stanza(phone.enc(content), category="peer"))
        assert shapes(reaction.answers) == [("receipt", "peer_msg")]
        row = await last(receiver)
        assert (row.kind, row.body, row.sender, row.from_me) == ("text", "found", str(ANN_LID), False)
        assert await told(receiver) == [("message:update", "resolved")]
        assert await ctx.state.all_items(kinds.PEER_REQUEST) == {}
        assert await ctx.state.all_items(kinds.RETRY) == {}
        again = phone.stanza(phone.enc(self.response("REQ", self.copy(message_id))), category="peer")
        await receiver.take(again)
        assert await told(receiver) == []

    async def test_under_the_number(self, receiver: Receiver, ann: Peer, phone: Peer, ctx: Context) -> None:
        message_id = await self.missing(receiver, ann)
        async with ctx.state.lock:
            unit = ctx.state.unit()
            await ctx.addresses.learn(unit, ANN_PN, ANN_LID, "live")
            await ctx.state.commit(unit)
        content = self.response("REQ", self.copy(message_id, chat=ANN_PN))
        await receiver.take(phone.stanza(phone.enc(content), category="peer"))
        assert (await last(receiver)).body == "found"

    @pytest.mark.parametrize(
        "wrong", ["request", "id", "chat", "from_me", "device", "stranger", "operation", "nothing"]
    )
    async def test_anything_else_is_dropped(
        self, receiver: Receiver, ann: Peer, phone: Peer, ctx: Context, wrong: str
    ) -> None:
        message_id = await self.missing(receiver, ann)
        info = self.copy(
            "OTHER" if wrong == "id" else message_id,
            chat=BOB_LID if wrong == "chat" else ANN_LID,
            from_me=wrong == "from_me",
        )
        if wrong == "nothing":
            info.ClearField("message")
        content = self.response("UNKNOWN" if wrong == "request" else "REQ", info)
        if wrong == "operation":
            response = content.protocolMessage.peerDataOperationRequestResponseMessage
            response.peerDataOperationRequestType = Message.UPLOAD_STICKER
        sender = phone
        if wrong == "device":
            sender = Peer(OWN_LID.with_device(5))
            await introduce(ctx, sender)
        elif wrong == "stranger":
            sender = ann
        await receiver.take(sender.stanza(sender.enc(content), category="peer"))
        assert (await last(receiver)).kind == "undecryptable"
        assert await told(receiver) == []


class TestSettings:
    async def test_shown_in_the_history(self, receiver: Receiver, ann: Peer) -> None:
        message = Message()
        message.protocolMessage.type = ProtocolMessage.EPHEMERAL_SETTING
        message.protocolMessage.ephemeralExpiration = 604_800
        message.protocolMessage.ephemeralSettingTimestamp = T
        await receiver.take(ann.stanza(ann.enc(message)))
        row = await last(receiver)
        assert (row.kind, row.content) == ("ephemeral_setting", {"seconds": 604_800, "setAt": T})

    async def test_a_groups_timer_is_not_set_by_members(self, receiver: Receiver, ann: Peer) -> None:
        message = Message()
        message.protocolMessage.type = ProtocolMessage.EPHEMERAL_SETTING
        node = ann.stanza(ann.enc(ann.distribution(GROUP)), ann.group_enc(GROUP, message), to=GROUP)
        assert shapes((await receiver.take(node)).answers) == [("receipt", None)]
        assert await receiver.rows() == []

    async def test_labels_belong_to_groups(self, receiver: Receiver, ann: Peer) -> None:
        message = Message()
        message.protocolMessage.type = ProtocolMessage.GROUP_MEMBER_LABEL_CHANGE
        message.protocolMessage.memberLabel.label = "x" * 50
        await receiver.take(ann.stanza(ann.enc(message)))
        assert await receiver.rows() == []
        node = ann.stanza(ann.enc(ann.distribution(GROUP)), ann.group_enc(GROUP, message), to=GROUP)
        await receiver.take(node)
        assert (await last(receiver)).body == "x" * 30


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["text", "edit", "revoke"]), st.booleans())))
def test_conversations(steps: list[tuple[int, str, bool]]) -> None:
    """Texts, edits and revokes in any order and grouping: the last word of the author holds."""

    async def scenario() -> None:
        async with receiving() as receiver:
            ann = Peer(ANN_LID)
            await introduce(receiver.ctx, ann)
            said: dict[str, str | None] = {}
            batch: list[Node] = []
            for position, (number, what, commit) in enumerate(steps):
                name, words = f"M{number}", f"words {position}"
                if what == "text":
                    batch.append(ann.text(words, message_id=name))
                    said.setdefault(name, words)
                elif what == "edit":
                    batch.append(ann.stanza(ann.enc(edit_of(name, words, stamp=START_MS + position + 1))))
                    if said.get(name, "") is not None:
                        said[name] = words
                else:
                    batch.append(ann.stanza(ann.enc(revoke_of(name))))
                    said[name] = None
                if commit:
                    await receiver.take(*batch)
                    batch = []
            reaction = await receiver.take(*batch)
            assert [one.tag for one in reaction.answers] == ["receipt"] * len(batch)
            assert {row.message_id: row.body for row in await receiver.rows()} == said

    trio.run(scenario)
