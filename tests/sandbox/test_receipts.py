"""Receipts and retries between devices (chapter 07 §7, chapter 04 §6.9, §7)."""

from __future__ import annotations

import pytest

from tests.sandbox.companion import receipt_for
from tests.sandbox.core_client import CoreClient, new_core
from tests.sandbox.test_messages import BOB, Scene
from waD.proto.e2e_pb2 import Message
from waD.sandbox.router import receipt_ids
from waD.wire.node import Node


def of(nodes: list[Node], tag: str) -> list[Node]:
    return [node for node in nodes if node.tag == tag]


def test_delivery_and_read_go_to_all_devices_of_the_author() -> None:
    scene = Scene(alices=2)
    scene.send("hi")
    bob = scene.bobs[0]
    (message,) = of(bob.pump(), "message")
    scene.client.pump()
    scene.alices[1].pump()
    bob.send(receipt_for(message))
    (ack,) = of(bob.pump(), "ack")
    assert ack.attrs == {"class": "receipt", "id": "3EB0AA", "from": message.attrs["from"]}
    device = scene.bob.account.companions[0]
    for client in scene.alices:
        (receipt,) = of(client.pump(), "receipt")
        assert receipt.attrs == {"from": device.lid, "id": "3EB0AA", "t": str(scene.core.world.now_s)}
    read = receipt_for(message, type="read")
    read.attrs["to"] = scene.alice.account.lid_jid
    bob.send(read)
    for client in scene.alices:
        (receipt,) = of(client.pump(), "receipt")
        assert receipt.attrs["type"] == "read"
    assert scene.alice.messages()[-1].status == 4


def test_siblings_learn_that_something_was_read() -> None:
    scene = Scene(bobs=2)
    scene.send("hi")
    one, two = scene.bobs
    (message,) = of(one.pump(), "message")
    two.pump()
    scene.alice.read(scene.bob.account, ["unrelated"])
    read = receipt_for(message, type="read")
    one.send(read)
    seen = [node for node in of(two.pump(), "receipt") if node.attrs["id"] == "3EB0AA"]
    assert [node.attrs.get("type") for node in seen] == ["read-self"]
    assert seen[0].jid("recipient") == scene.alice.account.lid_jid


def test_read_self_stays_at_home() -> None:
    scene = Scene(bobs=2)
    scene.send("hi")
    one, two = scene.bobs
    (message,) = of(one.pump(), "message")
    scene.client.pump()
    two.pump()
    one.send(receipt_for(message, type="read-self"))
    assert of(scene.client.pump(), "receipt") == []
    assert [node.attrs["type"] for node in of(two.pump(), "receipt")] == ["read-self"]


def test_lists_of_ids_are_kept_and_consume_each() -> None:
    scene = Scene()
    for number in range(3):
        scene.send(f"m{number}", f"3EB0A{number}")
    bob = scene.bobs[0]
    messages = of(bob.pump(), "message")
    scene.client.pump()
    items = Node("list", content=[Node("item", {"id": node.attrs["id"]}) for node in messages[1:]])
    bob.send(Node("receipt", {"id": messages[0].attrs["id"], "to": messages[0].attrs["from"]}, [items]))
    assert of([item.stanza for item in scene.bob.account.companions[0].queue], "message") == []
    (receipt,) = of(scene.client.pump(), "receipt")
    assert receipt_ids(receipt) == ["3EB0A0", "3EB0A1", "3EB0A2"]


def test_more_than_256_ids_are_cut() -> None:
    items = [Node("item", {"id": str(number)}) for number in range(500)]
    assert len(receipt_ids(Node("receipt", {"id": "x"}, [Node("list", content=items)]))) == 256


def test_receipts_wait_for_offline_authors() -> None:
    scene = Scene()
    scene.send("hi")
    scene.client.disconnect()
    bob = scene.bobs[0]
    bob.send(receipt_for(of(bob.pump(), "message")[0]))
    (delivered_by_phone, delivered) = of(scene.client.log_in(drain=False), "receipt")
    assert delivered_by_phone.attrs["from"] == scene.bob.account.lid_jid
    assert delivered.attrs["from"] == scene.bob.account.companions[0].lid
    assert delivered.attrs["offline"] == "2"


