"""Recognising why a connection ended (chapter 02 §7.3, §7.4, §8.2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.link.kit import stream_error
from waD.link import causes
from waD.link.causes import CODES, Rank, cause, from_stanza, http_cause
from waD.link.errors import Disconnected
from waD.wire.node import Node

DEVICE_REMOVED = Node("conflict", {"type": "device_removed"})
REPLACED = Node("conflict", {"type": "replaced"})


def failure(reason: str | None, **attrs: str) -> Node:
    return Node("failure", ({} if reason is None else {"reason": reason}) | {"location": "lla"} | attrs)


@pytest.mark.parametrize(
    "reason", [400, 401, 402, 403, 405, 406, 409, 411, 413, 414, 415, 416, 418, 429, 500, 501, 503]
)
def test_known_failures_have_their_own_row(reason: int) -> None:
    found = from_stanza(failure(str(reason)))
    assert found is not None
    assert (found.id, found.code, found.rank) == (f"f{reason}", reason, Rank.STANZA)


@pytest.mark.parametrize("reason", [504, 599])
def test_other_server_failures(reason: int) -> None:
    found = from_stanza(failure(str(reason)))
    assert found is not None
    assert (found.id, found.code) == ("f5xx", reason)


@pytest.mark.parametrize("reason", [None, "", "-1", "4o1", "399", "600", "99999999999999999999", "١٠٠"])
def test_unreadable_failures_are_never_the_bad_session_of_500(reason: str | None) -> None:
    found = from_stanza(failure(reason))
    assert found is not None
    assert (found.id, found.code) == ("f_other", None)


def test_unknown_4xx_keeps_its_number() -> None:
    found = from_stanza(failure("455"))
    assert found is not None
    assert (found.id, found.code) == ("f_other", 455)


@pytest.mark.parametrize(
    ("node", "cause_id", "code"),
    [
        (stream_error(515), "restart", 515),
        (stream_error(516), "force_logout", 516),
        (stream_error(401, DEVICE_REMOVED), "unlinked", 401),
        (stream_error(None, DEVICE_REMOVED), "unlinked_other", None),
        (stream_error(401, Node("conflict", {"type": "new_kind"})), "unlinked_other", 401),
        (stream_error(None, Node("conflict")), "unlinked_other", None),
        (stream_error(None, REPLACED), "replaced", 440),
        (stream_error(409), "replaced", 440),
        (stream_error(503, REPLACED), "replaced", 440),
        (stream_error(503), "stream_503", 503),
        (stream_error(429), "stream_429", 429),
        (stream_error(500), "stream_500", 500),
        (stream_error(413), "stream_cat", 413),
        (stream_error(414), "stream_cat", 414),
        (stream_error(401), "stream_other", 401),
        (stream_error(403), "stream_other", 403),
        (stream_error(None, Node("ack", {"class": "message", "id": "3EB0"})), "stream_ack", None),
        (stream_error(None, Node("xml-not-well-formed")), "stream_xml", None),
        (stream_error(), "stream_other", None),
        (stream_error(None, Node("news")), "stream_other", None),
        (stream_error(10_000), "stream_other", None),
        (Node("stream:error", {"code": "many"}), "stream_other", None),
        (Node("xmlstreamend"), "stream_end", 428),
        (Node("ib", {}, [Node("downgrade_webclient")]), "f411", 411),
    ],
)
def test_stanzas_that_end_a_connection(node: Node, cause_id: str, code: int | None) -> None:
    found = from_stanza(node)
    assert found is not None
    assert (found.id, found.code) == (cause_id, code)
    assert found.stanza is node


@pytest.mark.parametrize(
    "node",
    [
        Node("message", {"id": "1"}),
        Node("ib", {}, [Node("offline")]),
        Node("ack", {"class": "message", "error": "463"}),
        Node("iq", {"type": "error"}, [Node("error", {"code": "401"})]),
        Node("error", {"code": "479"}),
        Node("success"),
    ],
)
def test_similar_numbers_elsewhere_are_no_reason_to_end(node: Node) -> None:
    assert from_stanza(node) is None


def test_conflict_comes_before_code() -> None:
    found = from_stanza(stream_error(515, REPLACED))
    assert found is not None
    assert found.id == "replaced"


def test_an_ack_error_names_the_stanza() -> None:
    found = from_stanza(stream_error(None, Node("ack", {"class": "receipt", "id": "3EB0AA"})))
    assert found is not None
    assert "receipt 3EB0AA" in found.message


def test_http_codes_are_never_numbers_of_whatsapp() -> None:
    for status in (401, 403, 500, 503):
        found = http_cause(status, 7.0)
        assert (found.id, found.code, found.retry_after_s) == ("http", 1000 + status, 7.0)


def test_local_causes_never_have_the_numbers_that_clear_auth() -> None:
    pairing = {"pair_hmac", "pair_sig", "pair_refused"}
    assert {code for name, code in CODES.items() if name not in pairing} & {401, 403, 500} == set()


def test_an_unknown_row_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        cause("typo", "x")


def test_precedence() -> None:
    assert Rank.STOP < Rank.STORAGE < Rank.STANZA < Rank.LOCAL < Rank.STREAM_END < Rank.EOF
    order = ("stop", "auth_write", "restart", "dead_socket", "stream_end", "eof")
    ranks = [cause(name, "x").rank for name in order]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) == len(ranks)
    assert cause("logout", "x").rank == cause("lease_lost", "x").rank == Rank.STOP


def test_what_the_connection_adds() -> None:
    found = cause("eof", "closed").at(age_s=1.23456, was_open=True, reached=True)
    assert (found.age_s, found.was_open, found.reached) == (1.235, True, True)
    assert str(Disconnected(found)) == "disconnected (eof): closed"


def test_the_record_shows_the_stanza_without_its_content() -> None:
    found = from_stanza(Node("failure", {"reason": "403"}, [Node("appeal", {}, b"secret words")]))
    assert "secret" not in repr(found)


_TAGS = st.sampled_from(["failure", "stream:error", "xmlstreamend", "ib", "conflict", "ack"])
_ATTRS = st.dictionaries(st.sampled_from(["reason", "code", "type", "id", "class"]), st.text(max_size=12))


@given(_TAGS, _ATTRS, st.lists(st.builds(Node, _TAGS, _ATTRS), max_size=3))
def test_any_shape_is_a_cause_or_none(tag: str, attrs: dict[str, str], children: list[Node]) -> None:
    found = from_stanza(Node(tag, attrs, children))
    assert (found is None) == (tag in ("ib", "conflict", "ack"))
    if found is not None:
        assert found.code is None or 0 <= found.code <= causes.MAX_STREAM_CODE
        assert len(found.message) < 200
