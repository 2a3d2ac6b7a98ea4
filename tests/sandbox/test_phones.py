"""Simulated phones: accounts, chats, habits, requests of companions, new identities."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sandbox.core_client import CoreClient, new_core
from tests.sandbox.test_messages import ALICE, BOB, Scene
from waD.e2ee.syncd.lthash import lt_hash
from waD.e2ee.syncd.mutations import index_json
from waD.proto.appstate_pb2 import SyncdSnapshotRecovery
from waD.proto.e2e_pb2 import Message
from waD.proto.history_pb2 import HistorySync, WebMessageInfo
from waD.sandbox.accounts import Directory, check_number
from waD.sandbox.appstate_keys import APP_KEY_ID
from waD.sandbox.errors import SandboxError
from waD.sandbox.scenario import DEFAULTS, parse_flags
from waD.wire.jid import PN
from waD.wire.node import Node


def peer(scene: Scene, message: Message, message_id: str = "3EB0C0") -> list[Message]:
    """Alice's companion sends a peer message to its phone; returns the decrypted answers."""
    phone = scene.alice.account.lid_jid
    if str(phone) not in scene.client.sessions:
        scene.client.fetch(phone)
    enc = scene.client.encrypt(phone, message)
    attrs = {"id": message_id, "to": phone, "type": "text", "category": "peer", "push_priority": "high"}
    content = [Node("meta", {"appdata": "default"}), enc, Node("device-identity", content=scene.client.blob)]
    scene.client.send(Node("message", attrs, content))
    return [scene.client.decrypt(node) for node in scene.client.pump() if node.tag == "message"]


class TestAccounts:
    def test_same_name_same_number_in_every_process(self) -> None:
        numbers = []
        for _ in range(2):
            core, _ = new_core()
            numbers.append(core.phones.create("Anna").account.number)
        assert numbers[0] == numbers[1]
        assert numbers[0].startswith("1555")
        assert len(numbers[0]) == 11

    @given(st.lists(st.text(max_size=20), unique=True, max_size=40))
    def test_names_never_share_numbers_or_lids(self, names: list[str]) -> None:
        directory = Directory()
        numbers = [directory.free_number(name) for name in names]
        lids = [directory.free_lid(name) for name in names]
        assert all(check_number(number) == number for number in numbers)
        assert all(len(lid) == 15 and lid[0] != "0" for lid in lids)

    def test_a_taken_number_gives_the_next(self) -> None:
        core, _ = new_core()
        wanted = core.world.directory.free_number("Anna")
        core.phones.create(number=wanted)
        assert int(core.phones.create("Anna").account.number) == int(wanted) + 1

    def test_numbers_find_their_phone_however_written(self) -> None:
        core, _ = new_core()
        phone = core.phones.create("A", ALICE)
        assert core.phones.create(number="+1 555 000-0001") is phone
        assert core.phones.by_number("+15550000001") is phone
        with pytest.raises(SandboxError):
            core.phones.by_number("15559999999")

    @pytest.mark.parametrize(
        "number", ["", "0123456789", "12345", "1" * 16, "abc", "13135550002", "13165550012"]
    )
    def test_bad_numbers(self, number: str) -> None:
        with pytest.raises(SandboxError):
            check_number(number)

    def test_a_name_belongs_to_one_number(self) -> None:
        core, _ = new_core()
        core.phones.create("A", ALICE)
        with pytest.raises(SandboxError, match="belongs to another"):
            core.phones.create("A", BOB)

    def test_anonymous_phones_differ(self) -> None:
        core, _ = new_core()
        assert core.phones.create() is not core.phones.create()


