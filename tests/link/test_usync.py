from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.link.requester import FakeRequester, refusal, result
from waD.link import usync
from waD.link.errors import MalformedReply, RequestError
from waD.link.usync import (
    CHUNK,
    ListedDevice,
    NumberAnswer,
    NumberError,
    UserAnswer,
    UserQuery,
    UsyncAnswer,
    check_numbers,
    match_numbers,
    parse_answer,
    parse_number,
    query,
    request_node,
)
from waD.wire.codec import decode, encode
from waD.wire.jid import JID, LID, PN
from waD.wire.node import Node

USER, LID_USER = JID("15550000002", PN), JID("100000000000002", LID)
OTHER, OTHER_LID = JID("15550000003", PN), JID("100000000000003", LID)
ALL: tuple[usync.Protocol, ...] = (
    "contact", "devices", "lid", "status", "disappearing_mode", "username", "bot", "picture", "business",
)  # fmt: skip


def reply(*users: Node, results: tuple[Node, ...] = ()) -> Node:
    return result(Node("usync", {}, [Node("result", {}, list(results)), Node("list", {}, list(users))]))


def answered(node: Node, *protocols: usync.Protocol) -> UserAnswer:
    (found,) = parse_answer(decode(encode(reply(node))), protocols or ALL).users
    return found


def user(*children: Node, **attrs: Any) -> Node:
    return Node("user", {"jid": USER} | attrs, list(children))


# The request.


def the_user(asked: UserQuery, *protocols: usync.Protocol) -> Node:
    node = request_node("s1", protocols, [asked])
    outer = node.child("usync")
    assert outer is not None
    listed = outer.child("list")
    assert listed is not None
    return listed.children()[0]


def test_the_frame_of_a_request() -> None:
    node = request_node(
        "s1", ("devices", "bot", "business"), [UserQuery(USER)], context="message", mode="full"
    )
    assert node.attrs == {"to": JID("", PN), "type": "get", "xmlns": "usync"}
    outer = node.child("usync")
    assert outer is not None
    assert outer.attrs == {"sid": "s1", "mode": "full", "last": "true", "index": "0", "context": "message"}
    asked = outer.child("query")
    assert asked is not None
    assert asked.children() == [
        Node("devices", {"version": "2"}),
        Node("bot", {}, [Node("profile", {"v": "1"})]),
        Node("business", {}, [Node("verified_name")]),
    ]


@pytest.mark.parametrize(
    ("asked", "protocols", "wanted"),
    [
        (UserQuery(USER), ("status",), Node("user", {"jid": USER})),
        (UserQuery(USER), ("contact",), Node("user", {"jid": USER}, [Node("contact")])),
        (UserQuery(phone="4917"), ("contact", "lid"), Node("user", {}, [Node("contact", {}, "+4917")])),
        (
            UserQuery(USER, lid=LID_USER),
            ("lid", "contact"),
            Node("user", {"jid": USER}, [Node("lid", {"jid": LID_USER}), Node("contact")]),
        ),
        (
            UserQuery(username="ann", pin="12", lid=LID_USER),
            ("contact",),
            Node("user", {}, [Node("contact", {"username": "ann", "pin": "12", "lid": LID_USER})]),
        ),
        (
            UserQuery(USER, contact_type="delete"),
            ("contact",),
            Node("user", {"jid": USER}, [Node("contact", {"type": "delete"})]),
        ),
        (
            UserQuery(USER, device_hash="2:x", ts=9),
            ("devices",),
            Node("user", {"jid": USER}, [Node("devices", {"device_hash": "2:x", "ts": "9"})]),
        ),
        (
            UserQuery(USER, device_hash="2:x"),
            ("devices",),
            Node("user", {"jid": USER}, [Node("devices", {"device_hash": "2:x"})]),
        ),
        (UserQuery(USER, device_hash="2:x"), ("lid",), Node("user", {"jid": USER})),
        (
            UserQuery(USER, persona_id="p"),
            ("bot",),
            Node("user", {"jid": USER}, [Node("bot", {}, [Node("profile", {"persona_id": "p"})])]),
        ),
    ],
)
def test_what_is_asked_about_a_user(
    asked: UserQuery, protocols: tuple[usync.Protocol, ...], wanted: Node
) -> None:
    assert the_user(asked, *protocols) == wanted


# Answers.


@pytest.mark.parametrize(
    ("kind", "wanted"), [("in", True), ("out", False), ("invalid", False), ("new", False)]
)
def test_contact(kind: str, wanted: bool) -> None:
    found = answered(user(Node("contact", {"type": kind}, b"+15550000002")))
    assert (found.on_whatsapp, found.query) == (wanted, "+15550000002")


