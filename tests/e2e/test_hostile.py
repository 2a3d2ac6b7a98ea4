"""A hostile server and hostile people: nothing breaks, nothing grows, no log tells, and good messages come.

The daemon's inside runs in this process on a simulated clock; the server is the sandbox, whose live link says whatever
the test wants, or a scripted one that never gets as far as a login. Every test names `mock_clock` itself, because only
then does the loop run on it.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import trio
import trio_websocket
from trio.testing import MockClock

from tests.link import kit
from tests.link.kit import GONE, IDENTITY, ServerLink
from tests.soak import hostility
from tests.soak.hostility import MANY, ROOM, SECRET, STRANGER_LID
from tests.soak.inside import START_S, Inside, Watch, inside, is_ready
from tests.soak.life import ALICE, Tables
from waD.e2ee import groups, padding
from waD.link.engine import MAX_UNDECODABLE
from waD.messaging.retries import MAX_ANSWERS
from waD.proto.e2e_pb2 import Message
from waD.sandbox import Environment, Sandbox, run_sandbox
from waD.sandbox import connection as sandbox_connection
from waD.sandbox.links import RawFrame
from waD.wire.codec import encode
from waD.wire.frames import frame
from waD.wire.jid import JID, LID, SERVER
from waD.wire.node import Node

BOB: Final = "15550000002"
CAROL: Final = "15550000003"
BATCH: Final = 50
FLOOD: Final = 2000
KEPT: Final = 3_000_000
"""Bytes that may stay: the caches of a session, filled with whatever came."""
PEAK: Final = 250_000_000
"""Bytes at the highest: a frame of 16 MB as nodes, beside the server's copies of it."""
DIGITS: Final = ("5559990001", "5550000001", "99999999999991")
"""Enough of a number to know whom it belongs to."""


class Plain(Node):
    """A frame that is authentic and whatever the server likes inside."""

    def __init__(self, plaintext: bytes) -> None:
        super().__init__("plain")
        self.plaintext = plaintext


class Town:
    """A paired session, its server, and two people with whom it is acquainted."""

    def __init__(self, sandbox: Sandbox, daemon: Inside) -> None:
        self.sandbox = sandbox
        self.daemon = daemon
        self.alice = sandbox.phone(ALICE)
        self.bob = sandbox.phone(BOB)
        self.carol = sandbox.phone(CAROL)
        self.seen: list[tuple[str, Node]] = []
        self.serve: Callable[[trio.abc.Stream], Awaitable[object]] = sandbox.serve_stream
        sandbox.core.world.note_traffic = self._note  # type: ignore[method-assign]

    def _note(self, direction: str, _: str, node: Node) -> None:
        """Only what the daemon says is kept, and not forever."""
        if direction == "in":
            self.seen.append((node.tag, node))

    @property
    def device(self) -> Any:
        return self.sandbox.device(ALICE)

    @property
    def logins(self) -> int:
        return int(self.device.record.logins)

    async def pour(self, nodes: Iterator[Node]) -> int:
        """Put stanzas on the live link, and wait until they are taken."""
        count = 0
        for count, node in enumerate(nodes, start=1):
            self.device.link.send(node)
            if count % BATCH == 0:
                await self.taken()
        await self.taken()
        await self.taken()  # what was handled last is let go
        return count

    async def taken(self) -> None:
        """A notification behind everything before it is answered when all of that was handled."""
        link = self.device.link
        name = f"MARK{self.sandbox.core.world.stanza_id()}"
        link.send(Node("notification", {"id": name, "from": SERVER, "type": "psa", "t": str(START_S)}))

        def answered() -> bool:
            gone = self.device.link is not link
            return gone or any(tag == "ack" and node.attrs.get("id") == name for tag, node in self.seen)

        await self.sandbox.wait(answered, 600)

    async def back(self, logins: int) -> None:
        """Wait until the session has logged in again."""
        with trio.move_on_after(1200):
            await self.sandbox.wait(lambda: self.logins > logins, math.inf)
        assert self.logins > logins, f"{await self.daemon.status()}, {await self.daemon.told()}"
        await self.daemon.until(is_ready)

    async def still_works(self) -> None:
        """A good message arrives, and another one leaves."""
        await self.daemon.until(is_ready)
        word = f"good {os.urandom(4).hex()}"
        await self.bob.send(ALICE, word)
        await self.daemon.told_of(word)
        sent = await self.daemon.send(CAROL, word)
        with trio.fail_after(600):
            await self.daemon.manager.wait("alerts", sent, "delivered")
        assert self.carol.messages()[-1].text == word