class TestScenarios:
    @pytest.mark.parametrize(
        ("name", "changed"),
        [
            ("Anna", {}),
            ("restricted:Anna", {"restricted": True}),
            ("scenario:restricted,tc_enabled=0:Anna", {"restricted": True, "tc_enabled": False}),
            ("scenario:nct_send_ab=1:x:y", {"nct_send_ab": True}),
            ("scenario::Anna", {}),
            ("scenario:restricted", {}),
            ("scenario:restricted=2:Anna", {}),
        ],
    )
    def test_grammar(self, name: str, changed: dict[str, bool]) -> None:
        assert parse_flags(name) == ({**DEFAULTS, **changed}, [])

    def test_unknown_flags_are_told(self) -> None:
        assert parse_flags("scenario:nope,restricted:A")[1] == ["nope"]
        core, _ = new_core()
        core.phones.create("scenario:nope:A")
        assert "nope" in core.world.complaints()[0]["text"]

    def test_props_follow_the_flag(self) -> None:
        for name, value in (("Anna", "false"), ("scenario:nct_send_ab:Anna", "true")):
            core, _ = new_core()
            client = CoreClient(core)
            client.start(core.phones.create(name))
            props = client.request(client.iq("abt", "get", [Node("props")])).children()[0]
            values = {prop.attrs["config_code"]: prop.attrs["config_value"] for prop in props.children()}
            assert values["24941"] == value

    @given(st.text(max_size=60))
    def test_never_fails(self, name: str) -> None:
        parse_flags(f"scenario:{name}")


class TestChats:
    def test_phone_to_phone_with_receipts(self) -> None:
        core, _ = new_core()
        alice, bob = core.phones.create("Alice", ALICE), core.phones.create("Bob", BOB)
        sent = alice.send_text(bob.account, "hello")
        assert sent.status == 2
        core.settle()
        assert sent.status == 3
        (got,) = bob.messages()
        assert (got.text, got.from_me, got.sender) == ("hello", False, f"{ALICE}:0")
        bob.read(alice.account, [got.id])
        core.settle()
        assert sent.status == 4

    def test_quotes(self) -> None:
        scene = Scene()
        first = scene.bob.send_text(scene.alice.account, "question")
        scene.bob.send_text(scene.alice.account, "about that", quote=first.id)
        scene.core.settle()
        messages = [node for node in scene.client.pump() if node.tag == "message"]
        scene.client.decrypt(messages[0])
        context = scene.client.decrypt(messages[1]).extendedTextMessage.contextInfo
        assert context.stanzaId == first.id
        assert context.quotedMessage.conversation == "question"
        with pytest.raises(SandboxError):
            scene.bob.send_text(scene.alice.account, "x", quote="3EB0")

    def test_pn_addressing_is_a_switch(self) -> None:
        scene = Scene()
        scene.bob.account.record.addressing = PN
        scene.bob.send_text(scene.alice.account, "hi")
        scene.core.settle()
        (message,) = [node for node in scene.client.pump() if node.tag == "message"]
        assert message.jid("from") == scene.bob.account.pn_jid
        assert message.jid("sender_lid") == scene.bob.account.lid_jid

    def test_habits_answer_companions_only(self) -> None:
        scene = Scene()
        scene.bob.keys.record.auto_read = True
        scene.bob.keys.record.auto_reply = "you said: {text}"
        scene.alice.keys.record.auto_reply = "loop {text}"
        scene.send("ping")
        scene.core.settle()
        reply = [node for node in scene.client.inbox if node.tag == "message"][-1]
        assert scene.client.decrypt(reply).conversation == "you said: ping"
        assert scene.alice.message("3EB0AA") is not None
        assert scene.alice.message("3EB0AA").status == 4  # type: ignore[union-attr]
        assert [one.text for one in scene.alice.messages() if one.kind != "peer"] == [
            "ping",
            "you said: ping",
        ]

    def test_a_forged_copy_is_not_taken(self) -> None:
        scene = Scene()
        target = scene.bob.account.lid_jid
        scene.client.fetch(scene.alice.account.lid_jid, target)
        enc = scene.client.encrypt(scene.alice.account.lid_jid, Message(conversation="not wrapped"))
        node = scene.client.message(target, {scene.alice.account.lid_jid: enc}, "3EB0AA")
        scene.client.send(node)
        assert scene.alice.message("3EB0AA") is None
        assert scene.alice.failures[-1]["reason"] == "a copy without deviceSentMessage"

    def test_offline_phone_catches_up(self) -> None:
        scene = Scene()
        scene.bob.keys.record.online = False
        scene.send("later")
        assert scene.bob.messages() == [one for one in scene.bob.messages() if one.kind == "peer"]
        scene.bob.keys.record.online = True
        scene.bob.drain()
        assert scene.bob.messages()[-1].text == "later"


