"""The record of a disconnect: everything is kept, not everything is shown."""

from __future__ import annotations

import msgspec
import pytest

from waD.link.causes import from_stanza
from waD.session.counters import Counters
from waD.session.policy import Rules, decide
from waD.session.record import MAX_ATTRS, MAX_CHILDREN, MAX_TEXT, account_of, make_record, public_detail
from waD.session.views import disconnect_view
from waD.store.model import DisconnectRecord
from waD.wire.node import Node


def record_of(stanza: Node, account: str | None = None) -> DisconnectRecord:
    cause = from_stanza(stanza)
    assert cause is not None
    decision = decide(cause, Counters(), Rules(), 0, jitter=0)
    return make_record(cause, decision, hint="do this", at_ms=5, next_ms=9, account=account)


def test_what_the_server_says_once_is_kept_and_its_secret_is_not_shown() -> None:
    attrs = {"reason": "403", "logout_message_header": "Locked\x1b[31m", "appeal_token": "secret"}
    record = record_of(Node("failure", attrs))
    assert (record.cause, record.code, record.at_ms) == ("f403", 403, 5)
    assert record.detail["protected"] == {"appeal_token": "secret"}
    shown = public_detail(record)
    assert shown["stanza"]["attrs"] == {"reason": "403", "logout_message_header": "Locked [31m"}
    assert (shown["hint"], shown["nextAttemptAt"], shown["action"]) == ("do this", 9, "slow")
    assert "secret" not in repr(disconnect_view(record))
    assert disconnect_view(record).message == "the account is locked"


def test_content_is_left_out_and_children_are_outlined() -> None:
    stanza = Node("stream:error", {"code": "401"}, [Node("conflict", {"type": "device_removed"}, b"x" * 99)])
    assert record_of(stanza).detail["stanza"]["children"] == [
        {"tag": "conflict", "attrs": {"type": "device_removed"}}
    ]


def test_a_huge_stanza_makes_a_small_record() -> None:
    children = [Node(f"c{n}", {"a": "y" * 100_000}) for n in range(1000)]
    attrs = {"code": "500", **{f"k{n}": "x" * 100_000 for n in range(1000)}}
    record = record_of(Node("stream:error", attrs, children))
    assert len(msgspec.json.encode(record)) < MAX_TEXT * (MAX_ATTRS + MAX_CHILDREN + 1)


@pytest.mark.parametrize("detail", [{}, {"protected": 7}, {"protected": {"account": 7}}])
def test_without_an_account(detail: dict[str, object]) -> None:
    assert account_of(DisconnectRecord(cause="eof", code=None, at_ms=0, detail=detail)) is None
    assert account_of(None) is None


def test_the_account_is_kept_but_not_shown() -> None:
    record = record_of(Node("failure", {"reason": "401"}), "15550000001@s.whatsapp.net")
    assert account_of(record) == "15550000001@s.whatsapp.net"
    assert "15550000001" not in repr(public_detail(record))


def test_a_record_of_an_unknown_cause_can_be_shown() -> None:
    view = disconnect_view(DisconnectRecord(cause="from_the_future", code=1, at_ms=2))
    assert (view.cause, view.code, view.at, view.message) == ("from_the_future", 1, 2, "")
