"""Reading `media_conn` (chapter 05 §1.1)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.link.requester import result
from tests.messaging.media.hosts_kit import conn_node
from waD.link.errors import MalformedReply
from waD.messaging.media import conn
from waD.wire.node import Node


def host(name: str | None, kind: str | None = None, *children: Node, **attrs: str) -> Node:
    named = {} if name is None else {"hostname": name}
    typed = {} if kind is None else {"type": kind}
    return Node("host", {**named, **typed, **attrs}, list(children))


def reply(*hosts: Node, **attrs: str) -> Node:
    given_attrs = {"auth": "token", "ttl": "300", "auth_ttl": "21600", "max_buckets": "12", **attrs}
    return result(Node("media_conn", {k: v for k, v in given_attrs.items() if v != "-"}, list(hosts)))


def test_the_question() -> None:
    node = conn.request()
    assert (node.text("type"), node.text("xmlns"), [one.tag for one in node.children()]) == (
        "set",
        "w:m",
        ["media_conn"],
    )


def test_primary_hosts_come_first_and_keep_their_order() -> None:
    parsed = conn.parse(conn_node("b.test!", "c.test", "a.test!", "127.0.0.1:8443"))
    assert [one.name for one in parsed.hosts] == ["c.test", "127.0.0.1:8443", "b.test", "a.test"]
    assert (parsed.auth, parsed.ttl_s, parsed.auth_ttl_s) == ("secret-auth", 300, 21600)
    assert "secret-auth" not in repr(parsed)


def test_a_host_may_name_one_to_fall_back_on_and_none_comes_twice() -> None:
    nodes = (
        host("A.test", "primary", fallback_hostname="z.test"),
        host("b.test", fallback_hostname="a.test"),
        host("z.test", "fallback"),
    )
    assert [one.name for one in conn.parse(reply(*nodes)).hosts] == ["a.test", "b.test", "z.test"]


def test_hosts_that_serve_a_type() -> None:
    only = Node("download", content=[Node("image"), Node("md-app-state")])
    parsed = conn.parse(
        reply(host("all.test"), host("some.test", None, only), host("none.test", None, Node("download")))
    )
    assert parsed.serving("md-app-state") == ["all.test", "some.test"]
    assert parsed.serving("audio") == ["all.test"]
    strict = conn.parse(reply(host("some.test", None, only)))
    assert strict.serving("audio") == ["some.test"], "better a vain question than none"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a b",
        "https://a.test",
        "a.test/x",
        "a@b",
        "a.test:",
        "a.test:0",
        "a.test:65536",
        "a.test:123456",
        "[::1]",
        "-a",
        ".a",
        "a..b",
        "ä.test",
        "a" * 254,
        "a.test\n",
        "a.test#",
        "a.test?x",
    ],
)
def test_names_that_are_no_host_names(name: str) -> None:
    assert not conn.is_hostname(name or "/")
    with pytest.raises(MalformedReply):
        conn.parse(reply(host(name)))
    assert [one.name for one in conn.parse(reply(host(name), host("good.test"))).hosts] == ["good.test"]


@pytest.mark.parametrize(
    "node",
    [
        result(),
        result(Node("media")),
        reply(),
        reply(host(None)),
        reply(host("a.test"), auth="-"),
        reply(host("a.test"), auth="x" * 5000),
        reply(host("a.test"), ttl="-"),
        reply(host("a.test"), ttl="soon"),
        reply(host("a.test"), ttl="-1"),
    ],
)
def test_answers_that_cannot_be_used(node: Node) -> None:
    with pytest.raises(MalformedReply):
        conn.parse(node)


def test_times_are_kept_within_reason() -> None:
    parsed = conn.parse(reply(host("a.test"), ttl="0", auth_ttl="9999999999"))
    assert (parsed.ttl_s, parsed.auth_ttl_s) == (1, 7 * 86_400)
    assert conn.parse(reply(host("a.test"), ttl="77", auth_ttl="-")).auth_ttl_s == 77


def test_hosts_are_counted() -> None:
    assert len(conn.parse(reply(*(host(f"h{n}.test") for n in range(1000)))).hosts) == 16


@given(st.lists(st.text(max_size=20), max_size=5), st.text(max_size=9), st.text(max_size=9))
def test_any_answer_is_read_or_refused(names: list[str], auth: str, ttl: str) -> None:
    try:
        parsed = conn.parse(reply(*(host(name) for name in names), auth=auth, ttl=ttl))
    except MalformedReply:
        return
    assert all(conn.is_hostname(one.name) for one in parsed.hosts)
