"""Requests of paired clients, namespace by namespace (chapter 06, chapter 02 §6, chapter 05 §4)."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from tests.sandbox.companion import PREKEYS
from tests.sandbox.core_client import CoreClient, new_core
from waD.e2ee import adv
from waD.proto.appstate_pb2 import SyncdPatch
from waD.sandbox.accounts import phash
from waD.sandbox.environment import Settings
from waD.sandbox.phone_keys import parse_bundle
from waD.wire.jid import JID, LID, PN
from waD.wire.node import Node

ALICE, BOB = "15550000001", "15550000002"


class Scene:
    def __init__(self, settings: Settings | None = None) -> None:
        self.core, self.time = new_core(settings)
        self.alice = self.core.phones.create("Alice", ALICE)
        self.bob = self.core.phones.create("Bob", BOB)
        self.client = CoreClient(self.core)
        self.client.start(self.alice)

    @property
    def device(self) -> Any:
        return self.alice.account.companions[0]

    def ask(self, xmlns: str, kind: str, *content: Node) -> Node:
        return self.client.request(self.client.iq(xmlns, kind, list(content)))

    def result(self, xmlns: str, kind: str, *content: Node) -> Node:
        answer = self.ask(xmlns, kind, *content)
        assert answer.attrs["type"] == "result", answer.xml()
        return answer.children()[0] if answer.children() else answer

    def code(self, xmlns: str, kind: str, *content: Node) -> str | None:
        answer = self.ask(xmlns, kind, *content)
        error = answer.child("error")
        assert answer.attrs["type"] == "error"
        assert error is not None
        return error.text("code")


@pytest.mark.parametrize("xmlns", ["", "w:g2", "w:mex", "newsletter", "no:such:thing"])
def test_unknown_namespaces_get_501(xmlns: str) -> None:
    assert Scene().code(xmlns, "get", Node("whatever")) == "501"


@pytest.mark.parametrize(
    "xmlns", ["w:stats", "urn:xmpp:whatsapp:dirty", "urn:xmpp:whatsapp:push", "tos", "privacy", "abt", "w:m"]
)
def test_start_up_requests_are_answered(xmlns: str) -> None:
    scene = Scene()
    child = {"privacy": "privacy", "abt": "props", "w:m": "media_conn"}.get(xmlns, "x")
    assert scene.ask(xmlns, "get", Node(child)).attrs["type"] == "result"


def test_pings_carry_the_time_with_and_without_child() -> None:
    scene = Scene()
    for content in ([], [Node("ping")]):
        pong = scene.ask("w:p", "get", *content)
        assert pong.attrs["t"] == str(scene.core.world.now_s)
        assert pong.attrs["from"] == JID("", PN)


def test_answers_of_the_client_are_not_answered() -> None:
    scene = Scene()
    scene.client.send(Node("iq", {"id": "77", "type": "result", "to": JID("", PN)}))
    assert scene.client.pump() == []


class TestPrekeys:
    def count(self, scene: Scene) -> int:
        return scene.result("encrypt", "get", Node("count")).int("value") or 0

    def fetch(self, scene: Scene, *jids: JID) -> list[Node]:
        users = [Node("user", {"jid": jid}) for jid in jids]
        return scene.result("encrypt", "get", Node("key", content=users)).children("user")

    def test_count_is_true(self) -> None:
        scene = Scene()
        used = 1
        assert self.count(scene) == PREKEYS - used
        self.fetch(scene, scene.device.lid)
        assert self.count(scene) == PREKEYS - used - 1

    def test_each_key_is_handed_out_once_in_order_under_both_names(self) -> None:
        scene = Scene()
        ids = [
            parse_bundle(self.fetch(scene, jid)[0].children()).prekey_id
            for jid in (scene.device.lid, scene.device.pn, scene.device.lid)
        ]
        assert ids == [2, 3, 4]

    def test_none_left_leaves_the_key_out(self) -> None:
        scene = Scene()
        scene.device.record.keys.one_time.clear()
        (user,) = self.fetch(scene, scene.device.lid)
        assert user.child("key") is None
        assert user.child("skey") is not None

    def test_low_is_told_once_until_the_next_upload(self) -> None:
        scene = Scene(Settings(low_prekeys=27))

        def told() -> list[str | None]:
            for _ in range(4):
                self.fetch(scene, scene.device.lid)
            notes = [node for node in scene.client.inbox if node.attrs.get("type") == "encrypt"]
            scene.client.inbox.clear()
            return [(note.child("count") or note).text("value") for note in notes]

        assert told() == ["26"]
        assert told() == []
        scene.client.request(scene.client.upload(2))
        assert told() == ["22"]

    def test_companions_bundle_proves_its_account(self) -> None:
        scene = Scene()
        (user,) = self.fetch(scene, scene.device.lid)
        blob = user.child("device-identity")
        assert blob is not None
        identity = user.child("identity")
        assert identity is not None
        adv.verify_companion(identity.data, blob.data, scene.alice.keys.identity.public)

    def test_unknown_devices_do_not_spoil_the_others(self) -> None:
        scene = Scene()
        nobody, no_device = JID("15559999999", PN), scene.device.pn.with_device(77)
        first, second, third = self.fetch(scene, nobody, scene.bob.account.lid_jid, no_device)
        for user in (first, third):
            error = user.child("error")
            assert error is not None
            assert error.attrs == {"code": "406", "text": "not-acceptable"}
        assert second.child("identity") is not None

    def test_digest_matches_what_is_held(self) -> None:
        scene = Scene()
        self.fetch(scene, scene.device.lid)
        digest = scene.result("encrypt", "get", Node("digest"))
        client = scene.client
        ids = [int.from_bytes(one.data, "big") for one in (digest.child("list") or digest).children("id")]
        assert ids == list(range(3, PREKEYS + 1))
        data = client.identity.public + client.signed.public + client.signature
        data += b"".join(client.prekeys[one].public for one in ids)
        found = digest.child("hash")
        assert found is not None
        assert found.data == hashlib.sha1(data, usedforsecurity=False).digest()
        registration = digest.child("registration")
        assert registration is not None
        assert registration.data == client.registration_id.to_bytes(4, "big")

    def test_phones_refill_themselves(self) -> None:
        scene = Scene()
        for _ in range(150):
            (user,) = self.fetch(scene, scene.bob.account.lid_jid)
            assert user.child("key") is not None

    def spoilt_upload(self, scene: Scene, tag: str, content: bytes) -> str | None:
        iq = scene.client.upload(3)
        for child in iq.children():
            if child.tag == tag:
                child.content = content
        return (scene.client.request(iq).child("error") or Node("none")).text("code")

    @pytest.mark.parametrize(
        ("tag", "content"),
        [("identity", bytes(32)), ("registration", b"1"), ("type", b"\x06"), ("skey", b"")],
    )
    def test_unsound_uploads_change_nothing(self, tag: str, content: bytes) -> None:
        scene = Scene()
        before = dict(scene.device.record.keys.one_time)
        assert self.spoilt_upload(scene, tag, content) == "406"
        assert scene.device.record.keys.one_time == before

    def test_repeated_ids_and_too_many(self) -> None:
        scene = Scene()
        iq = scene.client.upload(2)
        keys = iq.child("list")
        assert keys is not None
        keys.content = [keys.children()[0]] * 2
        assert (scene.client.request(iq).child("error") or iq).text("code") == "406"
        keys.content = [keys.children()[0]] * 1001
        assert (scene.client.request(iq).child("error") or iq).text("code") == "406"

    def test_signed_prekey_rotates_only_with_a_signature(self) -> None:
        scene = Scene()
        skey = scene.client.upload(1).child("skey")
        assert skey is not None
        assert scene.ask("encrypt", "set", Node("rotate", content=[skey])).attrs["type"] == "result"
        value = skey.child("value")
        assert value is not None
        value.content = bytes(32)
        assert scene.code("encrypt", "set", Node("rotate", content=[skey])) == "406"


class TestUsync:
    def ask(self, scene: Scene, protocols: list[Node], users: list[Node], **attrs: str) -> list[Node]:
        usync = Node(
            "usync",
            {"sid": "1", "mode": "query", "last": "true", "index": "0", "context": "message", **attrs},
            [Node("query", content=protocols), Node("list", content=users)],
        )
        answer = scene.result("usync", "get", usync)
        self.answer = answer
        listed = answer.child("list")
        return listed.children() if listed else []

    def test_devices_with_a_signed_list(self) -> None:
        scene = Scene()
        for lid in (False, True):
            account = scene.alice.account
            (user,) = self.ask(
                scene, [Node("devices", {"version": "2"})], [Node("user", {"jid": account.jid(lid=lid)})]
            )
            devices = user.child("devices")
            assert devices is not None
            listed, statement = devices.children()
            assert [one.attrs for one in listed.children()] == [
                {"id": "0"},
                {"id": str(scene.device.id), "key-index": "1"},
            ]
            assert listed.attrs["hash"] == phash(one.jid(lid=lid) for one in account.devices.values())
            verified = adv.verify_key_index_list(statement.data, scene.alice.keys.identity.public)
            assert verified.timestamp == statement.int("ts")
            assert user.jid("jid") == account.jid(lid=lid)
            assert user.jid("pn_jid") == (account.pn_jid if lid else None)

    def test_lid_and_status_and_unknown_users_in_order(self) -> None:
        scene = Scene()
        scene.bob.account.record.about = "busy"
        users = [Node("user", {"jid": jid}) for jid in (JID("15559999999", PN), scene.bob.account.pn_jid)]
        nobody, bob = self.ask(scene, [Node("lid"), Node("status"), Node("nonsense")], users)
        assert nobody.children() == []
        lid, status = bob.children()
        assert lid.jid("val") == scene.bob.account.lid_jid
        assert status.data == b"busy"
        result = self.answer.child("result")
        assert result is not None
        assert [one.tag for one in result.children()] == ["lid", "status", "nonsense"]

    def test_number_check_echoes_the_question(self) -> None:
        scene = Scene()
        asked = [f"+{BOB}", "+15559999999", "nonsense", f"+{BOB}@c.us"]
        users = [Node("user", {}, [Node("contact", content=text)]) for text in asked]
        answers = self.ask(scene, [Node("contact")], users)
        contacts = [user.children()[0] for user in answers]
        assert [one.attrs["type"] for one in contacts] == ["in", "out", "invalid", "in"]
        assert [one.data.decode() for one in contacts] == asked
        assert answers[0].jid("jid") == scene.bob.account.pn_jid

    def test_lid_addressing_of_a_number_check(self) -> None:
        scene = Scene()
        users = [Node("user", {}, [Node("contact", content=f"+{BOB}")])]
        (user,) = self.ask(scene, [Node("contact", {"addressing_mode": "lid"})], users)
        assert user.jid("jid") == scene.bob.account.lid_jid
        assert user.jid("pn_jid") == scene.bob.account.pn_jid

    def test_known_hash_leaves_the_user_out(self) -> None:
        scene = Scene()
        known = phash([scene.bob.account.phone.pn])
        for digest, count in ((known, 0), ("2:AAAAAAAA", 1)):
            user = Node("user", {"jid": scene.bob.account.pn_jid}, [Node("devices", {"device_hash": digest})])
            assert len(self.ask(scene, [Node("devices", {"version": "2"})], [user])) == count

    def test_hidden_about(self) -> None:
        scene = Scene()
        scene.bob.account.record.privacy["status"] = "none"
        (user,) = self.ask(scene, [Node("status")], [Node("user", {"jid": scene.bob.account.pn_jid})])
        assert user.children()[0].attrs == {"code": "401", "t": "0"}

    def test_malformed(self) -> None:
        scene = Scene()
        assert scene.code("usync", "get", Node("usync")) == "400"
        bad = Node("usync", {"mode": "odd"}, [Node("query", content=[Node("lid")]), Node("list")])
        assert scene.code("usync", "get", bad) == "400"


class TestSettings:
    def test_privacy_is_kept_and_told_to_siblings(self) -> None:
        scene = Scene()
        sibling = CoreClient(scene.core, seed=5)
        sibling.start(scene.alice)
        category = Node("category", {"name": "last", "value": "none"})
        scene.result("privacy", "set", Node("privacy", content=[category]))
        found = scene.result("privacy", "get", Node("privacy")).children()
        assert {one.attrs["name"]: one.attrs["value"] for one in found}["last"] == "none"
        (note,) = [node for node in sibling.pump() if node.tag == "notification"]
        assert note.attrs["type"] == "account_sync"
        assert note.child("privacy") is not None

    @pytest.mark.parametrize(
        ("name", "value", "code"), [("nope", "all", "404"), ("online", "contacts", "400")]
    )
    def test_bad_privacy(self, name: str, value: str, code: str) -> None:
        category = Node("category", {"name": name, "value": value})
        assert Scene().code("privacy", "set", Node("privacy", content=[category])) == code

    def test_tokens_are_accepted(self) -> None:
        scene = Scene()
        token = Node("token", {"jid": scene.bob.account.pn_jid, "t": "1", "type": "trusted_contact"})
        assert scene.ask("privacy", "set", Node("tokens", content=[token])).attrs["type"] == "result"

    def test_block_list(self) -> None:
        scene = Scene()
        lid = scene.bob.account.lid_jid
        blocked = scene.result("blocklist", "set", Node("item", {"action": "block", "jid": lid}))
        assert [item.jid("jid") for item in blocked.children()] == [lid]
        assert scene.ask("blocklist", "get").children()[0].text("dhash") == blocked.text("dhash")
        pn = Node("item", {"action": "block", "jid": scene.bob.account.pn_jid})
        assert scene.code("blocklist", "set", pn) == "400"
        assert (
            scene.result("blocklist", "set", Node("item", {"action": "unblock", "jid": lid})).children() == []
        )

    def test_about(self) -> None:
        scene = Scene()
        scene.ask("status", "set", Node("status", content="out to lunch"))
        assert scene.alice.account.record.about == "out to lunch"
        assert scene.code("status", "set", Node("status", content="x" * 140)) == "406"

    def test_default_timer(self) -> None:
        scene = Scene()
        scene.ask("disappearing_mode", "set", Node("disappearing_mode", {"duration": "86400"}))
        assert scene.alice.account.record.disappearing_s == 86_400
        assert scene.code("disappearing_mode", "set", Node("disappearing_mode", {"duration": "5"})) == "400"

    def test_media_hosts(self) -> None:
        media = Scene().result("w:m", "set", Node("media_conn"))
        assert {"auth", "ttl", "auth_ttl", "max_buckets"} <= media.attrs.keys()
        assert [host.attrs["hostname"] for host in media.children()] == ["127.0.0.1:8080"]


class TestAppState:
    def patch(self) -> bytes:
        patch = SyncdPatch(snapshotMac=bytes(32), patchMac=bytes(32))
        patch.keyId.id = b"\0\0\0\0\0\1"
        return patch.SerializeToString()

    def sync(self, scene: Scene, *collections: Node) -> list[Node]:
        return scene.result("w:sync:app:state", "set", Node("sync", content=list(collections))).children()

    def collection(self, name: str, version: int, patch: bytes | None = None) -> Node:
        content = [Node("patch", content=patch)] if patch is not None else None
        return Node(
            "collection", {"name": name, "version": str(version), "return_snapshot": "false"}, content
        )

    def test_empty_collections_have_no_version(self) -> None:
        names = ["critical_unblock_low", "regular_high", "regular"]
        answers = self.sync(Scene(), *[Node("collection", {"name": name}) for name in names])
        assert [answer.attrs for answer in answers] == [{"name": name} for name in names]
        assert all(answer.children() == [] for answer in answers)

    def test_uploads_are_numbered_and_handed_on(self) -> None:
        scene = Scene()
        sibling = CoreClient(scene.core, seed=5)
        sibling.start(scene.alice)
        (accepted,) = self.sync(scene, self.collection("regular", 0, self.patch()))
        assert accepted.attrs == {"name": "regular", "version": "1"}
        (note,) = [node for node in sibling.pump() if node.tag == "notification"]
        assert (note.attrs["type"], note.children()[0].attrs["version"]) == ("server_sync", "1")
        (full,) = self.sync(scene, self.collection("regular", 0))
        patches = full.child("patches")
        assert full.attrs["version"] == "1"
        assert patches is not None
        assert SyncdPatch.FromString(patches.children()[0].data).version.version == 1

    def test_stale_base_is_a_conflict_with_what_was_missed(self) -> None:
        scene = Scene()
        self.sync(scene, self.collection("regular", 0, self.patch()))
        (conflict,) = self.sync(scene, self.collection("regular", 0, self.patch()))
        error = conflict.child("error")
        assert error is not None
        assert error.attrs["code"] == "409"
        assert conflict.child("patches") is not None

    def test_long_histories_come_in_pages(self) -> None:
        scene = Scene()
        for version in range(60):
            self.sync(scene, self.collection("regular", version, self.patch()))
        (first,) = self.sync(scene, self.collection("regular", 0))
        assert (first.attrs["version"], first.attrs["has_more_patches"]) == ("50", "true")
        (second,) = self.sync(scene, self.collection("regular", 50))
        assert second.attrs["version"] == "60"
        assert "has_more_patches" not in second.attrs

    @pytest.mark.parametrize(
        ("name", "version", "patch", "code"),
        [
            ("nope", 0, None, "404"),
            ("regular", 9, None, "400"),
            ("regular", 0, b"\xff", "400"),
            ("regular", 0, b"", "400"),
        ],
    )
    def test_bad_requests(self, name: str, version: int, patch: bytes | None, code: str) -> None:
        (answer,) = self.sync(Scene(), self.collection(name, version, patch))
        error = answer.child("error")
        assert answer.attrs["type"] == "error"
        assert error is not None
        assert error.attrs["code"] == code


def test_lids_are_fifteen_digits_and_unrelated() -> None:
    scene = Scene()
    assert scene.alice.account.lid_jid.server == LID
    assert len(scene.alice.account.lid) == 15
    assert scene.alice.account.lid != scene.bob.account.lid