def test_quiet_receipts_only_consume() -> None:
    scene = Scene(alices=2)
    scene.send("hi")
    scene.client.pump()
    sibling = scene.alices[1]
    (copy,) = of(sibling.pump(), "message")
    sibling.send(receipt_for(copy))
    assert receipt_for(copy).attrs["type"] == "sender"
    device = scene.alice.account.companions[1]
    assert of([item.stanza for item in device.queue], "message") == []
    assert of(scene.client.pump(), "receipt") == []


def retry(message: Node, count: int = 1, *, keys: Node | None = None, registration: int = 4711) -> Node:
    attrs = {"id": message.attrs["id"], "to": message.attrs["from"], "type": "retry"}
    if "recipient" in message.attrs:
        attrs["recipient"] = message.attrs["recipient"]
    children = [
        Node("retry", {"count": str(count), "id": message.attrs["id"], "t": "1", "v": "1"}),
        Node("registration", content=registration.to_bytes(4, "big")),
    ]
    return Node("receipt", attrs, children + ([keys] if keys else []))


def test_retry_goes_to_the_writing_device_alone_and_the_resend_to_the_asker_alone() -> None:
    scene = Scene(alices=2, bobs=2)
    scene.send("hi")
    scene.client.pump()
    scene.alices[1].pump()
    one, two = scene.bobs
    (message,) = of(one.pump(), "message")
    two.pump()
    one.send(retry(message))
    (asked,) = of(scene.client.pump(), "receipt")
    assert of(scene.alices[1].pump(), "receipt") == []
    device = scene.bob.account.companions[0]
    assert asked.attrs["from"] == device.lid
    assert asked.attrs["type"] == "retry"
    assert [child.tag for child in asked.children()] == ["retry", "registration"]
    scene.client.fetch(device.lid)
    enc = scene.client.encrypt(device.lid, Message(conversation="hi"))
    enc.attrs["count"] = "1"
    resend = Node("message", {"id": "3EB0AA", "to": device.lid, "type": "text"}, [enc])
    ack = scene.ack(resend)
    assert ack.attrs["from"] == device.lid
    (again,) = of(one.pump(), "message")
    found = again.child("enc")
    assert found is not None
    assert found.attrs["count"] == "1"
    assert one.decrypt(again).conversation == "hi"
    assert of(two.pump(), "message") == []


def test_a_whole_fan_out_again_reaches_only_the_asker() -> None:
    """One client answers a phone's retry by sending to everybody again, without count."""
    scene = Scene(bobs=2)
    scene.send("hi")
    one, two = scene.bobs
    (message,) = of(one.pump(), "message")
    two.pump()
    one.send(retry(message))
    scene.client.pump()
    scene.send("hi")
    assert len(of(one.pump(), "message")) == 1
    assert of(two.pump(), "message") == []
    scene.send("hi")
    assert of(one.pump(), "message") == []


def test_own_copy_is_asked_for_with_its_chat() -> None:
    scene = Scene(alices=2)
    scene.send("hi")
    scene.client.pump()
    sibling = scene.alices[1]
    (copy,) = of(sibling.pump(), "message")
    sibling.send(retry(copy))
    (asked,) = of(scene.client.pump(), "receipt")
    assert asked.jid("recipient") == scene.bob.account.lid_jid
    own = scene.alice.account.companions[1].lid
    scene.client.fetch(own)
    message = Message()
    message.deviceSentMessage.destinationJid = str(scene.bob.account.lid_jid)
    message.deviceSentMessage.message.conversation = "hi"
    enc = scene.client.encrypt(own, message)
    enc.attrs["count"] = "1"
    attrs = {"id": "3EB0AA", "to": own, "recipient": scene.bob.account.lid_jid, "type": "text"}
    scene.ack(Node("message", attrs, [enc]))
    (again,) = of(sibling.pump(), "message")
    assert again.jid("recipient") == scene.bob.account.lid_jid