def test_what_was_not_asked_is_ignored() -> None:
    node = user(Node("contact", {"type": "in"}), Node("lid", {"val": LID_USER}), Node("new"))
    found = answered(node, "contact")
    assert (found.on_whatsapp, found.lid) == (True, None)


def test_users_without_any_address() -> None:
    nobody, unregistered = Node("user"), Node("user", {}, [Node("contact", {"type": "out"}, b"+49")])
    by_pn = Node("user", {"pn_jid": OTHER}, [Node("lid", {"val": OTHER_LID})])
    found = parse_answer(reply(nobody, unregistered, by_pn), ALL).users
    assert [(item.jid, item.on_whatsapp, item.query) for item in found] == [
        (None, False, "+49"),
        (OTHER, None, None),
    ]


def test_a_mapping_of_the_wrong_kind_is_dropped_and_the_rest_kept() -> None:
    found = answered(user(Node("lid", {"val": OTHER}), Node("contact", {"type": "in"}), pn_jid=LID_USER))
    assert (found.lid, found.pn_jid, found.on_whatsapp) == (None, None, True)


@pytest.mark.parametrize(
    ("node", "text", "set_at"),
    [
        (Node("status", {"t": "9"}, "hé".encode()), "hé", 9),
        (Node("status", {"code": "401", "t": "0"}), "", 0),
        (Node("status", {"t": "9"}), None, 9),
        (Node("status", {"code": "401"}, b"shown"), "shown", None),
        (Node("status", {}, b"\xff\xfe"), "��", None),
        (Node("status", {}, b"x" * (usync.MAX_TEXT + 1)), None, None),
        (Node("status", {}, b"x" * usync.MAX_TEXT), "x" * usync.MAX_TEXT, None),
    ],
)
def test_status(node: Node, text: str | None, set_at: int | None) -> None:
    found = answered(user(node)).status
    assert found is not None
    assert (found.text, found.set_at) == (text, set_at)


def test_disappearing_and_username() -> None:
    found = answered(
        user(Node("disappearing_mode", {"duration": "604800", "t": "5"}), Node("username", {}, b"ann"))
    )
    assert (found.disappearing_s, found.disappearing_set_at, found.username) == (604800, 5, "ann")


def test_one_failed_protocol_leaves_the_others() -> None:
    failed = Node("status", {}, [Node("error", {"code": "404", "text": "item-not-found"})])
    found = answered(user(failed, Node("contact", {"type": "in"})))
    assert (found.on_whatsapp, found.status) == (True, None)
    assert (found.errors["status"].code, found.errors["status"].text) == (404, "item-not-found")


def test_the_first_of_two_answers_counts() -> None:
    found = answered(user(Node("contact", {"type": "in"}), Node("contact", {"type": "out"})))
    assert found.on_whatsapp


def test_verdicts_about_protocols() -> None:
    verdicts = (
        Node("contact", {"refresh": "60"}),
        Node("devices", {"refresh": "99999999"}, [Node("error", {"code": "429", "backoff": "5"})]),
        Node("picture", {}, [Node("error", {"code": "500"})]),
    )
    found = parse_answer(reply(results=verdicts), ("contact", "devices"))
    assert found.refresh_s == {"contact": 60, "devices": usync.MAX_REFRESH_S}
    assert list(found.errors) == ["devices"]
    assert (found.errors["devices"].code, found.errors["devices"].backoff) == (429, 5)


def test_the_side_list_is_not_the_answer() -> None:
    node = reply(user(Node("contact", {"type": "in"})))
    outer = node.child("usync")
    assert outer is not None
    side = Node("side_list", {}, [Node("user", {"jid": OTHER})])
    outer.content = [*outer.children(), side]
    assert [item.jid for item in parse_answer(node, ALL).users] == [USER]


@pytest.mark.parametrize(
    "node", [result(), result(Node("usync")), result(Node("usync", {}, [Node("result")]))]
)
def test_answers_without_a_list(node: Node) -> None:
    with pytest.raises(MalformedReply):
        parse_answer(node, ALL)


# Device lists.


def devices(*entries: Node, index: Node | None = None, **attrs: str) -> Node:
    listed = Node("device-list", attrs, list(entries))
    return user(Node("devices", {}, [listed] if index is None else [listed, index]))


def entry(**attrs: str) -> Node:
    return Node("device", {name.replace("_", "-"): value for name, value in attrs.items()})


