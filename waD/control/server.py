"""The control server: accepts clients, keeps them within limits, and lets them go in order when it stops."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeAlias

import trio

from waD import __version__
from waD.control.api import ControlError, Daemon, Sessions
from waD.control.connection import Connection, Service, turn_away
from waD.control.faults import report
from waD.control.peers import Peer, RoleTable, peer_of
from waD.control.requests import error_line
from waD.control.settings import ControlSettings
from waD.control.shields import Shields

_log = logging.getLogger(__name__)

Credentials: TypeAlias = Callable[[trio.socket.SocketType], Peer]
Listener: TypeAlias = trio.abc.Listener[trio.SocketStream]


class ControlServer:
    """Answers the control protocol on any number of listeners. Serves once.

    Args:
        sessions: what the methods act on.
        daemon: the process they run in.
        settings: roles and limits.
        version: what `daemon.ping` says.
        credentials: how a client is known.

    Raises:
        UnknownAccount: the settings give a role to somebody this machine does not know.
    """

    def __init__(
        self,
        sessions: Sessions,
        daemon: Daemon,
        settings: ControlSettings | None = None,
        *,
        version: str = __version__,
        credentials: Credentials = peer_of,
    ) -> None:
        self._settings = settings or ControlSettings()
        self._roles = RoleTable.resolve(self._settings.roles)
        self._shields = Shields()
        self._service = Service(sessions, daemon, self._shields, version)
        self._credentials = credentials
        self._accepting = trio.CancelScope()
        self._connections: set[Connection] = set()
        self._clients: Counter[int] = Counter()
        self._all_gone = trio.Event()
        self._stopping = False

    @property
    def clients(self) -> int:
        """How many clients are connected, for metrics and tests."""
        return self._clients.total()

    async def serve(
        self,
        listeners: Sequence[Listener],
        *,
        task_status: trio.TaskStatus[list[Listener]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until `stop`; started when clients can connect. The listeners are closed at the end.

        A stop closes the listeners, ends waits and subscriptions, lets commands in progress finish for
        `Limits.drain` seconds, and then cancels what is left. Cancelling this cancels everything at once.
        """
        async with trio.open_nursery() as clients:
            try:
                with self._accepting:
                    await trio.serve_listeners(
                        self._client, list(listeners), handler_nursery=clients, task_status=task_status
                    )
                await self._drain()
            finally:
                self._shields.lift()
            clients.cancel_scope.cancel()

    def stop(self) -> None:
        """Ask `serve` to wind up; return at once."""
        self._stopping = True
        self._accepting.cancel()

    def reconfigure(self, settings: ControlSettings) -> None:
        """Put new roles and limits in force: roles for every client, limits for those that come.

        A client that has lost its role is cut off.

        Raises:
            UnknownAccount: as the constructor; nothing changes then.
        """
        self._roles = RoleTable.resolve(settings.roles)
        self._settings = settings
        for connection in self._connections:
            role = self._roles.role_of(connection.peer)
            if role is None:
                connection.cut()
            else:
                connection.role = role

    async def _drain(self) -> None:
        for connection in self._connections:
            connection.drain()
        if self._clients:
            with trio.move_on_after(self._settings.limits.drain) as scope:
                await self._all_gone.wait()
            if scope.cancelled_caught:
                _log.warning("%d control clients were cut off at the stop", self._clients.total())

    async def _client(self, stream: trio.SocketStream) -> None:
        """Serve one client. Nothing that goes wrong in it reaches another."""
        try:
            try:
                await self._admit(stream, self._credentials(stream.socket))
            finally:
                stream.socket.close()  # not aclose(): its checkpoint would put a Cancelled before a fault
        except OSError as error:
            _log.warning("a control client was lost: %s", error.strerror)
        except Exception as error:  # one client's trouble; the server and the sessions go on
            report(error, "a control connection")
        except BaseExceptionGroup as group:
            faults, rest = group.split(Exception)
            if faults:
                report(faults, "a control connection")
            if rest:
                raise rest from None

    async def _admit(self, stream: trio.SocketStream, peer: Peer) -> None:
        role = self._roles.role_of(peer)
        limits = self._settings.limits
        if self._stopping:
            return
        if over := self._limit_reached(peer, is_admin=role == "admin"):
            _log.warning("user %d: too many control connections (%s)", peer.uid, over)
            await _say(stream, _too_many(over, getattr(limits, over)), limits.first_request)
            return
        self._clients[peer.uid] += 1
        try:
            if role is None:
                _log.warning("user %d, process %d: no role, turned away", peer.uid, peer.pid)
                await turn_away(stream, limits)
            else:
                await self._run(Connection(stream, peer, role, self._service, limits))
        finally:
            self._forget(peer)

    async def _run(self, connection: Connection) -> None:
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)

    def _limit_reached(self, peer: Peer, *, is_admin: bool) -> str | None:
        """Name the limit that one more client would break. Administrators always find room among the others."""
        limits = self._settings.limits
        if self._clients[peer.uid] >= limits.connections_per_uid:
            return "connections_per_uid"
        if not is_admin and self._clients.total() >= limits.connections:
            return "connections"
        return None

    def _forget(self, peer: Peer) -> None:
        self._clients[peer.uid] -= 1
        self._clients += Counter()  # drops the zeros
        if self._stopping and not self._clients:
            self._all_gone.set()


def _too_many(limit: str, most: int) -> ControlError:
    return ControlError(
        "refused", f"there are {most} control connections already ({limit}); close some", {"limit": limit}
    )


async def _say(stream: trio.SocketStream, error: ControlError, within_s: float) -> None:
    with trio.move_on_after(within_s):
        await stream.send_all(error_line(None, error))
