from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waD.link import acks
from waD.link.acks import STORAGE_NACKS, ack, nack_unrecognised
from waD.wire.codec import decode, encode
from waD.wire.jid import JID, SERVER
from waD.wire.node import Node, Value

ME = JID("15550000001", "s.whatsapp.net", 7)
SENDER = JID("15550000002", "s.whatsapp.net", 3)
GROUP = JID("120363000000000001", "g.us")


def stanza(tag: str, children: list[Node] | None = None, **attrs: Value) -> Node:
    return Node(tag, {"id": "A1", "from": SENDER, "t": "1700000000"} | attrs, children)


def answer(node: Node, **options: object) -> dict[str, Value]:
    found = ack(node, **options)  # type: ignore[arg-type]
    assert found is not None
    assert (found.tag, found.content) == ("ack", None)
    return found.attrs


@pytest.mark.parametrize("tag", ["message", "receipt", "notification", "call", "status", "new-thing"])
def test_class_id_and_address(tag: str) -> None:
    assert answer(stanza(tag)) == {"class": tag, "id": "A1", "to": SENDER}


def test_addresses_are_echoed_exactly() -> None:
    """A missing recipient or participant leaves the item in the server's queue (chapter 04 §6.8)."""
    node = stanza(
        "message", **{"from": GROUP, "participant": SENDER, "recipient": "15550000009@s.whatsapp.net"}
    )
    assert answer(node) == {
        "class": "message",
        "id": "A1",
        "to": GROUP,
        "participant": SENDER,
        "recipient": "15550000009@s.whatsapp.net",
    }


def test_nothing_else_is_echoed() -> None:
    node = stanza("message", notify="Ann", offline="1", addressing_mode="lid", sender_lid=JID("1", "lid"))
    assert answer(node) == {"class": "message", "id": "A1", "to": SENDER}


@pytest.mark.parametrize("tag", ["message", "receipt", "notification", "call"])
def test_the_type_is_copied(tag: str) -> None:
    assert answer(stanza(tag, type="text"))["type"] == "text"


def test_an_identity_change_is_acked_without_type() -> None:
    encrypt = {"type": "encrypt"}
    assert "type" not in answer(stanza("notification", [Node("identity")], **encrypt))
    assert answer(stanza("notification", [Node("count")], **encrypt))["type"] == "encrypt"
    assert answer(stanza("notification", [Node("identity")], type="devices"))["type"] == "devices"
    assert answer(stanza("message", [Node("identity")], **encrypt))["type"] == "encrypt"


@pytest.mark.parametrize("tag", ["receipt", "notification", "call", "status"])
def test_our_own_address_goes_into_class_message_only(tag: str) -> None:
    assert answer(stanza("message"), me=ME)["from"] == ME
    assert "from" not in answer(stanza(tag), me=ME)
    assert "from" not in answer(stanza("message"))


@pytest.mark.parametrize(
    "code",
    [
        acks.NACK_PARSE_ERROR,
        acks.NACK_UNRECOGNISED_CLASS,
        acks.NACK_UNRECOGNISED_TYPE,
        acks.NACK_INVALID_PROTOBUF,
        acks.NACK_HOSTED_COMPANION,
        acks.NACK_MISSING_SECRET,
        acks.NACK_OLD_COUNTER,
        acks.NACK_DELETED_ON_PEER,
        acks.NACK_ADMIN_REVOKE,
        acks.NACK_LID_GROUP,
    ],
)
def test_a_nack_names_its_reason(code: int) -> None:
    assert answer(stanza("message"), me=ME, error=code) == {
        "class": "message",
        "id": "A1",
        "to": SENDER,
        "from": ME,
        "error": str(code),
    }


def test_an_unknown_stanza_is_told() -> None:
    found = nack_unrecognised(stanza("surprise"))
    assert found is not None
    assert found.attrs == {"class": "surprise", "id": "A1", "to": SENDER, "error": "488"}


@pytest.mark.parametrize("code", STORAGE_NACKS)
def test_a_fault_of_our_storage_is_never_told(code: int) -> None:
    with pytest.raises(ValueError, match="failed to store"):
        ack(stanza("message"), error=code)


@pytest.mark.parametrize("missing", ["id", "from"])
def test_what_cannot_be_answered_is_not(missing: str) -> None:
    node = stanza("message")
    del node.attrs[missing]
    assert ack(node) is None
    assert nack_unrecognised(node) is None
    node.attrs[missing] = ""
    assert ack(node) is None


def test_the_server_itself_is_answered() -> None:
    assert answer(stanza("notification", **{"from": SERVER}))["to"] == SERVER


values = st.text(max_size=12) | st.builds(JID, st.text("0123456789", max_size=9), st.just("lid"))
names = st.sampled_from(["id", "from", "to", "type", "participant", "recipient", "class", "error", "t", "x"])


@given(st.sampled_from(["message", "receipt", "notification", "call", "zzz"]), st.dictionaries(names, values))
def test_every_answer_has_a_binary_form_and_leaves_the_stanza_alone(
    tag: str, attrs: dict[str, Value]
) -> None:
    node = Node(tag, dict(attrs))
    found = ack(node, me=ME)
    assert node.attrs == attrs
    if found is None:
        assert not attrs.get("id") or not attrs.get("from")
        return
    assert found.attrs["class"] == tag
    for name, source in {
        "id": "id",
        "to": "from",
        "participant": "participant",
        "recipient": "recipient",
    }.items():
        assert found.attrs.get(name) == attrs.get(source)
    assert decode(encode(found)).tag == "ack"