@contextmanager
def bounded(*, peak: int = PEAK, kept: int = KEPT) -> Iterator[None]:
    """Memory in use is bounded while the block runs, and given back after it."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield
        highest = tracemalloc.get_traced_memory()[1]
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
        assert highest - before < peak
        assert after - before < kept, tracemalloc.take_snapshot().statistics("lineno")[:8]
    finally:
        tracemalloc.stop()


class Log:
    """What the daemon logged."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    @property
    def records(self) -> list[logging.LogRecord]:
        return [
            one
            for one in self._caplog.records
            if one.name.startswith("waD.") and not one.name.startswith("waD.sandbox")
        ]

    def judge(self) -> None:
        """Neither content nor whole numbers, and no fault of the program."""
        formatter = logging.Formatter("%(message)s")
        for record in self.records:
            line = formatter.format(record)
            assert SECRET not in line
            assert not any(digits in line for digits in DIGITS), line[:200]
            assert record.exc_info is None, line
            assert "fault of this program" not in line
            assert len(line) < 1000


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[Log]:
    caplog.set_level(logging.DEBUG, "waD")
    found = Log(caplog)
    yield found
    found.judge()


@asynccontextmanager
async def make_town(directory: Path, clock: MockClock) -> AsyncIterator[Town]:
    watch = Watch(clock)
    async with run_sandbox(None, environment=Environment(clock=watch.unix_ms)) as sandbox:
        towns: list[Town] = []

        async def serve(stream: trio.abc.Stream) -> None:
            await (towns[0].serve if towns else sandbox.serve_stream)(stream)

        async with inside(
            directory, serve, sandbox.root_key, watch, more="[alerts]\nreconnects = 1000"
        ) as daemon:
            town = Town(sandbox, daemon)
            towns.append(town)
            await daemon.pair(town.alice)
            await town.still_works()
            town.seen.clear()
            yield town


@pytest.fixture
async def town(
    tmp_path: Path, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch, log: Log
) -> AsyncIterator[Town]:
    monkeypatch.setattr(
        sandbox_connection, "encode", lambda node: node.plaintext if isinstance(node, Plain) else encode(node)
    )
    # The scripted server of `tests.link.kit` and the sandbox are the same server to the daemon.
    monkeypatch.setattr("waD.sandbox.sandbox.new_identity", lambda *_: IDENTITY)
    assert kit.NOW_S == START_S
    async with make_town(tmp_path, mock_clock) as made:
        yield made


# Stanzas.


@pytest.mark.parametrize(
    "kind", ["bare", "messages", "notifications", "bulletins", "questions", "oddities", "receipts"]
)
async def test_stanzas_that_make_no_sense(town: Town, mock_clock: MockClock, kind: str) -> None:
    logins = town.logins
    known = (await town.daemon.events("message:status"))[0].data["messageId"]
    given = {"notifications": (town.alice.phone.account.lid_jid,), "receipts": (known,)}.get(kind, ())
    with bounded():
        count = await town.pour(getattr(hostility, kind)(*given))
        town.seen.clear()
    assert count > 10
    assert town.logins == logins
    await town.still_works()


async def test_as_large_as_frames_allow(town: Town, mock_clock: MockClock) -> None:
    logins = town.logins
    with bounded():
        await town.pour(hostility.large())
        town.seen.clear()
    assert town.logins == logins
    await town.still_works()


async def test_nine_frames_that_are_no_nodes(town: Town, mock_clock: MockClock) -> None:
    logins = town.logins
    with bounded():
        await town.pour(Plain(one) for one in hostility.undecodable())
        town.seen.clear()
    assert town.logins == logins
    await town.still_works()


async def test_one_frame_too_many_that_is_no_node(town: Town, mock_clock: MockClock) -> None:
    logins = town.logins
    for _ in range(MAX_UNDECODABLE + 1):
        town.device.link.send(Plain(SECRET.encode()))
    await town.back(logins)
    await town.still_works()


@pytest.mark.parametrize(
    "body", [b"", SECRET.encode(), os.urandom(16_000_000)], ids=["empty", "text", "large"]
)
async def test_a_frame_that_does_not_authenticate(town: Town, mock_clock: MockClock, body: bytes) -> None:
    logins = town.logins
    town.device.link.send(RawFrame(body))
    await town.back(logins)
    await town.still_works()