def test_a_device_list() -> None:
    hosted = Node("device", {"id": "99", "key-index": "3", "is_hosted": "true"})
    index = Node("key-index-list", {"ts": "7", "expected_ts": "8"}, b"\x0a\x00")
    found = answered(
        devices(entry(id="0"), entry(id="3", key_index="2"), hosted, index=index, hash="2:x")
    ).devices
    assert found == usync.DevicesAnswer(
        (ListedDevice(0), ListedDevice(3, 2), ListedDevice(99, 3, hosted=True)), "2:x", b"\x0a\x00", 7, 8
    )


def test_an_empty_device_list() -> None:
    assert answered(user(Node("devices"))).devices == usync.DevicesAnswer()
    assert answered(devices()).devices == usync.DevicesAnswer()


def test_impossible_devices_are_dropped() -> None:
    entries = [
        entry(id="256", key_index="1"),
        entry(id="-1", key_index="1"),
        entry(id="x", key_index="1"),
        Node("device"),
        Node("other", {"id": "5"}),
        entry(id="7", key_index="x"),
        entry(id="255", key_index="1"),
        entry(id="7", key_index="4"),
    ]
    found = answered(devices(*entries)).devices
    assert found is not None
    assert found.devices == (ListedDevice(7), ListedDevice(255, 1))


def test_too_much_is_cut_off() -> None:
    entries = [entry(id=str(number % 250), key_index="1") for number in range(usync.MAX_DEVICES * 2)]
    large = Node("key-index-list", {"ts": "7"}, bytes(usync.MAX_KEY_INDEX_LIST + 1))
    found = answered(devices(*entries, index=large)).devices
    assert found is not None
    assert len(found.devices) == 250
    assert (found.key_index_list, found.ts) == (None, 7)
    users = [Node("user", {"jid": JID(str(number), LID)}) for number in range(usync.MAX_USERS + 5)]
    assert len(parse_answer(reply(*users), ALL).users) == usync.MAX_USERS


tags = st.sampled_from(
    ["usync", "list", "user", "result", "error", *ALL, "device-list", "device", "key-index-list", "x"]
)
values = st.sampled_from([USER, LID_USER, JID("", PN)]) | st.text(max_size=5)
names = st.sampled_from(
    ["jid", "pn_jid", "val", "id", "key-index", "ts", "t", "type", "code", "refresh", "hash"]
)
trees = st.recursive(
    st.builds(Node, tags, st.dictionaries(names, values, max_size=4), st.none() | st.binary(max_size=9)),
    lambda inner: st.builds(
        Node, tags, st.dictionaries(names, values, max_size=4), st.lists(inner, max_size=5)
    ),
    max_leaves=25,
)


@given(st.lists(trees, max_size=5), st.lists(trees, max_size=3))
def test_hostile_answers_never_crash(users: list[Node], results: list[Node]) -> None:
    listed = [Node("user", {"jid": USER}, users), *users]
    found = parse_answer(reply(*listed, results=tuple(results)), ALL)
    match_numbers(["15550000002", "4917"], found)


# Asking.


async def test_long_lists_are_asked_in_chunks() -> None:
    people = [UserQuery(JID(f"1555{number:07}", PN)) for number in range(CHUNK + 1)]
    busy = Node("status", {"refresh": "9"}, [Node("error", {"code": "500"})])
    answers = [
        reply(user(Node("contact", {"type": "in"})), results=(busy,)),
        reply(Node("user", {"jid": OTHER})),
    ]
    requester = FakeRequester(answers)
    found = await query(requester, ("contact", "status"), people)
    assert [item.jid for item in found.users] == [USER, OTHER]
    assert (list(found.errors), found.refresh_s) == (["status"], {"status": 9})
    sizes, sids = [], set()
    for node in requester.sent:
        outer = node.child("usync")
        assert outer is not None
        listed = outer.child("list")
        assert listed is not None
        sizes.append(len(listed.children()))
        sids.add(outer.text("sid"))
    assert sizes == [CHUNK, 1]
    assert len(sids | {node.text("id") for node in requester.sent}) == 4


async def test_nobody_is_not_asked_about() -> None:
    assert await query(FakeRequester([]), ("contact",), []) == UsyncAnswer([], {}, {})


async def test_a_refusal_says_how_long_to_wait() -> None:
    with pytest.raises(RequestError) as caught:
        await query(
            FakeRequester([refusal(429, "rate-overlimit", backoff="60")]), ("lid",), [UserQuery(USER)]
        )
    assert (caught.value.code, caught.value.backoff) == (429, 60)


# Numbers.


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("+1 (555) 000-0002", "15550000002"),
        ("+49/170.123\u2011456", "49170123456"),
        ("1234567", "1234567"),
        ("123456789012345", "123456789012345"),
        (" 49 170\t123456\n", "49170123456"),
    ],
)
def test_numbers_as_people_write_them(text: str, digits: str) -> None:
    assert parse_number(text) == digits