class TestPhoneAsAuthor:
    @pytest.mark.parametrize("count", [1, 2, 4])
    def test_answers(self, count: int) -> None:
        scene = Scene()
        scene.bob.send_text(scene.alice.account, "from the phone", message_id="3EB0F0")
        scene.core.settle()
        (message,) = of(scene.client.pump(), "message")
        scene.client.sessions.clear()
        scene.client.send(retry(message, count))
        (again,) = of(scene.client.pump(), "message")
        assert again.attrs["id"] == "3EB0F0"
        enc = again.child("enc")
        assert enc is not None
        assert enc.attrs["count"] == str(count)
        if count > 1:
            assert enc.attrs["type"] == "pkmsg"
            assert scene.client.decrypt(again).conversation == "from the phone"

    def test_gives_up_at_five(self) -> None:
        scene = Scene()
        scene.bob.send_text(scene.alice.account, "x")
        scene.core.settle()
        (message,) = of(scene.client.pump(), "message")
        scene.client.send(retry(message, 5))
        assert of(scene.client.pump(), "message") == []

    def test_another_registration_means_another_session(self) -> None:
        scene = Scene()
        scene.bob.send_text(scene.alice.account, "x")
        scene.core.settle()
        (message,) = of(scene.client.pump(), "message")
        scene.client.send(retry(message, 1, registration=99))
        (again,) = of(scene.client.pump(), "message")
        enc = again.child("enc")
        assert enc is not None
        assert enc.attrs["type"] == "pkmsg"

    def test_refuses_others_and_unknown_messages(self) -> None:
        scene = Scene()
        scene.bob.send_text(scene.alice.account, "x", message_id="3EB0F0")
        scene.core.settle()
        scene.client.pump()
        stranger = CoreClient(scene.core, seed=77)
        stranger.start(scene.core.phones.create(number="15550000003"))
        fake = Node("message", {"id": "3EB0F0", "from": scene.bob.account.lid_jid})
        stranger.send(retry(fake))
        assert of(stranger.pump(), "message") == []
        fake.attrs["id"] = "3EB0F9"
        scene.client.send(retry(fake))
        assert of(scene.client.pump(), "message") == []

    def test_peer_messages_are_sent_again_as_such(self) -> None:
        core, _ = new_core()
        phone = core.phones.create(number=BOB)
        client = CoreClient(core)
        client.pair(phone)
        first = of(client.log_in(upload=True, drain=False), "message")[0]
        client.send(retry(first, 2))
        again = of(client.pump(), "message")[-1]
        assert (again.attrs["id"], again.attrs["category"]) == (first.attrs["id"], "peer")
        assert client.decrypt(again).protocolMessage.HasField("appStateSyncKeyShare")


class TestPhoneAsReader:
    def last_retry(self, scene: Scene) -> Node:
        scene.client.pump()
        return [node for node in of(scene.client.inbox, "receipt") if node.attrs.get("type") == "retry"][-1]

    def test_asks_again_with_keys_from_the_second_time(self) -> None:
        scene = Scene()
        scene.bob.keys.drop_sessions()
        target = scene.bob.account.lid_jid
        scene.client.fetch(target)
        scene.send("good", "3EB0A1", to=[target])
        scene.bob.keys.drop_sessions()
        garbage = Node("enc", {"v": "2", "type": "msg"}, bytes(range(80)))
        message = scene.client.message(target, {target: garbage}, "3EB0A2")
        scene.ack(message)
        assert self.last_retry(scene).child("keys") is None
        again = Node("enc", {"v": "2", "type": "msg", "count": "1"}, bytes(range(80)))
        scene.client.send(Node("message", {"id": "3EB0A2", "to": target, "type": "text"}, [again]))
        second = self.last_retry(scene)
        told = second.child("retry")
        assert told is not None
        assert told.attrs["count"] == "2"
        keys = second.child("keys")
        registration = second.child("registration")
        assert keys is not None
        assert registration is not None
        scene.client.start_session(target, Node("user", {}, [registration, *keys.children()]))
        enc = scene.client.encrypt(target, Message(conversation="recovered"))
        enc.attrs["count"] = "2"
        scene.client.send(Node("message", {"id": "3EB0A2", "to": target, "type": "text"}, [enc]))
        assert scene.bob.messages()[-1].text == "recovered"
