"""A server with simulated people behind it, for the tests of what a session sends.

Every simulated device holds real end-to-end state and decrypts what arrives, so a test that reads its inbox proves
the whole way. What may never happen on the wire is checked there for every test.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from tests.messaging.accounts import OWN_LID, OWN_PN, START_MS, account_blob, paired_credentials
from waD.e2ee import adv, curve, padding
from waD.e2ee import session as signal
from waD.e2ee.curve import KeyPair
from waD.e2ee.errors import SignalError
from waD.e2ee.messages import parse_prekey_message, parse_signal_message
from waD.e2ee.record import SessionRecord
from waD.e2ee.x3dh import LocalIdentity
from waD.link.causes import cause
from waD.link.credentials import Credentials
from waD.link.errors import Disconnected
from waD.messaging.context import Context, MessagingSettings, make_context
from waD.messaging.devices import Devices
from waD.messaging.outbound import Outbound, TextRequest
from waD.messaging.phash import device_hash
from waD.messaging.reaction import Reaction
from waD.messaging.retries import Retries
from waD.proto.e2e_pb2 import Message
from waD.store.engine import CommitUnit, Job
from waD.store.errors import StorageUnavailable
from waD.store.model import EventRow, MessageRow, OutboxRow
from waD.store.store import Store
from waD.wire.codec import decode, encode
from waD.wire.jid import JID, LID, PN, SERVER
from waD.wire.node import Node, Value

SIGNED_PREKEY_ID = 5
PUSHED = {"rate_per_s": 0.0, "new_chat_interval_s": 0.0}
"""Settings without brakes."""


class Simulated:
    """One device of a person."""

    def __init__(self, account: Person, number: int, key_index: int | None) -> None:
        self.account = account
        self.number = number
        self.key_index = key_index
        self.local = LocalIdentity(KeyPair.generate(os.urandom), 100 + number)
        self.signed = KeyPair.generate(os.urandom)
        self.one_time = {key_id: KeyPair.generate(os.urandom) for key_id in range(1, 40)}
        self.handed = 0
        self.record: SessionRecord | None = None
        self.inbox: list[tuple[str, Message]] = []
        self.failed: list[tuple[str, str]] = []

    @property
    def identity(self) -> KeyPair:
        return self.local.identity

    def blob(self) -> bytes:
        """The device-identity, without the account's key, as the server hands it out."""
        whole = adv.adv_pb2.ADVSignedDeviceIdentity.FromString(
            account_blob(self.account.phone.identity, self.identity, self.key_index or 0)
        )
        whole.ClearField("accountSignatureKey")
        return whole.SerializeToString()

    def key_nodes(self) -> list[Node]:
        """Children of a bundle; every one-time prekey once."""
        self.handed += 1
        one_time = self.one_time.get(self.handed)
        signature = curve.sign(self.identity.private, curve.serialize_key(self.signed.public), os.urandom)
        nodes = [
            Node("type", {}, b"\x05"),
            Node("identity", {}, self.identity.public),
            Node(
                "skey",
                {},
                [
                    Node("id", {}, SIGNED_PREKEY_ID.to_bytes(3, "big")),
                    Node("value", {}, self.signed.public),
                    Node("signature", {}, signature),
                ],
            ),
        ]
        if one_time is not None:
            key_id = self.handed.to_bytes(3, "big")
            nodes.append(Node("key", {}, [Node("id", {}, key_id), Node("value", {}, one_time.public)]))
        if self.number:
            nodes.append(Node("device-identity", {}, self.blob()))
        return nodes

    def bundle(self) -> list[Node]:
        return [Node("registration", {}, self.local.registration_id.to_bytes(4, "big")), *self.key_nodes()]

    def receive(self, message_id: str, enc: Node) -> None:
        """Decrypt; what does not is noted."""
        try:
            done = signal.decrypt(
                self.record,
                self.local,
                enc.text("type", ""),
                enc.data,
                self.one_time.get,
                lambda number: self.signed if number == SIGNED_PREKEY_ID else None,
                lambda: KeyPair.generate(os.urandom),
                START_MS,
            )
        except SignalError as error:
            self.failed.append((message_id, error.code))
            return
        self.record = done.record
        if done.consumed_prekey is not None:
            del self.one_time[done.consumed_prekey]
        self.inbox.append((message_id, Message.FromString(padding.unpad(done.plaintext))))

    def texts(self) -> list[str]:
        return [text_of(message) for _, message in self.inbox]

    def encrypt(self, message: Message) -> tuple[str, bytes]:
        assert self.record is not None
        done = signal.encrypt(self.record, self.local, padding.pad(message.SerializeToString(), 3), START_MS)
        self.record = done.record
        return done.kind, done.data

    def reinstall(self) -> None:
        """Another identity and no memory."""
        self.local = LocalIdentity(KeyPair.generate(os.urandom), self.local.registration_id + 1000)
        self.record = None


