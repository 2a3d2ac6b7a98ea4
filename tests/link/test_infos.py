"""What the server tells without asking (chapter 02 §5.4)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waD.link.infos import (
    MAX_CHILDREN,
    ClientExpiration,
    Dirty,
    EdgeRouting,
    Info,
    OfflineEnd,
    OfflinePreview,
    ThreadMetadata,
    Unknown,
    parse,
)
from waD.wire.jid import JID, SERVER
from waD.wire.node import Node


def ib(*children: Node) -> Node:
    return Node("ib", {"from": SERVER}, list(children))


@pytest.mark.parametrize(
    ("child", "info"),
    [
        (Node("offline", {"count": "12"}), OfflineEnd(12)),
        (Node("offline"), OfflineEnd(None)),
        (Node("offline", {"count": "many"}), OfflineEnd(None)),
        (
            Node("offline_preview", {"count": "9", "message": "4", "receipt": "5", "appdata": "0"}),
            OfflinePreview(9, message=4, receipt=5),
        ),
        (Node("offline_preview", {"message": "4", "call": "1"}), OfflinePreview(5, message=4, call=1)),
        (Node("offline_preview"), OfflinePreview(0)),
        (Node("dirty", {"type": "groups", "timestamp": "17"}), Dirty("groups", 17)),
        (Node("dirty", {"type": "account_sync"}), Dirty("account_sync", None)),
        (
            Node("edge_routing", {}, [Node("routing_info", {}, b"\x08\x02")]),
            EdgeRouting(b"\x08\x02"),
        ),
        (Node("client_expiration", {"t": "1900000000"}), ClientExpiration(1_900_000_000)),
        (Node("client_expiration"), ClientExpiration(None)),
        (Node("thread_metadata", {}, [Node("item"), Node("item")]), ThreadMetadata(2)),
        (Node("tos"), Unknown("tos")),
        (Node("tomorrow"), Unknown("tomorrow")),
    ],
)
def test_children(child: Node, info: Info) -> None:
    assert parse(ib(child)) == [info]


@pytest.mark.parametrize(
    "child",
    [
        Node("dirty"),
        Node("dirty", {"type": ""}),
        Node("dirty", {"type": "x" * 65}),
        Node("dirty", {"type": "groups", "timestamp": "yesterday"}),
        Node("edge_routing"),
        Node("edge_routing", {}, [Node("routing_info")]),
        Node("edge_routing", {}, [Node("routing_info", {}, b"")]),
        Node("edge_routing", {}, [Node("routing_info", {}, bytes(4097))]),
        Node("client_expiration", {"t": "soon"}),
        Node("safetynet"),
        Node("gpia"),
    ],
)
def test_malformed_or_meant_for_others(child: Node) -> None:
    assert parse(ib(child)) == []


def test_many_children_in_order() -> None:
    found = parse(ib(Node("dirty", {"type": "a"}), Node("gpia"), Node("offline")))
    assert found == [Dirty("a", None), OfflineEnd(None)]


def test_sender() -> None:
    end = [Node("offline")]
    assert parse(Node("ib", {}, end)) == [OfflineEnd(None)]
    assert parse(Node("ib", {"from": "s.whatsapp.net"}, end)) == [OfflineEnd(None)]
    assert parse(Node("ib", {"from": JID("15550000002", "s.whatsapp.net")}, end)) == []
    assert parse(Node("ib", {"from": "nonsense here"}, end)) == []


def test_there_is_a_limit() -> None:
    assert len(parse(ib(*[Node("offline")] * 1000))) == MAX_CHILDREN


_TAGS = st.sampled_from(
    ["offline", "offline_preview", "dirty", "edge_routing", "routing_info", "client_expiration", "x"]
)
_ATTRS = st.dictionaries(st.sampled_from(["count", "t", "type", "timestamp"]), st.text(max_size=8))


@given(st.lists(st.builds(Node, _TAGS, _ATTRS, st.binary(max_size=8)), max_size=4), st.binary(max_size=8))
def test_any_shape_is_read(children: list[Node], content: bytes) -> None:
    assert len(parse(ib(*children))) <= len(children)
    assert parse(Node("ib", {}, content)) == []
