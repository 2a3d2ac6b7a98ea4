from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.e2ee.parties import flip, new_pair, seeded
from tests.link.requester import FakeRequester, refusal, result
from waD.e2ee import adv
from waD.link.devices import (
    DeviceAnswer,
    DeviceList,
    device_jid,
    device_jids,
    match_devices,
    query_devices,
    resolve,
)
from waD.link.errors import MalformedReply, RequestError
from waD.link.usync import DevicesAnswer, ListedDevice, UserAnswer, UserQuery
from waD.proto import adv_pb2
from waD.wire.jid import HOSTED, HOSTED_LID, JID, LID, PN
from waD.wire.node import Node

PHONE, STRANGER = new_pair(31), new_pair(32)
RANDOM = seeded(33)
TS, RAW_ID = 1_700_000_000, 77
USER, LID_USER = JID("15550000002", PN), JID("100000000000002", LID)

PHONE_DEVICE = ListedDevice(0)
A, B, C = ListedDevice(3, 1), ListedDevice(12, 2), ListedDevice(25, 9)


def statement(
    valid: tuple[int, ...] = (0, 1, 2),
    current: int = 5,
    *,
    ts: int = TS,
    raw_id: int = RAW_ID,
    **options: Any,
) -> bytes:
    signer = options.pop("signer", PHONE)
    return adv.make_key_index_list(signer, raw_id, ts, current, valid, RANDOM, **options)


def listed(*devices: ListedDevice, blob: bytes | None = None, hash_: str | None = "2:abcd") -> DevicesAnswer:
    return DevicesAnswer(devices, hash_, blob, None if blob is None else TS)


# The signed list.


def test_listed_and_later_indexes_are_kept() -> None:
    """Chapter 04 §2.2 (4): in the list, or newer than the list."""
    old = ListedDevice(30, 4)
    answer = listed(PHONE_DEVICE, A, B, C, old, blob=statement())
    found = resolve(answer, PHONE.public)
    assert found == DeviceList(
        (PHONE_DEVICE, A, B, C), "verified", "2:abcd", TS, RAW_ID, False, answer.key_index_list
    )


def test_a_companion_without_key_index_is_dropped() -> None:
    found = resolve(listed(PHONE_DEVICE, ListedDevice(3), B, blob=statement()), PHONE.public)
    assert found.devices == (PHONE_DEVICE, B)


def test_the_phone_alone_needs_no_list() -> None:
    found = resolve(listed(PHONE_DEVICE), PHONE.public)
    assert found == DeviceList((PHONE_DEVICE,), "verified", "2:abcd")


def test_no_device_at_all() -> None:
    """The account does not exist: no recipients, and no device 0 is made up."""
    assert resolve(DevicesAnswer(), PHONE.public).devices == ()


@pytest.mark.parametrize("companion", [A, ListedDevice(3)])
def test_companions_without_a_list_leave_the_phone_and_no_hash(companion: ListedDevice) -> None:
    found = resolve(listed(PHONE_DEVICE, companion), PHONE.public)
    assert found == DeviceList((PHONE_DEVICE,), "missing")
    assert found.hash is None


def test_an_unknown_phone_makes_the_list_provisional() -> None:
    found = resolve(listed(PHONE_DEVICE, A, ListedDevice(30, 4), blob=statement()), None)
    assert (found.devices, found.state, found.hash) == ((PHONE_DEVICE, A), "provisional", "2:abcd")
    assert found.key_index_list is not None
    again = adv.verify_key_index_list(found.key_index_list, PHONE.public)
    assert again.verified


def signed_part(blob: bytes, **fields: bytes) -> bytes:
    signed = adv_pb2.ADVSignedKeyIndexList.FromString(blob)
    for name, value in fields.items():
        setattr(signed, name, value)
    return signed.SerializeToString()


def bad_lists() -> dict[str, bytes]:
    good = statement()
    signed = adv_pb2.ADVSignedKeyIndexList.FromString(good)
    no_raw_id = adv_pb2.ADVKeyIndexList(timestamp=TS, currentIndex=5, validIndexes=[1]).SerializeToString()
    return {
        "signed by a stranger": statement(signer=STRANGER),
        "signed by a stranger, key inside": signed_part(
            statement(signer=STRANGER), accountSignatureKey=STRANGER.public
        ),
        "flipped signature": signed_part(good, accountSignature=flip(signed.accountSignature, 4)),
        "no signature": signed_part(good, accountSignature=b""),
        "more indexes than signed": signed_part(good, details=signed.details + b"\x22\x01\x09"),
        "no raw id": signed_part(good, details=no_raw_id),
        "no details": signed_part(good, details=b""),
        "not protobuf": b"\xff\xff\xff",
    }


