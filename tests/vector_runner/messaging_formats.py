"""How the vectors of incoming stanzas and of message content are checked, as far as the messaging room decides."""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.json_format import ParseDict

from tests.vector_runner.core import Format, NotCovered
from tests.vector_runner.nodes import address, expect_sent, optional_address, received
from tests.vector_runner.receiving import in_session, receive
from waD.messaging import content, kinds
from waD.messaging.context import Context
from waD.messaging.delivery import ReadKey, aggregate_reads
from waD.messaging.devices import Devices
from waD.messaging.incoming_content import UNSUPPORTED, describe
from waD.messaging.message_keys import Key, author_of, read_key
from waD.messaging.notifications import Notifications
from waD.messaging.phash import contact_hash, device_hash
from waD.messaging.reaction import Reaction
from waD.messaging.receipts import status_of
from waD.messaging.stanza import Incoming, Rejection, is_own, parse
from waD.messaging.values import encode_text
from waD.messaging.wrappers import unwrap
from waD.proto.e2e_pb2 import Message, MessageKey
from waD.sandbox import accounts
from waD.store.model import UNDECRYPTABLE
from waD.store.unit import KeepSecret, PutMessage, Unit
from waD.wire.jid import JID

ALTERNATES: Final = frozenset({"sender_pn", "sender_lid", "participant_pn", "participant_lid"})
NOTIFIED: Final = "15550000001:7@s.whatsapp.net"
NOTIFIED_LID: Final = "100000000000001:7@lid"
"""The account that the notifications are for."""


def chapter_or(case: dict[str, Any]) -> dict[str, Any]:
    """What a case expects, with the chapter's word where it differs from the package's."""
    chapter: dict[str, Any] = case.get("chapter_expect") or {}
    merged: dict[str, Any] = case["expect"] | chapter
    if "key" in chapter:
        merged["key"] = case["expect"].get("key", {}) | chapter["key"]
    return merged


# stanzas_in.json: from the attributes of a message to who, where and when.


def stanza_message(case: dict[str, Any]) -> None:
    values, wanted = case["input"], chapter_or(case)
    stanza = received(values["stanza"])
    found = parse(stanza, address(values["me"]), optional_address(values["me_lid"]))
    source = stanza.jid("from")
    if "error" in wanted and not (source is not None and source.is_bot):  # bots are chats (chapter 04 §6.2)
        assert isinstance(found, Rejection)
        return
    assert isinstance(found, Incoming), found
    if "error" in wanted:
        assert found.kind == "bot"
        return
    expect_key(found, wanted["key"])
    assert found.sender == address(wanted["author"])
    assert found.push_name == (wanted["push_name"] or "")
    assert found.time_s == wanted["timestamp"]
    assert found.peer == (wanted["category"] == "peer" and found.from_me)


def expect_key(found: Incoming, key: dict[str, Any]) -> None:
    """The key as the package writes it, which keeps devices and the servers of hosted accounts."""
    assert found.id == key["id"]
    assert found.from_me == key["fromMe"]
    lists = found.kind == "broadcast" and not found.from_me
    chat = address(key["participant"] if lists else key["remoteJid"])  # a list of others: chapter 04 §4.6
    assert found.chat == chat.account
    if "participant" in key:
        assert found.sender == address(key["participant"])
    if found.kind != "newsletter":
        assert found.addressing == key["addressingMode"]
    expect_alternates(found, key)


def expect_alternates(found: Incoming, key: dict[str, Any]) -> None:
    """The other address of the author, and for own messages that of the recipient: never the own one (§6.2)."""
    if found.from_me and found.kind == "user":
        form = "pn" if found.chat.is_lid else "lid"
        stated = found.node.jid(f"peer_recipient_{form}") or found.node.jid(f"recipient_{form}")
        assert found.chat_alt == bare(stated)
        return
    told = optional_address(key.get("participantAlt") or key.get("remoteJidAlt"))
    assert bare(found.sender_alt) == bare(told)


def bare(jid: JID | None) -> JID | None:
    return None if jid is None else jid.account


def stanza_addressing(case: dict[str, Any]) -> None:
    """The package takes the first alternate of a stanza; ours the one of that name and namespace (chapter 04 §6.2)."""
    attrs, wanted = case["input"]["attrs"], case["expect"]
    stanza = received({"tag": "message", "attrs": {"id": "A", "t": "1", **attrs}})
    own = stanza.jid("from") if "recipient" in attrs else JID("15550000000", "s.whatsapp.net", 1)
    found = parse(stanza, own, own)
    assert isinstance(found, Incoming), found
    assert found.addressing == wanted["addressingMode"]
    if found.from_me:
        told = attrs.get("peer_recipient_pn") or attrs.get("peer_recipient_lid") or wanted["recipientAlt"]
        assert found.chat_alt == address(told)
        return
    form = "pn" if found.sender.is_lid else "lid"
    told = attrs.get(f"sender_{form}" if found.kind == "user" else f"participant_{form}")
    assert bare(found.sender_alt) == optional_address(told)
    if found.sender_alt is not None and len(ALTERNATES & attrs.keys()) == 1:
        assert found.sender_alt.account == address(wanted["senderAlt"])