@pytest.mark.parametrize(
    "end",
    [
        Node("stream:error", {"code": SECRET}, [Node(SECRET, {SECRET: SECRET})] * 1000),
        Node("stream:error", {"code": "9" * 5000}, SECRET.encode()),
        Node("stream:error"),
        Node("failure", {"reason": SECRET, "location": SECRET}, SECRET.encode()),
        Node("failure", {"reason": "-1", "expire": "9" * 5000, "message": hostility.LONG}),
        Node("xmlstreamend", {SECRET: SECRET}, [Node(SECRET)] * 1000),
    ],
    ids=["error", "number", "empty", "failure", "expire", "end"],
)
async def test_goodbyes_that_make_no_sense(town: Town, mock_clock: MockClock, end: Node) -> None:
    """It comes back by itself and keeps its credentials."""
    logins = town.logins
    town.device.link.send(end)
    await town.back(logins)
    await town.still_works()


# People.


async def test_strangers_get_no_message_again(town: Town, mock_clock: MockClock) -> None:
    """Nor do devices that an account does not list, or people of another chat, with or without keys."""
    sent = await town.daemon.send(CAROL, SECRET)
    await town.daemon.manager.wait("alerts", sent, "delivered")
    town.seen.clear()
    carol = town.carol.phone.account.lid_jid
    for asker in (STRANGER_LID, town.bob.phone.account.lid_jid, JID(carol.user, LID, 44)):
        await town.pour(hostility.retries(sent, asker))
    await trio.sleep(60)
    assert [node for tag, node in town.seen if tag == "message"] == []
    await town.still_works()


async def test_who_asks_for_ever_gets_it_a_few_times(town: Town, mock_clock: MockClock) -> None:
    sent = await town.daemon.send(CAROL, SECRET)
    await town.daemon.manager.wait("alerts", sent, "delivered")
    town.seen.clear()
    carol = town.carol.phone.account.lid_jid
    retry = Node("retry", {"count": "1", "id": sent, "t": "1", "v": "1"})
    registration = Node("registration", {}, os.urandom(4))
    asked = Node("receipt", {"id": sent, "from": carol, "type": "retry"}, [retry, registration])
    for _ in range(40):
        await town.pour(iter([asked] * BATCH))
        await trio.sleep(5)
    again = [node for tag, node in town.seen if tag == "message"]
    assert 0 < len(again) <= MAX_ANSWERS
    assert {node.attrs["id"] for node in again} == {sent}
    await town.still_works()


def _key_share() -> Message:
    message = Message()
    message.protocolMessage.type = Message.ProtocolMessage.APP_STATE_SYNC_KEY_SHARE
    key = message.protocolMessage.appStateSyncKeyShare.keys.add()
    key.keyId.keyId = b"\x00" * 6
    key.keyData.keyData = SECRET.encode().ljust(32)[:32]
    key.keyData.timestamp = 1
    return message


def _own_copy() -> Message:
    message = Message()
    message.deviceSentMessage.destinationJid = str(STRANGER_LID)
    message.deviceSentMessage.message.conversation = SECRET
    return message


def _history() -> Message:
    message = Message()
    message.protocolMessage.type = Message.ProtocolMessage.HISTORY_SYNC_NOTIFICATION
    message.protocolMessage.historySyncNotification.directPath = SECRET
    return message


def _revoke(of: str, from_me: bool) -> Message:
    message = Message()
    message.protocolMessage.type = Message.ProtocolMessage.REVOKE
    message.protocolMessage.key.id = of
    message.protocolMessage.key.fromMe = from_me
    message.protocolMessage.key.remoteJid = str(STRANGER_LID)
    return message


def _edit(of: str) -> Message:
    message = Message()
    message.protocolMessage.type = Message.ProtocolMessage.MESSAGE_EDIT
    message.protocolMessage.key.id = of
    message.protocolMessage.key.fromMe = True
    message.protocolMessage.editedMessage.conversation = SECRET
    return message


