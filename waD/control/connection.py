"""One client: its requests in, its answers and events out, for as long as both ends want it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

import msgspec
import trio

from waD.control.api import ControlError, Daemon, Sessions
from waD.control.caller import called_by
from waD.control.faults import refusal
from waD.control.framing import LineBuffer, TooLong
from waD.control.hangup import wait_hangup
from waD.control.method import Call, Method
from waD.control.methods import METHODS
from waD.control.outbox import Outbox, Unread
from waD.control.peers import Peer
from waD.control.requests import (
    Malformed,
    Request,
    answer_line,
    convert_params,
    error_line,
    parse_request,
    too_long,
)
from waD.control.settings import Limits
from waD.control.shields import Shields
from waD.control.subscriptions import Subscriptions
from waD.control.types import MAX_LINE, ROLE_RANK, Role

CHUNK: Final = 65_536

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """What all connections share."""

    sessions: Sessions
    daemon: Daemon
    shields: Shields
    version: str


class Connection:
    """Runs one client's connection.

    It ends when the client hangs up; when the client has sent its last word and all it asked for is answered;
    when it reads nothing for too long; and when the daemon stops.

    Attributes:
        peer: who the client is.
        role: what it may do; the server changes it when the settings change.
    """

    def __init__(
        self, stream: trio.SocketStream, peer: Peer, role: Role, service: Service, limits: Limits
    ) -> None:
        self.peer = peer
        self.role: Role = role
        self._stream = stream
        self._service = service
        self._limits = limits
        self._outbox = Outbox(stream.socket, limits.write_timeout)
        self._slots = trio.Semaphore(limits.requests)
        self._running = 0
        self._waits: set[trio.CancelScope] = set()
        self._draining = False
        self._scope = trio.CancelScope()
        self._reading = trio.CancelScope()
        self._subscriptions: Subscriptions | None = None

    async def run(self) -> None:
        """Serve the client until the end."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch)
                nursery.start_soon(self._write)
                async with trio.open_nursery() as work:
                    self._subscriptions = Subscriptions(
                        self._service.sessions,
                        self._outbox,
                        work,
                        lambda: self.role,
                        self._limits.subscriptions,
                    )
                    await self._read(work, self._subscriptions)
                await self._outbox.finish()
                nursery.cancel_scope.cancel()

    def drain(self) -> None:
        """Wind up: end waits and subscriptions, refuse new requests, end when the rest is answered."""
        self._draining = True
        for scope in self._waits:
            scope.cancel()
        if self._subscriptions is not None:
            self._subscriptions.stop()
        self._end_if_drained()

    def cut(self) -> None:
        """End at once; commands in progress are finished without it."""
        self._scope.cancel()

    async def _watch(self) -> None:
        await wait_hangup(self._stream.socket)
        self._scope.cancel()

    async def _write(self) -> None:
        try:
            await self._outbox.write()
        except Unread:
            _log.warning(
                "user %d, process %d: read nothing for %g s, cut off",
                self.peer.uid,
                self.peer.pid,
                self._limits.write_timeout,
            )
            self._scope.cancel()
        except OSError:
            self._scope.cancel()

    async def _read(self, work: trio.Nursery, subscriptions: Subscriptions) -> None:
        """Take requests until the client has sent its last, or the daemon has drained."""
        buffer = LineBuffer()
        with self._reading:
            while data := await self._receive():
                buffer.feed(data)
                while (line := buffer.next()) is not None:
                    await self._take(line, work, subscriptions)
            if (line := buffer.rest()) is not None:
                await self._take(line, work, subscriptions)

    async def _receive(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(CHUNK))
        except trio.BrokenResourceError:  # it closed with our answers unread: a hang-up
            self._scope.cancel()
            return b""

    async def _take(self, line: bytes | TooLong, work: trio.Nursery, subscriptions: Subscriptions) -> None:
        """Start on a line; return when the next may be read."""
        if isinstance(line, TooLong):
            await self._outbox.put(error_line(None, too_long(MAX_LINE)))
            return
        try:
            request = parse_request(line)
        except Malformed as malformed:
            await self._outbox.put(error_line(malformed.id, malformed.error))
            return
        await self._slots.acquire()
        self._running += 1
        method = METHODS.get(request.method)
        if method is not None and method.in_order:
            await self._perform(request, method, subscriptions)
        else:
            work.start_soon(self._perform, request, method, subscriptions)

    async def _perform(self, request: Request, method: Method | None, subscriptions: Subscriptions) -> None:
        """Run a request and answer it, whatever comes of it."""
        service = self._service
        call = Call(service.sessions, service.daemon, self.role, subscriptions, service.version)
        try:
            try:
                line = answer_line(request.id, await self._run_method(request, method, call))
            except (
                Exception
            ) as error:  # becomes the answer: refused by name, or a fault with a reference in the log
                line = _failure(request, error, method.name if method else "the control server")
            await self._outbox.put(line)
            for then in call.after_answer:
                then()
        finally:
            self._running -= 1
            self._slots.release()
            self._end_if_drained()

    async def _run_method(self, request: Request, method: Method | None, call: Call) -> msgspec.Struct:
        if method is None:
            raise ControlError(
                "unknown_method", f"there is no method {request.method[:64]!r}; see waD-control(7)", {}
            )
        if self._draining:
            raise _shutting_down()
        if ROLE_RANK[call.role] < ROLE_RANK[method.needs]:
            raise _not_permitted(method.needs, call.role)
        params = convert_params(request.params, method.params)
        if method.kind == "command":
            _log.info("user %d, process %d: %s", self.peer.uid, self.peer.pid, method.name)
            with self._service.shields.protect(), called_by(self.peer.uid):
                return await method.handler(call, params)
        if method.kind == "wait":
            return await self._run_wait(method, call, params)
        return await method.handler(call, params)

    async def _run_wait(self, method: Method, call: Call, params: msgspec.Struct) -> msgspec.Struct:
        with trio.CancelScope() as scope:
            self._waits.add(scope)
            try:
                return await method.handler(call, params)
            finally:
                self._waits.discard(scope)
        raise _shutting_down()

    def _end_if_drained(self) -> None:
        if self._draining and not self._running:
            self._reading.cancel()