# stanzas_in.json: what becomes of the ciphertexts, keys inside content, receipts.


def stanza_decrypt(case: dict[str, Any]) -> None:
    values, wanted = case["input"], chapter_or(case)
    stanza = received(values["stanza"])
    parsed = parse(stanza, address(values["me"]), optional_address(values["me_lid"]))
    assert isinstance(parsed, Incoming), parsed
    unit, calls = receive(values["me"], values["me_lid"], stanza)
    assert (parsed.retry_count or None) == wanted["retry_count"]
    if wanted["view_once_placeholder"]:
        assert parsed.unavailable is not None
        assert parsed.unavailable.final
    expect_rows(unit, wanted)
    expect_calls(calls, wanted["calls"], parsed.source)
    expect_mappings(unit, wanted["calls"])


def expect_rows(unit: Unit, wanted: dict[str, Any]) -> None:
    """The Message in the history, its secret beside it; sender keys never get there (chapter 04 §6.5)."""
    rows = [step.row for step in unit.steps if isinstance(step, PutMessage)]
    kept = [step.row.secret for step in unit.steps if isinstance(step, KeepSecret)]
    expected = Message() if wanted["message"] is None else message_of(wanted["message"])
    expected.ClearField("senderKeyDistributionMessage")
    secret = expected.messageContextInfo.messageSecret
    expected.messageContextInfo.ClearField("messageSecret")
    assert kept == ([secret] if secret else [])
    if not expected.messageContextInfo.ByteSize():
        expected.ClearField("messageContextInfo")
    if not expected.ByteSize():
        assert all(row.kind == UNDECRYPTABLE for row in rows)
        return
    (row,) = rows
    found = message_of((row.raw or b"").hex())
    if not found.messageContextInfo.ByteSize():
        found.ClearField("messageContextInfo")
    assert found == expected
    assert (row.message_id, row.from_me) == (wanted["key"]["id"], wanted["key"]["fromMe"])
    assert row.chat == str(address(wanted["key"]["remoteJid"]).account) or "remoteJidAlt" in wanted["key"]


def expect_calls(calls: list[tuple[str, ...]], wanted: list[dict[str, str]], source: JID) -> None:
    """The ciphers in the same order; keys for another chat than the stanza's are left out (chapter 04 §6.5)."""
    expected: list[tuple[str, ...]] = []
    for call in wanted:
        match call["op"]:
            case "session":
                expected.append(("session", call["type"]))
            case "group":
                expected.append(("group",))
            case "skdm" if call["group"] == str(source):
                expected.append(("skdm",))
    assert calls == expected


def expect_mappings(unit: Unit, wanted: list[dict[str, Any]]) -> None:
    pairs = [pair for call in wanted if call["op"] == "store_mapping" for pair in call["list"]]
    learned = {key: value for (kind, key), value in unit.items.items() if kind == kinds.LID_OF_PN}
    assert learned == {address(pair["pn"]).user: encode_text(address(pair["lid"]).user) for pair in pairs}


def key_of(fields: dict[str, Any]) -> Key:
    """A key as the vectors write it; an absent author may be an empty text."""
    key = read_key(ParseDict(fields, MessageKey()))
    assert key is not None
    return key


def stanza_normalize_key(case: dict[str, Any]) -> None:
    """A key inside content is in the view of its sender; what we make of it is the author, and whether that is us."""
    values, wanted = case["input"], case["expect"]
    carrier = key_of(values["key"])
    assert carrier == key_of(wanted["key"])
    description = describe(ParseDict(values["message"], Message()))
    assert description is not None
    target = description.target
    if wanted["target_key"] is None:
        assert target is None
        return
    assert target is not None
    own_pn, own_lid = address(values["me"]), optional_address(values["me_lid"])
    sender = own_pn if carrier.from_me else carrier.participant or carrier.chat
    assert sender is not None
    author = author_of(target, sender, carrier.from_me, own_pn.account)
    assert author is not None
    told = key_of(wanted["target_key"])
    assert target.id == told.id
    assert is_own(author, own_pn, own_lid) is told.from_me
    if not told.from_me:
        assert author == (told.participant or told.chat)


def stanza_receipt_status(case: dict[str, Any]) -> None:
    assert status_of(case["input"]["type"]) == case["expect"]["status"]


def stanza_read_aggregate(case: dict[str, Any]) -> None:
    keys = [key_of(fields) for fields in case["input"]["keys"]]
    named = [ReadKey(key.chat, key.id, key.participant, key.from_me) for key in keys if key.chat is not None]
    found = [
        {"jid": str(group.chat), "messageIds": list(group.ids)}
        | ({"participant": str(group.participant)} if group.participant else {})
        for group in aggregate_reads(named)
    ]
    assert found == case["expect"]["groups"]


