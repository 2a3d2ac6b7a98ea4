"""One client over one websocket: handshake, then frames to the core and back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from waD.e2ee.curve import KeyPair
from waD.sandbox.core import Core
from waD.sandbox.faults import Fault
from waD.sandbox.identity import ServerIdentity, bad_chain
from waD.sandbox.links import MAX_OUT, PROTOCOL_ERROR, Close, Link, RawFrame
from waD.sandbox.websocket import Websocket
from waD.wire.codec import decode, encode
from waD.wire.errors import CodecError, FrameError, NoiseError
from waD.wire.frames import MAX_FRAME, MAX_HANDSHAKE_FRAME, FrameReader, IntroReader, frame
from waD.wire.noise import ServerHandshake
from waD.wire.transport import Transport

HANDSHAKE_S: Final = 20.0
BATCH_BYTES: Final = 65_536
BATCH_STANZAS: Final = 256
GARBAGE_BYTES: Final = 120
_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)

Flush = Callable[[], Awaitable[None]]


class Signal:
    """Wakes whoever waits; a call while nobody waits is remembered once."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def set(self) -> None:
        """Wake the waiter."""
        self._event.set()

    async def wait(self) -> None:
        """Wait for the next call of `set`, or take the remembered one."""
        await self._event.wait()
        self._event = trio.Event()


class ClientConnection:
    """Serves one client until either side ends."""

    def __init__(self, core: Core, identity: ServerIdentity, websocket: Websocket, flush: Flush) -> None:
        self._core = core
        self._identity = identity
        self._websocket = websocket
        self._flush = flush
        self._frames = FrameReader(MAX_HANDSHAKE_FRAME)
        self._bodies: list[bytes] = []
        self._more = Signal()
        self._room = Signal()

    async def serve(self) -> None:
        """Handshake, then carry frames; returns when the connection is over."""
        try:
            handshake = await self._handshake()
        except (FrameError, NoiseError) as error:
            self._core.world.complain(None, f"handshake: {error}")
            await self._websocket.close(PROTOCOL_ERROR)
            return
        if handshake is None:
            await self._websocket.close(PROTOCOL_ERROR)
            return
        self._frames.maximum = MAX_FRAME
        link = self._core.open_link(handshake.client_static, handshake.payload)
        link.wake = self._more.set
        try:
            await self._carry(link, handshake.transport)
        finally:
            self._core.link_closed(link)

    async def _carry(self, link: Link, transport: Transport) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, link, transport, nursery.cancel_scope)
            await self._read(link, transport)
            # An undecodable frame or the like is still to be told before the writer closes.
            if not link.closed:
                nursery.cancel_scope.cancel()

    async def _handshake(self) -> ServerHandshake | None:
        """Run the handshake; None when the client is too slow, vanished, or a fault wants it to fail."""
        fault = self._core.world.faults.take("noise")
        environment = self._core.world.environment
        chain = self._identity.chain
        if fault is not None and fault.mode in ("bad-certificate", "expired"):
            chain = bad_chain(self._identity, environment.random, self._core.world.now_s, fault.mode)
        handshake = ServerHandshake(
            self._identity.static_pair, lambda: KeyPair.generate(environment.random), chain
        )
        hello = await self._intro_and_hello()
        if hello is None:
            return None
        answer = handshake.hello(hello)
        if await self._spoil(fault):
            return None
        await self._websocket.send(frame(answer))
        if handshake.needs_finish:
            body = await self._handshake_frame()
            if body is None:
                return None
            handshake.finish(body)
        return handshake

    async def _spoil(self, fault: Fault | None) -> bool:
        if fault is None or fault.mode not in ("garbage", "silent"):
            return False
        if fault.mode == "garbage":
            await self._websocket.send(frame(self._core.world.random(GARBAGE_BYTES)))
        with trio.move_on_after(HANDSHAKE_S):
            while await self._websocket.receive() is not None:
                pass
        return True

    async def _intro_and_hello(self) -> bytes | None:
        intro = IntroReader()
        with trio.move_on_after(HANDSHAKE_S):
            while (chunk := await self._websocket.receive()) is not None:
                rest = intro.feed(chunk)
                if rest is not None:
                    self._bodies += self._frames.feed(rest)
                    return await self._handshake_frame()
        return None

    async def _handshake_frame(self) -> bytes | None:
        with trio.move_on_after(HANDSHAKE_S):
            while not self._bodies:
                chunk = await self._websocket.receive()
                if chunk is None:
                    return None
                self._bodies += self._frames.feed(chunk)
            return self._bodies.pop(0)
        return None

    async def _read(self, link: Link, transport: Transport) -> None:
        bodies, self._bodies = self._bodies, []
        while True:
            for body in bodies:
                if not self._take(link, transport, body):
                    return
                while link.waiting > MAX_OUT and not link.closed:
                    await self._room.wait()
            chunk: bytes | None = None
            while link.stalled_reading:
                await self._room.wait()
            with trio.move_on_after(self._core.world.settings.idle_timeout_s):
                try:
                    chunk = await self._websocket.receive()
                except _GONE:
                    return
            if chunk is None:
                return
            try:
                bodies = self._frames.feed(chunk)
            except FrameError as error:
                self._core.undecodable(link, str(error))
                return

    def _take(self, link: Link, transport: Transport, body: bytes) -> bool:
        """Hand one frame to the core; False when the connection must end."""
        try:
            node = decode(transport.decrypt(body))
        except NoiseError as error:
            self._core.world.complain(link.device, f"a frame that does not authenticate: {error}")
            return False
        except CodecError as error:
            self._core.undecodable(link, str(error))
            return False
        self._core.receive(link, node)
        return True

    async def _write(self, link: Link, transport: Transport, scope: trio.CancelScope) -> None:
        try:
            while True:
                data, close = self._collect(link, transport)
                if data:
                    await self._flush()
                    await self._websocket.send(data)
                    self._room.set()
                if close is not None:
                    await self._end(close)
                    break
                if not data:
                    await self._wait(link)
        except _GONE:
            pass
        scope.cancel()

    async def _wait(self, link: Link) -> None:
        """Wait until there is something to write, or a delayed answer is due."""
        due = link.due_ms
        limit = trio.current_time() + (due - self._core.world.now_ms) / 1000 if due is not None else None
        with trio.move_on_at(limit if limit is not None else float("inf")):
            await self._more.wait()
        self._room.set()

    async def _end(self, close: Close) -> None:
        if close.code is None:
            await self._websocket.abort()
        else:
            await self._websocket.close(close.code)

    def _collect(self, link: Link, transport: Transport) -> tuple[bytes, Close | None]:
        """Whole frames for one websocket message, and the end if it has come."""
        frames: list[bytes] = []
        size = 0
        while size < BATCH_BYTES and len(frames) < BATCH_STANZAS:
            output = self._core.next_output(link)
            if output is None:
                break
            if isinstance(output, Close):
                return b"".join(frames), output
            body = output.body if isinstance(output, RawFrame) else transport.encrypt(encode(output))
            frames.append(frame(body))
            size += len(body)
        return b"".join(frames), None
