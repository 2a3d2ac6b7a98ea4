"""Faults on order (chapter 07 §16)."""

from __future__ import annotations

from typing import Protocol

import msgspec
import pytest

from tests.sandbox.core_client import CoreClient
from tests.sandbox.test_messages import ALICE, Scene
from waD.e2ee.errors import SignalError
from waD.sandbox.core import Core
from waD.sandbox.errors import SandboxError
from waD.sandbox.faults import LATER, NOW, Fault
from waD.sandbox.phone_keys import parse_bundle
from waD.wire.node import Node


class HasCore(Protocol):
    """A scene of any kind."""

    core: Core


def order(scene: HasCore, kind: str, target: str | None = ALICE, **details: object) -> Fault:
    return scene.core.apply(msgspec.convert({"kind": kind, "target": target, **details}, type=Fault))


def texts(scene: Scene, *wanted: str) -> list[Node]:
    """Bob's phone writes these; returns the message stanzas that reach Alice's companion."""
    for text in wanted:
        scene.bob.send_text(scene.alice.account, text)
        scene.core.settle()
    return [node for node in scene.client.pump() if node.tag == "message"]


def read(scene: Scene, nodes: list[Node]) -> list[str]:
    return [scene.client.decrypt(node).conversation for node in nodes]


def test_duplicate() -> None:
    scene = Scene()
    order(scene, "duplicate")
    one, two, three = texts(scene, "a", "b")
    assert one == two
    assert three.attrs["id"] != one.attrs["id"]


def test_reorder() -> None:
    scene = Scene()
    order(scene, "reorder")
    assert read(scene, texts(scene, "a", "b", "c")) == ["b", "a", "c"]


def test_corrupt_enc_fails_to_decrypt_once() -> None:
    scene = Scene()
    order(scene, "corrupt-enc")
    first, second = texts(scene, "a", "b")
    with pytest.raises(SignalError, match="bad_mac"):
        scene.client.decrypt(first)
    assert scene.client.decrypt(second).conversation == "b"


def test_drop_ack_and_delay_ack_and_ack_error() -> None:
    scene = Scene()
    order(scene, "drop-ack")
    with pytest.raises(ValueError, match="not enough values"):
        scene.send("silence", "3EB0A1")
    assert "error" not in scene.send("heard", "3EB0A2").attrs
    order(scene, "ack-error", code=463)
    assert scene.send("refused", "3EB0A3").attrs["error"] == "463"
    order(scene, "delay-ack", delayMs=5000)
    with pytest.raises(ValueError, match="not enough values"):
        scene.send("slow", "3EB0A4")
    assert scene.client.link is not None
    assert scene.client.link.due_ms == scene.core.world.now_ms + 5000
    scene.time.advance(5)
    (ack,) = [node for node in scene.client.pump() if node.tag == "ack"]
    assert ack.attrs["id"] == "3EB0A4"
    assert [one.text for one in scene.bob.messages() if one.text] == ["silence", "heard", "slow"]


def test_iq_errors_and_silence() -> None:
    scene = Scene()
    order(scene, "iq", xmlns="usync", code=429, backoffS=7)
    order(scene, "iq", xmlns="abt", never=True)
    answer = scene.client.request(scene.client.iq("usync", "get"))
    error = answer.child("error")
    assert error is not None
    assert (error.attrs["code"], error.attrs["backoff"]) == ("429", "7")
    scene.client.send(scene.client.iq("abt", "get", [Node("props")]))
    assert scene.client.pump() == []
    assert scene.client.request(scene.client.iq("abt", "get", [Node("props")])).attrs["type"] == "result"


def test_bad_bundle_and_exhausted_prekeys() -> None:
    scene = Scene()
    device = scene.bob.account.companions[0]
    order(scene, "bad-bundle", device.key)
    order(scene, "exhaust-prekeys", device.key)

    def bundle() -> Node:
        users = Node("key", content=[Node("user", {"jid": device.lid})])
        return scene.client.request(scene.client.iq("encrypt", "get", [users])).children()[0].children()[0]

    broken = bundle()
    assert broken.child("key") is None
    with pytest.raises(SignalError, match="invalid_signature"):
        scene.client.start_session(device.lid, broken)
    assert parse_bundle(bundle().children()).prekey_id is None


@pytest.mark.parametrize("frame", [True, False])
def test_close(frame: bool) -> None:
    scene = Scene()
    order(scene, "close", frame=frame)
    assert scene.client.pump() == []
    assert scene.client.closed is not None
    assert scene.client.closed.code == (1000 if frame else None)


