"""Messages between devices: fan-out, copies, addressing, refusals, duplicates (chapter 07 §7)."""

from __future__ import annotations

import pytest

from tests.sandbox.core_client import CoreClient, new_core
from waD.proto.e2e_pb2 import Message
from waD.sandbox.accounts import phash
from waD.wire.jid import JID, LID, PN
from waD.wire.node import Node, Value

ALICE, BOB = "15550000001", "15550000002"


class Scene:
    """Alice and Bob, each with a phone and companions that have been started."""

    def __init__(self, alices: int = 1, bobs: int = 1) -> None:
        self.core, self.time = new_core()
        self.alice = self.core.phones.create("Alice", ALICE)
        self.bob = self.core.phones.create("Bob", BOB)
        self.alices = [CoreClient(self.core, seed=10 + n) for n in range(alices)]
        self.bobs = [CoreClient(self.core, seed=20 + n) for n in range(bobs)]
        for client in self.alices:
            client.start(self.alice)
        for client in self.bobs:
            client.start(self.bob)
        for client in (*self.alices, *self.bobs):
            client.answer(client.pump())

    @property
    def client(self) -> CoreClient:
        return self.alices[0]

    def devices(self, *, lid: bool = True) -> list[JID]:
        everybody = [*self.bob.account.devices.values(), *self.alice.account.devices.values()]
        return [one.jid(lid=lid) for one in everybody if one.pn != self.client.jid]

    def send(
        self,
        text: str,
        message_id: str = "3EB0AA",
        *,
        lid: bool = True,
        to: list[JID] | None = None,
        **attrs: str,
    ) -> Node:
        """Encrypt a text for the listed devices and send it; returns the ack."""
        targets = to if to is not None else self.devices(lid=lid)
        self.client.fetch(*[jid for jid in targets if str(jid) not in self.client.sessions])
        plain = Message(conversation=text)
        copy = Message()
        copy.deviceSentMessage.destinationJid = str(self.bob.account.jid(lid=lid))
        copy.deviceSentMessage.message.CopyFrom(plain)
        own = {self.alice.account.number, self.alice.account.lid}
        encs = {jid: self.client.encrypt(jid, copy if jid.user in own else plain) for jid in targets}
        node = self.client.message(self.bob.account.jid(lid=lid), encs, message_id, **attrs)
        return self.ack(node)

    def ack(self, node: Node) -> Node:
        self.client.send(node)
        (ack,) = [one for one in self.client.pump() if one.tag == "ack"]
        return ack


@pytest.mark.parametrize("lid", [True, False], ids=["LID", "PN"])
def test_reaches_every_device_in_the_form_of_the_chat(lid: bool) -> None:
    scene = Scene(alices=2, bobs=2)
    ack = scene.send("hi", lid=lid)
    assert ack.attrs == {
        "class": "message",
        "id": "3EB0AA",
        "from": scene.bob.account.jid(lid=lid),
        "t": str(scene.core.world.now_s),
    }
    sender = scene.alice.account.companions[0].jid(lid=lid)
    other_form = scene.alice.account.jid(lid=not lid)
    for client in scene.bobs:
        (message,) = [node for node in client.pump() if node.tag == "message"]
        assert message.attrs == {
            "from": sender,
            "id": "3EB0AA",
            "type": "text",
            "t": str(scene.core.world.now_s),
            "notify": "Alice",
            "sender_pn" if lid else "sender_lid": other_form,
        }
        assert message.child("device-identity") is not None
        assert client.decrypt(message).conversation == "hi"
    (copy,) = [node for node in scene.alices[1].pump() if node.tag == "message"]
    assert copy.jid("recipient") == scene.bob.account.jid(lid=lid)
    assert copy.jid("peer_recipient_pn" if lid else "peer_recipient_lid") == scene.bob.account.jid(
        lid=not lid
    )
    assert "notify" not in copy.attrs
    assert "sender_pn" not in copy.attrs
    assert scene.alices[1].decrypt(copy).deviceSentMessage.message.conversation == "hi"
    assert [one.text for one in scene.bob.messages()[-1:]] == ["hi"]
    assert [(one.text, one.from_me) for one in scene.alice.messages()[-1:]] == [("hi", True)]


def test_device_identity_goes_only_with_prekey_messages() -> None:
    scene = Scene()
    scene.send("first")
    bob = scene.bobs[0]
    message = next(node for node in bob.pump() if node.tag == "message")
    bob.decrypt(message)
    bob.sessions[str(scene.client.lid)] = bob.sessions.pop(str(message.jid("from")))
    assert scene.client.lid is not None
    assert bob.lid is not None
    reply = bob.encrypt(scene.client.lid, Message(conversation="yes"))
    bob.send(bob.message(scene.alice.account.lid_jid, {scene.client.lid: reply}, "3EB0BB"))
    answer = next(node for node in scene.client.pump() if node.tag == "message")
    scene.client.decrypt(answer)
    scene.send("second", "3EB0CC", to=[bob.lid])
    (second,) = [node for node in bob.pump() if node.tag == "message"]
    enc = second.child("enc")
    assert enc is not None
    assert enc.attrs["type"] == "msg"
    assert second.child("device-identity") is None