# messages_crypto.json: ids, hashes, content.


def message_of(text: str) -> Message:
    return Message.FromString(bytes.fromhex(text))


def crypto_message_id(case: dict[str, Any]) -> None:
    values = case["input"]
    own = optional_address(values["me"])
    user = "" if own is None else own.user
    made = content.message_id(values["unix_seconds"], user, bytes.fromhex(values["random16"]))
    assert made == case["expect"]["id"]


def crypto_phash(case: dict[str, Any]) -> None:
    devices = [address(text) for text in case["input"]["devices"]]
    for hashed in (device_hash, accounts.phash):
        assert hashed(devices) == case["expect"]["phash"]
        assert hashed(reversed(devices)) == case["expect"]["phash"]


def crypto_contact_hash(case: dict[str, Any]) -> None:
    assert contact_hash(case["input"]["user"]) == case["expect"]["hash"]


def crypto_content(case: dict[str, Any]) -> None:
    """Texts, which is what this program says; all other content it only reads, and describes."""
    values, wanted = case["input"]["content"], message_of(case["expect"]["proto"])
    inner = unwrap(wanted).message
    assert inner.HasField(case["expect"]["content_type"])
    if not inner.HasField("protocolMessage"):
        described = describe(wanted)
        assert described is not None
        assert described.kind != UNSUPPORTED
    if not values.keys() <= {"text", "mentions"}:
        raise NotCovered("building")
    mentions = [address(text) for text in values.get("mentions", ())]
    made = content.text_message(values["text"], wanted.messageContextInfo.messageSecret, mentions=mentions)
    assert made == plainly(wanted)


def plainly(message: Message) -> Message:
    """A text without context in the plain form, which means the same (chapter 04 §9.3)."""
    if message.extendedTextMessage == Message.ExtendedTextMessage(text=message.extendedTextMessage.text):
        message.conversation = message.extendedTextMessage.text
        message.ClearField("extendedTextMessage")
    return message


def crypto_quote(case: dict[str, Any]) -> None:
    values, wanted = case["input"], message_of(case["expect"]["proto"])
    quoted = values["quoted"]
    described = describe(wanted)
    assert described is not None
    assert described.body == values["text"]
    assert described.content["quoted"]["messageId"] == quoted["key"]["id"]
    author = values["me"] if quoted["key"]["fromMe"] else quoted.get("participant") or values["chat"]
    original = content.quotable(ParseDict(quoted["message"], Message()).SerializeToString())
    assert original is not None
    quote = content.Quote(quoted["key"]["id"], address(author).account, original)
    made = content.text_message(values["text"], wanted.messageContextInfo.messageSecret, quote=quote)
    context = wanted.extendedTextMessage.contextInfo
    elsewhere, fleeting = context.HasField("remoteJid"), context.HasField("expiration")
    context.ClearField("remoteJid")
    context.ClearField("expiration")
    assert made == wanted
    if elsewhere or fleeting:
        raise NotCovered("building for another chat" if elsewhere else "building for a disappearing chat")


def crypto_unwrap(case: dict[str, Any]) -> None:
    found = unwrap(message_of(case["input"]["proto"])).message
    assert found == message_of(case["expect"]["proto"])
    assert found.HasField(case["expect"]["content_type"])


def crypto_device_sent(case: dict[str, Any]) -> None:
    values = case["input"]
    made = content.device_sent(message_of(values["message"]), address(values["destination"]))
    assert made == message_of(case["expect"]["proto"])


# notifications.json


def notification(case: dict[str, Any]) -> None:
    """Every notification is acked exactly once; what most of them tell is another room's business."""

    async def handle(context: Context) -> Reaction:
        handler = Notifications(context, Devices(context))
        return await handler.notification(received(case["node"]), context.state.unit())

    reaction = in_session(NOTIFIED, NOTIFIED_LID, handle)
    (ack,) = reaction.answers
    expect_sent(ack, case["ack"])
    if case["events"] or "stored_tokens" in case:
        raise NotCovered("events")


FORMATS: dict[str, Format] = {
    "stanzas_in": {
        "message": stanza_message,
        "addressing": stanza_addressing,
        "decrypt": stanza_decrypt,
        "normalize_key": stanza_normalize_key,
        "receipt_status": stanza_receipt_status,
        "read_aggregate": stanza_read_aggregate,
    },
    "messages_crypto": {
        "phash": crypto_phash,
        "message_id": crypto_message_id,
        "contact_hash": crypto_contact_hash,
        "content": crypto_content,
        "quote": crypto_quote,
        "unwrap": crypto_unwrap,
        "device_sent": crypto_device_sent,
    },
    "notifications": {None: notification},
}
