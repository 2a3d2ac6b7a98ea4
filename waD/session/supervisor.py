"""The one task that owns a session's life across connections: orders in, connections and transitions out."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from waD.config import SessionSettings
from waD.link.causes import Cause, cause
from waD.link.credentials import Credentials, CredentialsError
from waD.link.devices import DeviceAnswer
from waD.link.digest import DigestUnknown, ServerKeys
from waD.link.prekeys import OneTimePreKey
from waD.session.aftermath import Aftermath
from waD.session.alerts import Alert
from waD.session.attempt import Attempt, Order, ensure_credentials
from waD.session.counters import Counters
from waD.session.doors import Doors, Link
from waD.session.faults import cause_of
from waD.session.mishaps import Announce, Mishaps
from waD.session.orders import Awaited, Busy, Errand, LoggedOut
from waD.session.policy import Decision
from waD.session.record import COUNTERS, alerts_of, code_of, time_left_s
from waD.session.states import LIVE
from waD.session.turns import Turns
from waD.session.vitals import MS, Clock, Vitals
from waD.store.errors import LeaseLost, StoreError
from waD.store.state import SessionState
from waD.store.unit import Unit
from waD.wire.jid import JID

if TYPE_CHECKING:
    from waD.messaging.facade import Messaging

T = TypeVar("T")

AT_REST: Final = frozenset({"new", "stopped"})
FRESH_END: Final = "eof_fresh"

_log = logging.getLogger(__name__)

LEASE_LOOK_S: Final = 1.0
"""Between two looks whether a lease that has run out was renewed."""


class Supervisor:
    """Owns one session. `run` is its task; orders may be given from any task of the same loop.

    Args:
        state: the session's state, attached.
        doors: the ways out.
        settings: the session's settings, asked for anew at each use.
        clock: time and chance.
        turns: shared by all sessions.
        announce: makes an event of the session durable without owning it.

    Attributes:
        vitals: the session as others see it.
        messaging: the session's messaging; another one after the credentials were cleared.
        lost: another process took the session over; nothing is done for it here any more.
        asleep: this process makes no connections, whatever is wanted.
    """

    def __init__(
        self,
        state: SessionState,
        doors: Doors,
        settings: Callable[[], SessionSettings],
        clock: Clock,
        turns: Turns,
        announce: Announce,
    ) -> None:
        self.vitals = Vitals(state, settings, clock)
        self.messaging: Messaging = doors.messaging(state)
        self.lost = False
        self.asleep = False
        self._state = state
        self._doors = doors
        self._settings = settings
        self._clock = clock
        self._turns = turns
        self._mishaps = Mishaps(state, self.vitals, announce)
        self._up = state.row.desired_state == "up"
        self._held = state.row.held
        self._aftermath = Aftermath(state, doors, settings, clock, self.vitals)
        self._due: float | None = None
        self._use_routing = True
        self._attempt: Attempt | None = None
        self._logout: Awaited[LoggedOut] | None = None
        self._errand: Errand[Any] | None = None
        self._halting = False
        self._wake = trio.Event()

    @property
    def state(self) -> SessionState:
        """The session's state."""
        return self._state

    @property
    def held(self) -> bool:
        """Whether the operator keeps it down."""
        return self._held

    @property
    def wanted(self) -> bool:
        """Whether a connection is wanted."""
        return self._up and not (self._held or self.lost or self.asleep or self._halting)

    @property
    def paired(self) -> bool:
        """Whether the stored credentials are those of a linked device; True when they cannot be read."""
        try:
            return self._state.creds is not None and self.messaging.context.account.paired
        except (CredentialsError, StoreError):
            return True

    @property
    def link(self) -> Link | None:
        """The connection, while it is open."""
        return None if self._attempt is None else self._attempt.link

    # Orders.

    def connect(self) -> None:
        """Want it up, and try now if nothing is being tried."""
        self._up = True
        if self.vitals.status not in LIVE:
            if self.vitals.status != "backoff":
                self.vitals.counters = self.vitals.counters.retried()
            self._due = trio.current_time()
        self._awake()

    async def disconnect(self) -> None:
        """Want it down; returns when its connection is closed."""
        self._up = False
        await self._end("stop")

    async def hold(self) -> None:
        """Keep it down whatever is wanted, until `release`; returns when its connection is closed."""
        self._held = True
        await self._end("stop")

    def release(self) -> None:
        """Let it do what is wanted again."""
        self._held = False
        self._due = trio.current_time()
        self._awake()

    async def logout(self) -> LoggedOut:
        """Tell WhatsApp to unlink the device if there is a connection, seal and clear the credentials, stay down.

        Raises:
            StoreError: the credentials could not be cleared.
        """
        self._up = False
        order = self._logout = self._logout or Awaited()
        if self._attempt is not None:
            self._attempt.stop("logout")
        self._awake()
        return await order.wait()

    async def reset(self) -> None:
        """Forget the counters, the reason of the last disconnect, and whose the session was before it was unlinked.

        Raises:
            StoreError: nothing was changed.
        """
        await self._aftermath.forget()
        self.vitals.notify()

    async def at_rest(self, work: Callable[[], Awaitable[T]]) -> T:
        """Stay down, and exchange the credentials while there is no connection and none can begin.

        Args:
            work: exchanges them; run in the supervisor's own task.

        Raises:
            Busy: another such work is going on; nothing was done.
            whatever `work` raises; also Abandoned, when the process ends first.
        """
        if self._errand is not None:
            raise Busy("its credentials are being exchanged already; wait until that is done")
        self._up = False
        errand: Errand[T] = Errand(work)
        self._errand = errand
        if self._attempt is not None:
            self._attempt.stop("stop")
        self._awake()
        return await errand.wait()

    async def ask_keys(self, creds: Credentials, keys: Collection[OneTimePreKey]) -> ServerKeys | None:
        """What WhatsApp has of this device's keys; None when it has nothing.

        Raises:
            DigestUnknown: it does not say, or there is no connection.
            RequestTimeout, Disconnected: no answer.
        """
        link = self.link
        if link is None:
            raise DigestUnknown("there is no connection")
        return await self._doors.ask_keys(link, creds, keys)

    async def ask_devices(self, me: JID) -> DeviceAnswer:
        """What WhatsApp lists as devices of this account, this one among them.

        Raises:
            DigestUnknown: there is no connection.
            RequestError, RequestTimeout, Disconnected, MalformedReply: no answer.
        """
        link = self.link
        if link is None:
            raise DigestUnknown("there is no connection")
        return await self._doors.ask_devices(link, me)

    def settings_changed(self) -> None:
        """The configuration was read again."""
        self._doors.refresh(self.messaging)

    def halt(self) -> None:
        """The process ends: close in an orderly way; `run` returns then. What is wanted stays as it is."""
        self._halting = True
        if self._attempt is not None:
            self._attempt.stop("stop")
        self._awake()

    async def _end(self, order: Order) -> None:
        if self._attempt is not None:
            self._attempt.stop(order)
        self._awake()
        await self.vitals.until(
            lambda: self.wanted or (self._attempt is None and self.vitals.status in AT_REST)
        )

    def _awake(self) -> None:
        self._wake.set()
        self.vitals.notify()

    # The task.

    async def run(self, start_after_s: float = 0.0) -> None:
        """Supervise until `halt` or cancellation. Raises nothing else: a fault ends in a state, not in an exception.

        Args:
            start_after_s: how long to wait with the first connection.
        """
        await self._guarded(lambda: self._restore(start_after_s))
        # What was accepted is done.
        while not self._halting or self._logout is not None or self._errand is not None:
            self._wake = trio.Event()
            await self._guarded(self._step)

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except (
            Exception
        ) as error:  # ends this session visibly, with its traceback, and leaves the others alone
            await self._stumbled(error)

    async def _restore(self, start_after_s: float) -> None:
        """Take up where the last process left off."""
        vitals, now = self.vitals, trio.current_time()
        record = vitals.record
        if record is not None:
            vitals.counters = Counters.restored(record.detail.get(COUNTERS), now)
            vitals.hint = str(record.detail.get("hint", ""))
        if self._state.row.current_status in LIVE:
            vitals.hint = ""
            await vitals.enter("stopped", cause="stop")
        begin = now + start_after_s
        waits = vitals.status in ("backoff", "failed")
        left = time_left_s(record, self._clock.unix_ms()) if waits else None
        if left is not None:
            begin = max(begin, now + left)
        elif vitals.status in ("failed", "needs_pairing"):
            return
        self._plan(begin)

    def _plan(self, due: float | None) -> None:
        self._due = due
        left = None if due is None else due - trio.current_time()
        self.vitals.next_attempt_ms = None if left is None else self._clock.unix_ms() + round(left * MS)

    async def _step(self) -> None:
        if self._logout is not None:
            await self._conclude(cause("logout", "ended by order"), None)
        elif self._errand is not None:
            await self._rest()
            await self._run_errand(self._errand)
        elif not self.wanted:
            await self._rest()
            if not self.lost:  # whoever took it over is named by the hint there is
                self.vitals.hint = "" if not self._held else f"held; wactl release {self.vitals.name}"
            self.vitals.next_attempt_ms = None
            self.vitals.notify()
            await self._wake.wait()
        elif self._due is None:
            await self._wake.wait()
        elif self._due > trio.current_time():
            with trio.move_on_at(self._due):
                await self._wake.wait()
        elif not self._state.owned:
            # Nothing could be sent: wait until the lease is renewed, or turns out to be somebody else's.
            with trio.move_on_after(LEASE_LOOK_S):
                await self._wake.wait()
        else:
            await self._connect()

    async def _rest(self) -> None:
        if self.vitals.status not in AT_REST and not self.lost:
            await self.vitals.enter("stopped", cause="stop")

    async def _run_errand(self, errand: Errand[Any]) -> None:
        try:
            done = await errand.run()
        finally:
            self._errand = None
        if done:
            self.messaging = self._doors.messaging(self._state)
            self.vitals.counters, self._aftermath.account = Counters(), None

    # One connection.

    async def _connect(self) -> None:
        try:
            await ensure_credentials(self._state, self.messaging.context.account, self._clock)
        except (CredentialsError, StoreError) as error:
            await self._conclude(cause_of(error, self.vitals.name), None)
            return
        if not self.wanted or self._logout is not None or self._errand is not None:
            return  # an order came in the meantime, when there was nothing to stop yet
        attempt = Attempt(
            self._doors,
            self.messaging,
            self.vitals,
            self._turns,
            use_routing=self._use_routing,
            accept=self._aftermath.accepts,
            stable_after_s=self._settings().reconnect.stable_after_s,
        )
        self._attempt = attempt
        try:
            ended = await attempt.run()
        finally:
            self._attempt = None
            self.vitals.lost()
        # Routing information that leads nowhere is left out once (chapter 02 §5.4).
        self._use_routing = attempt.reached or not attempt.routed
        await self._conclude(ended, attempt)

    # The end of one.

    async def _conclude(self, ended: Cause, attempt: Attempt | None) -> None:
        """Record the end durably, then do what the policy says."""
        if ended.id == "lease_lost":
            raise LeaseLost(ended.message)
        was_pairing = attempt is not None and attempt.was_pairing
        decision = await self._aftermath.decide(ended, paired=self.paired, was_pairing=was_pairing)
        if decision.row.id == FRESH_END:  # a single end does not show it; the policy remembers those before
            ended = replace(ended, id=FRESH_END)
        code = "" if ended.code is None else f" {ended.code}"
        _log.info("session %s: connection ended, %s%s: %s", self.vitals.name, ended.id, code, ended.message)
        unit = self._state.unit()
        record = self._aftermath.put_record(unit, ended, decision, self.messaging.context.account)
        self.vitals.record = record or self.vitals.record
        await self._act(unit, ended, decision, attempt)

    async def _act(self, unit: Unit, ended: Cause, decision: Decision, attempt: Attempt | None) -> None:
        alerts = alerts_of(ended, decision, self.vitals.name, self._settings().alerts)
        if not decision.clears_auth:
            await self._enter_after(unit, ended, decision, alerts)
            return
        await self.vitals.commit(unit, alerts)
        try:
            sealed = await self._aftermath.clear_auth(ended)
        finally:  # it may have been cleared also when that could not be told
            self.messaging = self._doors.messaging(self._state)
        await self._enter_after(self._state.unit(), ended, decision, [])
        if self._logout is not None:
            unlinked = attempt is not None and attempt.unlinked
            self._logout.settle(LoggedOut(unlinked, sealed))
            self._logout = None

    async def _enter_after(self, unit: Unit, ended: Cause, decision: Decision, alerts: list[Alert]) -> None:
        delay_s = None if decision.delay_ms is None else decision.delay_ms / MS
        due = None if delay_s is None else trio.current_time() + delay_s
        target = decision.state
        if decision.action == "stop":
            due = trio.current_time() if self.wanted else None
        self._plan(due)
        waiting = self.vitals.next_attempt_ms if delay_s else None
        self.vitals.next_attempt_ms = waiting
        hint = decision.hint.format(name=self.vitals.name)
        self.vitals.hint = hint if decision.action != "stop" else ""
        await self.vitals.enter(
            target,
            unit,
            alerts=alerts,
            cause=ended.id,
            code=code_of(ended),
            hint=hint or None,
            nextAttemptAt=waiting,
        )

    # When that fails.

    async def _stumbled(self, error: Exception) -> None:
        """Something outside a connection failed: end in a state that says so, and wait for the operator."""
        for order in (self._logout, self._errand):
            if order is not None:
                order.settle(error)
        self._logout = self._errand = None
        self._due = None
        self.lost = self.lost or isinstance(error, LeaseLost)
        await self._mishaps.report(error, "failed" if self.wanted else "stopped")
        self.vitals.next_attempt_ms = None
