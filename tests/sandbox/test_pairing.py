"""Pairing by QR on the core: references, both signatures, refusals, removal (chapter 02 §3)."""

from __future__ import annotations

import base64

import pytest

from tests.sandbox.core_client import CoreClient, new_core
from waD.e2ee import adv, curve
from waD.proto.adv_pb2 import ADVSignedDeviceIdentity
from waD.sandbox.errors import SandboxError
from waD.sandbox.qr import parse_qr
from waD.wire.jid import SERVER
from waD.wire.node import Node

ALICE = "15550000001"


def refs(client: CoreClient) -> list[str]:
    pair_device = client.inbox[-1].child("pair-device")
    assert pair_device is not None
    return [ref.data.decode() for ref in pair_device.children("ref")]


def offer() -> tuple[CoreClient, list[str]]:
    core, _ = new_core()
    client = CoreClient(core)
    client.connect(client.registration())
    client.pump()
    return client, refs(client)


def test_first_stanza_is_pair_device_with_six_refs() -> None:
    client, codes = offer()
    (iq,) = client.inbox
    assert iq.attrs["from"] == SERVER
    assert iq.attrs["type"] == "set"
    assert iq.attrs["xmlns"] == "md"
    assert len(set(codes)) == 6


def test_pairs_and_logs_in() -> None:
    core, _ = new_core()
    client = CoreClient(core)
    phone = core.phones.create(number=ALICE)
    client.pair(phone)
    (device,) = phone.account.companions
    assert device.pn == client.jid
    assert device.lid == client.lid
    assert device.record.key_index == 1
    new = client.log_in()
    assert new[0].tag == "success"
    assert new[0].jid("lid") == client.lid
    assert new[0].int("t") == core.world.now_s


def test_stored_identity_convinces_a_peer_and_the_list_names_the_device() -> None:
    core, _ = new_core()
    client = CoreClient(core)
    phone = core.phones.create(number=ALICE)
    client.pair(phone)
    (device,) = phone.account.companions
    assert device.record.blob is not None
    verified = adv.verify_companion(client.identity.public, device.record.blob, phone.keys.identity.public)
    assert verified.key_index == device.record.key_index
    assert verified.raw_id == phone.account.record.raw_id
    listed = adv.verify_key_index_list(core.phones.key_index_list(phone.account), phone.keys.identity.public)
    assert listed.verified
    assert listed.keep([(0, None), (device.id, device.record.key_index), (77, None)]) == [0, device.id]


@pytest.mark.parametrize("spoilt", ["signature", "details", "missing"])
def test_bad_device_signature_is_refused(spoilt: str) -> None:
    client, codes = offer()
    phone = client.core.phones.create(number=ALICE)
    client.core.pairing.scan(client.qr(codes[0]), phone.account)
    answer = client.accept_pairing(client.pump()[0])
    identity = answer.children()[0].children()[0]
    signed = ADVSignedDeviceIdentity.FromString(identity.data)
    if spoilt == "signature":
        signed.deviceSignature = curve.sign(client.identity.private, b"something else", client.random)
    elif spoilt == "details":
        signed.details = b"\x08\x01"
    identity.content = signed.SerializeToString()
    if spoilt == "missing":
        answer.children()[0].content = None
    client.send(answer)
    assert client.pump() == []
    assert client.closed is not None
    assert phone.account.companions == []
    assert any("pair-device-sign" in one["text"] for one in client.core.world.complaints())


def test_error_answer_voids_the_pairing() -> None:
    client, codes = offer()
    phone = client.core.phones.create(number=ALICE)
    client.core.pairing.scan(client.qr(codes[0]), phone.account)
    iq = client.pump()[0]
    error = Node("error", {"code": "401", "text": "hmac-mismatch"})
    client.send(Node("iq", {"to": SERVER, "type": "error", "id": iq.attrs["id"]}, [error]))
    client.pump()
    assert client.closed is not None
    assert phone.account.companions == []


def test_a_scanned_code_cannot_be_scanned_again() -> None:
    client, codes = offer()
    phone = client.core.phones.create(number=ALICE)
    client.core.pairing.scan(client.qr(codes[0]), phone.account)
    for code in codes:
        with pytest.raises(SandboxError) as refused:
            client.core.pairing.scan(client.qr(code), phone.account)
        assert refused.value.status == 404