class TestRequests:
    def test_key_request(self) -> None:
        scene = Scene()
        message = Message()
        message.protocolMessage.type = Message.ProtocolMessage.APP_STATE_SYNC_KEY_REQUEST
        for key_id in (APP_KEY_ID, b"\0\0\0\0\0\x09"):
            message.protocolMessage.appStateSyncKeyRequest.keyIds.add(keyId=key_id)
        (share,) = peer(scene, message)
        known, unknown = share.protocolMessage.appStateSyncKeyShare.keys
        assert known.keyData.keyData == scene.alice.keys.record.app_keys[0].data
        assert not unknown.HasField("keyData")

    def operation(self, kind: int) -> Message:
        message = Message()
        message.protocolMessage.type = Message.ProtocolMessage.PEER_DATA_OPERATION_REQUEST_MESSAGE
        request = message.protocolMessage.peerDataOperationRequestMessage
        request.peerDataOperationRequestType = Message.PeerDataOperationRequestType.ValueType(kind)
        return message

    def test_placeholder_resend(self) -> None:
        scene = Scene()
        sent = scene.bob.send_text(scene.alice.account, "lost")
        scene.core.settle()
        for node in scene.client.pump():
            if node.tag == "message":
                scene.client.decrypt(node)
        message = self.operation(4)
        request = message.protocolMessage.peerDataOperationRequestMessage
        request.placeholderMessageResendRequest.add().messageKey.id = sent.id
        (answer,) = peer(scene, message)
        response = answer.protocolMessage.peerDataOperationRequestResponseMessage
        assert response.stanzaId == "3EB0C0"
        data = response.peerDataOperationResult[0].placeholderMessageResendResponse.webMessageInfoBytes
        info = WebMessageInfo.FromString(data)
        assert info.message.conversation == "lost"
        assert info.key.remoteJid == str(scene.bob.account.lid_jid)

    def test_history_on_demand(self) -> None:
        scene = Scene()
        sent = [scene.bob.send_text(scene.alice.account, f"m{n}") for n in range(6)]
        scene.core.settle()
        for node in scene.client.pump():
            if node.tag == "message":
                scene.client.decrypt(node)
        message = self.operation(3)
        wanted = message.protocolMessage.peerDataOperationRequestMessage.historySyncOnDemandRequest
        wanted.oldestMsgId, wanted.onDemandMsgCount = sent[4].id, 3
        (answer,) = peer(scene, message)
        notification = answer.protocolMessage.historySyncNotification
        assert notification.peerDataRequestSessionId == "3EB0C0"
        history = HistorySync.FromString(zlib.decompress(notification.initialHistBootstrapInlinePayload))
        assert sorted(one.message.message.conversation for one in history.conversations[0].messages) == [
            "m1",
            "m2",
            "m3",
        ]

    def test_a_lost_collection_is_sent_in_the_open(self) -> None:
        scene = Scene()
        scene.alice.settings.mute(scene.bob.account, 5)
        scene.core.settle()
        message = self.operation(8)
        request = message.protocolMessage.peerDataOperationRequestMessage
        request.syncdCollectionFatalRecoveryRequest.collectionName = "regular_high"
        (answer,) = peer(scene, message)
        (result,) = answer.protocolMessage.peerDataOperationRequestResponseMessage.peerDataOperationResult
        response = result.syncdSnapshotFatalRecoveryResponse
        assert response.isCompressed
        found = SyncdSnapshotRecovery.FromString(gzip.decompress(response.collectionSnapshot))
        assert (found.version.version, found.collectionName) == (1, "regular_high")
        assert found.collectionLthash == lt_hash(one.mac for one in found.mutationRecords)
        (record,) = found.mutationRecords
        assert record.keyId == APP_KEY_ID
        assert record.value.index == index_json(["mute", str(scene.bob.account.lid_jid)])
        assert record.value.value.muteAction.muteEndTimestamp == 5
        request.syncdCollectionFatalRecoveryRequest.collectionName = "irregular"
        (answer,) = peer(scene, message, "3EB0C1")
        assert not answer.protocolMessage.peerDataOperationRequestResponseMessage.peerDataOperationResult

    def test_others_get_an_empty_answer(self) -> None:
        scene = Scene()
        (answer,) = peer(scene, self.operation(2))
        response = answer.protocolMessage.peerDataOperationRequestResponseMessage
        assert response.peerDataOperationRequestType == 2
        assert not response.peerDataOperationResult

    def test_unknown_ones_are_remembered(self) -> None:
        scene = Scene()
        message = Message()
        message.protocolMessage.type = Message.ProtocolMessage.APP_STATE_FATAL_EXCEPTION_NOTIFICATION
        message.protocolMessage.appStateFatalExceptionNotification.collectionNames.append("regular")
        assert peer(scene, message) == []
        assert scene.alice.requests[-1]["type"] == "APP_STATE_FATAL_EXCEPTION_NOTIFICATION"
        assert scene.alice.requests[-1]["collections"] == ["regular"]


