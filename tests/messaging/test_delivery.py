"""Receipts we send: their addresses and types, and how those of a batch become few."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from waD.messaging import delivery
from waD.messaging.delivery import MAX_RECEIPT_IDS, ReadKey
from waD.messaging.stanza import Incoming, parse
from waD.wire.jid import JID
from waD.wire.node import Node, Value

ME, MY_LID = JID.parse("15551799738:7@s.whatsapp.net"), JID.parse("156469901574963:7@lid")
ANN, BOB = JID.parse("100000000000002:3@lid"), JID.parse("100000000000003@lid")
GROUP = JID.parse("120363000000000001@g.us")


def incoming(**attrs: Value) -> Incoming:
    found = parse(Node("message", {"id": "A1", "t": "1", "type": "text"} | attrs), ME, MY_LID)
    assert isinstance(found, Incoming)
    return found


def receipt(number: int, to: JID = ANN, **more: Value) -> Node:
    return Node("receipt", {"id": f"A{number}", "to": to} | more)


def ids(node: Node) -> list[str]:
    listed = node.child("list")
    items = [] if listed is None else listed.children("item")
    return [node.text("id", ""), *(item.text("id", "") for item in items)]


class TestDeliveryReceipt:
    def test_direct(self) -> None:
        assert delivery.delivery_receipt(incoming(**{"from": ANN})).attrs == {"id": "A1", "to": ANN}

    def test_addresses_are_echoed_as_typed(self) -> None:
        node = delivery.delivery_receipt(incoming(**{"from": str(ANN)}))
        assert node.attrs["to"] == str(ANN)

    def test_nobody_is_looking(self) -> None:
        node = delivery.delivery_receipt(incoming(**{"from": ANN}), available=False)
        assert node.attrs["type"] == "inactive"

    def test_group(self) -> None:
        node = delivery.delivery_receipt(incoming(**{"from": GROUP, "participant": ANN}))
        assert node.attrs == {"id": "A1", "to": GROUP, "participant": ANN}

    def test_status(self) -> None:
        status = JID.parse("status@broadcast")
        node = delivery.delivery_receipt(incoming(**{"from": status, "participant": ANN}))
        assert node.attrs["context"] == "status"

    def test_own_copy_takes_precedence_over_inactive(self) -> None:
        copy = incoming(**{"from": MY_LID.with_device(0), "recipient": BOB})
        for available in (True, False):
            assert delivery.delivery_receipt(copy, available=available).attrs == {
                "id": "A1",
                "to": MY_LID.with_device(0),
                "type": "sender",
                "recipient": BOB,
            }

    def test_peer_message(self) -> None:
        peer = incoming(**{"from": MY_LID.with_device(0), "category": "peer"})
        assert delivery.delivery_receipt(peer).attrs == {
            "id": "A1",
            "to": MY_LID.with_device(0),
            "type": "peer_msg",
        }
        assert delivery.history_receipt(peer).attrs == {
            "id": "A1",
            "to": MY_LID.account,
            "type": "hist_sync",
        }


class TestAggregate:
    def test_nothing(self) -> None:
        assert delivery.aggregate([]) == []
        one = receipt(1)
        assert delivery.aggregate([one]) == [one]

    def test_receipts_to_one_place_are_one(self) -> None:
        (node,) = delivery.aggregate([receipt(1), receipt(2), receipt(3)])
        assert node.attrs == {"id": "A1", "to": ANN}
        assert ids(node) == ["A1", "A2", "A3"]

    def test_what_differs_stays_apart_and_in_order(self) -> None:
        ack = Node("ack", {"class": "message", "id": "A9", "to": ANN})
        retry = Node("receipt", {"id": "A8", "to": ANN, "type": "retry"}, [Node("retry", {"count": "1"})])
        peer = receipt(7, type="peer_msg")
        answers = [
            receipt(1),
            ack,
            receipt(2, BOB),
            receipt(3),
            retry,
            receipt(4, GROUP, participant=ANN),
            receipt(5, GROUP, participant=BOB),
            peer,
            peer,
            receipt(6, type="inactive"),
            receipt(10, type="sender", recipient=BOB),
            receipt(11, type="sender", recipient=GROUP),
        ]
        found = delivery.aggregate(answers)
        assert [ids(node)[0] for node in found] == [
            "A1", "A9", "A2", "A8", "A4", "A5", "A7", "A7", "A6", "A10", "A11",
        ]  # fmt: skip
        assert ids(found[0]) == ["A1", "A3"]
        assert found[3] is retry

    def test_at_most_256_ids(self) -> None:
        found = delivery.aggregate([receipt(n) for n in range(2 * MAX_RECEIPT_IDS + 1)])
        assert [len(ids(node)) for node in found] == [256, 256, 1]

    def test_one_id_is_named_once(self) -> None:
        (node,) = delivery.aggregate([receipt(1), receipt(1)])
        assert ids(node) == ["A1"]

    @given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from([ANN, BOB, GROUP]), st.booleans())))
    def test_no_id_is_lost_or_moves_to_another_place(self, made: list[tuple[int, JID, bool]]) -> None:
        answers = [receipt(n, to, **({"type": "inactive"} if away else {})) for n, to, away in made]
        found = delivery.aggregate(answers)
        wanted = {(one.attrs["id"], one.attrs["to"], one.attrs.get("type")) for one in answers}
        told = [(name, one.attrs["to"], one.attrs.get("type")) for one in found for name in ids(one)]
        assert set(told) == wanted
        assert len(told) == len(wanted)
        assert len(found) <= 6


class TestReads:
    def test_more_than_fit_are_several(self) -> None:
        groups = delivery.aggregate_reads(ReadKey(ANN, f"A{n}") for n in range(300))
        assert [len(group.ids) for group in groups] == [256, 44]