def _failure(request: Request, error: Exception, subject: str) -> bytes:
    """Encode what went wrong, also if what went wrong cannot be encoded."""
    try:
        return error_line(request.id, refusal(error, subject))
    except Exception as fault:  # the refusal itself could not be encoded; this one has nothing of it
        return error_line(request.id, refusal(fault, subject))


async def turn_away(stream: trio.SocketStream, limits: Limits) -> None:
    """Answer the first request of a caller without a role, so that it learns why, and leave it at that."""
    buffer = LineBuffer()
    with trio.move_on_after(limits.first_request):
        try:
            while (line := buffer.next()) is None:
                data = await stream.receive_some(CHUNK)
                buffer.feed(bytes(data))
                if not data:
                    line = buffer.rest()
                    break
            if line is not None:
                await stream.send_all(_refuse(line))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return


def _refuse(line: bytes | TooLong) -> bytes:
    if isinstance(line, TooLong):
        return error_line(None, too_long(MAX_LINE))
    try:
        request = parse_request(line)
    except Malformed as malformed:
        return error_line(malformed.id, malformed.error)
    method = METHODS.get(request.method)
    return error_line(request.id, _not_permitted(method.needs if method else "observer", None))


def _not_permitted(needs: Role, role: Role | None) -> ControlError:
    have = f"you are {role}" if role else "you have none"
    return ControlError(
        "not_permitted",
        f"this needs the role {needs}, {have}; the administrator gives roles in [control.roles] of the daemon's "
        f"settings",
        {"needs": needs, "role": role},
    )


def _shutting_down() -> ControlError:
    return ControlError("shutting_down", "the daemon is stopping; try again when it is back")