@pytest.mark.parametrize(
    "text",
    [
        "",
        "123456",
        "1234567890123456",
        "0049170123456",
        "+0491701234",
        "555-CALL-NOW",
        "١٢٣٤٥٦٧٨",
        "12345678x",
    ],
)
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(NumberError) as caught:
        parse_number(text)
    assert not text or text not in str(caught.value)


@given(st.text(max_size=30))
def test_any_text_is_a_number_or_refused(text: str) -> None:
    try:
        digits = parse_number(text)
    except NumberError:
        return
    assert digits.isascii()
    assert digits.isdecimal()
    assert 7 <= len(digits) <= 15
    assert parse_number(digits) == digits


def found_in(numbers: list[str], *users: UserAnswer) -> list[NumberAnswer]:
    return match_numbers(numbers, UsyncAnswer(list(users), {}, {}))


def test_numbers_are_matched_by_the_echoed_text() -> None:
    spelled = UserAnswer(OTHER, query="+15550000002", on_whatsapp=True)
    old = UserAnswer(JID("1", PN), query="15550000003@c.us", on_whatsapp=True)
    assert found_in(["15550000002", "15550000003"], old, spelled) == [
        NumberAnswer("15550000002", True, OTHER),
        NumberAnswer("15550000003", True, JID("1", PN)),
    ]


def test_numbers_are_matched_by_address() -> None:
    by_pn = UserAnswer(USER.with_device(0), on_whatsapp=True, lid=LID_USER.with_device(4))
    by_lid = UserAnswer(OTHER_LID, pn_jid=OTHER, on_whatsapp=True)
    assert found_in(["15550000003", "15550000002"], by_pn, by_lid) == [
        NumberAnswer("15550000003", True, OTHER, OTHER_LID),
        NumberAnswer("15550000002", True, USER, LID_USER),
    ]


def test_a_complete_list_without_echo_is_matched_by_place() -> None:
    """A server may know a number under another spelling, as in Brazil."""
    spelled = UserAnswer(JID("551187654321", PN), on_whatsapp=True)
    assert found_in(["5511987654321"], spelled) == [NumberAnswer("5511987654321", True, spelled.jid)]


def test_one_persons_answer_is_not_anothers() -> None:
    """Places do not count for an answer that belongs to another number by its address."""
    about_second = UserAnswer(OTHER, on_whatsapp=True)
    silent = UserAnswer(None, on_whatsapp=False)
    assert found_in(["15550000002", "15550000003"], about_second, silent) == [
        NumberAnswer("15550000002", None),
        NumberAnswer("15550000003", True, OTHER),
    ]


def test_numbers_without_answer() -> None:
    assert found_in(["15550000002", "4917012345"], UserAnswer(USER, on_whatsapp=True)) == [
        NumberAnswer("15550000002", True, USER),
        NumberAnswer("4917012345", None),
    ]


def test_nothing_is_told_about_who_is_not_there() -> None:
    gone = UserAnswer(USER, query="+15550000002", on_whatsapp=False, lid=LID_USER)
    assert found_in(["15550000002"], gone) == [NumberAnswer("15550000002", False)]
    failed = UserAnswer(USER, errors={"contact": RequestError(500, "")})
    assert found_in(["15550000002"], failed) == [NumberAnswer("15550000002", None)]


async def test_checking_numbers() -> None:
    nodes = [
        user(Node("contact", {"type": "in"}, b"+15550000002"), Node("lid", {"val": LID_USER})),
        Node("user", {}, [Node("contact", {"type": "out"}, b"+15550000003")]),
    ]
    requester = FakeRequester([reply(*nodes)])
    assert await check_numbers(requester, ["15550000002", "15550000003"]) == [
        NumberAnswer("15550000002", True, USER, LID_USER),
        NumberAnswer("15550000003", False),
    ]
    outer = requester.sent[0].child("usync")
    assert outer is not None
    listed = outer.child("list")
    assert listed is not None
    assert [child.children()[0].data for child in listed.children()] == [b"+15550000002", b"+15550000003"]


async def test_checking_too_many_numbers_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="51 numbers"):
        await check_numbers(FakeRequester([]), ["1234567"] * (CHUNK + 1))


async def test_a_failed_contact_protocol_fails_the_check() -> None:
    failed = Node("contact", {}, [Node("error", {"code": "429", "backoff": "30"})])
    with pytest.raises(RequestError) as caught:
        await check_numbers(FakeRequester([reply(results=(failed,))]), ["1234567"])
    assert caught.value.backoff == 30
