"""A companion over a real websocket, with the real handshake: for tests of the shell and of speed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio_websocket

from tests.sandbox.companion import Companion, ack_for, receipt_for
from waD.e2ee.curve import KeyPair
from waD.sandbox import Sandbox
from waD.sandbox.handles import PhoneHandle
from waD.wire.codec import decode, encode
from waD.wire.frames import INTRO, FrameReader, frame
from waD.wire.node import Node
from waD.wire.noise import ClientHandshake
from waD.wire.transport import Transport

MAX_MESSAGE = (1 << 24) + 1024


class WireClient(Companion):
    """One connection at a time."""

    def __init__(self, sandbox: Sandbox, name: str | None = None) -> None:
        super().__init__(name)
        self.sandbox = sandbox
        self.bytes_sent = 0

    @asynccontextmanager
    async def connect(self, payload: bytes, stream: Any = None) -> AsyncIterator[None]:
        """Open the websocket (on a stream of the caller's, if there is one) and shake hands."""
        async with trio.open_nursery() as nursery:
            if stream is None:
                stream = await trio.open_tcp_stream(self.sandbox.host, self.sandbox.port)
            self.socket = await trio_websocket.wrap_client_stream(
                nursery,
                stream,
                f"{self.sandbox.host}:{self.sandbox.port}",
                "/ws/chat",
                max_message_size=MAX_MESSAGE,
            )
            self._frames, self._bodies = FrameReader(), list[bytes]()
            handshake = ClientHandshake(
                self.noise,
                KeyPair.generate(self.random),
                payload,
                self.sandbox.root_key,
                self.sandbox.core.world.now_s,
            )
            await self.socket.send_message(INTRO + frame(handshake.hello()))
            await self.socket.send_message(frame(handshake.finish(await self._body())))
            self.transport: Transport = handshake.transport
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()

    async def send(self, *nodes: Node) -> None:
        """Send stanzas in one websocket message."""
        await self.socket.send_message(
            b"".join(frame(self.transport.encrypt(encode(node))) for node in nodes)
        )

    async def receive(self) -> Node:
        """The next stanza; raises trio_websocket.ConnectionClosed."""
        return decode(self.transport.decrypt(await self._body()))

    async def receive_batch(self) -> list[Node]:
        """The next stanza and what arrived with it."""
        nodes = [await self.receive()]
        while self._bodies:
            nodes.append(decode(self.transport.decrypt(self._bodies.pop(0))))
        return nodes

    async def request(self, iq: Node) -> Node:
        """Send an iq; whatever else comes before its answer is dropped."""
        await self.send(iq)
        while True:
            node = await self.receive()
            if node.attrs.get("id") == iq.attrs["id"]:
                return node

    async def pair(self, phone: PhoneHandle) -> None:
        """Pair with a phone and hang up."""
        async with self.connect(self.registration()):
            pair_device = (await self.receive()).child("pair-device")
            assert pair_device is not None
            await phone.scan(self.qr(pair_device.children("ref")[0].data.decode()))
            await self.send(self.accept_pairing(await self.receive()))
            assert (await self.receive()).attrs == {"code": "515"}

    async def drain(self) -> list[Node]:
        """Take the backlog and acknowledge it in batches; returns its stanzas."""
        got: list[Node] = []
        await self.send(self.iq("passive", "set", [Node("active")]))
        while True:
            batch = await self.receive_batch()
            pushed = [node for node in batch if node.tag in ("message", "receipt", "notification")]
            got += pushed
            if pushed:
                await self.send(*(receipt_for(n) if n.tag == "message" else ack_for(n) for n in pushed))
            if any(node.tag == "ib" and node.child("offline") for node in batch):
                return got

    async def _body(self) -> bytes:
        while not self._bodies:
            message = await self.socket.get_message()
            assert isinstance(message, bytes)
            self._bodies += self._frames.feed(message)
        return self._bodies.pop(0)
