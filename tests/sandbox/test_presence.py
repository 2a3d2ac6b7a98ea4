"""Presence and typing notices (chapter 07 §8, §6.5, §6.6)."""

from __future__ import annotations

from tests.sandbox.core_client import CoreClient
from tests.sandbox.test_messages import Scene
from waD.wire.jid import JID
from waD.wire.node import Node


def presence(client: CoreClient) -> list[Node]:
    return [node for node in client.pump() if node.tag == "presence"]


def subscribe(client: CoreClient, jid: JID, kind: str = "subscribe") -> None:
    client.send(Node("presence", {"type": kind, "to": jid}))


def say(client: CoreClient, kind: str) -> None:
    client.send(Node("presence", {"type": kind, "name": "N"}))


def test_subscribers_hear_at_once_and_on_change_in_their_own_form() -> None:
    scene = Scene()
    watcher, bob = scene.client, scene.bobs[0]
    subscribe(watcher, scene.bob.account.pn_jid)
    assert [node.attrs for node in presence(watcher)] == [
        {"from": scene.bob.account.pn_jid, "type": "unavailable"}
    ]
    say(bob, "available")
    assert [node.attrs for node in presence(watcher)] == [{"from": scene.bob.account.pn_jid}]
    scene.time.advance(5)
    say(bob, "unavailable")
    (gone,) = presence(watcher)
    assert gone.attrs["last"] == str(scene.core.world.now_s)
    subscribe(watcher, scene.bob.account.lid_jid)
    assert presence(watcher)[0].attrs["from"] == scene.bob.account.lid_jid


def test_available_while_any_device_is() -> None:
    scene = Scene(bobs=2)
    subscribe(scene.client, scene.bob.account.pn_jid)
    presence(scene.client)
    say(scene.bobs[0], "available")
    say(scene.bobs[1], "available")
    assert len(presence(scene.client)) == 1
    scene.bobs[0].disconnect()
    assert presence(scene.client) == []
    scene.bobs[1].disconnect()
    assert presence(scene.client)[0].attrs["type"] == "unavailable"


def test_unsubscribed_and_unknown_hear_nothing() -> None:
    scene = Scene()
    subscribe(scene.client, JID("15559999999", "s.whatsapp.net"))
    subscribe(scene.client, scene.bob.account.pn_jid)
    subscribe(scene.client, scene.bob.account.pn_jid, "unsubscribe")
    presence(scene.client)
    say(scene.bobs[0], "available")
    assert presence(scene.client) == []


def test_hidden_blocked_and_restricted() -> None:
    for hide in ("privacy", "blocked", "restricted"):
        scene = Scene()
        if hide == "privacy":
            scene.bob.account.record.privacy["online"] = "none"
        elif hide == "blocked":
            scene.bob.account.record.blocked.append(scene.alice.account.lid)
        else:
            scene.bob.account.flags["restricted"] = True
        subscribe(scene.client, scene.bob.account.pn_jid)
        say(scene.bobs[0], "available")
        assert presence(scene.client) == [], hide


def test_last_seen_may_be_denied() -> None:
    scene = Scene()
    scene.bob.account.record.privacy["last"] = "none"
    subscribe(scene.client, scene.bob.account.pn_jid)
    assert presence(scene.client)[0].attrs["last"] == "deny"


def test_only_the_newest_state_survives_a_short_absence() -> None:
    scene = Scene()
    subscribe(scene.client, scene.bob.account.pn_jid)
    presence(scene.client)
    scene.client.disconnect()
    for _ in range(5):
        say(scene.bobs[0], "available")
        say(scene.bobs[0], "unavailable")
    say(scene.bobs[0], "available")
    scene.time.advance(30)
    new = [node for node in scene.client.log_in() if node.tag == "presence"]
    assert [node.attrs for node in new] == [{"from": scene.bob.account.pn_jid}]


def test_subscriptions_are_forgotten_after_a_minute() -> None:
    scene = Scene()
    subscribe(scene.client, scene.bob.account.pn_jid)
    scene.client.disconnect()
    scene.time.advance(61)
    assert [node for node in scene.client.log_in() if node.tag == "presence"] == []


def test_presence_without_type_only_names() -> None:
    scene = Scene()
    scene.client.send(Node("presence", {"name": "New"}))
    scene.client.send(Node("presence", {}))
    assert scene.alice.account.record.name == "New"
    assert not scene.alice.account.available


class TestTyping:
    def type(self, scene: Scene, to: JID, *states: str) -> None:
        scene.client.send(Node("chatstate", {"to": to}, [Node(state) for state in states]))

    def seen(self, nodes: list[Node]) -> list[Node]:
        return [node for node in nodes if node.tag == "chatstate"]

    def test_goes_to_all_devices_in_the_form_of_the_chat(self) -> None:
        scene = Scene(bobs=2)
        for to, sender in (
            (scene.bob.account.lid_jid, scene.alice.account.lid_jid),
            (scene.bob.account.pn_jid, scene.alice.account.pn_jid),
        ):
            self.type(scene, to, "composing")
            for client in scene.bobs:
                (notice,) = self.seen(client.pump())
                assert notice.attrs == {"from": sender}
                assert notice.children()[0].tag == "composing"

    def test_old_ones_are_dropped_fresh_ones_delivered(self) -> None:
        scene = Scene()
        bob = scene.bobs[0]
        bob.disconnect()
        self.type(scene, scene.bob.account.lid_jid, "composing")
        scene.time.advance(31)
        self.type(scene, scene.bob.account.lid_jid, "paused")
        (notice,) = self.seen(bob.log_in())
        assert notice.children()[0].tag == "paused"
        assert "offline" not in notice.attrs
        bob.disconnect()
        assert self.seen(bob.log_in()) == []

    def test_nonsense_goes_nowhere(self) -> None:
        scene = Scene()
        self.type(scene, scene.bob.account.lid_jid, "composing", "paused")
        self.type(scene, scene.bob.account.lid_jid, "dancing")
        self.type(scene, scene.alice.account.lid_jid, "composing")
        assert self.seen(scene.bobs[0].pump()) == []
