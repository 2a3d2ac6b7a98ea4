"""Other people's devices, and a session that receives from them through the real store."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import strategies as st

from tests.messaging.accounts import OWN_LID, START_MS, account_blob, paired_credentials
from waD.e2ee import groups, padding, session
from waD.e2ee.curve import KeyPair
from waD.e2ee.groups import SenderKeyRecord
from waD.e2ee.record import SessionRecord
from waD.e2ee.x3dh import LocalIdentity, PreKeyBundle
from waD.link.prekeys import OneTimePreKey
from waD.messaging import kinds
from waD.messaging.ahead import read_ahead
from waD.messaging.context import Context, MessagingSettings, make_context
from waD.messaging.inbound import Inbound
from waD.messaging.reaction import Reaction, Work
from waD.proto.e2e_pb2 import Message
from waD.store.model import EventRow, MessageRow
from waD.store.store import StoreSettings, open_store
from waD.store.unit import Unit
from waD.wire.jid import JID
from waD.wire.node import Node, Value

ANN_PN = JID.parse("15550000002@s.whatsapp.net")
ANN_LID = JID.parse("100000000000002@lid")
BOB_LID = JID.parse("100000000000003@lid")
GROUP = JID.parse("120363000000000001@g.us")
T = START_MS // 1000


async def our_bundle(ctx: Context, number: int = 1) -> PreKeyBundle:
    """What the server hands out for this device; the one-time prekey is stored first."""
    key = OneTimePreKey(number, KeyPair.generate(os.urandom), "uploaded")
    async with ctx.state.lock:
        unit = ctx.state.unit()
        unit.put(kinds.PREKEY, str(number), key.serialize())
        await ctx.state.commit(unit)
    creds = ctx.account.creds
    signed = creds.signed_prekey
    return PreKeyBundle(
        creds.registration_id,
        creds.identity.public,
        signed.id,
        signed.key.public,
        signed.signature,
        number,
        key.key.public,
    )


class Peer:
    """A device that writes to us. `phone` is the identity of its account, for companions."""

    def __init__(self, jid: JID, phone: KeyPair | None = None) -> None:
        self.jid = jid
        self.local = LocalIdentity(KeyPair.generate(os.urandom), 4711)
        self.record: SessionRecord | None = None
        self.sender_keys: dict[JID, SenderKeyRecord] = {}
        self.identity_blob = account_blob(phone, self.local.identity, jid.device) if phone else b""
        self.signed_prekey = KeyPair.generate(os.urandom)
        self.sent = 0

    def start(self, bundle: PreKeyBundle) -> None:
        """Begin a session with us."""
        pairs = KeyPair.generate(os.urandom), KeyPair.generate(os.urandom)
        self.record = session.process_bundle(self.record, self.local, bundle, *pairs, START_MS)

    def new_id(self) -> str:
        self.sent += 1
        return f"3EB0{self.jid.user[-4:]}{self.jid.device:02d}{self.sent:08d}"

    def enc(self, content: Message | bytes, **attrs: str) -> Node:
        """Encrypt for us on the session."""
        assert self.record is not None
        raw = content if isinstance(content, bytes) else padding.pad(content.SerializeToString(), 4)
        done = session.encrypt(self.record, self.local, raw, START_MS)
        self.record = done.record
        return Node("enc", {"v": "2", "type": done.kind, **attrs}, done.data)

    def group_enc(self, group: JID, content: Message, **attrs: str) -> Node:
        """Encrypt for a group."""
        raw = padding.pad(content.SerializeToString(), 4)
        self.sender_keys[group], data = groups.encrypt(self.sender_keys[group], raw, os.urandom)
        return Node("enc", {"v": "2", "type": "skmsg", **attrs}, data)

    def distribution(self, group: JID, named: str | None = None) -> Message:
        """The own sender key for a group; made when there is none."""
        if group not in self.sender_keys:
            self.sender_keys[group] = groups.create(os.urandom)
        message = Message()
        shared = message.senderKeyDistributionMessage
        shared.groupId = str(group) if named is None else named
        shared.axolotlSenderKeyDistributionMessage = groups.distribution(self.sender_keys[group])
        return message

    def read(self, node: Node) -> bytes:
        """Decrypt what we sent to this device."""
        done = session.decrypt(
            self.record,
            self.local,
            node.text("type", ""),
            node.data,
            lambda _: None,
            lambda _: self.signed_prekey,
            lambda: KeyPair.generate(os.urandom),
            START_MS,
        )
        self.record = done.record
        return padding.unpad(done.plaintext)

    def stanza(
        self, *children: Node, to: JID | None = None, message_id: str | None = None, **attrs: Value | None
    ) -> Node:
        """A `<message>` as the server delivers it: direct, or in a group when `to` is one."""
        fields: dict[str, Value] = {"id": message_id or self.new_id(), "t": str(T), "type": "text"}
        if to is None:
            fields["from"] = self.jid
        else:
            fields |= {"from": to, "participant": self.jid}
        fields |= {name: value for name, value in attrs.items() if value is not None}
        content = list(children)
        if self.identity_blob and any(node.attrs.get("type") == "pkmsg" for node in children):
            content.append(Node("device-identity", {}, self.identity_blob))
        return Node("message", fields, content)

    def text(self, text: str, **attrs: Any) -> Node:
        """A direct text message."""
        return self.stanza(self.enc(Message(conversation=text)), **attrs)

    def group_text(self, group: JID, text: str, *, share: bool = True, **attrs: Any) -> Node:
        """A text to a group, with the sender key before it when it is to be shared."""
        children = [self.enc(self.distribution(group))] if share else []
        children.append(self.group_enc(group, Message(conversation=text)))
        return self.stanza(*children, to=group, **attrs)


class Receiver:
    """A session whose lane is driven by hand: each call is one commit."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.inbound = Inbound(ctx)
        self.cursor = 0

    async def take(self, *stanzas: Node) -> Reaction:
        """Handle stanzas in one unit, and commit it."""
        reaction = Reaction()
        async with self.ctx.state.lock:
            unit = self.ctx.state.unit()
            await read_ahead(self.ctx, stanzas, unit)
            for stanza in stanzas:
                with unit.step():
                    reaction.merge(await self.handle(stanza, unit))
            await self.ctx.state.commit(unit)
        return reaction

    async def handle(self, stanza: Node, unit: Unit) -> Reaction:
        return await self.inbound.message(stanza, unit)

    async def events(self) -> list[EventRow]:
        """Events since the last call."""
        state = self.ctx.state
        found = await state._store.events(self.cursor, session_id=state.session_id)
        self.cursor = found[-1].cursor if found else self.cursor
        return found

    async def rows(self) -> list[MessageRow]:
        """The history, oldest first."""
        state = self.ctx.state
        return list(reversed(await state._store.messages(state.session_id, limit=500)))

    async def secret(self, row: MessageRow) -> bytes | None:
        """The secret that is kept of a message; its protobuf has none."""
        assert not Message.FromString(row.raw or b"").messageContextInfo.messageSecret
        found = await self.ctx.state.message_secret([row.chat], [row.sender], row.message_id)
        return None if found is None else found.secret


