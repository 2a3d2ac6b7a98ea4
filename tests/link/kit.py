"""The other side of a connection for tests: a server on the responder half of Noise, in the same process."""

from __future__ import annotations

import os
import random as _random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing
import trio_websocket

from waD.e2ee.curve import KeyPair
from waD.link.connection import Connection, LinkSettings, connect
from waD.link.credentials import Credentials, new_credentials
from waD.link.endpoint import Endpoint
from waD.link.engine import Engine, EngineSettings
from waD.link.events import Event
from waD.sandbox.identity import new_identity
from waD.wire.codec import decode, encode
from waD.wire.frames import FrameReader, IntroReader, frame
from waD.wire.jid import JID, SERVER
from waD.wire.node import Node, Value
from waD.wire.noise import ClientHandshake, ServerHandshake
from waD.wire.transport import Transport

NOW_S = 1_800_000_000
IDENTITY = new_identity(os.urandom, NOW_S)
ENDPOINT = Endpoint("ws://server.test/ws/chat", IDENTITY.root_key)
ME = JID("15550000001", "s.whatsapp.net", 17)
MY_LID = JID("100000000000001", "lid", 17)
GONE = (trio_websocket.ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError)

UNPAIRED = new_credentials(os.urandom)
PAIRED = UNPAIRED.change(account=bytes.fromhex("0a00"), me_pn=ME, me_lid=MY_LID)
"""Registered as far as a connection is concerned."""


def now_ms() -> int:
    return NOW_S * 1000 + 250


def iq(kind: str, xmlns: str | None = None, *children: Node, **attrs: Value) -> Node:
    """An iq from the server."""
    head: dict[str, Value] = {"from": SERVER, "type": kind}
    if xmlns is not None:
        head["xmlns"] = xmlns
    return Node("iq", head | attrs, list(children))


def result_of(request: Node, *children: Node) -> Node:
    return iq("result", None, *children, id=request.attrs["id"])


def error_of(request: Node, code: int, text: str = "", **attrs: Value) -> Node:
    return iq(
        "error", None, Node("error", {"code": str(code), "text": text, **attrs}), id=request.attrs["id"]
    )


def stream_error(code: int | None = None, *children: Node) -> Node:
    return Node("stream:error", {} if code is None else {"code": str(code)}, list(children))


def success(**attrs: Value) -> Node:
    return Node("success", {"t": str(NOW_S), "lid": MY_LID, "abprops": "10", **attrs})


def client_handshake(credentials: Credentials = PAIRED, payload: bytes = b"payload") -> ClientHandshake:
    return ClientHandshake(credentials.noise, KeyPair.generate(os.urandom), payload, IDENTITY.root_key, NOW_S)


def server_handshake(chain: bytes | None = None) -> ServerHandshake:
    return ServerHandshake(
        IDENTITY.static_pair, lambda: KeyPair.generate(os.urandom), chain or IDENTITY.chain
    )


class Pair:
    """An engine and a server around it, without input and output; time moves when the test says so."""

    def __init__(
        self, *, registered: bool = True, settings: EngineSettings | None = None, **options: Any
    ) -> None:
        self.now = 100.0
        self.engine = Engine(
            client_handshake(),
            prefix="1.2",
            draw=options.pop("draw", lambda: 0.5),
            now=self.now,
            registered=registered,
            settings=settings,
            **options,
        )
        self.server = server_handshake()
        self.transport: Transport
        self._frames = FrameReader()

    def shake_hands(self) -> list[Event]:
        rest = IntroReader().feed(self.engine.data_to_send())
        assert rest is not None
        (hello,) = self._frames.feed(rest)
        events = self.feed(frame(self.server.hello(hello)))
        (finish,) = self._frames.feed(self.engine.data_to_send())
        self.server.finish(finish)
        self.transport = self.server.transport
        return events

    def feed(self, data: bytes) -> list[Event]:
        """Bytes arrive."""
        self.engine.receive(data, self.now)
        return self.events()

    def events(self) -> list[Event]:
        found: list[Event] = []
        while (event := self.engine.next_event(self.now)) is not None:
            found.append(event)
        return found

    def deliver(self, *nodes: Node) -> list[Event]:
        """Stanzas arrive, in one chunk."""
        return self.feed(b"".join(self.seal(node) for node in nodes))

    def seal(self, node: Node) -> bytes:
        return frame(self.transport.encrypt(encode(node)))

    def sent(self) -> list[Node]:
        """What the engine wants written, as the server reads it."""
        return [
            decode(self.transport.decrypt(body)) for body in self._frames.feed(self.engine.data_to_send())
        ]

    def wait(self, seconds: float) -> list[Event]:
        """Time passes as for a driver that wakes at every deadline."""
        until = self.now + seconds
        found: list[Event] = []
        while (deadline := self.engine.next_deadline()) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            found += self.engine.tick(self.now)
        self.now = until
        return found


