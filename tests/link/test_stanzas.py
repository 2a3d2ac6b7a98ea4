from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waD.link.errors import MalformedReply, RequestError
from waD.link.stanzas import (
    MAX_BACKOFF_S,
    MAX_TEXT,
    UNREADABLE_ERROR,
    big_endian,
    content_of,
    error,
    error_of,
    iq,
    need_child,
    raise_for_error,
    result,
)
from waD.wire.jid import GROUP_SERVER, JID, SERVER
from waD.wire.node import Node, Value


def reply(kind: str | None, *children: Node) -> Node:
    return Node("iq", {"id": "1"} if kind is None else {"id": "1", "type": kind}, list(children))


def refused(node: Node) -> RequestError:
    with pytest.raises(RequestError) as caught:
        raise_for_error(node, "the count")
    return caught.value


def test_a_request() -> None:
    node = iq("get", "encrypt", Node("count"))
    assert node == Node("iq", {"to": SERVER, "type": "get", "xmlns": "encrypt"}, [Node("count")])
    assert iq("set", "w:g2", to=GROUP_SERVER).attrs["to"] == GROUP_SERVER
    assert iq("get", "w:p").content is None


def test_answers_to_the_server() -> None:
    request = Node("iq", {"id": "Q7", "from": SERVER, "type": "set", "xmlns": "md"}, [Node("pair-device")])
    assert result(request) == Node("iq", {"to": SERVER, "type": "result", "id": "Q7"})
    assert error(request, 501, "feature-not-implemented") == Node(
        "iq",
        {"to": SERVER, "type": "error", "id": "Q7"},
        [Node("error", {"code": "501", "text": "feature-not-implemented"})],
    )


def test_answers_keep_the_address_and_do_without_id() -> None:
    peer = JID("1", "lid", 3)
    assert result(Node("iq", {"from": peer})).attrs == {"to": peer, "type": "result"}
    assert result(Node("iq")).attrs["to"] == SERVER


def test_a_result_passes() -> None:
    node = reply("result", Node("count", {"value": "3"}))
    assert raise_for_error(node, "x") is node


def test_a_refusal() -> None:
    node = reply("error", Node("error", {"code": "429", "text": "rate-overlimit", "backoff": "60"}))
    failure = refused(node)
    assert (failure.code, failure.text, failure.backoff) == (429, "rate-overlimit", 60)
    assert str(failure) == "the count refused: 429 rate-overlimit"


def test_an_error_inside_a_result_counts() -> None:
    assert refused(reply("result", Node("error", {"code": "404"}))).code == 404


@pytest.mark.parametrize("kind", ["error", "get", "other", "", None])
def test_what_is_no_result_is_an_error(kind: str | None) -> None:
    failure = refused(reply(kind))
    assert (failure.code, failure.text, failure.backoff) == (UNREADABLE_ERROR, "", None)


@pytest.mark.parametrize(
    ("attrs", "code", "backoff"),
    [
        ({}, 500, None),
        ({"code": "x"}, 500, None),
        ({"code": "-4"}, 500, None),
        ({"code": "4e2"}, 500, None),
        ({"code": "٤٠٤"}, 500, None),
        ({"code": "404", "backoff": "x"}, 404, None),
        ({"code": "0", "backoff": "0"}, 0, 0),
        ({"code": "429", "backoff": str(MAX_BACKOFF_S + 1)}, 429, MAX_BACKOFF_S),
        ({"code": "9" * 30}, 500, None),
        ({"code": SERVER}, 500, None),
    ],
)
def test_hostile_numbers(attrs: dict[str, Value], code: int, backoff: int | None) -> None:
    failure = error_of(Node("error", attrs), "x")
    assert (failure.code, failure.backoff) == (code, backoff)


def test_a_long_text_is_cut() -> None:
    assert len(error_of(Node("error", {"code": "400", "text": "x" * 10_000}), "x").text) == MAX_TEXT


@given(st.dictionaries(st.sampled_from(["code", "text", "backoff"]), st.text(max_size=20)))
def test_any_error_element_is_read(attrs: dict[str, Value]) -> None:
    failure = error_of(Node("error", attrs), "x")
    assert failure.code >= 0
    assert failure.backoff is None or 0 <= failure.backoff <= MAX_BACKOFF_S


def test_a_child_that_must_be_there() -> None:
    node = reply("result", Node("a"), Node("b", {"n": "1"}), Node("b", {"n": "2"}))
    assert need_child(node, "b", "x").attrs == {"n": "1"}
    with pytest.raises(MalformedReply, match="the answer to usync has no <list>"):
        need_child(node, "list", "usync")
    with pytest.raises(MalformedReply):
        need_child(Node("iq", {}, b"bytes"), "list", "usync")


def test_ids_are_big_endian() -> None:
    assert big_endian(0x010203, 3) == b"\x01\x02\x03"
    for number, size in ((1 << 24, 3), (-1, 3), (1 << 32, 4)):
        with pytest.raises(OverflowError):
            big_endian(number, size)


def test_content_of_what_may_be_missing() -> None:
    assert content_of(None) is None
    assert content_of(Node("x", {}, b"y")) == b"y"