def test_same_id_again_is_acked_and_not_delivered_again() -> None:
    scene = Scene()
    scene.send("once")
    again = scene.send("twice")
    assert "error" not in again.attrs
    assert len([node for node in scene.bobs[0].pump() if node.tag == "message"]) == 1
    scene.time.advance(25 * 3600)
    scene.send("a day later")
    assert len([node for node in scene.bobs[0].pump() if node.tag == "message"]) == 1


def test_same_bytes_again_are_no_reuse_of_keys_but_other_bytes_are() -> None:
    scene = Scene()
    lid = scene.bobs[0].lid
    assert lid is not None
    scene.client.fetch(lid)
    enc = scene.client.encrypt(lid, Message(conversation="x"))
    node = scene.client.message(scene.bob.account.lid_jid, {lid: enc}, "3EB0AA")
    scene.ack(node)
    scene.ack(node)
    report = scene.core.world.keys.report()
    assert report["reused"] == []
    assert report["sameCiphertextAgain"] >= 1
    forged = Node("enc", enc.attrs, enc.data[:-1] + bytes((enc.data[-1] ^ 1,)))
    scene.ack(scene.client.message(scene.bob.account.lid_jid, {lid: forged}, "3EB0AB"))
    (reuse,) = scene.core.world.keys.report()["reused"]
    assert (reuse["sender"], reuse["receiver"], reuse["id"]) == (
        scene.alice.account.companions[0].key,
        scene.bob.account.companions[0].key,
        "3EB0AB",
    )


def test_hash_hint_only_when_the_list_was_wrong() -> None:
    scene = Scene()
    assert "phash" not in scene.send("complete", "3EB0A1").attrs
    missing = scene.send("without the companions", "3EB0A2", to=[scene.bob.account.lid_jid])
    everybody = [
        *(one.lid for one in scene.alice.account.devices.values()),
        *(one.lid for one in scene.bob.account.devices.values()),
    ]
    assert missing.attrs["phash"] == phash(everybody)
    devices = scene.devices()
    node = scene.client.message(
        scene.bob.account.lid_jid,
        {
            **{jid: scene.client.encrypt(jid, Message(conversation="x")) for jid in devices[:1]},
            scene.bob.account.lid_jid.with_device(55): Node("enc", {"v": "2", "type": "msg"}, b"x"),
        },
        "3EB0A3",
    )
    unknown = scene.ack(node)
    assert "phash" in unknown.attrs
    assert "error" not in unknown.attrs


def test_known_hash_of_one_device() -> None:
    assert phash([JID("5511999999999", PN, 3)]) == "2:5s+YxCff"
    assert phash([JID("5511999999999", PN)]) == "2:RJWVxcMQ"


class TestRefusals:
    def refused(self, node: Node) -> str | None:
        self.scene = Scene()
        return self.scene.ack(node).text("error")

    def enc(self) -> Node:
        return Node("enc", {"v": "2", "type": "msg"}, b"bytes")

    def message(self, entries: list[Node], to: JID, **attrs: str) -> Node:
        content = [Node("participants", content=entries)]
        return Node("message", {"id": "3EB0AA", "to": to, "type": "text", **attrs}, content)

    def jids(self) -> tuple[JID, JID]:
        core, _ = new_core()
        core.phones.create("Alice", ALICE)
        bob = core.phones.create("Bob", BOB).account
        return bob.lid_jid, bob.pn_jid

    def test_mixed_namespaces(self) -> None:
        lid, pn = self.jids()
        assert self.refused(self.message([Node("to", {"jid": pn}, [self.enc()])], lid)) == "400"

    def test_repeated_device(self) -> None:
        lid, _ = self.jids()
        entry = Node("to", {"jid": lid}, [self.enc()])
        assert self.refused(self.message([entry, entry], lid)) == "400"

    def test_strangers_in_the_list(self) -> None:
        lid, _ = self.jids()
        stranger = Node("to", {"jid": JID("999999999999999", LID)}, [self.enc()])
        assert self.refused(self.message([stranger], lid)) == "400"

    def test_no_recipient_at_all(self) -> None:
        lid, _ = self.jids()
        assert self.refused(Node("message", {"id": "3EB0AA", "to": lid, "type": "text"})) == "400"

    def test_participants_on_a_resend(self) -> None:
        lid, _ = self.jids()
        enc = Node("enc", {"v": "2", "type": "msg", "count": "1"}, b"bytes")
        assert self.refused(self.message([Node("to", {"jid": lid}, [enc])], lid)) == "479"

    def test_enc_without_version(self) -> None:
        lid, _ = self.jids()
        enc = Node("enc", {"type": "msg"}, b"bytes")
        assert self.refused(self.message([Node("to", {"jid": lid}, [enc])], lid)) == "479"

    def test_peer_message_to_somebody_else(self) -> None:
        lid, _ = self.jids()
        node = self.message([Node("to", {"jid": lid}, [self.enc()])], lid, category="peer")
        assert self.refused(node) == "400"

    def test_groups_are_not_there_yet(self) -> None:
        node = Node(
            "message", {"id": "1", "to": JID("120363000000000001", "g.us"), "type": "text"}, [self.enc()]
        )
        assert self.refused(node) == "404"

    def test_unknown_user_gets_a_plain_ack(self) -> None:
        nobody = JID("15559999999", PN)
        node = self.message([Node("to", {"jid": nobody}, [self.enc()])], nobody)
        assert self.refused(node) is None