@pytest.mark.parametrize(
    ("details", "attrs", "children"),
    [
        ({"code": 515}, {"code": "515"}, []),
        ({"code": 503}, {"code": "503"}, []),
        ({"conflict": "replaced"}, {}, ["conflict"]),
        ({"code": 401, "conflict": "device_removed"}, {"code": "401"}, ["conflict"]),
        ({"child": "ack", "attrs": {"class": "message", "id": "X"}}, {}, ["ack"]),
    ],
)
def test_stream_errors(details: dict[str, object], attrs: dict[str, str], children: list[str]) -> None:
    scene = Scene()
    order(scene, "stream-error", **details)
    error, end = scene.client.pump()
    assert (error.tag, error.attrs, [child.tag for child in error.children()]) == (
        "stream:error",
        attrs,
        children,
    )
    assert end.tag == "xmlstreamend"
    assert scene.client.closed is not None


def test_stream_end_ib_and_ping() -> None:
    scene = Scene()
    order(scene, "ib", child="client_expiration", attrs={"t": "5"})
    order(scene, "ping")
    bulletin, ping = scene.client.pump()
    assert bulletin.children()[0].attrs == {"t": "5"}
    assert (ping.attrs["xmlns"], ping.attrs["type"]) == ("urn:xmpp:ping", "get")
    order(scene, "stream-end")
    assert [node.tag for node in scene.client.pump()] == ["xmlstreamend"]


def test_failure_at_the_next_login_only() -> None:
    scene = Scene()
    scene.client.disconnect()
    order(scene, "failure", code=402, attrs={"expire": "3600", "code": "101"})
    scene.client.connect(scene.client.login())
    (failure,) = scene.client.pump()
    assert failure.attrs == {"reason": "402", "location": "sandbox", "expire": "3600", "code": "101"}
    scene.client.disconnect()
    assert scene.client.log_in()[0].tag == "success"


def test_replaced_and_unlink() -> None:
    scene = Scene()
    order(scene, "replaced")
    error, _ = scene.client.pump()
    assert error.children()[0].attrs == {"type": "replaced"}
    scene.client.disconnect()
    scene.client.log_in()
    order(scene, "unlink")
    assert scene.alice.account.companions == []


def test_stall_holds_everything_back_until_resumed() -> None:
    scene = Scene()
    order(scene, "stall", mode="send")
    assert texts(scene, "held") == []
    order(scene, "resume")
    assert len([node for node in scene.client.pump() if node.tag == "message"]) == 1


def test_a_delayed_answer_of_a_stalled_link_is_not_due() -> None:
    scene = Scene()
    link, due_ms = scene.client.link, scene.core.world.now_ms + 5000
    assert link is not None
    link.send(Node("ack", {"id": "slow"}), due_ms)
    order(scene, "stall", mode="send")
    # Whoever waits until it is due would otherwise find it due for ever, with nothing to write.
    assert link.due_ms is None
    order(scene, "resume")
    assert link.due_ms == due_ms


def test_a_stalled_queue_still_answers() -> None:
    scene = Scene()
    order(scene, "stall", mode="queue")
    assert texts(scene, "held") == []
    assert scene.client.request(scene.client.iq("encrypt", "get", [Node("count")])).attrs["type"] == "result"
    assert "error" not in scene.send("sent meanwhile").attrs
    order(scene, "resume")
    assert read(scene, [node for node in scene.client.pump() if node.tag == "message"]) == ["held"]


def test_count_zero_lasts_until_cleared() -> None:
    scene = Scene()
    fault = order(scene, "ack-error", code=503, count=0)
    for number in range(3):
        assert scene.send("x", f"3EB0A{number}").attrs["error"] == "503"
    assert scene.core.world.faults.report()[0]["fired"] == 3
    assert scene.core.world.faults.clear(fault.id) == 1
    assert "error" not in scene.send("x", "3EB0A9").attrs


def test_faults_hit_only_their_target() -> None:
    scene = Scene()
    order(scene, "ack-error", "15550000002", code=503)
    assert "error" not in scene.send("x").attrs
    assert scene.core.world.faults.clear() == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "nonsense"},
        {"kind": "failure"},
        {"kind": "noise", "mode": "odd"},
        {"kind": "stall", "mode": "odd"},
        {"kind": "http"},
        {"kind": "iq"},
        {"kind": "drop-ack", "count": -1},
        {"kind": "close", "target": "15559999999"},
    ],
)
def test_nonsense_is_refused_by_name(fault: dict[str, object]) -> None:
    scene = Scene()
    with pytest.raises(SandboxError):
        scene.core.apply(msgspec.convert(fault, type=Fault))


def test_faults_on_links_need_a_link() -> None:
    scene = Scene()
    scene.client.disconnect()
    with pytest.raises(SandboxError, match="not connected"):
        order(scene, "close")


def test_no_kind_is_both_now_and_later() -> None:
    assert not NOW & LATER


def test_faults_before_pairing() -> None:
    scene = Scene()
    order(scene, "failure", None, code=405)
    stranger = CoreClient(scene.core, seed=50)
    stranger.connect(stranger.registration())
    assert stranger.pump()[0].attrs["reason"] == "405"