async def test_a_stranger_is_not_the_own_phone(town: Town, mock_clock: MockClock) -> None:
    """Keys, copies and histories count only from the own phone; a message is changed only by who wrote it."""
    sent = await town.daemon.send(CAROL, "what I said")
    await town.daemon.manager.wait("alerts", sent, "delivered")
    keys = Tables(town.daemon.path).items()["app-state-key"]
    told = len(await town.daemon.bodies())
    account = town.alice.phone.account
    hostile = (_key_share(), _own_copy(), _history(), _revoke(sent, True), _revoke(sent, False), _edit(sent))
    for message in hostile:
        town.bob.phone.send(account, message)
        town.sandbox.core.settle()
    await town.still_works()
    assert Tables(town.daemon.path).items()["app-state-key"] == keys
    assert len(await town.daemon.bodies()) == told + 1
    assert await town.daemon.events("message:update") == []
    page = await town.daemon.manager.messages("alerts", chat=CAROL, before=None, limit=50)
    assert "what I said" in [row.body for row in page.messages]
    everything = await town.daemon.events()
    assert not any(SECRET in str(event.data) for event in everything)


def _nested(depth: int) -> bytes:
    """A Message inside a Message inside a Message …"""
    message = Message(conversation=SECRET)
    for _ in range(depth):
        outer = Message()
        outer.ephemeralMessage.message.CopyFrom(message)
        message = outer
    return message.SerializeToString()


async def test_plaintexts_that_are_no_messages(town: Town, mock_clock: MockClock) -> None:
    """Authentic ciphertexts with anything inside: each is answered once, and the session with their sender lives."""
    account, device = town.alice.phone.account, town.device
    phone = town.bob.phone
    deep = b""
    for _ in range(5000):
        deep = b"\xba\x02" + _varint(len(deep)) + deep
    plaintexts = (
        b"",
        b"\x00",
        b"\xff" * 100,
        SECRET.encode() + b"\xf0",
        padding.pad(b"", 1),
        padding.pad(os.urandom(500), 3),
        padding.pad(_nested(40), 2),
        padding.pad(deep, 2),
        padding.pad(b"\x0a" + _varint(3_000_000) + b"x" * 3_000_000, 1),
    )
    for number, plaintext in enumerate(plaintexts):
        kind, data = phone.keys.encrypt(device, plaintext)
        enc = Node("enc", {"v": "2", "type": kind}, data)
        source = {"from": phone.account.lid_jid, "t": str(START_S), "type": "text"}
        await town.pour(iter([Node("message", {"id": f"ODD{number}", **source}, [enc])]))
    answers = Counter(node.attrs.get("id") for tag, node in town.seen if tag in ("ack", "receipt"))
    assert {
        f"ODD{number}": answers[f"ODD{number}"] > 0 for number in range(len(plaintexts))
    } == dict.fromkeys([f"ODD{number}" for number in range(len(plaintexts))], True)
    assert account.companions
    await town.still_works()


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*found, number))


async def test_sender_keys_come_only_by_the_pairwise_way(town: Town, mock_clock: MockClock) -> None:
    """A key inside a group message, or for another group, opens nothing."""
    phone, device = town.bob.phone, town.device
    mine, other = groups.create(os.urandom), groups.create(os.urandom)

    def shared(room: JID, record: groups.SenderKeyRecord) -> Message:
        message = Message()
        message.senderKeyDistributionMessage.groupId = str(room)
        message.senderKeyDistributionMessage.axolotlSenderKeyDistributionMessage = groups.distribution(record)
        return message

    def pairwise(message: Message) -> Node:
        kind, data = phone.keys.encrypt(device, padding.pad(message.SerializeToString(), 1))
        return Node("enc", {"v": "2", "type": kind}, data)

    def grouped(record: groups.SenderKeyRecord, message: Message) -> Node:
        _, data = groups.encrypt(record, padding.pad(message.SerializeToString(), 1), os.urandom)
        return Node("enc", {"v": "2", "type": "skmsg"}, data)

    def stanza(name: str, room: JID, *encs: Node) -> Node:
        head = {
            "id": name,
            "from": room,
            "participant": phone.account.lid_jid,
            "t": str(START_S),
            "type": "text",
        }
        return Node("message", head, list(encs))

    elsewhere = JID("120363999999999992", "g.us")
    carried = shared(ROOM, other)
    carried.conversation = "a good one"
    await town.pour(
        iter(
            [
                stanza("G1", ROOM, pairwise(shared(ROOM, mine)), grouped(mine, carried)),
                stanza("G2", ROOM, grouped(other, Message(conversation=SECRET))),
                stanza(
                    "G3",
                    ROOM,
                    pairwise(shared(elsewhere, other)),
                    grouped(other, Message(conversation=SECRET)),
                ),
                stanza("G4", elsewhere, grouped(other, Message(conversation=SECRET))),
            ]
        )
    )
    bodies = await town.daemon.bodies()
    assert "a good one" in bodies
    assert SECRET not in bodies
    await town.still_works()