@pytest.mark.parametrize("name", bad_lists())
def test_a_list_that_does_not_verify_counts_as_missing(name: str) -> None:
    found = resolve(listed(PHONE_DEVICE, A, B, blob=bad_lists()[name]), PHONE.public)
    assert (found.devices, found.state) == ((PHONE_DEVICE,), "invalid")
    assert (found.hash, found.key_index_list) == (None, None)


def test_a_list_of_the_hosted_kind_needs_its_own_prefix() -> None:
    blob = statement(hosted=True)
    assert resolve(listed(PHONE_DEVICE, A, blob=blob), PHONE.public).state == "verified"


def test_an_older_list_is_ignored() -> None:
    answer = listed(PHONE_DEVICE, A, blob=statement(ts=TS - 1))
    found = resolve(answer, PHONE.public, stored_ts=TS, stored_raw_id=RAW_ID)
    assert (found.devices, found.state, found.hash) == ((), "outdated", None)
    same = resolve(listed(PHONE_DEVICE, A, blob=statement()), PHONE.public, stored_ts=TS)
    assert same.state == "verified"


def test_another_raw_id_means_a_new_registration() -> None:
    answer = listed(PHONE_DEVICE, A, blob=statement(raw_id=78))
    assert resolve(answer, PHONE.public, stored_raw_id=RAW_ID).re_registered
    assert not resolve(answer, PHONE.public, stored_raw_id=78).re_registered
    assert not resolve(answer, PHONE.public).re_registered


@given(
    st.lists(st.builds(ListedDevice, st.integers(0, 255), st.none() | st.integers(0, 20)), max_size=12),
    st.frozensets(st.integers(0, 20), max_size=8),
    st.integers(0, 20),
)
def test_what_is_kept(devices: list[ListedDevice], valid: frozenset[int], current: int) -> None:
    blob = statement(tuple(sorted(valid)), current)
    found = resolve(DevicesAnswer(tuple(devices), "h", blob), PHONE.public)
    for device in devices:
        index = device.key_index
        wanted = device.id == 0 or (index is not None and (index in valid or index > current))
        assert (device in found.devices) is wanted
    assert list(found.devices) == [device for device in devices if device in found.devices]


@given(st.binary(max_size=200), st.booleans())
def test_hostile_lists_never_crash(blob: bytes, known: bool) -> None:
    found = resolve(listed(PHONE_DEVICE, A, blob=blob), PHONE.public if known else None)
    if known:
        assert found.devices == (PHONE_DEVICE,)


# Addresses.


@pytest.mark.parametrize(
    ("user", "device", "wanted"),
    [
        (USER, ListedDevice(0), USER),
        (USER, ListedDevice(7, 1), USER.with_device(7)),
        (LID_USER, ListedDevice(7, 1), LID_USER.with_device(7)),
        (USER, ListedDevice(99, 1, hosted=True), JID(USER.user, HOSTED, 99)),
        (LID_USER, ListedDevice(99, 1), JID(LID_USER.user, HOSTED_LID, 99)),
        (USER, ListedDevice(5, 1, hosted=True), JID(USER.user, HOSTED, 5)),
        (JID(USER.user, HOSTED), ListedDevice(4, 1), USER.with_device(4)),
    ],
)
def test_device_address(user: JID, device: ListedDevice, wanted: JID) -> None:
    assert device_jid(user, device) == wanted


def test_one_hosted_device_does_not_move_the_others() -> None:
    devices = [ListedDevice(99, 1, hosted=True), ListedDevice(0), ListedDevice(4, 2)]
    assert device_jids(USER, devices) == [JID(USER.user, HOSTED, 99), USER, USER.with_device(4)]


def test_own_devices_are_left_out_under_both_addresses() -> None:
    own = [USER.with_device(7), LID_USER.with_device(7), None]
    devices = [ListedDevice(0), ListedDevice(7, 3), ListedDevice(12, 4)]
    assert device_jids(USER, devices, own=own) == [USER, USER.with_device(12)]
    assert device_jids(LID_USER, devices, own=own) == [LID_USER, LID_USER.with_device(12)]
    assert device_jids(USER, devices, own=own, without_phone=True) == [USER.with_device(12)]


def test_a_companion_without_key_index_has_no_address() -> None:
    assert device_jids(USER, [ListedDevice(0), ListedDevice(7)]) == [USER]


# Matching queries and answers.

DEVICES = DevicesAnswer((PHONE_DEVICE,))
OTHER = JID("15550000003", PN)


def test_an_answer_is_found_under_any_of_its_addresses() -> None:
    by_lid = UserAnswer(LID_USER, pn_jid=USER, devices=DEVICES)
    assert match_devices([UserQuery(USER)], [by_lid]) == [DeviceAnswer(USER, DEVICES, LID_USER)]
    by_pn = UserAnswer(USER, lid=LID_USER.with_device(4), devices=DEVICES)
    assert match_devices([UserQuery(LID_USER)], [by_pn]) == [DeviceAnswer(LID_USER, DEVICES, LID_USER)]


