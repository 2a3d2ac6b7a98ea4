"""From attributes to facts: the table of chapter 04 §6.2, and that no node whatever is too much for it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from tests.messaging.inbound_helpers import hostile
from waD.messaging.stanza import (
    MAX_ENCS,
    MAX_PUSH_NAME,
    Incoming,
    Rejection,
    clean_name,
    is_own,
    other_form,
    parse,
)
from waD.wire.jid import JID
from waD.wire.node import Node, Value

ME = JID.parse("15551799738:7@s.whatsapp.net")
MY_LID = JID.parse("156469901574963:7@lid")
PEER = "15552222222@s.whatsapp.net"
PEER_LID = "100000000000002@lid"


def message(*children: Node, **attrs: Value) -> Node:
    return Node("message", {"id": "A1", "t": "1700000000", "type": "text"} | attrs, list(children))


def read(node: Node, own_lid: JID | None = MY_LID) -> Incoming:
    found = parse(node, ME, own_lid)
    assert isinstance(found, Incoming), found
    return found


def refused(node: Node) -> int:
    found = parse(node, ME, MY_LID)
    assert isinstance(found, Rejection), found
    assert found.reason
    return found.code


class TestDirect:
    def test_the_chat_is_bare_and_the_author_is_the_device(self) -> None:
        found = read(message(**{"from": JID.parse("15552222222:3@s.whatsapp.net")}))
        assert (found.kind, str(found.chat), str(found.sender)) == (
            "user",
            PEER,
            "15552222222:3@s.whatsapp.net",
        )
        assert not found.from_me

    def test_the_other_address_gets_the_device(self) -> None:
        found = read(message(**{"from": "15552222222:3@s.whatsapp.net", "sender_lid": PEER_LID}))
        assert str(found.sender_alt) == "100000000000002:3@lid"
        assert str(found.chat_alt) == PEER_LID

    def test_an_address_of_the_same_namespace_is_no_other_address(self) -> None:
        found = read(message(**{"from": PEER, "sender_lid": "15553333333@s.whatsapp.net"}))
        assert found.sender_alt is None
        assert found.chat_alt is None

    def test_hosted_devices_belong_to_the_plain_chat(self) -> None:
        found = read(message(**{"from": "15552222222:99@hosted"}))
        assert str(found.chat) == PEER
        assert str(found.sender) == "15552222222:99@hosted"

    def test_addressing_mode_is_not_believed(self) -> None:
        assert read(message(**{"from": PEER, "addressing_mode": "lid"})).addressing == "pn"

    def test_nobody_else_may_name_a_chat(self) -> None:
        assert refused(message(**{"from": PEER, "recipient": "15553333333@s.whatsapp.net"})) == 487

    def test_digits_of_the_own_number_in_the_other_namespace_are_somebody_else(self) -> None:
        assert not read(message(**{"from": f"{ME.user}@lid"})).from_me
        assert not read(message(**{"from": f"{MY_LID.user}@s.whatsapp.net"})).from_me

    def test_peer_category_of_strangers_means_nothing(self) -> None:
        assert not read(message(**{"from": PEER, "category": "peer"})).peer


class TestOwnCopies:
    def test_the_recipient_is_the_chat(self) -> None:
        found = read(
            message(**{"from": MY_LID.with_device(0), "recipient": PEER_LID, "peer_recipient_pn": PEER})
        )
        assert found.from_me
        assert found.own
        assert str(found.chat) == PEER_LID
        assert str(found.chat_alt) == PEER
        assert str(found.recipient) == PEER_LID

    def test_the_own_other_address_never_becomes_the_chats(self) -> None:
        found = read(message(**{"from": MY_LID, "recipient": PEER_LID, "sender_pn": str(ME)}))
        assert found.chat_alt is None

    def test_without_recipient_it_is_the_self_chat(self) -> None:
        found = read(message(**{"from": ME.with_device(0)}))
        assert (found.chat, found.from_me, found.chat_alt) == (ME.account, True, None)

    def test_peer_messages_have_no_recipient(self) -> None:
        found = read(message(**{"from": ME.with_device(0), "category": "peer", "recipient": PEER}))
        assert found.peer
        assert found.recipient is None

    @pytest.mark.parametrize("recipient", ["garbage", "120363@g.us", "x y@lid", "1@c.us"])
    def test_a_recipient_has_to_be_a_person(self, recipient: str) -> None:
        assert refused(message(**{"from": ME.with_device(0), "recipient": recipient})) == 487


class TestCollective:
    def test_group(self) -> None:
        found = read(
            message(**{"from": "120363@g.us", "participant": "100000000000002:4@lid", "participant_pn": PEER})
        )
        assert (found.kind, str(found.chat)) == ("group", "120363@g.us")
        assert str(found.sender_alt) == "15552222222:4@s.whatsapp.net"
        assert found.addressing == "lid"
        assert found.shares_keys

    @pytest.mark.parametrize("participant", [None, "garbage", "s.whatsapp.net", "1@c.us", "1@g.us"])
    @pytest.mark.parametrize("source", ["120363@g.us", "status@broadcast", "7@broadcast"])
    def test_a_participant_is_required(self, source: str, participant: str | None) -> None:
        attrs: dict[str, Value] = {"from": source}
        if participant is not None:
            attrs["participant"] = participant
        assert refused(message(**attrs)) == 487

    def test_own_status_in_either_namespace(self) -> None:
        for own in (ME, MY_LID):
            assert read(message(**{"from": "status@broadcast", "participant": own})).from_me

    def test_a_list_of_somebody_is_a_message_of_theirs(self) -> None:
        found = read(message(**{"from": "7@broadcast", "participant": PEER, "participant_lid": PEER_LID}))
        assert (found.kind, str(found.chat), str(found.source)) == ("broadcast", PEER, "7@broadcast")
        assert str(found.chat_alt) == PEER_LID

    def test_an_own_list_names_its_recipients(self) -> None:
        listed = [
            Node("to", {"jid": text}) for text in (PEER, PEER, str(ME), "garbage", "120363@g.us", PEER_LID)
        ]
        node = message(
            Node("participants", {}, listed), **{"from": "7@broadcast", "participant": ME.with_device(0)}
        )
        assert [str(jid) for jid in read(node).recipients] == [PEER, PEER_LID]


class TestOthers:
    def test_channels(self) -> None:
        node = message(Node("plaintext", {}, b"\x0a\x01a"), **{"from": "5@newsletter", "is_sender": "true"})
        found = read(node)
        assert (found.kind, found.from_me, found.own, found.plaintext) == (
            "newsletter",
            True,
            False,
            b"\x0a\x01a",
        )

    def test_bots_may_speak_in_another_chat(self) -> None:
        meta = Node("meta", {"target_chat_jid": PEER})
        found = read(message(meta, **{"from": "867051314767696@bot"}))
        assert (found.kind, str(found.chat)) == ("bot", PEER)
        assert str(read(message(**{"from": "867051314767696@bot"})).chat) == "867051314767696@bot"

    @pytest.mark.parametrize(
        "source", ["1@c.us", "78@call", "garbage", "s.whatsapp.net", "1@msgr", "x y@lid", "1@zz"]
    )
    def test_what_is_no_chat_is_not_recognised(self, source: str) -> None:
        assert refused(message(**{"from": source})) == 488

    @pytest.mark.parametrize("missing", ["id", "from", "t"])
    def test_what_is_required(self, missing: str) -> None:
        node = message(**{"from": PEER})
        del node.attrs[missing]
        assert refused(node) == 487

    @pytest.mark.parametrize("message_id", ["", "x" * 256, "ä" * 128, "a\x00b", "a\nb"])
    def test_ids(self, message_id: str) -> None:
        assert refused(message(**{"from": PEER, "id": message_id})) == 487

    @pytest.mark.parametrize("t", ["", "NaN", "-1", "1e9", "99999999999999999999"])
    def test_times(self, t: str) -> None:
        assert refused(message(**{"from": PEER, "t": t})) == 487


class TestContents:
    def test_ciphertexts_keep_their_order_and_empty_ones_are_absent(self) -> None:
        encs = [
            Node("enc", {"type": "pkmsg", "v": "2", "count": "3"}, b"1"),
            Node("enc", {"type": "msg"}, None),
            Node("enc", {"type": "skmsg", "decrypt-fail": "hide"}, b"2"),
        ]
        found = read(message(*encs, **{"from": PEER}))
        assert [(enc.type, enc.data, enc.count, enc.version) for enc in found.encs] == [
            ("pkmsg", b"1", 3, "2"),
            ("skmsg", b"2", 0, "2"),
        ]
        assert found.hide
        assert found.retry_count == 3

    def test_only_what_is_listed_for_this_device_is_ours(self) -> None:
        listed = [
            Node("to", {"jid": jid}, [Node("enc", {"type": "msg"}, str(jid).encode())])
            for jid in (ME, MY_LID, ME.with_device(8), JID.parse(f"{ME.user}:7@lid"), JID.parse(PEER))
        ]
        found = read(message(Node("participants", {}, listed), **{"from": PEER}))
        assert [enc.data for enc in found.encs] == [str(ME).encode(), str(MY_LID).encode()]

    def test_too_many_ciphertexts(self) -> None:
        encs = [Node("enc", {"type": "msg"}, b"x")] * MAX_ENCS
        assert len(read(message(*encs, **{"from": PEER})).encs) == MAX_ENCS
        assert refused(message(*encs, *encs[:1], **{"from": PEER})) == 487

    @pytest.mark.parametrize(
        ("attrs", "sibling", "final"),
        [
            ({"type": "view_once"}, None, True),
            ({"type": "view_once_unavailable_fanout"}, None, True),
            ({"hosted": "true"}, None, True),
            ({}, "bot", True),
            ({}, None, False),
            ({"type": "other"}, None, False),
        ],
    )
    def test_unavailable(self, attrs: dict[str, Value], sibling: str | None, final: bool) -> None:
        children = [Node("unavailable", attrs), *([Node(sibling)] if sibling else [])]
        found = read(message(*children, **{"from": PEER})).unavailable
        assert found is not None
        assert found.final is final

    def test_push_names_are_cleaned(self) -> None:
        found = read(message(**{"from": PEER, "notify": "  A\x00n\u202en\n" + "x" * 500}))
        assert found.push_name.startswith("Annx")
        assert len(found.push_name) <= MAX_PUSH_NAME
        assert clean_name("\x1b[31mred") == "[31mred"

    def test_repr_shows_no_content(self) -> None:
        found = read(message(Node("enc", {"type": "msg"}, b"secret"), **{"from": PEER, "notify": "Ann"}))
        assert "secret" not in repr(found) + repr(found.encs)
        assert "15552222222" not in repr(found)


def test_own_is_compared_in_its_namespace() -> None:
    assert is_own(ME.with_device(0), ME, MY_LID)
    assert is_own(JID.parse(f"{ME.user}:99@hosted"), ME, None)
    assert not is_own(JID.parse(f"{ME.user}@lid"), ME, MY_LID)
    assert not is_own(MY_LID, ME, None)
    assert not is_own(JID.parse("1@g.us"), ME, MY_LID)


def test_other_form_folds_hosted_servers() -> None:
    assert other_form(JID.parse(PEER_LID), JID.parse("15552222222:99@hosted")) == JID.parse(
        "15552222222:99@s.whatsapp.net"
    )
    assert other_form(JID.parse("1@g.us"), JID.parse(PEER)) is None
    assert other_form(JID.parse(PEER_LID), JID("1", "c.us")) is None


@pytest.mark.parametrize("user", ["1_1", "a.b", "", "a b", "x" * 65, "\x00"])
def test_an_address_without_sessions_has_no_other_form(user: str) -> None:
    assert other_form(JID.parse(PEER), JID(user, "lid")) is None
    assert other_form(JID(user, "lid"), JID.parse(PEER)) is None


@settings(max_examples=400)
@given(hostile("message"))
def test_every_node_gives_facts_or_a_rejection(node: Node) -> None:
    found = parse(node, ME, MY_LID)
    assert isinstance(found, Incoming | Rejection)
    if isinstance(found, Rejection):
        assert found.code in (487, 488)
    else:
        assert found.sender.user
        assert found.chat == found.chat.account
