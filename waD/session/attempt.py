"""One connection of a session, from waiting for its turn to the one cause of its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal, NoReturn, Protocol, TypeAlias

import trio

from waD.link.causes import Cause, cause
from waD.link.credentials import Credentials, new_credentials
from waD.link.qr import QrCode
from waD.messaging.account import Account
from waD.session.doors import Doors, Link, Login
from waD.session.faults import cause_of, without_cancellation
from waD.session.turns import Turn, Turns
from waD.session.vitals import Clock
from waD.store.state import SessionState
from waD.wire.jid import JID

if TYPE_CHECKING:
    from waD.messaging.facade import Messaging

CONNECTING_MAX_S: Final = 240.0
"""Longest time from the dial to `open` (chapter 02 §5.2); each step has a shorter deadline of its own."""
PAIRING_MAX_S: Final = 900.0
"""Longest time that an unpaired connection is kept, whatever the server sends."""
DEAF_LOGINS: Final = 3
"""Logins in a row whose backlog never ends that make the connection deaf (chapter 02 §5.2)."""

Order: TypeAlias = Literal["stop", "logout"]


class Listener(Protocol):
    """Who is told how far the connection came; each call makes it durable before it returns."""

    name: str
    silent_backlogs: int

    async def connecting(self) -> None:
        """The dial begins."""
        ...

    async def pairing(self) -> None:
        """The handshake of an unpaired device is complete."""
        ...

    async def show(self, code: QrCode) -> None:
        """There is a code to scan."""
        ...

    async def opened(self, login: Login) -> None:
        """The session is open."""
        ...

    async def ready_now(self) -> None:
        """The work after the login is done."""
        ...

    async def stable(self) -> None:
        """It has been open for long enough."""
        ...

    async def health(self, *, healthy: bool) -> None:
        """The connection became healthy or unhealthy."""
        ...


class Attempt:
    """One connection; `run` it once.

    Args:
        doors: the ways out.
        messaging: the session's messaging.
        listener: who is told.
        turns: from which to take one for the time of the login.
        use_routing: whether to send stored routing information.
        accept: says whether this account may be paired.
        stable_after_s: seconds of `open` that count as stable.

    Attributes:
        was_pairing: it began unpaired.
        routed: routing information was sent.
        reached: the handshake was completed.
        unlinked: WhatsApp confirmed the logout.
        link: the connection, while it is open.
    """

    def __init__(
        self,
        doors: Doors,
        messaging: Messaging,
        listener: Listener,
        turns: Turns,
        *,
        use_routing: bool,
        accept: Callable[[JID], bool],
        stable_after_s: float,
    ) -> None:
        self.was_pairing = False
        self.routed = False
        self.reached = False
        self.unlinked = False
        self.link: Link | None = None
        self._doors = doors
        self._messaging = messaging
        self._listener = listener
        self._turns = turns
        self._use_routing = use_routing
        self._accept = accept
        self._stable_after_s = stable_after_s
        self._order: Order | None = None
        self._scope = trio.CancelScope()
        self._work: trio.CancelScope | None = None
        self._began: float | None = None
        self._open = trio.Event()
        self._healthy = True
        self._health_changed = trio.Event()
        self._recovered = trio.Event()

    def stop(self, order: Order) -> None:
        """End it in an orderly way, as soon as possible."""
        self._order = self._order or order
        (self._work or self._scope).cancel()

    async def run(self) -> Cause:
        """Connect and stay until the end, whose cause is returned."""
        found: Cause | None = None
        try:
            with self._scope:
                await self._connect()
        except BaseExceptionGroup as group:
            error, cancelled = without_cancellation(group)
            found = None if error is None else self._known(error)
            if cancelled is not None:
                raise cancelled from None
        except Exception as error:  # whatever it was ends this session's connection only
            found = self._known(error)
        return self._final(found)

    def _known(self, error: Exception) -> Cause:
        return cause_of(error, self._listener.name)

    def _final(self, found: Cause | None) -> Cause:
        if self._order is not None and (found is None or found.id != "lease_lost"):
            self.unlinked = self.unlinked or (found is not None and found.id == "unlinked")
            found = cause(self._order, "ended by order")
        elif found is None and self.was_pairing:
            found = cause("qr_exhausted", f"nobody paired within {PAIRING_MAX_S:g} s")
        elif found is None:
            found = cause("login_timeout", f"not open within {CONNECTING_MAX_S:g} s")
        if found.age_s:
            return found
        return found.at(age_s=self._age_s, was_open=self._open.is_set(), reached=self.reached)

    @property
    def _age_s(self) -> float:
        return 0.0 if self._began is None else trio.current_time() - self._began

    async def _connect(self) -> None:
        credentials = await self._messaging.context.account.credentials()
        self.was_pairing = not credentials.registered
        turn = await self._turns.take()
        try:
            await self._listener.connecting()
            self._began = trio.current_time()
            self._scope.deadline = self._began + (PAIRING_MAX_S if self.was_pairing else CONNECTING_MAX_S)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(turn.give_back_late)
                await self._run_connection(credentials, turn)
                nursery.cancel_scope.cancel()
        finally:
            self.link = None
            turn.give_back()

    async def _run_connection(self, credentials: Credentials, turn: Turn) -> None:
        self.routed = self._use_routing and credentials.routing_info is not None
        async with self._doors.connect(credentials, use_routing=self._use_routing) as link:
            self.reached = True
            link.on_health = self._note_health
            with trio.CancelScope() as self._work:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._report_health)
                    if self.was_pairing:
                        await self._pair(link, turn)
                    nursery.start_soon(self._watch_stable)
                    await self._log_in(link, turn)
            # Leaving the block says goodbye; an order to log out says it by name first.
            if self._order == "logout" and self._open.is_set() and credentials.me_pn is not None:
                self.unlinked = await self._doors.unlink(link, credentials.me_pn)

    async def _pair(self, link: Link, turn: Turn) -> NoReturn:
        turn.give_back()
        await self._listener.pairing()
        await self._doors.pair(link, self._messaging.context.account, self._listener.show, self._accept)

    async def _log_in(self, link: Link, turn: Turn) -> NoReturn:
        login = self._doors.login(link, self._messaging)

        async def opened() -> None:
            turn.give_back()
            self._scope.deadline = float("inf")
            await self._listener.opened(login)
            self._open.set()
            self.link = link

        async def ready() -> None:
            self._judge_backlog(link, login)
            await self._listener.ready_now()

        await login.run(opened=opened, ready=ready)
        raise RuntimeError("the run of a connection ended before the connection")

    def _judge_backlog(self, link: Link, login: Login) -> None:
        silent = self._listener.silent_backlogs + 1 if login.backlog_timed_out else 0
        self._listener.silent_backlogs = silent % DEAF_LOGINS
        if silent == DEAF_LOGINS:
            link.fail(cause("deaf", f"the backlog did not end after {silent} logins in a row"))

    async def _watch_stable(self) -> None:
        await self._open.wait()
        await trio.sleep(self._stable_after_s)
        while not self._healthy:
            await self._recovered.wait()
        await self._listener.stable()

    def _note_health(self, healthy: bool) -> None:
        self._healthy = healthy
        self._health_changed.set()
        if healthy:
            self._recovered.set()
        else:
            self._recovered = trio.Event()

    async def _report_health(self) -> None:
        told = True
        while True:
            await self._health_changed.wait()
            self._health_changed = trio.Event()
            if self._healthy != told:
                told = self._healthy
                await self._listener.health(healthy=told)


async def ensure_credentials(state: SessionState, account: Account, clock: Clock) -> None:
    """See that credentials exist, and are durable, before a connection uses them.

    Raises:
        CredentialsError: those that are stored cannot be read.
        StoreError: nothing was changed.
    """
    if state.creds is None:
        async with state.lock:
            unit = state.unit()
            unit.set_creds(new_credentials(clock.random, clock.unix_ms()).serialize())
            await state.commit(unit)
    elif not account.paired:
        await account.change_credentials(lambda now: now.repaired(clock.random))