def test_answers_are_in_the_order_of_the_queries_and_strangers_are_dropped() -> None:
    answers = [UserAnswer(JID("15550009999", PN), devices=DEVICES), UserAnswer(USER, devices=DEVICES)]
    found = match_devices([UserQuery(OTHER), UserQuery(USER)], answers)
    assert [(item.user, item.devices) for item in found] == [(OTHER, DevicesAnswer()), (USER, DEVICES)]


def test_no_user_takes_anothers_place_by_an_alias() -> None:
    theirs, ours = DevicesAnswer((ListedDevice(66, 1),)), DEVICES
    answers = [UserAnswer(OTHER, lid=LID_USER, devices=theirs), UserAnswer(LID_USER, devices=ours)]
    (found,) = match_devices([UserQuery(LID_USER)], answers)
    assert found.devices == ours


def test_left_out_means_unchanged_only_with_a_hint() -> None:
    hinted = UserQuery(USER, device_hash="2:abcd")
    assert match_devices([hinted], []) == [DeviceAnswer(USER, unchanged=True)]
    assert match_devices([UserQuery(USER)], []) == [DeviceAnswer(USER, DevicesAnswer())]
    only_lid = UserAnswer(USER, lid=LID_USER)
    assert match_devices([hinted], [only_lid]) == [DeviceAnswer(USER, None, LID_USER, unchanged=True)]
    assert match_devices([UserQuery(USER)], [only_lid]) == [DeviceAnswer(USER, DevicesAnswer(), LID_USER)]


def test_an_error_is_no_answer_for_that_user() -> None:
    failure = RequestError(400, "bad-request")
    (found,) = match_devices(
        [UserQuery(USER, device_hash="x")], [UserAnswer(USER, errors={"devices": failure})]
    )
    assert (found.devices, found.unchanged, found.error) == (None, False, failure)


# Asking.


def reply(*users: Node, results: tuple[Node, ...] = ()) -> Node:
    return result(Node("usync", {}, [Node("result", {}, list(results)), Node("list", {}, list(users))]))


def device_user(jid: JID, *ids: int, lid: JID | None = None) -> Node:
    entries = [Node("device", {"id": str(i), **({"key-index": "1"} if i else {})}) for i in ids]
    children = [Node("devices", {}, [Node("device-list", {"hash": "2:x"}, entries)])]
    if lid is not None:
        children.append(Node("lid", {"val": lid}))
    return Node("user", {"jid": jid}, children)


async def test_a_device_query() -> None:
    requester = FakeRequester([reply(device_user(USER, 0, 4, lid=LID_USER))])
    (found,) = await query_devices(requester, [UserQuery(USER, device_hash="2:old", ts=5)])
    assert found.devices == DevicesAnswer((ListedDevice(0), ListedDevice(4, 1)), "2:x")
    assert found.lid == LID_USER
    (sent,) = requester.sent
    usync = sent.child("usync")
    assert usync is not None
    assert (usync.text("context"), usync.text("mode")) == ("message", "query")
    assert usync.text("sid") not in (None, sent.text("id"))
    query = usync.child("query")
    assert query is not None
    assert [(node.tag, node.attrs) for node in query.children()] == [
        ("devices", {"version": "2"}),
        ("lid", {}),
    ]
    users = usync.child("list")
    assert users is not None
    hint = users.children()[0].child("devices")
    assert hint is not None
    assert hint.attrs == {"device_hash": "2:old", "ts": "5"}


async def test_a_query_without_address_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="needs addresses"):
        await query_devices(FakeRequester([]), [UserQuery(phone="15550000001")])


async def test_a_failed_protocol_fails_the_query_and_a_failed_lid_does_not() -> None:
    failed = Node("devices", {}, [Node("error", {"code": "429", "text": "slow", "backoff": "7"})])
    with pytest.raises(RequestError) as caught:
        await query_devices(FakeRequester([reply(results=(failed,))]), [UserQuery(USER)])
    assert (caught.value.code, caught.value.backoff) == (429, 7)
    no_lid = Node("lid", {}, [Node("error", {"code": "500"})])
    answer = reply(device_user(USER, 0), results=(no_lid,))
    (found,) = await query_devices(FakeRequester([answer]), [UserQuery(USER)])
    assert found.devices is not None


async def test_refusals_and_nonsense_are_passed_on() -> None:
    with pytest.raises(RequestError):
        await query_devices(FakeRequester([refusal(503)]), [UserQuery(USER)])
    with pytest.raises(MalformedReply):
        await query_devices(FakeRequester([result()]), [UserQuery(USER)])