class Person:
    """An account with its devices."""

    def __init__(self, pn: JID, lid: JID, devices: Iterable[int] = (0,), *, raw_id: int = 1) -> None:
        self.pn, self.lid, self.raw_id = pn, lid, raw_id
        self.list_ts = START_MS // 1000
        self.hide_lid = False
        self.tell_signed_list = True
        self.devices: dict[int, Simulated] = {}
        self.forged = False
        for number in devices:
            self.add(number)

    @property
    def phone(self) -> Simulated:
        return self.devices[0]

    def add(self, number: int) -> Simulated:
        self.devices[number] = Simulated(self, number, number or None)
        self.list_ts += 1
        return self.devices[number]

    def remove(self, number: int) -> None:
        del self.devices[number]
        self.list_ts += 1

    def key_index_list(self) -> bytes:
        indexes = [device.key_index for device in self.devices.values() if device.key_index]
        signer = KeyPair.generate(os.urandom) if self.forged else self.phone.identity
        return adv.make_key_index_list(
            signer, self.raw_id, self.list_ts, max(indexes, default=0), indexes, os.urandom
        )

    def jids(self, server: str) -> list[JID]:
        user = (self.lid if server == LID else self.pn).user
        return [JID(user, server, number) for number in self.devices]

    def texts(self, number: int = 0) -> list[str]:
        return self.devices[number].texts()


