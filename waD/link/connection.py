"""One connection as trio tasks around the engine: the socket's reader, the writer, the clock.

Everything a connection starts lives in one nursery and dies with it. A stanza channel that nobody empties stops the
reader, and so TCP. A write that fails or is cut short ends the connection, because its counters are spent.
"""

from __future__ import annotations

import random as _insecure
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from waD.e2ee.curve import KeyPair
from waD.link.causes import Cause, cause
from waD.link.credentials import Credentials
from waD.link.endpoint import Endpoint
from waD.link.engine import Engine, EngineSettings
from waD.link.errors import Disconnected, RequestTimeout
from waD.link.events import Closing, Ended, Established, Event, Health, LoggedIn, Reply, Stanza, TimedOut
from waD.link.pending import id_prefix
from waD.link.stanzas import raise_for_error
from waD.link.websocket import OpenStream, WatchedStream, open_stream, translate, upgrade
from waD.wire.node import Node
from waD.wire.noise import ClientHandshake

MAX_UNSENT: Final = 64
"""Frames waiting for the writer above which nothing more is read."""


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """How a connection behaves.

    Attributes:
        engine: times after the websocket is open.
        dial_timeout_s: for name, TCP, TLS and upgrade together.
        stanza_buffer: stanzas that may wait for their reader before reading stops.
        max_in_flight: requests open at a time; more wait their turn (chapter 06 §12).
        goodbye_s: how long a wanted close may take to flush and say goodbye.
    """

    engine: EngineSettings = field(default_factory=EngineSettings)
    dial_timeout_s: float = 20.0
    stanza_buffer: int = 256
    max_in_flight: int = 5
    goodbye_s: float = 1.0


class _Waiter:
    """Somebody waiting for an answer or for a write."""

    __slots__ = ("event", "outcome")

    def __init__(self) -> None:
        self.event = trio.Event()
        self.outcome: Node | BaseException | None = None

    def settle(self, outcome: Node | BaseException | None) -> None:
        self.outcome = outcome
        self.event.set()

    async def wait(self) -> Node | None:
        await self.event.wait()
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