class ServerLink:
    """One client as the server sees it, after the handshake."""

    def __init__(self, websocket: Any, stream: trio.StapledStream[Any, Any]) -> None:
        self.websocket = websocket
        self.stream = stream
        self.intro = IntroReader()
        self.client_static = b""
        self.payload = b""
        self.target = ""
        self.headers: dict[str, str] = {}
        self._frames = FrameReader()
        self._bodies: list[bytes] = []
        self._transport: Transport

    async def shake_hands(self, chain: bytes | None = None) -> None:
        handshake = server_handshake(chain)
        rest: bytes | None = None
        while rest is None:
            rest = self.intro.feed(await self.websocket.get_message())
        self._bodies += self._frames.feed(rest)
        await self.websocket.send_message(frame(handshake.hello(await self._body())))
        handshake.finish(await self._body())
        self.client_static, self.payload = handshake.client_static, handshake.payload
        self._transport = handshake.transport

    async def _body(self) -> bytes:
        while not self._bodies:
            self._bodies += self._frames.feed(await self.websocket.get_message())
        return self._bodies.pop(0)

    async def receive(self) -> Node:
        return decode(self._transport.decrypt(await self._body()))

    async def expect(self, tag: str, **attrs: str) -> Node:
        """The next stanza of that kind; everything before it is dropped."""
        while True:
            node = await self.receive()
            if node.tag == tag and all(node.text(name) == value for name, value in attrs.items()):
                return node

    async def send(self, *nodes: Node) -> None:
        await self.send_raw(b"".join(frame(self._transport.encrypt(encode(node))) for node in nodes))

    async def send_plain(self, *plaintexts: bytes) -> None:
        """Authentic frames with any content."""
        await self.send_raw(b"".join(frame(self._transport.encrypt(text)) for text in plaintexts))

    async def send_raw(self, data: bytes) -> None:
        await self.websocket.send_message(data)

    async def close(self) -> None:
        """A websocket goodbye."""
        await self.websocket.aclose(1000)

    async def cut(self) -> None:
        """No goodbye at all."""
        await trio.aclose_forcefully(self.stream)

    async def wait_closed(self) -> None:
        """Read until the client is gone."""
        try:
            while True:
                await self.websocket.get_message()
        except trio_websocket.ConnectionClosed:
            pass


class FakeServer:
    """Accepts any number of clients; each becomes a `ServerLink` in `links` when it has shaken hands.

    Attributes:
        script: what to do instead with a client whose websocket is open.
        refuse: HTTP status to answer the upgrade with.
        chain: certificate chain to show.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._links, self.links = trio.open_memory_channel[ServerLink](100)
        self.script: Callable[[ServerLink], Any] | None = None
        self.refuse: int | None = None
        self.refuse_headers: list[tuple[bytes, bytes]] = []
        self.chain: bytes | None = None
        self.dials = 0
        self.client_streams: list[Any] = []

    async def dial(self, endpoint: Endpoint) -> trio.abc.Stream:
        self.dials += 1
        ours, theirs = trio.testing.memory_stream_pair()
        self.client_streams.append(theirs)
        self._nursery.start_soon(self._serve, ours)
        await trio.lowlevel.checkpoint()
        return theirs

    async def _serve(self, stream: trio.StapledStream[Any, Any]) -> None:
        try:
            async with trio.open_nursery() as nursery:
                request = await trio_websocket.wrap_server_stream(nursery, stream)
                if self.refuse is not None:
                    await request.reject(self.refuse, extra_headers=self.refuse_headers)
                    return
                websocket = await request.accept()
                link = ServerLink(websocket, stream)
                link.target, link.headers = (
                    request.path,
                    {name.decode().lower(): value.decode() for name, value in request.headers},
                )
                if self.script is not None:
                    await self.script(link)
                else:
                    await link.shake_hands(self.chain)
                    await self._links.send(link)
        except* GONE:
            pass

    def connect(
        self,
        credentials: Credentials = PAIRED,
        *,
        payload: bytes = b"payload",
        settings: LinkSettings | None = None,
        **options: Any,
    ) -> Any:
        """`connect` against this server."""
        return connect(
            ENDPOINT,
            credentials,
            payload,
            settings,
            random=os.urandom,
            unix_time=lambda: float(NOW_S),
            dial=self.dial,
            **options,
        )

    @asynccontextmanager
    async def linked(
        self, credentials: Credentials = PAIRED, **options: Any
    ) -> AsyncIterator[tuple[Connection, ServerLink]]:
        """A connection and its other end; for the body it is as if written inside `connect`."""
        async with self.connect(credentials, **options) as connection:
            yield connection, await self.links.receive()


def seeded(seed: int) -> Callable[[], float]:
    """Random numbers from 0 to below 1 that are the same in every run."""
    return _random.Random(seed).random