@dataclass
class FakeServer:
    """Answers usync and prekey requests and delivers messages; a `Requester`.

    Attributes:
        people: by user part, of number and LID.
        sent: every stanza, decoded from its bytes, in order.
        acks: what to answer a message with: attributes, or None for nothing; asked for every message.
        faults: errors to raise for requests: (xmlns, error), each once, in order.
        on_ack: takes the server's acks.
    """

    people: dict[str, Person] = field(default_factory=dict)
    sent: list[Node] = field(default_factory=list)
    requests: list[Node] = field(default_factory=list)
    acks: Callable[[Node], dict[str, Value] | None] = lambda node: {}
    faults: list[tuple[str, Exception]] = field(default_factory=list)
    on_ack: Callable[[Node], Any] | None = None
    on_change: Callable[[], None] | None = None
    on_tick: Callable[[], None] | None = None
    gate: trio.Event | None = None
    gated: set[str] = field(default_factory=set)
    broken: bool = False
    break_at: int | None = None
    spelt: dict[str, JID] = field(default_factory=dict)
    refused_devices: set[JID] = field(default_factory=set)
    deliver: bool = True
    silent_contacts: bool = False
    wire: dict[tuple[str, bytes, int], bytes] = field(default_factory=dict)
    ids: int = 0

    def add(self, person: Person) -> Person:
        self.people[person.pn.user] = self.people[person.lid.user] = person
        return person

    def tick(self) -> None:
        """Something is about to happen or has just happened; a test may count, and cancel what runs."""
        if self.on_tick is not None:
            self.on_tick()

    def next_id(self) -> str:
        self.ids += 1
        return f"1.1-{self.ids}"

    async def request(self, node: Node, timeout: float | None = None) -> Node:  # noqa: ASYNC109 - as the protocol
        self.tick()
        await trio.lowlevel.checkpoint()
        node = decode(encode(node))
        self.requests.append(node)
        if self.on_change is not None:
            self.on_change()
        if self.gate is not None and (not self.gated or self.gated & users_in(node)):
            await self.gate.wait()
        xmlns = node.text("xmlns", "")
        for number, (where, error) in enumerate(self.faults):
            if where == xmlns:
                del self.faults[number]
                raise error
        if self.broken:
            raise Disconnected(cause("eof", "the server is gone"))
        answer = self._usync(node) if xmlns == "usync" else self._prekeys(node)
        return decode(encode(Node("iq", {"type": "result", "from": SERVER, "id": "1"}, [answer])))

    def _usync(self, node: Node) -> Node:
        usync = node.child("usync")
        assert usync is not None
        asked = {child.tag for child in need(usync, "query").children()}
        users = [self._user(user, asked) for user in need(usync, "list").children("user")]
        attrs: dict[str, Value] = {"sid": usync.text("sid", ""), "mode": "query"}
        return Node(
            "usync", attrs, [Node("result", {}, [Node(tag) for tag in asked]), Node("list", {}, users)]
        )

    def _user(self, user: Node, asked: set[str]) -> Node:
        contact, jid = user.child("contact"), user.jid("jid")
        digits = contact.data.decode().lstrip("+") if contact is not None else ""
        person = self.people.get(jid.user if jid is not None else digits)
        parts: list[Node] = []
        if contact is not None and not self.silent_contacts:
            kind = "out" if person is None else "in"
            parts.append(Node("contact", {"type": kind}, contact.data))
        if person is None:
            return Node("user", {"jid": jid or JID(digits, PN)}, parts)
        if "lid" in asked and not person.hide_lid:
            parts.append(Node("lid", {"val": person.lid}))
        if "devices" in asked:
            hint = user.child("devices")
            hashed = device_hash(person.jids((jid or person.pn).server))
            if hint is not None and hint.attrs.get("device_hash") == hashed:
                return Node("user", {"jid": jid or person.pn}, parts)
            parts.append(self._devices(person, hashed))
        return Node("user", {"jid": jid or self.spelt.get(digits) or person.pn}, parts)

    def _devices(self, person: Person, hashed: str) -> Node:
        listed = []
        for number, device in person.devices.items():
            attrs: dict[str, Value] = {"id": str(number)}
            if device.key_index is not None:
                attrs["key-index"] = str(device.key_index)
            listed.append(Node("device", attrs))
        nodes = [Node("device-list", {"hash": hashed}, listed)]
        if person.tell_signed_list:
            nodes.append(Node("key-index-list", {"ts": str(person.list_ts)}, person.key_index_list()))
        return Node("devices", {}, nodes)

    def _prekeys(self, node: Node) -> Node:
        users = []
        for asked in need(node, "key").children("user"):
            jid = asked.jid("jid")
            assert jid is not None
            device = self.device(jid)
            if device is None or jid in self.refused_devices:
                users.append(Node("user", {"jid": jid}, [Node("error", {"code": "406", "text": "no"})]))
            else:
                users.append(Node("user", {"jid": jid}, device.bundle()))
        return Node("list", {}, users)

    def device(self, jid: JID) -> Simulated | None:
        person = self.people.get(jid.user)
        return None if person is None else person.devices.get(jid.device)

    async def send(self, node: Node) -> None:
        self.tick()
        await trio.lowlevel.checkpoint()
        if self.broken or (self.break_at is not None and len(self.sent) >= self.break_at):
            self.broken = True
            raise Disconnected(cause("eof", "the server is gone"))
        node = decode(encode(node))
        self.sent.append(node)
        if self.on_change is not None:
            self.on_change()
        if node.tag == "message":
            self._check(node)
            if self.deliver:
                self._deliver(node)
            await self._ack(node)

    def _check(self, node: Node) -> None:
        """What must hold for every message that anybody ever sends."""
        pairs = encs_of(node)
        devices = [jid for jid, _ in pairs]
        assert len(set(devices)) == len(devices), "a device listed twice"
        to = node.jid("to")
        assert to is not None
        assert {jid.is_lid for jid in devices} <= {to.is_lid}, "two namespaces in one stanza"
        assert OWN_PN not in devices
        assert OWN_LID not in devices
        kinds = {enc.text("type", "") for _, enc in pairs}
        assert ("pkmsg" in kinds) == (node.child("device-identity") is not None)
        for jid, enc in pairs:
            parsed = (
                parse_prekey_message(enc.data).message
                if enc.text("type") == "pkmsg"
                else parse_signal_message(enc.data)
            )
            key = (f"{self.people[jid.user].lid.user}:{jid.device}", parsed.ratchet_key, parsed.counter)
            assert self.wire.setdefault(key, enc.data) == enc.data, "one counter, two ciphertexts"

    def _deliver(self, node: Node) -> None:
        for jid, enc in encs_of(node):
            device = self.device(jid)
            if device is not None:
                device.receive(node.text("id", ""), enc)

    async def _ack(self, node: Node) -> None:
        attrs = self.acks(node)
        if attrs is None or self.on_ack is None:
            return
        told: dict[str, Value] = {
            "class": "message",
            "id": node.text("id", ""),
            "from": node.attrs["to"],
            "t": str(START_MS // 1000 + 5),
        }
        await self.on_ack(decode(encode(Node("ack", {**told, **attrs}))))

    def messages(self) -> list[Node]:
        return [node for node in self.sent if node.tag == "message"]

    def asked(self, xmlns: str) -> int:
        return sum(node.text("xmlns") == xmlns for node in self.requests)


def users_in(node: Node) -> set[str]:
    """User parts of all addresses anywhere in a request, and numbers asked for."""
    found = {value.user for value in node.attrs.values() if isinstance(value, JID)}
    if node.tag == "contact":
        found.add(node.data.decode().lstrip("+"))
    for child in node.children():
        found |= users_in(child)
    return found


def need(node: Node, tag: str) -> Node:
    child = node.child(tag)
    assert child is not None, f"<{node.tag}> without <{tag}>"
    return child


def encs_of(node: Node) -> list[tuple[JID, Node]]:
    """Every (device, enc) of a message, whichever shape it has."""
    listed = node.child("participants")
    if listed is None:
        to = node.jid("to")
        assert to is not None
        return [(to, need(node, "enc"))]
    pairs = []
    for child in listed.children("to"):
        jid = child.jid("jid")
        assert jid is not None
        pairs.append((jid, need(child, "enc")))
    return pairs


def text_of(message: Message) -> str:
    if message.HasField("deviceSentMessage"):
        message = message.deviceSentMessage.message
    return message.conversation or message.extendedTextMessage.text


@dataclass
class World:
    """A session that sends, the server it talks to, and the people there."""

    store: Store
    ctx: Context
    devices: Devices
    outbound: Outbound
    retries: Retries
    server: FakeServer
    me: Person
    offline_done: trio.Event = field(default_factory=trio.Event)
    changed: trio.Event = field(default_factory=trio.Event)
    refuse_commit: Callable[[CommitUnit], bool] | None = None

    def watch(self) -> None:
        """Stand between the session and its database: to see every commit, and to refuse some."""
        write = type(self.store).write

        async def watched(job: Job) -> Any:
            self.server.tick()
            if isinstance(job, CommitUnit) and self.refuse_commit is not None and self.refuse_commit(job):
                await trio.lowlevel.checkpoint()
                raise StorageUnavailable("no space left, says the test")
            outcome = await write(self.store, job)
            self.server.tick()
            self.changed.set()
            return outcome

        self.store.write = watched  # type: ignore[method-assign]

    async def lane(self, handler: Callable[..., Any], stanza: Node) -> Reaction:
        """Handle a stanza as the session's lane does."""
        async with self.ctx.state.lock:
            unit = self.ctx.state.unit()
            with unit.step():
                reaction: Reaction = await handler(stanza, unit)
            await self.ctx.state.commit(unit)
        return reaction

    async def acked(self, stanza: Node) -> Reaction:
        return await self.lane(self.outbound.acked, stanza)

    async def row(self, message_id: str) -> OutboxRow:
        row = await self.ctx.state.outbox_by_message_id(message_id)
        assert row is not None
        return row

    async def message(self, message_id: str) -> MessageRow:
        (row,) = await self.ctx.state.find_message(message_id)
        return row

    async def events(self) -> list[EventRow]:
        return await self.store.events()

    async def statuses(self, message_id: str) -> list[str]:
        return [
            event.data["status"]
            for event in await self.events()
            if event.type == "message:status" and event.data["messageId"] == message_id
        ]

    async def wait_for(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Wait until something holds; looked at after every commit and every stanza."""
        while True:
            changed = self.changed = trio.Event()
            self.server.on_change = changed.set
            if await condition():
                return
            await changed.wait()

    async def until(self, message_id: str, *states: str) -> OutboxRow:
        """Wait for a row to be in one of these states."""

        async def there() -> bool:
            return (await self.row(message_id)).state in states

        await self.wait_for(there)
        return await self.row(message_id)

    async def until_waiting(self, message_id: str) -> OutboxRow:
        """Wait for a row that was put off."""

        async def there() -> bool:
            return (await self.row(message_id)).last_error is not None

        await self.wait_for(there)
        return await self.row(message_id)

    async def until_written(self, count: int) -> list[Node]:
        """Wait for a number of messages on the wire."""

        async def there() -> bool:
            return len(self.server.messages()) >= count

        await self.wait_for(there)
        return self.server.messages()

    async def answered(self, device: Simulated, text: str = "yes") -> None:
        """A device answers, so that the session with it is no longer pending: what the inbound part would store."""
        kind, data = device.encrypt(Message(conversation=text))
        ctx = self.ctx
        async with ctx.state.lock:
            unit = ctx.state.unit()
            address = await ctx.addresses.signal_address(device.account.lid.with_device(device.number), unit)
            done = signal.decrypt(
                await ctx.records.session(address, unit),
                ctx.account.creds.local_identity(),
                kind,
                data,
                lambda number: None,
                lambda number: None,
                lambda: KeyPair.generate(os.urandom),
                ctx.now_ms(),
            )
            ctx.records.put_session(unit, address, done.record)
            await ctx.state.commit(unit)

    @asynccontextmanager
    async def pumping(self) -> AsyncIterator[None]:
        """The pump over this world's server, for the length of a block."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.outbound.run, self.server, self.offline_done)
            yield
            nursery.cancel_scope.cancel()

    async def send(self, text: str, to: JID | str, **more: Any) -> str:
        """Put a text into the outbox; its message id."""
        done = await self.outbound.enqueue(TextRequest(to=str(to), text=text, **more))
        return done.row.message_id

    async def sent(self, text: str, to: JID | str, **more: Any) -> str:
        """Send a text and wait until the server has it; the pump runs already."""
        message_id = await self.send(text, to, **more)
        await self.until(message_id, "sent")
        return message_id


def credentials_of(me: Person, **changes: Any) -> Credentials:
    """Credentials of device 7 of an account; that device is on its list."""
    return paired_credentials(me.phone.identity).change(**changes)


def own_account(companions: Iterable[int] = ()) -> Person:
    me = Person(OWN_PN.bare, OWN_LID.bare, (0, *companions))
    me.add(7)
    return me


async def make_world(
    store: Store,
    *,
    companions: Iterable[int] = (),
    settings: dict[str, Any] | None = None,
    migrated: bool = True,
    name: str = "alerts",
    now_ms: Callable[[], int] | None = None,
) -> World:
    """A paired session with an empty outbox, and a server that knows its account."""
    row = await store.create_session(name)
    state = await store.attach(row.id, "test")
    me = own_account(companions)
    unit = state.unit()
    unit.set_creds(credentials_of(me, lid_migrated=migrated).serialize())
    await state.commit(unit)
    clock = now_ms or (lambda: START_MS + int(trio.current_time() * 1000))
    ctx = make_context(
        state,
        settings=MessagingSettings(**{**PUSHED, **(settings or {})}),
        now_ms=clock,
        random=os.urandom,
    )
    async with state.lock:
        unit = state.unit()
        await ctx.addresses.learn(unit, OWN_PN.bare, OWN_LID.bare, "directed")
        await state.commit(unit)
    return assemble(store, ctx, FakeServer(), me)


def assemble(store: Store, ctx: Context, server: FakeServer, me: Person) -> World:
    """The messaging of a session over its context, as after a start of the process."""
    devices = Devices(ctx)
    outbound = Outbound(ctx, devices)
    world = World(store, ctx, devices, outbound, Retries(ctx, devices, outbound), server, me)
    server.add(me)
    server.on_ack = world.acked
    world.offline_done.set()
    world.watch()
    return world


def restarted(world: World) -> World:
    """The same session in a new process: nothing but the store is left, and the connection is a new one."""
    again = make_context(
        world.ctx.state, settings=world.ctx.settings, now_ms=world.ctx.now_ms.local_ms, random=os.urandom
    )
    server = world.server
    server.broken, server.break_at = False, None
    return assemble(world.store, again, server, world.me)


def bob(devices: Iterable[int] = (0,)) -> Person:
    return Person(JID.parse("15550000002@s.whatsapp.net"), JID.parse("200000000000002@lid"), devices)


def carol(devices: Iterable[int] = (0,)) -> Person:
    return Person(JID.parse("15550000003@s.whatsapp.net"), JID.parse("300000000000003@lid"), devices)