class Connection:
    """An established connection; made by `connect`.

    Attributes:
        stanzas: received stanzas in order; ends when the connection does. Whoever reads it must not await `request`
            in the same task: the answer may be behind a stanza that is not taken yet.
        on_health: called with True or False when the health changes.
        may_write: asked before anything is written; False ends the connection as `lease_lost`, with nothing said.
    """

    def __init__(
        self, endpoint: Endpoint, engine_of: Callable[[float], Engine], settings: LinkSettings
    ) -> None:
        self.on_health: Callable[[bool], None] | None = None
        self.may_write: Callable[[], bool] = _always
        self._endpoint = endpoint
        self._settings = settings
        self._engine_of = engine_of
        self._engine: Engine | None = None
        self._dialed_at = trio.current_time()
        self._into_stanzas, self.stanzas = trio.open_memory_channel[Node](settings.stanza_buffer)
        self._requests: dict[str, _Waiter] = {}
        self._writes: list[_Waiter] = []
        self._success = _Waiter()
        self._wake_writer = trio.Event()
        self._wake_clock = trio.Event()
        self._clock_set_to = float("inf")
        self._written = trio.Event()
        self._turns = trio.Semaphore(settings.max_in_flight)
        self._directory = trio.Lock()
        self._scope: trio.CancelScope | None = None
        self._websocket: WebSocketConnection | None = None
        self._cause: Cause | None = None
        self._over = trio.Event()
        self._leaving = False

    # What users call.

    @property
    def cause(self) -> Cause | None:
        """Why the connection ends or ended, as soon as it is known."""
        return self._cause or (self._engine.cause if self._engine is not None else None)

    @property
    def healthy(self) -> bool:
        """Whether frames arrive when they should; False after a ping without an answer for 5 s."""
        return self._engine is not None and self._engine.healthy

    @property
    def latency_s(self) -> float | None:
        """Seconds between the last answered ping and its answer."""
        return None if self._engine is None else self._engine.latency_s

    @property
    def unacked(self) -> int:
        """Messages sent on this connection that the server has not acknowledged."""
        return 0 if self._engine is None else self._engine.unacked

    @property
    def age_s(self) -> float:
        """Seconds since the dial began."""
        return trio.current_time() - self._dialed_at

    def next_id(self) -> str:
        """A fresh id of this connection."""
        return self._running().next_id()

    async def success(self) -> Node:
        """Wait for the `<success>` of a login; raises Disconnected when something else comes."""
        node = await self._success.wait()
        assert node is not None
        return node

    async def request(self, node: Node, timeout: float | None = None) -> Node:  # noqa: ASYNC109 - the iq's own
        """Send an iq and return its result.

        The id, and the server as `to`, are filled in. At most five requests are on their way at a time, and one
        directory query; `timeout` (seconds, default 60) counts from the moment of sending.

        Raises:
            RequestError: the server refused.
            RequestTimeout: no answer; whether the server acted is not known.
            Disconnected: the connection ended; likewise.
            WireError: the node cannot be encoded.
        """
        if node.attrs.get("xmlns") == "usync":
            async with self._directory, self._turns:
                return await self._request(node, timeout)
        async with self._turns:
            return await self._request(node, timeout)

    async def send(self, node: Node) -> None:
        """Send a stanza; returns when it was handed to the socket.

        Raises:
            Disconnected: the connection ends; whether the stanza arrived is not known.
            WireError: the node cannot be encoded.
        """
        await self.send_all((node,))

    async def send_all(self, nodes: Iterable[Node]) -> None:
        """Send stanzas in their order; returns when the last one was handed to the socket.

        Raises:
            Disconnected: the connection ends; which of them arrived is not known.
            WireError: a node cannot be encoded; those before it are sent.
        """
        engine = self._running()
        try:
            for node in nodes:
                engine.send(node, trio.current_time())
        finally:
            self._wake_writer.set()
        waiter = _Waiter()
        self._writes.append(waiter)
        await waiter.wait()

    def mark_open(self) -> None:
        """The session is open: `active` was answered."""
        self._running().mark_open()

    def expect_restart(self) -> None:
        """The pairing reply was written: any end counts as 515 from now on."""
        self._running().expect_restart()

    def fail(self, reason: Cause) -> None:
        """End the connection for a reason of our own; a cause of higher precedence stays."""
        if self._engine is None:
            self._end(reason)
        else:
            self._handle_all(self._engine.fail(reason, trio.current_time()))

    async def wait_ended(self) -> Cause:
        """Wait for the end; inside the block of `connect` the cancellation that ends the block may come first."""
        await self._over.wait()
        assert self._cause is not None
        return self._cause

    # Requests.

    def _running(self) -> Engine:
        if self._cause is not None:
            raise Disconnected(self._cause)
        if self._engine is None:
            raise RuntimeError("the connection is not established yet")
        return self._engine

    async def _request(self, node: Node, timeout_s: float | None) -> Node:
        engine = self._running()
        request_id = engine.request(node, trio.current_time(), timeout_s)
        waiter = self._requests[request_id] = _Waiter()
        self._wake_writer.set()
        self._rearm()
        try:
            reply = await waiter.wait()
        finally:
            self._requests.pop(request_id, None)
            engine.forget(request_id)
        assert reply is not None
        return raise_for_error(reply, f"{node.text('type', '')} {node.text('xmlns', 'iq')}")

    # Tasks.

    async def run(
        self,
        nursery: trio.Nursery,
        dial: OpenStream,
        routing_info: bytes | None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Dial, shake hands, report, and read until the end. Started by `connect` only."""
        self._scope = nursery.cancel_scope
        stream: trio.abc.Stream | None = None
        try:
            with trio.fail_after(self._settings.dial_timeout_s) as deadline:
                stream = await dial(self._endpoint)
                watched = WatchedStream(stream)
                async with trio.open_nursery() as sockets:
                    self._websocket = await upgrade(sockets, watched, self._endpoint, routing_info)
                    deadline.deadline = float("inf")
                    self._engine = self._engine_of(self._dialed_at)
                    sockets.start_soon(self._write, self._websocket, self._engine)
                    sockets.start_soon(self._watch_clock, self._engine)
                    await self._read(self._websocket, self._engine, task_status)
        except Exception as error:  # the one place where foreign exceptions become causes
            self._end_with(error)
        finally:
            if stream is not None:
                await trio.aclose_forcefully(stream)
        # Ended before the handshake: `start` must see the cancellation, not a task that merely returned.
        await trio.lowlevel.checkpoint()

    def _end_with(self, error: Exception) -> None:
        found = translate(error, self._endpoint)
        if found is None:
            raise error
        if self._engine is None:
            self._end(found.at(age_s=self.age_s, was_open=False, reached=False))
        elif self._cause is None:
            self._handle_all(self._engine.end_of_stream(trio.current_time()))

    async def _read(
        self, websocket: WebSocketConnection, engine: Engine, task_status: trio.TaskStatus[None]
    ) -> None:
        while not engine.ended:
            try:
                message = await websocket.get_message()
            except ConnectionClosed:
                reason = _closed_by_us() if self._leaving else None
                self._handle_all(engine.end_of_stream(trio.current_time(), reason))
                return
            if isinstance(message, str):
                continue
            engine.receive(message, trio.current_time())
            del message
            while (event := engine.next_event(trio.current_time())) is not None:
                if isinstance(event, Stanza):
                    await self._deliver(event.node, engine)
                elif isinstance(event, Established):
                    task_status.started()
                else:
                    self._handle(event)
            await self._after_reading(engine)

    async def _after_reading(self, engine: Engine) -> None:
        """Wake whoever has work now; wait while the peer makes us write more than it reads."""
        self._rearm()
        if engine.unsent:
            self._wake_writer.set()
        while engine.unsent > MAX_UNSENT:
            await self._written.wait()

    async def _deliver(self, node: Node, engine: Engine) -> None:
        try:
            self._into_stanzas.send_nowait(node)
        except trio.WouldBlock:
            engine.pause(trio.current_time())
            self._rearm()
            try:
                await self._into_stanzas.send(node)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            finally:
                engine.resume(trio.current_time())
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # Whoever read the stanzas is gone and answers nothing: the server delivers them again.
            pass

    async def _write(self, websocket: WebSocketConnection, engine: Engine) -> None:
        while not engine.ended:
            if engine.unsent and not self.may_write():
                self.fail(cause("lease_lost", "the lease of the session has run out"))
                return
            data = engine.data_to_send()
            waiting, self._writes = self._writes, []
            if not data:
                for waiter in waiting:
                    waiter.settle(None)
                await self._wake_writer.wait()
                self._wake_writer = trio.Event()
                continue
            try:
                await websocket.send_message(data)
            except ConnectionClosed:
                self._writes = waiting + self._writes
                # The reader may still find the server's reason in what arrived before.
                return
            except BaseException:
                self._writes = waiting + self._writes
                raise
            for waiter in waiting:
                waiter.settle(None)
            self._written.set()
            self._written = trio.Event()

    async def _watch_clock(self, engine: Engine) -> None:
        while not engine.ended:
            deadline = engine.next_deadline()
            self._clock_set_to = float("inf") if deadline is None else deadline
            with trio.move_on_at(self._clock_set_to):
                await self._wake_clock.wait()
            self._wake_clock = trio.Event()
            self._handle_all(engine.tick(trio.current_time()))
            if engine.unsent:
                self._wake_writer.set()

    def _rearm(self) -> None:
        deadline = None if self._engine is None else self._engine.next_deadline()
        if deadline is not None and deadline < self._clock_set_to:
            self._wake_clock.set()

    # Events.

    def _handle_all(self, events: list[Event]) -> None:
        for event in events:
            self._handle(event)

    def _handle(self, event: Event) -> None:
        match event:
            case Reply(request_id, node):
                if (waiter := self._requests.get(request_id)) is not None:
                    waiter.settle(node)
            case TimedOut(request_id, subject, seconds):
                if (waiter := self._requests.get(request_id)) is not None:
                    waiter.settle(RequestTimeout(subject, seconds))
            case LoggedIn(node):
                self._success.settle(node)
            case Health(healthy):
                if self.on_health is not None:
                    self.on_health(healthy)
            case Closing(reason):
                self._into_stanzas.close()
                self._fail_waiters(reason)
            case Ended(reason):
                self._end(reason)
            case _:
                pass

    def _end(self, reason: Cause) -> None:
        if self._cause is not None:
            return
        self._cause = reason
        self._over.set()
        self._into_stanzas.close()
        self._fail_waiters(reason)
        if self._scope is not None:
            self._scope.cancel()

    def _fail_waiters(self, reason: Cause) -> None:
        waiters = [*self._requests.values(), *self._writes]
        self._writes = []
        for waiter in waiters:
            waiter.settle(Disconnected(reason))
        if not self._success.event.is_set():
            self._success.settle(Disconnected(reason))

    def close(self) -> None:
        """The block is being left: nobody waits in vain any more. What the server had said stays the cause."""
        engine = self._engine
        if engine is not None and engine.cause is not None and not engine.ended:
            self._handle_all(engine.end_of_stream(trio.current_time()))
        elif self._cause is None:
            self.fail(_closed_by_us())
        if self._cause is not None:
            # Those whose write was cut short by the end got their place in the list back only now.
            self._fail_waiters(self._cause)

    async def goodbye(self) -> None:
        """Flush and close in the regular way, within `goodbye_s`."""
        websocket, engine = self._websocket, self._engine
        if websocket is None or engine is None or engine.cause is not None:
            return
        self._leaving = True
        with trio.move_on_after(self._settings.goodbye_s):
            while engine.unsent and not engine.ended:
                self._wake_writer.set()
                await self._written.wait()
            await websocket.aclose(1000)


@asynccontextmanager
async def connect(
    endpoint: Endpoint,
    credentials: Credentials,
    payload: bytes,
    settings: LinkSettings | None = None,
    *,
    random: Callable[[int], bytes],
    unix_time: Callable[[], float] = time.time,
    dial: OpenStream = open_stream,
    use_routing: bool = True,
) -> AsyncIterator[Connection]:
    """Connect, prove both sides to each other, and run the connection for the life of the block.

    The block begins when the handshake is complete: then wait for `success`, or read `stanzas` when pairing. When the
    connection ends first, the block is cancelled and Disconnected comes out of it, with exactly one cause. Leaving
    the block closes the connection.

    Args:
        endpoint: where, and whose certificate counts.
        credentials: noise key, registration state, routing information.
        payload: serialised ClientPayload.
        settings: times and limits.
        random: source of unpredictable bytes.
        unix_time: for the validity of the server's certificate only.
        dial: opens the stream under the websocket; tests pass their own.
        use_routing: False leaves stored routing information out, for the try after a failed handshake.

    Raises:
        Disconnected: the connection could not be made or is over.
    """
    routing_info = credentials.routing_info if use_routing else None

    def engine_of(dialed_at: float) -> Engine:
        handshake = ClientHandshake(
            credentials.noise, KeyPair.generate(random), payload, endpoint.root_key, int(unix_time())
        )
        return Engine(
            handshake,
            prefix=id_prefix(random(4)),
            draw=_insecure.random,
            now=trio.current_time(),
            registered=credentials.registered,
            dialed_at=dialed_at,
            routing_info=routing_info,
            settings=(settings or LinkSettings()).engine,
        )

    connection = Connection(endpoint, engine_of, settings or LinkSettings())
    finished, failure = False, None
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(connection.run, nursery, dial, routing_info)
            yield connection
            finished = connection.cause is None
            await connection.goodbye()
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        is_over = connection.cause is not None
        connection.close()
        failure = _unwrapped(group, connection.cause if is_over else None)
    finally:
        connection.close()
    if failure is not None:
        raise failure
    if connection.cause is not None and not finished:
        raise Disconnected(connection.cause)


def _always() -> bool:
    return True


def _closed_by_us() -> Cause:
    return cause("stop", "the connection was closed")


def _unwrapped(group: BaseExceptionGroup[BaseException], reason: Cause | None) -> BaseException:
    """What the user should see of the group our nursery made."""
    ends, others = group.split(Disconnected)
    if others is None and ends is not None:
        return Disconnected(reason) if reason is not None else _first(ends)
    assert others is not None
    if others.split(trio.Cancelled)[1] is None:
        return others
    return group.exceptions[0] if len(group.exceptions) == 1 else group


def _first(group: BaseExceptionGroup[Disconnected]) -> BaseException:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