def test_start_up_history_holds_chats_names_and_mappings() -> None:
    core, _ = new_core()
    alice, bob = core.phones.create("Alice", ALICE), core.phones.create("Bob", BOB)
    bob.send_text(alice.account, "before pairing")
    core.settle()
    client = CoreClient(core)
    client.pair(alice)
    messages = [client.decrypt(node) for node in client.log_in(upload=True) if node.tag == "message"]
    pieces = [
        HistorySync.FromString(
            zlib.decompress(one.protocolMessage.historySyncNotification.initialHistBootstrapInlinePayload)
        )
        for one in messages[1:]
    ]
    bootstrap, names, recent = pieces
    assert [one.syncType for one in pieces] == [0, 4, 3]
    assert bootstrap.conversations[0].id == str(bob.account.lid_jid)
    assert bootstrap.conversations[0].messages[0].message.message.conversation == "before pairing"
    mappings = {one.pnJid: one.lidJid for one in bootstrap.phoneNumberToLidMappings}
    assert mappings[str(bob.account.pn_jid)] == str(bob.account.lid_jid)
    assert {one.pushname for one in names.pushnames} == {"Alice", "Bob"}
    assert recent.progress == 100


def test_a_new_identity_is_told_and_works() -> None:
    scene = Scene()
    scene.bob.send_text(scene.alice.account, "old me")
    scene.core.settle()
    old = scene.bob.keys.identity.public
    scene.client.decrypt(next(node for node in scene.client.pump() if node.tag == "message"))
    scene.core.phones.change_identity(scene.bob)
    scene.core.settle()
    (note,) = [node for node in scene.client.pump() if node.tag == "notification"]
    assert note.attrs["type"] == "encrypt"
    assert note.attrs["from"] == scene.bob.account.pn_jid
    assert note.child("identity") is not None
    assert scene.bob.keys.identity.public != old
    scene.bob.send_text(scene.alice.account, "new me")
    scene.core.settle()
    (message,) = [node for node in scene.client.pump() if node.tag == "message"]
    assert scene.client.decrypt(message).conversation == "new me"


def test_secrets_are_not_shown() -> None:
    core, _ = new_core()
    phone = core.phones.create("Alice", ALICE)
    record = phone.keys.record
    shown = repr(record) + repr(phone.keys.identity) + str(phone.view())
    for secret in (record.identity, record.signed, record.app_keys[0].data):
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown
