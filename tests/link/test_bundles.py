from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.e2ee.parties import flip, seeded
from tests.link.requester import Answer, FakeRequester, refusal, result
from waD.e2ee import adv, curve
from waD.e2ee.limits import MAX_ADV_BLOB_SIZE
from waD.link import bundles
from waD.link.bundles import BATCH_SIZE, DeviceBundle, check_all, fetch_bundles, parse_answer
from waD.link.errors import MalformedReply, RequestError, RequestTimeout
from waD.link.stanzas import big_endian
from waD.proto import adv_pb2
from waD.wire.jid import HOSTED, JID, LID, PN
from waD.wire.node import Node

RANDOM = seeded(20)
SECRET = bytes(32)


@dataclass
class Person:
    """An account: a phone with its identity, and companions that it signed."""

    jid: JID
    phone: curve.KeyPair

    @classmethod
    def make(cls, number: int, server: str = PN) -> Person:
        return cls(JID(f"1555000{number:04}", server), curve.KeyPair.generate(RANDOM))

    def blob(self, companion: curve.KeyPair, *, key: bool = False, hosted: bool = False) -> bytes:
        """The signed identity of a companion; the server normally leaves the account's key out."""
        outer = adv.make_device_identity(
            self.phone, companion.public, 7, 1, 1_700_000_000, SECRET, RANDOM, hosted=hosted
        )
        signed = adv.parse_signed_identity(adv_pb2.ADVSignedDeviceIdentityHMAC.FromString(outer).details)
        signed.deviceSignature = adv.sign_device_signature(
            companion, signed.details, self.phone.public, RANDOM
        )
        if not key:
            signed.ClearField("accountSignatureKey")
        return signed.SerializeToString()


ALICE = Person.make(1)
BOB = Person.make(2, LID)
MALLORY = Person.make(3)
COMPANION = curve.KeyPair.generate(RANDOM)


def key_nodes(
    identity: curve.KeyPair, *, one_time: bool = True, signer: curve.KeyPair | None = None
) -> list[Node]:
    signed, prekey = curve.KeyPair.generate(RANDOM), curve.KeyPair.generate(RANDOM)
    signature = curve.sign((signer or identity).private, curve.serialize_key(signed.public), RANDOM)
    nodes = [
        Node("registration", {}, big_endian(4660, 4)),
        Node("type", {}, b"\x05"),
        Node("identity", {}, identity.public),
        Node(
            "skey",
            {},
            [
                Node("id", {}, big_endian(5, 3)),
                Node("value", {}, signed.public),
                Node("signature", {}, signature),
            ],
        ),
    ]
    if one_time:
        nodes.append(Node("key", {}, [Node("id", {}, big_endian(9, 3)), Node("value", {}, prekey.public)]))
    return nodes


def user(jid: JID, identity: curve.KeyPair, blob: bytes | None = None, **options: Any) -> Node:
    extra = [] if blob is None else [Node("device-identity", {}, blob)]
    return Node("user", {"jid": jid}, key_nodes(identity, **options) + extra)


def phone_of(person: Person) -> Node:
    return user(person.jid, person.phone)


def answer(*users: Node) -> Node:
    return result(Node("list", {}, list(users)))


def refused_user(jid: JID, code: str = "406") -> Node:
    return Node("user", {"jid": jid}, [Node("error", {"code": code, "text": "not-acceptable"})])


def without(node: Node, tag: str) -> Node:
    return Node(node.tag, node.attrs, [child for child in node.children() if child.tag != tag])


def replaced(node: Node, tag: str, child: Node) -> Node:
    return Node(node.tag, node.attrs, [child if old.tag == tag else old for old in node.children()])


def below(node: Node, parent: str, tag: str, data: bytes | None) -> Node:
    """A user with one value inside `<key>` or `<skey>` replaced, or removed."""
    outer = node.child(parent)
    assert outer is not None
    changed = without(outer, tag) if data is None else replaced(outer, tag, Node(tag, {}, data))
    return replaced(node, parent, changed)


def only(results: list[DeviceBundle]) -> DeviceBundle:
    (item,) = results
    return item


def checked(node: Node, keys: dict[JID, bytes] | None = None) -> DeviceBundle:
    jid = node.jid("jid")
    assert jid is not None
    return only(check_all(parse_answer(answer(node), [jid]), keys or {}))


# The request.


@pytest.mark.parametrize("reason", [None, "identity", "retry"])
def test_request(reason: str | None) -> None:
    node = bundles.request_node([ALICE.jid, BOB.jid.with_device(3)], reason)
    assert node.attrs == {"to": JID("", PN), "type": "get", "xmlns": "encrypt"}
    key = node.child("key")
    assert key is not None
    assert [child.attrs for child in key.children()] == [
        {"jid": jid} if reason is None else {"jid": jid, "reason": reason}
        for jid in (ALICE.jid, BOB.jid.with_device(3))
    ]


# Reading answers.


def test_a_whole_bundle() -> None:
    node = phone_of(ALICE)
    bundle = only(parse_answer(answer(node), [ALICE.jid])).bundle
    assert bundle is not None
    assert (bundle.registration_id, bundle.identity) == (4660, ALICE.phone.public)
    assert (bundle.signed_prekey_id, bundle.prekey_id) == (5, 9)
    assert (len(bundle.signed_prekey), len(bundle.signature)) == (32, 64)
    assert checked(node) == DeviceBundle(
        ALICE.jid, bundle, verified=True, account_key=ALICE.phone.public, account_changed=False
    )


def test_a_bundle_without_one_time_key_is_legal() -> None:
    found = checked(user(ALICE.jid, ALICE.phone, one_time=False))
    assert found.error is None
    assert found.bundle is not None
    assert (found.bundle.prekey_id, found.bundle.prekey) == (None, None)


def test_the_key_type_may_be_missing_in_an_answer() -> None:
    assert checked(without(phone_of(ALICE), "type")).error is None


GOOD = phone_of(ALICE)
MALFORMED = {
    "no registration": without(GOOD, "registration"),
    "short registration": replaced(GOOD, "registration", Node("registration", {}, b"\x01\x02\x03")),
    "long registration": replaced(GOOD, "registration", Node("registration", {}, bytes(5))),
    "no identity": without(GOOD, "identity"),
    "identity with type byte": replaced(GOOD, "identity", Node("identity", {}, b"\x05" + bytes(32))),
    "short identity": replaced(GOOD, "identity", Node("identity", {}, bytes(31))),
    "identity of children": replaced(GOOD, "identity", Node("identity", {}, [Node("x")])),
    "wrong type": replaced(GOOD, "type", Node("type", {}, b"\x04")),
    "two type bytes": replaced(GOOD, "type", Node("type", {}, b"\x05\x05")),
    "empty type": replaced(GOOD, "type", Node("type")),
    "no signed key": without(GOOD, "skey"),
    "signed key without id": below(GOOD, "skey", "id", None),
    "signed key with a long id": below(GOOD, "skey", "id", bytes(4)),
    "signed key without value": below(GOOD, "skey", "value", None),
    "short signed key": below(GOOD, "skey", "value", bytes(31)),
    "no signature": below(GOOD, "skey", "signature", None),
    "short signature": below(GOOD, "skey", "signature", bytes(63)),
    "one-time key without id": below(GOOD, "key", "id", None),
    "one-time key with a short id": below(GOOD, "key", "id", b"\x00\x01"),
    "one-time key with the id that means none": below(GOOD, "key", "id", bytes(3)),
    "one-time key without value": below(GOOD, "key", "value", None),
    "short one-time key": below(GOOD, "key", "value", bytes(30)),
    "nothing": Node("user", {"jid": ALICE.jid}),
    "bytes": Node("user", {"jid": ALICE.jid}, b"x"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_bundles_are_dropped(name: str) -> None:
    found = checked(MALFORMED[name])
    assert (found.bundle, found.error, found.verified) == (None, "malformed", False)


def test_a_malformed_device_does_not_spoil_the_others() -> None:
    devices = [ALICE.jid, BOB.jid, MALLORY.jid]
    nodes = [MALFORMED["no identity"], phone_of(BOB), refused_user(MALLORY.jid)]
    found = check_all(parse_answer(answer(*nodes), devices), {})
    assert [(item.jid, item.error, item.code) for item in found] == [
        (ALICE.jid, "malformed", None),
        (BOB.jid, None, None),
        (MALLORY.jid, "refused", 406),
    ]


def test_answers_come_in_the_order_asked_and_strangers_are_ignored() -> None:
    asked = [BOB.jid, ALICE.jid, JID("15550009999", PN)]
    found = parse_answer(answer(phone_of(MALLORY), phone_of(ALICE), phone_of(BOB)), asked)
    assert [item.jid for item in found] == asked
    assert [item.error for item in found] == [None, None, "no_answer"]


def test_the_first_entry_of_a_device_counts() -> None:
    found = parse_answer(answer(phone_of(ALICE), user(ALICE.jid, MALLORY.phone)), [ALICE.jid])
    assert only(found).bundle is not None
    assert only(found).bundle.identity == ALICE.phone.public  # type: ignore[union-attr]


def test_an_error_beats_keys() -> None:
    node = phone_of(ALICE)
    node.content = [*node.children(), Node("error", {"code": "404"})]
    found = checked(node)
    assert (found.bundle, found.error, found.code) == (None, "refused", 404)


def test_an_unreadable_error_code_is_500() -> None:
    assert checked(refused_user(ALICE.jid, "x")).code == 500


def test_an_address_as_text_is_read() -> None:
    node = phone_of(ALICE)
    node.attrs["jid"] = str(ALICE.jid)
    assert only(parse_answer(answer(node), [ALICE.jid])).bundle is not None


def test_answers_without_a_list() -> None:
    with pytest.raises(MalformedReply):
        parse_answer(result(), [ALICE.jid])
    with pytest.raises(RequestError) as caught:
        parse_answer(refusal(429, "rate-overlimit", backoff="30"), [ALICE.jid])
    assert (caught.value.code, caught.value.backoff) == (429, 30)


nodes = st.recursive(
    st.builds(
        Node,
        st.sampled_from(
            ["user", "identity", "skey", "key", "id", "value", "error", "type", "device-identity"]
        ),
        st.just({"jid": ALICE.jid}),
        st.none() | st.binary(max_size=70),
    ),
    lambda inner: st.builds(
        Node,
        st.sampled_from(["list", "user", "skey", "key", "keys", "error"]),
        st.just({"jid": ALICE.jid}),
        st.lists(inner, max_size=6),
    ),
    max_leaves=20,
)


@given(nodes)
def test_hostile_answers_never_crash(node: Node) -> None:
    try:
        found = parse_answer(result(Node("list", {}, [node])), [ALICE.jid, ALICE.jid.with_device(4)])
    except (RequestError, MalformedReply):
        return
    assert len(check_all(found, {})) == 2
    bundles.parse_retry_keys(node)


# Signatures.


def test_a_prekey_signed_by_somebody_else_is_refused() -> None:
    found = checked(user(ALICE.jid, ALICE.phone, signer=MALLORY.phone))
    assert (found.bundle, found.error, found.verified) == (None, "bad_signature", False)


@pytest.mark.parametrize("part", ["value", "signature"])
def test_a_flipped_bit_is_refused(part: str) -> None:
    node = phone_of(ALICE)
    outer = node.child("skey")
    assert outer is not None
    child = outer.child(part)
    assert child is not None
    assert checked(below(node, "skey", part, flip(child.data, 10))).error == "bad_signature"


def test_the_signature_must_cover_the_type_byte() -> None:
    signed = curve.KeyPair.generate(RANDOM)
    bare = curve.sign(ALICE.phone.private, signed.public, RANDOM)
    node = below(below(phone_of(ALICE), "skey", "value", signed.public), "skey", "signature", bare)
    assert checked(node).error == "bad_signature"


def test_a_changed_phone_is_verified_and_told() -> None:
    found = checked(phone_of(ALICE), {ALICE.jid: MALLORY.phone.public})
    assert (found.verified, found.account_changed, found.account_key) == (True, True, ALICE.phone.public)
    same = checked(phone_of(ALICE), {ALICE.jid: ALICE.phone.public})
    assert (same.verified, same.account_changed) == (True, False)


# Companions.

DEVICE = ALICE.jid.with_device(12)
KNOWN = {ALICE.jid: ALICE.phone.public}


@pytest.mark.parametrize("with_key", [False, True])
@pytest.mark.parametrize("hosted", [False, True])
def test_a_companion_of_a_known_account(with_key: bool, hosted: bool) -> None:
    blob = ALICE.blob(COMPANION, key=with_key, hosted=hosted)
    found = checked(user(DEVICE, COMPANION, blob), KNOWN)
    assert (found.error, found.verified, found.account_changed) == (None, True, False)
    assert found.account_key == ALICE.phone.public
    assert found.device_identity == blob
    assert found.adv is not None
    assert (found.adv.raw_id, found.adv.key_index, found.adv.hosted_device) == (7, 1, hosted)


def test_a_companion_on_a_hosted_server_belongs_to_the_account() -> None:
    device = JID(ALICE.jid.user, HOSTED, 99)
    found = checked(user(device, COMPANION, ALICE.blob(COMPANION, hosted=True)), KNOWN)
    assert (found.error, found.verified) == (None, True)


def test_a_companion_without_statement_is_refused_when_the_phone_is_known() -> None:
    found = checked(user(DEVICE, COMPANION), KNOWN)
    assert (found.bundle, found.error) == (None, "adv_missing")
    empty = checked(user(DEVICE, COMPANION, b""), KNOWN)
    assert empty.error == "adv_missing"


def test_a_companion_without_statement_of_an_unknown_account_is_unverified() -> None:
    found = checked(user(DEVICE, COMPANION))
    assert found.bundle is not None
    assert (found.verified, found.account_key, found.error) == (False, None, None)


def test_a_companion_without_any_key_to_check_with_is_unverified() -> None:
    found = checked(user(DEVICE, COMPANION, ALICE.blob(COMPANION)))
    assert found.bundle is not None
    assert (found.verified, found.account_key, found.error) == (False, None, None)


def test_a_key_only_the_statement_vouches_for_proves_nothing() -> None:
    found = checked(user(DEVICE, COMPANION, MALLORY.blob(COMPANION, key=True)))
    assert found.bundle is not None
    assert (found.verified, found.account_key, found.account_changed) == (False, MALLORY.phone.public, False)


def damaged(blob: bytes, field: str, value: bytes) -> bytes:
    signed = adv.parse_signed_identity(blob)
    setattr(signed, field, value)
    return signed.SerializeToString()


def tampered() -> dict[str, bytes]:
    good = ALICE.blob(COMPANION)
    signed = adv.parse_signed_identity(good)
    other = curve.KeyPair.generate(RANDOM)
    stranger = adv.sign_device_signature(other, signed.details, ALICE.phone.public, RANDOM)
    return {
        "signed by another account": MALLORY.blob(COMPANION),
        "of another companion": ALICE.blob(other),
        "account signature flipped": damaged(good, "accountSignature", flip(signed.accountSignature, 3)),
        "account signature of zeros": damaged(good, "accountSignature", bytes(64)),
        "no account signature": damaged(good, "accountSignature", b""),
        "device signature flipped": damaged(good, "deviceSignature", flip(signed.deviceSignature, 3)),
        "device signature by a stranger": damaged(good, "deviceSignature", stranger),
        "no device signature": damaged(good, "deviceSignature", b""),
        "signatures swapped": damaged(
            damaged(good, "accountSignature", signed.deviceSignature),
            "deviceSignature",
            signed.accountSignature,
        ),
        "details changed": damaged(good, "details", signed.details + b"\x18\x02"),
        "no details": damaged(good, "details", b""),
        "not protobuf": b"\xff" * 20,
        "too large": bytes(MAX_ADV_BLOB_SIZE + 1),
        "short key inside": damaged(good, "accountSignatureKey", bytes(31)),
    }


@pytest.mark.parametrize("name", tampered())
def test_a_statement_that_does_not_hold_is_refused(name: str) -> None:
    blob = tampered()[name]
    found = checked(user(DEVICE, COMPANION, blob), KNOWN)
    assert (found.bundle, found.error, found.verified) == (None, "adv_invalid", False)


def test_nonsense_is_refused_even_without_a_known_account() -> None:
    assert checked(user(DEVICE, COMPANION, b"\xff" * 20)).error == "adv_invalid"


def test_a_bad_prekey_of_a_good_companion_is_refused() -> None:
    node = user(DEVICE, COMPANION, ALICE.blob(COMPANION), signer=MALLORY.phone)
    assert checked(node, KNOWN).error == "bad_signature"


def test_the_phone_proves_its_companions_in_any_order() -> None:
    devices = [DEVICE, ALICE.jid]
    nodes_ = [user(DEVICE, COMPANION, ALICE.blob(COMPANION)), phone_of(ALICE)]
    companion, phone = check_all(parse_answer(answer(*nodes_), devices), {})
    assert (companion.jid, companion.verified, phone.verified) == (DEVICE, True, True)
    assert companion.account_key == ALICE.phone.public


def test_a_fresh_phone_beats_the_stored_identity() -> None:
    """The account was registered anew, and its companions with it."""
    devices = [ALICE.jid, DEVICE]
    parsed = parse_answer(answer(phone_of(ALICE), user(DEVICE, COMPANION, ALICE.blob(COMPANION))), devices)
    phone, companion = check_all(parsed, {ALICE.jid: MALLORY.phone.public})
    assert (phone.account_changed, companion.verified, companion.account_changed) == (True, True, True)


def test_a_companion_with_another_account_than_the_fresh_phone() -> None:
    devices = [ALICE.jid, DEVICE]
    nodes_ = [phone_of(ALICE), user(DEVICE, COMPANION, MALLORY.blob(COMPANION, key=True))]
    phone, companion = check_all(parse_answer(answer(*nodes_), devices), KNOWN)
    assert phone.verified
    assert (companion.bundle, companion.error) == (None, "account_key")


def test_a_refused_phone_proves_nothing() -> None:
    devices = [ALICE.jid, DEVICE]
    bad = user(ALICE.jid, MALLORY.phone, signer=ALICE.phone)
    parsed = parse_answer(answer(bad, user(DEVICE, COMPANION, MALLORY.blob(COMPANION))), devices)
    phone, companion = check_all(parsed, KNOWN)
    assert (phone.error, companion.error) == ("bad_signature", "adv_invalid")


# Fetching.


class KeyServer:
    """Answers requests for bundles from a table, and can refuse or go silent."""

    def __init__(self, *users: Node) -> None:
        self.users = {node.jid("jid"): node for node in users}
        self.refuse: dict[int, Answer] = {}
        self.batches: list[list[JID]] = []
        self.reasons: list[str | None] = []

    def __call__(self, request: Node) -> Answer:
        key = request.child("key")
        assert key is not None
        wanted = [child.jid("jid") for child in key.children("user")]
        self.batches.append([jid for jid in wanted if jid is not None])
        self.reasons += {child.text("reason") for child in key.children("user")}
        if (scripted := self.refuse.get(len(self.batches))) is not None:
            return scripted
        known = [self.users.get(jid) or refused_user(jid) for jid in wanted if jid is not None]
        return answer(*known)


async def test_fetching_asks_for_phones_first() -> None:
    server = KeyServer(phone_of(ALICE), user(DEVICE, COMPANION, ALICE.blob(COMPANION)))
    found = await fetch_bundles(FakeRequester(server), [DEVICE, ALICE.jid, DEVICE], reason="identity")
    assert server.batches == [[ALICE.jid, DEVICE]]
    assert server.reasons == ["identity"]
    assert {item.jid: (item.error, item.verified) for item in found} == {
        ALICE.jid: (None, True),
        DEVICE: (None, True),
    }


async def test_nothing_to_ask_asks_nothing() -> None:
    requester = FakeRequester([])
    assert await fetch_bundles(requester, []) == []
    assert not requester.sent


async def test_batches() -> None:
    devices = [JID(f"1555{number:07}", PN) for number in range(2 * BATCH_SIZE + 1)]
    server = KeyServer()
    found = await fetch_bundles(FakeRequester(server), devices)
    assert [len(batch) for batch in server.batches] == [BATCH_SIZE, BATCH_SIZE, 1]
    assert [item.jid for item in found] == devices
    assert {item.code for item in found} == {406}


async def test_a_refused_batch_is_asked_again_one_by_one() -> None:
    server = KeyServer(phone_of(ALICE), phone_of(BOB))
    server.refuse = {1: refusal(406, "not-acceptable"), 3: refusal(406)}
    found = await fetch_bundles(FakeRequester(server), [ALICE.jid, BOB.jid, MALLORY.jid])
    assert server.batches == [[ALICE.jid, BOB.jid, MALLORY.jid], [ALICE.jid], [BOB.jid], [MALLORY.jid]]
    assert [(item.jid, item.error, item.code) for item in found] == [
        (ALICE.jid, None, None),
        (BOB.jid, "refused", 406),
        (MALLORY.jid, "refused", 406),
    ]


@pytest.mark.parametrize("code", [400, 429, 503])
async def test_other_refusals_fail_the_whole(code: int) -> None:
    server = KeyServer(phone_of(ALICE))
    server.refuse = {1: refusal(code)}
    with pytest.raises(RequestError) as caught:
        await fetch_bundles(FakeRequester(server), [ALICE.jid])
    assert caught.value.code == code
    assert len(server.batches) == 1


async def test_silence_is_passed_on() -> None:
    server = KeyServer()
    server.refuse = {1: RequestTimeout("keys", 60)}
    with pytest.raises(RequestTimeout):
        await fetch_bundles(FakeRequester(server), [ALICE.jid])


async def test_a_companion_with_a_new_account_key_makes_us_ask_its_phone() -> None:
    """The account was registered anew: phone and companion agree, the stored identity is old."""
    server = KeyServer(phone_of(ALICE), user(DEVICE, COMPANION, ALICE.blob(COMPANION, key=True)))
    old = {ALICE.jid: MALLORY.phone.public}
    found = await fetch_bundles(FakeRequester(server), [DEVICE], old)
    assert server.batches == [[DEVICE], [ALICE.jid]]
    assert server.reasons == [None, "identity"]
    by_jid = {item.jid: item for item in found}
    assert by_jid[ALICE.jid].account_changed
    assert (by_jid[DEVICE].verified, by_jid[DEVICE].account_changed) == (True, True)


async def test_a_hosted_companion_makes_us_ask_the_plain_phone() -> None:
    device = JID(ALICE.jid.user, HOSTED, 99)
    server = KeyServer(phone_of(ALICE), user(device, COMPANION, ALICE.blob(COMPANION, key=True, hosted=True)))
    await fetch_bundles(FakeRequester(server), [device], {ALICE.jid: MALLORY.phone.public})
    assert server.batches == [[device], [ALICE.jid]]


async def test_an_inserted_companion_is_refused() -> None:
    """A device of somebody else's account, offered by the server as one of Alice's."""
    inserted = user(DEVICE, COMPANION, MALLORY.blob(COMPANION, key=True))
    server = KeyServer(phone_of(ALICE), inserted)
    found = await fetch_bundles(FakeRequester(server), [DEVICE], KNOWN)
    by_jid = {item.jid: item for item in found}
    assert by_jid[ALICE.jid].verified
    assert (by_jid[DEVICE].bundle, by_jid[DEVICE].error) == (None, "account_key")


@pytest.mark.parametrize("asked", [[DEVICE], [DEVICE, ALICE.jid]])
@pytest.mark.parametrize("phone", ["refused", "unsigned", "silent"])
async def test_an_inserted_companion_whose_phone_is_withheld_is_refused(asked: list[JID], phone: str) -> None:
    """Without the phone's word the stored identity stays, whether or not its bundle was asked for as well."""
    inserted = user(DEVICE, COMPANION, MALLORY.blob(COMPANION, key=True))
    phones = {
        "refused": refused_user(ALICE.jid),
        "unsigned": user(ALICE.jid, MALLORY.phone, signer=ALICE.phone),
        "silent": phone_of(BOB),
    }
    server = KeyServer(inserted)
    server.users[ALICE.jid] = phones[phone]
    found = await fetch_bundles(FakeRequester(server), asked, KNOWN)
    companion = next(item for item in found if item.jid == DEVICE)
    assert (companion.bundle, companion.error, companion.verified) == (None, "account_key", False)


async def test_others_are_kept_when_one_companion_is_refused() -> None:
    other = BOB.jid.with_device(4)
    theirs = curve.KeyPair.generate(RANDOM)
    server = KeyServer(
        phone_of(ALICE),
        user(DEVICE, COMPANION, MALLORY.blob(COMPANION, key=True)),
        user(other, theirs, BOB.blob(theirs)),
    )
    keys = {**KNOWN, BOB.jid: BOB.phone.public}
    found = {item.jid: item for item in await fetch_bundles(FakeRequester(server), [DEVICE, other], keys)}
    assert (found[DEVICE].error, found[other].error, found[other].verified) == ("account_key", None, True)


# Retry receipts.


def receipt(*children: Node) -> Node:
    return Node("receipt", {"id": "A1", "from": DEVICE, "type": "retry"}, list(children))


def test_the_bundle_of_a_retry_receipt() -> None:
    registration, *keys = key_nodes(COMPANION)
    found = bundles.parse_retry_keys(
        receipt(Node("retry", {"count": "2"}), registration, Node("keys", {}, keys))
    )
    assert found is not None
    assert (found.registration_id, found.identity, found.prekey_id) == (4660, COMPANION.public, 9)


def test_a_retry_receipt_must_tell_type_and_registration() -> None:
    registration, *keys = key_nodes(COMPANION)
    without_type = [node for node in keys if node.tag != "type"]
    assert bundles.parse_retry_keys(receipt(registration)) is None
    assert bundles.parse_retry_keys(receipt(Node("keys", {}, keys))) is None
    assert bundles.parse_retry_keys(receipt(registration, Node("keys", {}, without_type))) is None
    assert (
        bundles.parse_retry_keys(receipt(registration, Node("keys", {}, [registration, *without_type])))
        is None
    )
    assert bundles.parse_retry_keys(receipt(registration, Node("keys"))) is None


def test_a_result_says_nothing_secret_and_compares() -> None:
    found = checked(phone_of(ALICE))
    assert replace(found) == found
    assert ALICE.phone.private.hex() not in repr(found)
