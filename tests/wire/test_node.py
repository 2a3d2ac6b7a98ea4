"""The node and its helpers."""

from __future__ import annotations

import pytest

from waD.wire.jid import JID
from waD.wire.node import MAX_INT, MAX_XML_DEPTH, Node

PN = JID("15550001111", "s.whatsapp.net", 7)


def test_content_is_normalised() -> None:
    assert Node("a").content is None
    assert Node("a", None, "né").content == b"n\xc3\xa9"
    assert Node("a", {}, "").content == b""
    assert Node("a", {}, b"").content == b""
    assert Node("a", {}, []).content is None
    assert Node("a", {}, ()).content is None
    assert Node("a", {}, (Node("b"),)).content == [Node("b")]
    assert Node("a").attrs == {}
    assert Node("a").attrs is not Node("a").attrs


def test_equality_is_by_value() -> None:
    node = Node("a", {"x": "1", "to": PN}, [Node("b", None, b"1")])
    assert node == Node("a", {"to": PN, "x": "1"}, [Node("b", None, b"1")])
    assert node != Node("a", {"to": str(PN), "x": "1"}, [Node("b", None, b"1")])
    assert node != Node("a", {"x": "1", "to": PN}, [Node("b", None, b"2")])
    assert node != Node("b", {"x": "1", "to": PN}, [Node("b", None, b"1")])
    assert Node("a") != Node("a", None, b"")
    assert Node("a") != "a"


def test_an_empty_list_equals_no_content() -> None:
    node = Node("a")
    node.content = []
    assert node == Node("a")
    assert Node("a") == node


def test_nodes_are_not_hashable_since_they_change() -> None:
    with pytest.raises(TypeError):
        hash(Node("a"))


def test_child_and_children() -> None:
    first, second, other = Node("item", {"id": "1"}), Node("item", {"id": "2"}), Node("x")
    node = Node("list", None, [other, first, second])
    assert node.child("item") is first
    assert node.child("nothing") is None
    assert node.children() == [other, first, second]
    assert node.children("item") == [first, second]
    assert node.children("nothing") == []
    for leaf in (Node("a"), Node("a", None, b"bytes")):
        assert leaf.child("a") is None
        assert leaf.children() == []


def test_children_is_a_copy() -> None:
    node = Node("list", None, [Node("x")])
    node.children().clear()
    assert node.children() == [Node("x")]


def test_text() -> None:
    node = Node("a", {"id": "5", "to": PN, "empty": ""})
    assert node.text("id") == "5"
    assert node.text("to") == "15550001111:7@s.whatsapp.net"
    assert node.text("empty", "default") == ""
    assert node.text("none") is None
    assert node.text("none", "default") == "default"


def test_jid() -> None:
    node = Node(
        "a", {"to": PN, "text": str(PN), "odd": "1@new.server", "server": "g.us", "id": "5", "empty": ""}
    )
    assert node.jid("to") is PN
    assert node.jid("text") == PN
    assert node.jid("odd") == JID("1", "new.server")
    assert node.jid("server") == JID("", "g.us")
    assert node.jid("id") is None
    assert node.jid("empty") is None
    assert node.jid("none") is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("007", 7),
        ("1718000000", 1718000000),
        (str(MAX_INT), MAX_INT),
        (str(MAX_INT + 1), None),
        ("9" * 5000, None),
        ("", None),
        ("-1", None),
        ("+1", None),
        (" 1", None),
        ("1\n", None),
        ("1_0", None),
        ("1.0", None),
        ("0x10", None),
        ("٣", None),
    ],
)
def test_int(text: str, number: int | None) -> None:
    assert Node("a", {"n": text}).int("n") == number


def test_int_of_what_is_no_text() -> None:
    assert Node("a").int("n") is None
    assert Node("a", {"n": JID("1", "lid")}).int("n") is None


def test_data() -> None:
    assert Node("a", None, b"x").data == b"x"
    assert Node("a").data == b""
    assert Node("a", None, [Node("b")]).data == b""


def test_neither_repr_nor_xml_shows_bytes() -> None:
    secret = b"attack at dawn"
    node = Node("message", {"id": "A1", "to": PN}, [Node("enc", {"v": "2"}, secret), Node("meta")])
    assert repr(node) == "<Node message id='A1' to='15550001111:7@s.whatsapp.net' [enc meta]>"
    assert repr(node.children()[0]) == "<Node enc v='2' 14 bytes>"
    assert repr(Node("a")) == "<Node a empty>"
    assert repr(Node("l", None, [Node("i")] * 9)) == "<Node l [i i i i i i i i …]>"
    assert node.xml().splitlines() == [
        '<message id="A1" to="15550001111:7@s.whatsapp.net">',
        '  <enc v="2"><!-- 14 bytes --></enc>',
        "  <meta/>",
        "</message>",
    ]
    assert "dawn" not in repr(node) + node.xml()


def test_xml_of_no_bytes_is_not_that_of_no_content() -> None:
    assert Node("a", None, b"").xml() == "<a><!-- 0 bytes --></a>"
    assert Node("a").xml() == "<a/>"


def test_xml_stops_at_a_depth() -> None:
    node = Node("a")
    for _ in range(2 * MAX_XML_DEPTH):
        node = Node("a", None, [node])
    assert "<!-- deeper -->" in node.xml()
    assert len(node.xml().splitlines()) == 2 * MAX_XML_DEPTH + 1