def test_blocked_sender_is_acked_and_dropped() -> None:
    scene = Scene()
    scene.bob.account.record.blocked.append(scene.alice.account.lid)
    assert "error" not in scene.send("blocked").attrs
    assert [node for node in scene.bobs[0].pump() if node.tag == "message"] == []


def test_message_to_oneself_goes_to_the_other_devices() -> None:
    scene = Scene(alices=2)
    sibling = scene.alices[1].lid
    assert sibling is not None
    own = scene.alice.account.lid_jid
    scene.client.fetch(sibling, own)
    copy = Message()
    copy.deviceSentMessage.destinationJid = str(own)
    copy.deviceSentMessage.message.conversation = "note"
    encs = {jid: scene.client.encrypt(jid, copy) for jid in (sibling, own)}
    assert "error" not in scene.ack(scene.client.message(own, encs, "3EB0AA")).attrs
    (got,) = [node for node in scene.alices[1].pump() if node.tag == "message"]
    assert got.jid("recipient") == own
    assert scene.alice.messages()[-1].text == "note"
    assert scene.client.pump() == []


@pytest.mark.parametrize("said", [True, False])
def test_only_the_author_can_say_of_which_chat_a_repeated_copy_is(said: bool) -> None:
    scene = Scene(alices=2)
    sibling = scene.alices[1].lid
    assert sibling is not None
    scene.client.fetch(sibling)
    chat = scene.bob.account.lid_jid
    copy = Message()
    copy.deviceSentMessage.destinationJid = str(chat)
    copy.deviceSentMessage.message.conversation = "again"
    enc = scene.client.encrypt(sibling, copy)
    attrs: dict[str, Value] = {"id": "3EB0AB", "to": sibling, "type": "text"}
    if said:
        attrs["recipient"] = chat
    assert "error" not in scene.ack(Node("message", attrs, [enc])).attrs
    (got,) = [node for node in scene.alices[1].pump() if node.tag == "message"]
    assert got.jid("recipient") == (chat if said else None)


def test_unknown_children_and_attributes_pass() -> None:
    scene = Scene()
    lid = scene.bobs[0].lid
    assert lid is not None
    scene.client.fetch(lid)
    enc = scene.client.encrypt(lid, Message(conversation="x"))
    enc.attrs["mediatype"] = "image"
    enc.attrs["decrypt-fail"] = "hide"
    node = scene.client.message(scene.bob.account.lid_jid, {lid: enc}, "3EB0AA", edit="1")
    assert isinstance(node.content, list)
    node.content += [Node("meta", {"polltype": "vote"}), Node("tctoken", content=b"secret"), Node("biz")]
    scene.ack(node)
    (got,) = [one for one in scene.bobs[0].pump() if one.tag == "message"]
    assert [child.tag for child in got.children()] == ["enc", "device-identity", "meta", "biz"]
    assert got.attrs["edit"] == "1"
    assert got.children()[0].attrs["decrypt-fail"] == "hide"


def test_messages_of_an_offline_account_are_accepted_at_once() -> None:
    scene = Scene()
    scene.bobs[0].disconnect()
    scene.bob.keys.record.online = False
    assert "error" not in scene.send("later").attrs
    assert [node for node in scene.client.pump() if node.tag == "receipt"] == []
    scene.bob.keys.record.online = True
    scene.bob.drain()
    (receipt,) = [node for node in scene.client.pump() if node.tag == "receipt"]
    assert receipt.attrs["from"] == scene.bob.account.lid_jid
    assert "type" not in receipt.attrs


def test_push_name_is_the_one_known_now() -> None:
    scene = Scene()
    scene.client.send(Node("presence", {"type": "available", "name": "Alicia"}))
    scene.send("hi")
    assert next(node for node in scene.bobs[0].pump() if node.tag == "message").attrs["notify"] == "Alicia"
