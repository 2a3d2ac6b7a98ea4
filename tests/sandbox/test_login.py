"""Login, replacement, backlog and its end (chapter 07 §4, §6)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.sandbox.companion import ack_for, receipt_for
from tests.sandbox.core_client import CoreClient, Time, new_core
from waD.proto.payload_pb2 import ClientPayload
from waD.sandbox.core import Core
from waD.sandbox.environment import Settings
from waD.sandbox.phone import Phone
from waD.wire.node import Node

ALICE, BOB = "15550000001", "15550000002"


class Scene:
    """Alice with a companion that has been started, and Bob's phone."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.core: Core
        self.time: Time
        self.core, self.time = new_core(settings)
        self.alice = self.core.phones.create(number=ALICE)
        self.bob: Phone = self.core.phones.create("Bob", BOB)
        self.client = CoreClient(self.core)
        self.client.start(self.alice)

    @property
    def device(self) -> Any:
        return self.alice.account.companions[0]

    def use_batches(self) -> None:
        self.core.world.settings = msgspec.structs.replace(self.core.world.settings, batch=True)

    def send(self, text: str) -> str:
        sent = self.bob.send_text(self.alice.account, text)
        self.core.settle()
        return sent.id


def offline_end(nodes: list[Node]) -> Node:
    (end,) = [node for node in nodes if node.tag == "ib" and node.child("offline")]
    found = end.child("offline")
    assert found is not None
    return found


def test_end_of_backlog_comes_also_when_it_is_empty() -> None:
    scene = Scene()
    scene.client.disconnect()
    new = scene.client.log_in()
    assert [node.tag for node in new] == ["success", "iq", "ib"]
    assert offline_end(new).attrs["count"] == "0"


def test_start_up_messages_key_share_first_then_history() -> None:
    core, _ = new_core()
    phone = core.phones.create(number=ALICE)
    client = CoreClient(core)
    client.pair(phone)
    new = client.log_in(upload=True)
    messages = [node for node in new if node.tag == "message"]
    assert all(node.attrs["category"] == "peer" for node in messages)
    assert all(node.attrs["from"] == phone.account.lid_jid for node in messages)
    assert all(node.attrs["sender_pn"] == phone.account.pn_jid for node in messages)
    opened = [client.decrypt(node).protocolMessage for node in messages]
    assert [one.Type.Name(one.type) for one in opened] == [
        "APP_STATE_SYNC_KEY_SHARE",
        "HISTORY_SYNC_NOTIFICATION",
        "HISTORY_SYNC_NOTIFICATION",
        "HISTORY_SYNC_NOTIFICATION",
    ]
    assert opened[0].appStateSyncKeyShare.keys[0].keyData.keyData == phone.keys.record.app_keys[0].data
    assert opened[-1].historySyncNotification.progress == 100
    client.disconnect()
    assert not [node for node in client.log_in(upload=True) if node.tag == "message"]


def test_nothing_is_pushed_before_active() -> None:
    scene = Scene()
    scene.client.disconnect()
    scene.send("waiting")
    scene.client.connect(scene.client.login())
    before = scene.client.pump()
    assert [node.tag for node in before] == ["success", "ib"]
    preview = before[1].child("offline_preview")
    assert preview is not None
    assert (preview.attrs["count"], preview.attrs["message"]) == ("1", "1")
    scene.client.send(scene.client.iq("passive", "set", [Node("active")]))
    result, message, end = scene.client.pump()
    assert result.tag == "iq"
    assert message.attrs["offline"] == "1"
    assert offline_end([end]).attrs["count"] == "1"


def test_not_passive_counts_as_active_at_once() -> None:
    scene = Scene()
    scene.client.disconnect()
    scene.send("waiting")
    scene.client.connect(scene.client.login(passive=False))
    assert [node.tag for node in scene.client.pump()] == ["success", "ib", "message", "ib"]


def test_order_is_kept_across_kinds_and_offline() -> None:
    scene = Scene()
    scene.client.disconnect()
    ids = [scene.send(f"text {n}") for n in range(3)]
    scene.bob.read(scene.alice.account, ["3EB0AAAA"])
    ids.append("3EB0AAAA")
    ids.append(scene.send("after the receipt"))
    scene.core.settle()
    new = scene.client.log_in(drain=False)
    pushed = [node for node in new if node.tag in ("message", "receipt")]
    assert [node.attrs["id"] for node in pushed] == ids
    assert [node.attrs["offline"] for node in pushed] == ["1", "2", "3", "4", "5"]
    assert [scene.client.decrypt(node).conversation for node in pushed if node.tag == "message"] == [
        "text 0",
        "text 1",
        "text 2",
        "after the receipt",
    ]


def test_unacked_items_come_again_with_their_id_and_time() -> None:
    scene = Scene()
    scene.client.disconnect()
    scene.send("once more")
    first = [node for node in scene.client.log_in(drain=False) if node.tag == "message"]
    scene.client.disconnect()
    scene.time.advance(100)
    second = [node for node in scene.client.log_in(drain=False) if node.tag == "message"]
    assert first == second
    assert scene.core.world.deliveries.count(scene.device.key, str(first[0].attrs["id"])) == 2
    scene.client.send(receipt_for(second[0]))
    scene.client.disconnect()
    assert not [node for node in scene.client.log_in() if node.tag == "message"]