_numbers = itertools.count(1)


async def introduce(ctx: Context, *peers: Peer) -> None:
    """Give each peer a session with us that it has not used yet."""
    for peer in peers:
        peer.start(await our_bundle(ctx, next(_numbers)))


async def own_phone(ctx: Context) -> Peer:
    """The phone of the own account, with the identity that signed this device, and a session with us."""
    phone = Peer(OWN_LID.with_device(0))
    creds = ctx.account.creds
    blob = account_blob(phone.local.identity, creds.identity)
    await ctx.account.change_credentials(lambda now: now.change(account=blob))
    await introduce(ctx, phone)
    return phone


def sent_copy(content: Message, chat: JID) -> Message:
    """What an own device sends to its siblings beside a message to a chat."""
    copy = Message()
    copy.deviceSentMessage.destinationJid = str(chat)
    copy.deviceSentMessage.message.CopyFrom(content)
    return copy


def spoiled(enc: Node) -> Node:
    """A ciphertext of type `msg` with one bit of its MAC turned."""
    assert enc.attrs["type"] == "msg"
    return Node("enc", enc.attrs, enc.data[:-1] + bytes([enc.data[-1] ^ 1]))


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver with a store of its own, for tests that need one per example."""
    with TemporaryDirectory() as directory:
        async with open_store(StoreSettings(path=Path(directory) / "state" / "waD.db")) as store:
            state = await store.attach((await store.create_session("alerts")).id, "test")
            unit = state.unit()
            unit.set_creds(paired_credentials().serialize())
            await state.commit(unit)
            settings = MessagingSettings()
            yield Receiver(make_context(state, settings=settings, now_ms=lambda: START_MS, random=os.urandom))


def shapes(nodes: Iterable[Node]) -> list[tuple[str, str | None]]:
    """Tag and type of answers, or the error of a nack."""
    return [
        (node.tag, node.text("error") if node.tag == "ack" and "error" in node.attrs else node.text("type"))
        for node in nodes
    ]


def of_kind(work: Iterable[Work], kind: type) -> list[Any]:
    return [one for one in work if isinstance(one, kind)]


async def answer(ctx: Context, peer: Peer) -> None:
    """Send something to a device on the session with it, so that it need not introduce itself any more."""
    address = await ctx.addresses.signal_address(peer.jid)
    async with ctx.state.lock:
        unit = ctx.state.unit()
        record = await ctx.records.session(address, unit)
        assert record is not None
        local = ctx.account.creds.local_identity()
        done = session.encrypt(record, local, padding.pad(b"", 1), START_MS)
        ctx.records.put_session(unit, address, done.record)
        await ctx.state.commit(unit)
    peer.read(Node("enc", {"type": done.kind}, done.data))


_NAMES = (
    "id", "from", "t", "type", "participant", "recipient", "category", "offline", "notify", "edit", "sender_lid",
    "sender_pn", "participant_pn", "participant_lid", "peer_recipient_pn", "recipient_lid", "addressing_mode", "jid",
    "count", "v", "decrypt-fail", "is_sender", "server_id", "lid", "hash", "value", "key", "message_id", "error",
    "pushname", "target_chat_jid", "key-index", "ts", "hosted",
)  # fmt: skip
_TAGS = (
    "enc", "participants", "to", "unavailable", "plaintext", "meta", "bot", "list", "item", "user", "device-identity",
    "retry", "registration", "keys", "devices", "device", "add", "remove", "update", "count", "digest", "identity",
    "key-index-list", "error", "x",
)  # fmt: skip
_PLAUSIBLE = (
    "", "1", "0", "99999999999999999999", "-1", "true", "hide", "msg", "pkmsg", "skmsg", "msmsg", "2", "3", "7", "8",
    "lid", "pn", "peer", "retry", "read", "read-self", "inactive", "sender", "encrypt", "devices", "account_sync",
    "view_once", "status@broadcast", "120363000000000001@g.us", "15550000001@s.whatsapp.net", "100000000000001:7@lid",
    "100000000000002@lid", "15550000002:3@s.whatsapp.net", "s.whatsapp.net", "5@newsletter", "867051314767696@bot",
    "15550000002:99@hosted", "7@broadcast", "x@c.us", "garbage", "@", "1_1@lid", "a\x00b", "\u202etxt",
)  # fmt: skip
_users = st.sampled_from(["", "15550000001", "100000000000002", "1_1", "a b", "\x00", "x" * 80])
_servers = st.sampled_from(
    [
        "s.whatsapp.net",
        "lid",
        "hosted",
        "hosted.lid",
        "g.us",
        "broadcast",
        "newsletter",
        "bot",
        "c.us",
        "call",
        "zz",
    ]
)
_jids = st.builds(JID, _users, _servers, st.integers(0, 300))
_texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
_values = st.sampled_from(_PLAUSIBLE) | _jids | _texts
_attrs = st.dictionaries(st.sampled_from(_NAMES), _values, max_size=8)
_ciphers = st.binary(max_size=80) | st.binary(min_size=66, max_size=90).map(lambda data: b"\x33" + data)


def _element(children: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    return st.builds(Node, st.sampled_from(_TAGS), _attrs, _ciphers | st.lists(children, max_size=4))


_elements = st.recursive(
    st.builds(Node, st.sampled_from(_TAGS), _attrs, _ciphers | st.none()), _element, max_leaves=8
)


def hostile(tag: str) -> st.SearchStrategy[Node]:
    """Stanzas of a tag that no honest server sends; about half can be answered."""
    content = st.lists(_elements, max_size=5) | _ciphers | st.none()
    anything = st.builds(Node, st.just(tag), _attrs, content)
    sources = st.sampled_from([value for value in _PLAUSIBLE if "@" in value]) | _jids
    named = st.fixed_dictionaries(
        {"id": _texts.filter(bool), "from": sources, "t": st.sampled_from(["1", "x"])}
    )
    likely = st.builds(lambda n, extra, c: Node(tag, extra | n, c), named, _attrs, content)
    return anything | likely
