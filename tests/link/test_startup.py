"""What is asked and told once after the backlog (chapter 02 §5.3, chapter 06 §6, §11)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from waD.link import startup
from waD.link.errors import MalformedReply, RequestError
from waD.link.infos import Dirty
from waD.link.stanzas import raise_for_error
from waD.wire.jid import JID, SERVER
from waD.wire.node import Node


class Server:
    """Answers each request with what the test gives it."""

    def __init__(self, answer: Callable[[Node], list[Node]] | None = None) -> None:
        self.answer = answer or (lambda _: [])
        self.requests: list[Node] = []
        self.sent: list[Node] = []

    async def request(self, node: Node, timeout: float | None = None) -> Node:  # noqa: ASYNC109 - as the protocol
        self.requests.append(node)
        return raise_for_error(Node("iq", {"type": "result"}, self.answer(node)), "test")

    async def send(self, node: Node) -> None:
        self.sent.append(node)

    def next_id(self) -> str:
        return "1.2-1"


def refusing(code: int) -> Server:
    return Server(lambda _: [Node("error", {"code": str(code)})])


def prop(**attrs: str) -> Node:
    return Node("prop", dict(attrs))


async def test_properties() -> None:
    node = Node(
        "props",
        {"protocol": "1", "hash": "H2", "refresh_id": "7", "refresh": "3600", "ab_key": "k"},
        [
            prop(config_code="10518", config_value="true"),
            prop(config_code="24941", config_value="x", config_expo_key="5"),
            prop(event_code="1", sampling_weight="10"),
            prop(config_code="3", event_code="1", config_value="both"),
            prop(config_value="neither"),
            prop(config_code="4"),
            prop(config_code="-5", config_value="x"),
            prop(config_code="6", config_value="v" * 70_000),
        ],
    )
    server = Server(lambda _: [node])
    found = await startup.fetch_props(server, "H1", "6")
    assert found == startup.Props({10518: "true", 24941: "x"}, False, "H2", "7", 3600)
    (asked,) = server.requests
    assert (asked.attrs["xmlns"], asked.attrs["type"], asked.attrs["to"]) == ("abt", "get", SERVER)
    assert asked.children() == [Node("props", {"protocol": "1", "hash": "H1", "refresh_id": "6"})]


async def test_properties_for_the_first_time() -> None:
    server = Server(lambda _: [Node("props", {"delta_update": "true", "hash": "h" * 500})])
    found = await startup.fetch_props(server)
    assert found == startup.Props({}, True, "", "", startup.DEFAULT_REFRESH_S)
    assert server.requests[0].children() == [Node("props", {"protocol": "1"})]


@pytest.mark.parametrize(("told", "seconds"), [("0", 86_400), ("x", 86_400), ("5", 5), ("9999999", 604_800)])
async def test_when_properties_are_due_again(told: str, seconds: int) -> None:
    assert startup.parse_props(Node("props", {"refresh": told})).refresh_s == seconds


async def test_no_properties() -> None:
    with pytest.raises(MalformedReply):
        await startup.fetch_props(Server())
    with pytest.raises(RequestError):
        await startup.fetch_props(refusing(503))


def item(jid: object) -> Node:
    return Node("item", {"jid": jid})  # type: ignore[dict-item]


ONE, TWO = JID("1000", "lid"), JID("2000", "lid")


@pytest.mark.parametrize(
    ("children", "jids", "digest"),
    [
        (
            [Node("list", {"dhash": "D"}, [item(ONE), item(TWO), item(ONE), item("?"), Node("x")])],
            (ONE, TWO),
            "D",
        ),
        ([item(ONE)], (ONE,), ""),
        ([Node("list")], (), ""),
        ([], (), ""),
    ],
)
async def test_block_list(children: list[Node], jids: tuple[JID, ...], digest: str) -> None:
    server = Server(lambda _: children)
    found = await startup.fetch_blocklist(server)
    assert (found.jids, found.hash) == (jids, digest)
    (asked,) = server.requests
    assert (asked.attrs["xmlns"], asked.attrs["type"], asked.content) == ("blocklist", "get", None)
    assert "1000" not in repr(found)


async def test_privacy() -> None:
    categories = [
        Node("category", {"name": "last", "value": "contacts"}),
        Node("category", {"name": "readreceipts", "value": "none", "dhash": "x"}),
        Node("category", {"name": "odd"}),
        Node("category", {"value": "odd"}),
        Node("other", {"name": "a", "value": "b"}),
    ]
    server = Server(lambda _: [Node("privacy", {}, categories)])
    assert await startup.fetch_privacy(server) == {"last": "contacts", "readreceipts": "none"}
    assert server.requests[0].attrs["xmlns"] == "privacy"
    assert server.requests[0].children() == [Node("privacy")]
    with pytest.raises(MalformedReply):
        await startup.fetch_privacy(Server())


@pytest.mark.parametrize(
    ("dirty", "attrs"),
    [
        (Dirty("account_sync", 17), {"type": "account_sync", "timestamp": "17"}),
        (Dirty("groups", None), {"type": "groups"}),
    ],
)
async def test_clean(dirty: Dirty, attrs: dict[str, str]) -> None:
    server = Server()
    await startup.clean_dirty(server, dirty)
    (asked,) = server.requests
    assert (asked.attrs["xmlns"], asked.attrs["type"]) == ("urn:xmpp:whatsapp:dirty", "set")
    assert asked.children() == [Node("clean", dict(attrs))]


@pytest.mark.parametrize(
    ("now_ms", "number"),
    [(0, 259_200_000), (345_600_000, 0), (345_599_999, 604_799_999), (1_764_814_148_000, 266_948_000)],
)
async def test_unified_session(now_ms: int, number: int) -> None:
    server = Server()
    await startup.announce_session(server, now_ms)
    assert server.sent == [Node("ib", {}, [Node("unified_session", {"id": str(number)})])]


@pytest.mark.parametrize(
    ("name", "wanted", "attrs"),
    [
        ("Alice", True, {"type": "available", "name": "Alice"}),
        ("Alice", False, {"type": "unavailable", "name": "Alice"}),
        ("", True, {"type": "unavailable"}),
    ],
)
async def test_presence(name: str, wanted: bool, attrs: dict[str, str]) -> None:
    server = Server()
    assert await startup.announce_presence(server, name, available=wanted) is (attrs["type"] == "available")
    assert server.sent == [Node("presence", dict(attrs))]