def test_never_twice_on_one_link() -> None:
    scene = Scene()
    scene.send("one")
    assert len([node for node in scene.client.pump() if node.tag == "message"]) == 1
    scene.send("two")
    assert len([node for node in scene.client.pump() if node.tag == "message"]) == 1


def test_a_plain_ack_consumes_a_message() -> None:
    scene = Scene()
    scene.send("nacked")
    (message,) = scene.client.pump()
    nack = ack_for(message)
    nack.attrs["error"] = "500"
    scene.client.send(nack)
    assert len(scene.device.queue) == 0


def test_a_retry_receipt_alone_does_not_consume() -> None:
    scene = Scene()
    message_id = scene.send("unreadable")
    (message,) = scene.client.pump()
    retry = [
        Node("retry", {"count": "1", "id": message_id, "t": "1", "v": "1"}),
        Node("registration", content=bytes(4)),
    ]
    scene.client.send(
        Node("receipt", {"id": message_id, "to": message.attrs["from"], "type": "retry"}, retry)
    )
    assert next(item.stanza.attrs["id"] for item in scene.device.queue) == message_id


def test_second_link_replaces_the_first_without_loss() -> None:
    scene = Scene()
    second = CoreClient(scene.core)
    second.__dict__.update(scene.client.__dict__)
    second.link, second.inbox = None, []
    second.connect(second.login())
    error, end = scene.client.pump()
    conflict = error.child("conflict")
    assert conflict is not None
    assert conflict.attrs["type"] == "replaced"
    assert "code" not in error.attrs
    assert end.tag == "xmlstreamend"
    assert scene.client.closed is not None
    scene.client.disconnect()
    scene.send("to the new one")
    second.send(second.iq("passive", "set", [Node("active")]))
    assert "message" in [node.tag for node in second.pump()]


def test_noise_key_is_the_proof() -> None:
    scene = Scene()
    scene.client.disconnect()
    stranger = CoreClient(scene.core, seed=99)
    stranger.jid = scene.client.jid
    stranger.connect(stranger.login())
    (failure,) = stranger.pump()
    assert (failure.attrs["reason"], failure.attrs["location"]) == ("401", "sandbox")
    assert scene.device.link is None


@pytest.mark.parametrize(
    "payload",
    [
        ClientPayload(username=15550009999, device=1),
        ClientPayload(username=15550000001),
        ClientPayload(username=15550000001, device=0),
    ],
    ids=["unknown number", "no device", "the phone itself"],
)
def test_logins_that_name_no_companion(payload: ClientPayload) -> None:
    scene = Scene()
    scene.client.disconnect()
    scene.client.connect(payload.SerializeToString())
    assert scene.client.pump()[0].attrs["reason"] == "401"


@pytest.mark.parametrize(
    "payload", [b"", b"\xff", ClientPayload(username=1).SerializeToString() + bytes(70_000)]
)
def test_payloads_that_are_neither(payload: bytes) -> None:
    core, _ = new_core()
    client = CoreClient(core)
    client.connect(payload)
    assert client.pump()[0].attrs["reason"] == "400"


def test_caps_drop_the_oldest() -> None:
    scene = Scene(Settings(queue_items=5, queue_days=1))
    scene.client.disconnect()
    for number in range(8):
        scene.send(f"m{number}")
    new = [node for node in scene.client.log_in() if node.tag == "message"]
    assert [scene.client.decrypt(node).conversation for node in new] == ["m3", "m4", "m5", "m6", "m7"]
    scene.client.disconnect()
    scene.send("too old")
    scene.time.advance(25 * 3600)
    scene.send("fresh")
    assert len([node for node in scene.client.log_in() if node.tag == "message"]) == 1


def test_strict_batches_are_an_option() -> None:
    scene = Scene()
    scene.use_batches()
    scene.client.disconnect()
    for number in range(5):
        scene.send(f"m{number}")

    def ask(count: int) -> list[str]:
        scene.client.send(Node("ib", {}, [Node("offline_batch", {"count": str(count)})]))
        return [node.tag for node in scene.client.pump()]

    assert "message" not in [node.tag for node in scene.client.log_in(drain=False)]
    assert ask(2) == ["message", "message"]
    assert ask(10) == ["message", "message", "message", "ib"]


def test_live_stanzas_wait_for_the_end_of_the_backlog() -> None:
    scene = Scene()
    scene.use_batches()
    scene.client.disconnect()
    scene.send("backlog")
    scene.client.log_in(drain=False)
    scene.send("live")
    assert scene.client.pump() == []
    scene.client.send(Node("ib", {}, [Node("offline_batch", {"count": "5"})]))
    backlog, end, live = scene.client.pump()
    assert "offline" in backlog.attrs
    assert end.tag == "ib"
    assert "offline" not in live.attrs