def test_codes_live_as_long_as_they_are_shown() -> None:
    core, time = new_core()
    client = CoreClient(core)
    client.connect(client.registration())
    client.pump()
    codes = refs(client)
    phone = core.phones.create(number=ALICE)
    time.advance(70)
    with pytest.raises(SandboxError):
        core.pairing.scan(client.qr(codes[0]), phone.account)
    core.pairing.scan(client.qr(codes[1]), phone.account)


def test_codes_die_with_their_link() -> None:
    client, codes = offer()
    client.disconnect()
    with pytest.raises(SandboxError, match="unknown"):
        client.core.pairing.scan(client.qr(codes[0]))


def test_keys_in_the_code_must_be_those_of_the_link() -> None:
    client, codes = offer()
    other = CoreClient(client.core, seed=9)
    client.noise, other.noise = other.noise, client.noise
    with pytest.raises(SandboxError, match="noise key"):
        client.core.pairing.scan(client.qr(codes[0]))
    with pytest.raises(SandboxError, match="identity key"):
        client.core.pairing.scan(other.qr(codes[0]))


def test_push_name_selects_the_account() -> None:
    core, _ = new_core()
    jids = []
    for seed, name in enumerate(["Anna", "Anna", "Berta", None, None]):
        client = CoreClient(core, name, seed=10 + seed)
        client.connect(client.registration())
        client.pump()
        scanned = core.pairing.scan(client.qr(refs(client)[0]))
        client.send(client.accept_pairing(client.pump()[0]))
        client.pump()
        client.disconnect()
        assert scanned.jid == str(client.jid)
        jids.append(client.jid)
    users = [jid.user for jid in jids if jid]
    assert users[0] == users[1]
    assert len(set(users)) == 4
    devices = [jid.device for jid in jids if jid]
    assert devices[0] != devices[1]
    assert all(1 <= device <= 98 for device in devices)


def test_fifth_companion_is_refused() -> None:
    core, _ = new_core()
    phone = core.phones.create(number=ALICE)
    for seed in range(4):
        CoreClient(core, seed=20 + seed).pair(phone)
    fifth = CoreClient(core, seed=30)
    fifth.connect(fifth.registration())
    fifth.pump()
    with pytest.raises(SandboxError, match="companions") as refused:
        core.pairing.scan(fifth.qr(refs(fifth)[0]), phone.account)
    assert refused.value.status == 409
    ids = [device.id for device in phone.account.companions]
    assert ids == sorted(set(ids))
    assert [device.record.key_index for device in phone.account.companions] == [1, 2, 3, 4]


def test_removed_device_ids_and_indexes_do_not_come_back_at_once() -> None:
    core, _ = new_core()
    phone = core.phones.create(number=ALICE)
    seen: list[int] = []
    for seed in range(6):
        CoreClient(core, seed=20 + seed).pair(phone)
        device = phone.account.companions[-1]
        seen.append(device.id)
        assert device.record.key_index == seed + 1
        core.pairing.remove(device)
    assert len(set(seen)) == 6


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("eRegid", b"\x01"),
        ("eKeytype", b"\x06"),
        ("eIdent", bytes(31)),
        ("eSkeyId", b"\x01"),
        ("eSkeyVal", bytes(33)),
        ("eSkeySig", bytes(64)),
        ("buildHash", b""),
        ("deviceProps", b"\xff"),
    ],
)
def test_unsound_registrations_are_refused(field: str, value: bytes) -> None:
    core, _ = new_core()
    client = CoreClient(core)
    client.connect(client.registration(**{field: value}))
    (failure,) = client.pump()
    assert failure.tag == "failure"
    assert failure.attrs["reason"] == "400"
    assert client.closed is not None


def test_unpaired_client_gets_pongs_and_501() -> None:
    client, _ = offer()
    pong = client.request(client.iq("w:p", "get"))
    assert pong.attrs["type"] == "result"
    refused = client.request(client.iq("usync", "get"))
    error = refused.child("error")
    assert error is not None
    assert error.attrs["code"] == "501"


def test_removal_is_told_with_code_and_conflict() -> None:
    core, _ = new_core()
    phone = core.phones.create(number=ALICE)
    client = CoreClient(core)
    client.start(phone)
    core.pairing.remove(phone.account.companions[0])
    error, end = client.pump()
    assert error.attrs["code"] == "401"
    conflict = error.child("conflict")
    assert conflict is not None
    assert conflict.attrs["type"] == "device_removed"
    assert end.tag == "xmlstreamend"
    client.disconnect()
    client.connect(client.login())
    assert client.pump()[0].attrs["reason"] == "401"


def test_own_logout() -> None:
    core, _ = new_core()
    phone = core.phones.create(number=ALICE)
    client = CoreClient(core)
    client.start(phone)
    assert client.jid is not None
    remove = Node("remove-companion-device", {"jid": client.jid, "reason": "user_initiated"})
    iq = client.iq("md", "set", [remove])
    client.send(iq)
    result, error, _ = client.pump()
    assert (result.attrs["type"], error.tag) == ("result", "stream:error")
    assert phone.account.companions == []


def test_a_companion_cannot_remove_another() -> None:
    core, _ = new_core()
    phone = core.phones.create(number=ALICE)
    one, two = CoreClient(core, seed=3), CoreClient(core, seed=4)
    one.start(phone)
    two.start(phone)
    assert two.jid is not None
    remove = Node("remove-companion-device", {"jid": two.jid})
    assert one.request(one.iq("md", "set", [remove])).attrs["type"] == "error"
    assert len(phone.account.companions) == 2


def test_siblings_and_contacts_hear_of_a_new_device() -> None:
    core, _ = new_core()
    alice, bob = core.phones.create(number=ALICE), core.phones.create(number="15550000002")
    first, contact = CoreClient(core, seed=3), CoreClient(core, seed=4)
    first.start(alice)
    contact.start(bob)
    bob.send_text(alice.account, "hello")
    core.settle()
    CoreClient(core, seed=5).pair(alice)
    own = [node for node in first.pump() if node.tag == "notification"]
    theirs = [node for node in contact.pump() if node.tag == "notification"]
    assert [node.attrs["type"] for node in own] == ["account_sync"]
    assert [node.attrs["type"] for node in theirs] == ["devices"]
    added = theirs[0].child("add")
    assert theirs[0].jid("lid") == alice.account.lid_jid
    assert added is not None
    statement = added.child("key-index-list")
    assert statement is not None
    assert adv.verify_key_index_list(statement.data, alice.keys.identity.public).valid_indexes == {0, 1, 2}
    listed = own[0].child("devices")
    assert listed is not None
    assert len(listed.children("device")) == 3


class TestQrText:
    KEY = base64.b64encode(bytes(32)).decode()

    def text(self, *, ref: str = "2@x", kind: str = "1") -> str:
        return ",".join([ref, self.KEY, self.KEY, self.KEY, kind])

    def test_reads_with_and_without_link(self) -> None:
        plain = parse_qr(self.text())
        linked = parse_qr(f"https://wa.me/settings/linked_devices#{self.text()}\n")
        assert plain == linked
        assert plain.ref == "2@x"

    def test_commas_belong_to_the_reference(self) -> None:
        assert parse_qr(self.text(ref="a,b")).ref == "a,b"

    def test_a_trailing_link_is_ignored(self) -> None:
        assert parse_qr(self.text() + ",https://example").client_type == "1"

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "a,b",
            ",".join(["r", KEY, KEY, KEY]),
            ",".join(["r", KEY, KEY, KEY, "0"]),
            ",".join(["", KEY, KEY, KEY, "1"]),
            ",".join(["r", KEY[:-4], KEY, KEY, "1"]),
            ",".join(["r", "?" * 44, KEY, KEY, "1"]),
            "x" * 1025,
        ],
    )
    def test_refuses(self, text: str) -> None:
        with pytest.raises(SandboxError):
            parse_qr(text)

    def test_secret_is_not_shown(self) -> None:
        assert "adv_secret" not in repr(parse_qr(self.text()))
