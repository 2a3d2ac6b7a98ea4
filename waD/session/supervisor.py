"""The one task that owns a session's life across connections: orders in, connections and transitions out."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from waD.config import SessionSettings
from waD.events import model as events
from waD.link.causes import Cause, cause
from waD.link.credentials import CredentialsError, new_credentials
from waD.session.alerts import Alert
from waD.session.attempt import Attempt, Order
from waD.session.counters import Counters
from waD.session.doors import Doors, Link
from waD.session.faults import cause_of
from waD.session.orders import Awaited, Busy, Errand, LoggedOut
from waD.session.policy import MAX_WAIT_S, Decision, Rules, decide, wants_newer_version
from waD.session.record import COUNTERS, NEXT_ATTEMPT, account_of, alerts_of, code_of, make_record
from waD.session.states import LIVE
from waD.session.table import ROWS
from waD.session.turns import Turns
from waD.session.vitals import MS, Clock, Vitals
from waD.store.errors import LeaseLost, StoreDamaged, StoreError
from waD.store.model import DisconnectRecord
from waD.store.state import SessionState
from waD.store.unit import Unit
from waD.wire.jid import JID

if TYPE_CHECKING:
    from waD.messaging.facade import Messaging

T = TypeVar("T")

AT_REST: Final = frozenset({"new", "stopped"})
FRESH_END: Final = "eof_fresh"
FAULT: Final = (
    "a fault of this program stopped the session; see the log and report it, then wactl connect {name}"
)

_log = logging.getLogger(__name__)


class Supervisor:
    """Owns one session. `run` is its task; orders may be given from any task of the same loop.

    Args:
        state: the session's state, attached.
        doors: the ways out.
        settings: the session's settings, asked for anew at each use.
        clock: time and chance.
        turns: shared by all sessions.

    Attributes:
        vitals: the session as others see it.
        messaging: the session's messaging; another one after the credentials were cleared.
        lost: another process took the session over; nothing is done for it here any more.
    """

    def __init__(
        self,
        state: SessionState,
        doors: Doors,
        settings: Callable[[], SessionSettings],
        clock: Clock,
        turns: Turns,
    ) -> None:
        self.vitals = Vitals(state, settings, clock)
        self.messaging: Messaging = doors.messaging(state)
        self.lost = False
        self._state = state
        self._doors = doors
        self._settings = settings
        self._clock = clock
        self._turns = turns
        self._up = state.row.desired_state == "up"
        self._held = state.row.held
        self._reconnects = state.row.reconnect_count
        self._account = account_of(state.row.last_disconnect)
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
        return self._up and not (self._held or self.lost or self._halting)

    @property
    def paired(self) -> bool:
        """Whether the stored credentials are those of a linked device; True when they cannot be read."""
        if self._state.creds is None:
            return False
        try:
            return self.messaging.context.account.paired
        except (CredentialsError, StoreDamaged):
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
        unit = self._state.unit()
        unit.set_session(last_disconnect=None, reconnect_attempt=0, reconnect_count=0)
        await self.vitals.commit(unit)
        self.vitals.counters, self.vitals.record, self._reconnects = Counters(), None, 0
        self._account = None
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
        left = self._time_left() if waits else None
        if left is not None:
            begin = max(begin, now + left)
        elif vitals.status in ("failed", "needs_pairing"):
            return
        self._plan(begin)

    def _time_left(self) -> float | None:
        """Seconds to the attempt that the last process had planned."""
        record = self.vitals.record
        planned = None if record is None else record.detail.get(NEXT_ATTEMPT)
        if not isinstance(planned, int):
            return None
        return max(0.0, min((planned - self._clock.unix_ms()) / MS, MAX_WAIT_S))

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
            self.vitals.counters, self._account = Counters(), None

    # One connection.

    async def _connect(self) -> None:
        try:
            await self._prepare()
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
            accept=self._accepts,
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

    async def _prepare(self) -> None:
        """Credentials exist, and are durable, before the first connection uses them."""
        account = self.messaging.context.account
        if self._state.creds is None:
            async with self._state.lock:
                unit = self._state.unit()
                unit.set_creds(new_credentials(self._clock.random, self._clock.unix_ms()).serialize())
                await self._state.commit(unit)
        elif not account.paired:
            await account.change_credentials(lambda now: now.repaired(self._clock.random))

    def _accepts(self, device: JID) -> bool:
        """Only the account that the history belongs to may be paired again, unless it was logged out or reset."""
        return self._account is None or str(device.account) == self._account

    # The end of one.

    async def _conclude(self, ended: Cause, attempt: Attempt | None) -> None:
        """Record the end durably, then do what the policy says."""
        if ended.id == "lease_lost":
            raise LeaseLost(ended.message)
        decision = await self._decide(ended, attempt)
        if decision.row.id == FRESH_END:  # a single end does not show it; the policy remembers those before
            ended = replace(ended, id=FRESH_END)
        code = "" if ended.code is None else f" {ended.code}"
        _log.info("session %s: connection ended, %s%s: %s", self.vitals.name, ended.id, code, ended.message)
        unit = self._state.unit()
        self.vitals.record = self._put_record(unit, ended, decision) or self.vitals.record
        await self._act(unit, ended, decision, attempt)

    async def _act(self, unit: Unit, ended: Cause, decision: Decision, attempt: Attempt | None) -> None:
        alerts = alerts_of(ended, decision, self.vitals.name, self._settings().alerts)
        if not decision.clears_auth:
            await self._enter_after(unit, ended, decision, alerts)
            return
        await self.vitals.commit(unit, alerts)
        sealed = await self._clear_auth(ended)
        await self._enter_after(self._state.unit(), ended, decision, [])
        if self._logout is not None:
            unlinked = attempt is not None and attempt.unlinked
            self._logout.settle(LoggedOut(unlinked, sealed))
            self._logout = None

    async def _decide(self, ended: Cause, attempt: Attempt | None) -> Decision:
        settings = self._settings()
        rules = Rules(settings.reconnect, settings.alerts)
        newer = False
        if wants_newer_version(ended, self.vitals.counters, rules, trio.current_time()):
            newer = await self._doors.newer_version()
        paired = self.paired
        decision = decide(
            ended,
            self.vitals.counters,
            rules,
            trio.current_time(),
            jitter=self._clock.jitter(),
            paired=paired,
            just_paired=attempt is not None and attempt.was_pairing and paired,
            newer_version=newer,
        )
        self.vitals.counters = decision.counters
        return decision

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

    def _put_record(self, unit: Unit, ended: Cause, decision: Decision) -> DisconnectRecord | None:
        """The record, the counters, and the event; an order to stop does not hide why it was down before."""
        now_ms = self._clock.unix_ms()
        if decision.delay_ms is not None:
            self._reconnects += 1
        unit.set_session(
            reconnect_count=self._reconnects,
            reconnect_attempt=decision.counters.attempts + decision.counters.slow,
        )
        if ended.id == "stop":
            return None
        next_ms = None if decision.delay_ms is None else now_ms + decision.delay_ms
        hint = decision.hint.format(name=self.vitals.name)
        if decision.clears_auth:
            self._account = None if ended.id == "logout" else self._own_account()
        record = make_record(ended, decision, hint=hint, at_ms=now_ms, next_ms=next_ms, account=self._account)
        unit.set_session(last_disconnect=record)
        if decision.row.id != "restart":
            unit.event(*events.connection_error(ended.id, ended.message, code=record.code, hint=hint or None))
        return record

    def _own_account(self) -> str | None:
        try:
            own = self.messaging.context.account.own_pn
        except (CredentialsError, StoreDamaged):
            return None
        return None if own is None else str(own)

    async def _clear_auth(self, ended: Cause) -> int:
        """Seal the credentials and begin with new ones; history and events stay (chapter 08 §6.7)."""
        fresh = new_credentials(self._clock.random, self._clock.unix_ms())
        async with self._state.lock:
            sealed = await self._state.reset_auth(fresh.serialize())
        self.messaging = self._doors.messaging(self._state)
        unit = self._state.unit()
        unit.event(events.AUTH_RESET, {"reason": ended.id, "sealedVersion": sealed})
        await self.vitals.commit(unit)
        return sealed

    # When that fails.

    async def _stumbled(self, error: Exception) -> None:
        """Something outside a connection failed: end in a state that says so, and wait for the operator."""
        for order in (self._logout, self._errand):
            if order is not None:
                order.settle(error)
        self._logout = self._errand = None
        self._due = None
        if isinstance(error, LeaseLost):
            self.lost = True
            row = ROWS["lease_lost"]
            self.vitals.force("stopped", row.hint)
            Alert("critical", self.vitals.name, row.meaning, {"hint": row.hint}).log()
        elif isinstance(error, StoreError):
            self.vitals.force("failed" if self.wanted else "stopped", ROWS["auth_write"].hint)
            await self._report_storage(error)
        else:
            _log.critical("session %s: a fault of this program", self.vitals.name, exc_info=error)
            self.vitals.force("failed" if self.wanted else "stopped", FAULT)
        self.vitals.next_attempt_ms = None

    async def _report_storage(self, error: StoreError) -> None:
        name = self.vitals.name
        alert = Alert("critical", name, str(error), {"cause": "auth_write", "hint": self.vitals.hint})
        unit = self._state.unit()
        unit.event(events.STORAGE_WRITE_FAILED, {"error": str(error)})
        unit.set_session(current_status=self.vitals.status)
        try:
            await self.vitals.commit(unit, [alert])
        except StoreError:
            _log.critical("session %s: the failure could not even be recorded", name)