async def test_a_flood_of_garbage(town: Town, mock_clock: MockClock) -> None:
    """Ciphertexts that nobody can read, as fast as they go: one row and a bounded number of questions for each."""
    people = [JID(str(188_000_000_000_000 + n % 100), LID) for n in range(FLOOD)]

    def flood() -> Iterator[Node]:
        for number, person in enumerate(people):
            kind = ("msg", "pkmsg", "msg")[number % 3]
            enc = Node("enc", {"v": "2", "type": kind}, b"\x33" + os.urandom(90))
            head = {"id": f"FLOOD{number:06d}", "from": person, "t": str(START_S), "type": "text"}
            yield Node("message", head, [enc])

    with bounded():
        await town.pour(flood())
        await trio.sleep(600)
        town.seen.clear()
        await town.still_works()
    tables = Tables(town.daemon.path)
    assert tables.rows("whatsapp_messages") <= FLOOD + 10
    assert tables.items().get("retry", 0) <= FLOOD
    assert tables.items()["session"] < 10
    assert tables.rows("wa_inbound_buffer") < 20


# Before the login.

Script = Callable[[ServerLink], Awaitable[None]]


async def _junk_hello(link: ServerLink) -> None:
    await link.websocket.get_message()
    await link.send_raw(frame(SECRET.encode() * 1000))


async def _long_hello(link: ServerLink) -> None:
    await link.websocket.get_message()
    await link.send_raw((0xFFFFFF).to_bytes(3, "big") + os.urandom(70_000))


async def _many_hellos(link: ServerLink) -> None:
    await link.websocket.get_message()
    await link.send_raw(frame(b"") * 100_000)


async def _text(link: ServerLink) -> None:
    await link.websocket.get_message()
    await link.websocket.send_message(SECRET)


async def _wrong_chain(link: ServerLink) -> None:
    await link.shake_hands(os.urandom(300))


async def _odd_success(link: ServerLink) -> None:
    await link.shake_hands()
    await link.send(Node("success", dict.fromkeys(("t", "lid", "abprops", "props", "creation"), SECRET)))


async def _codes_for_the_paired(link: ServerLink) -> None:
    await link.shake_hands()
    refs = [Node("ref", {}, SECRET.encode())] * MANY
    await link.send(kit.iq("set", "md", Node("pair-device", {}, refs), id="1"))


async def _nonsense(link: ServerLink) -> None:
    await link.shake_hands()
    await link.send_plain(*[os.urandom(40) for _ in range(MAX_UNDECODABLE + 5)])


async def _stanzas_before_success(link: ServerLink) -> None:
    await link.shake_hands()
    for node in hostility.bare(("message", "receipt", "notification", "ib")):
        await link.send(node)


@pytest.mark.parametrize(
    "script",
    [
        _junk_hello, _long_hello, _many_hellos, _text, _wrong_chain, _odd_success, _codes_for_the_paired, _nonsense,
        _stanzas_before_success,
    ],
    ids=lambda script: script.__name__.strip("_"),
)  # fmt: skip
async def test_a_server_that_is_none(town: Town, mock_clock: MockClock, script: Script) -> None:
    """A few connections end up at a server that means ill; the credentials survive, and the next one is good."""
    logins, met = town.logins, 0

    async def serve(stream: trio.abc.Stream) -> None:
        nonlocal met
        met += 1
        if met > 3:
            await town.sandbox.serve_stream(stream)
            return
        try:
            async with trio.open_nursery() as nursery:
                request = await trio_websocket.wrap_server_stream(nursery, stream)
                link = ServerLink(await request.accept(), stream)
                await script(link)
                await link.wait_closed()
        except* GONE:
            pass

    before = await town.daemon.status()
    town.serve = serve
    with bounded():
        town.sandbox.fault("close", town.device.key)
        await town.back(logins)
    assert met == 4
    after = await town.daemon.status()
    assert (after.me, after.paired) == (before.me, True)
    await town.still_works()
