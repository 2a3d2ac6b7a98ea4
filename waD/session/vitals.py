"""A session as others see it: its state and flags, changed only together with what is durable about them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import trio

from waD.config import SessionSettings
from waD.control.types import QrView
from waD.events import model as events
from waD.link.qr import QrCode
from waD.session import states
from waD.session.alerts import Alert, put_alert
from waD.session.counters import Counters
from waD.session.doors import Login
from waD.store.model import DisconnectRecord, SessionStatus
from waD.store.state import SessionState
from waD.store.unit import Unit

MS: Final = 1000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Clock:
    """Where time and chance come from; monotonic time is trio's.

    Attributes:
        unix_ms: Unix time in milliseconds.
        jitter: a random number from 0 to below 1.
        random: source of unpredictable bytes.
    """

    unix_ms: Callable[[], int]
    jitter: Callable[[], float]
    random: Callable[[int], bytes]


class Vitals:
    """State and flags of one session. The supervisor's connection reports here (`waD.session.attempt.Listener`).

    A method that changes something raises StoreError when it cannot be made durable. Whoever is woken by an event finds
    here what the event says: so it is true here a moment before it is durable, and taken back if that fails.

    Args:
        state: the session's state, attached.
        settings: the session's settings, asked for anew at each use.
        clock: time and chance.

    Attributes:
        name: of the session.
        status: the state it is in.
        ready: the work after the login is done.
        healthy: whether the connection answers; None without one.
        qr: the code to scan now.
        next_attempt_ms: Unix milliseconds of the next attempt, while one is waited for.
        hint: what the operator does next, `{name}` filled in; empty when the state says all.
        record: why the last connection ended, until the next stable one.
        counters: the policy's memory.
        silent_backlogs: logins in a row whose backlog did not end.
        healthy_since_ms: Unix milliseconds since when the connection answers; None when it does not.
        clock_offset_ms: the server's clock minus ours at the last login.
        login: the run of the connection, while it is open.
    """

    def __init__(self, state: SessionState, settings: Callable[[], SessionSettings], clock: Clock) -> None:
        self._state = state
        self._settings = settings
        self._clock = clock
        self._changed = trio.Event()
        self.name: str = state.row.name
        left_in = state.row.current_status
        # A process that was killed leaves the state of a connection that is gone.
        self.status: SessionStatus = "stopped" if left_in in states.LIVE else left_in
        self.ready = False
        self.healthy: bool | None = None
        self.qr: QrView | None = None
        self.next_attempt_ms: int | None = None
        self.hint = ""
        self.record: DisconnectRecord | None = state.row.last_disconnect
        self.counters = Counters()
        self.silent_backlogs = 0
        self.healthy_since_ms: int | None = None
        self.clock_offset_ms: int | None = None
        self.login: Login | None = None

    # For everybody.

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is the case; it is looked at after each change."""
        while not condition():
            await self._changed.wait()

    def notify(self) -> None:
        """Something that `until` may ask for has changed."""
        self._changed.set()
        self._changed = trio.Event()

    # For the supervisor.

    async def enter(
        self,
        target: SessionStatus,
        unit: Unit | None = None,
        *,
        alerts: Sequence[Alert] = (),
        **facts: Any,
    ) -> None:
        """Go to a state, or stay in it and tell new facts.

        Args:
            target: where to.
            unit: further changes that belong to it.
            alerts: raised with it.
            **facts: for the event, None is left out.

        Raises:
            IllegalTransition: the table has no such way.
            StoreError: nothing was changed.
        """
        states.check(self.status, target)
        unit = self._state.unit() if unit is None else unit
        if target != self.status or any(value is not None for value in facts.values()):
            unit.event(*events.connection_status(target, **facts))
        unit.set_session(current_status=target)
        before, self.status = self.status, target
        try:
            await self.commit(unit, alerts)
        except BaseException:
            self.status = before
            raise
        if target != before:
            _log.info("session %s: %s", self.name, target)
        self._be(target)

    async def commit(self, unit: Unit, alerts: Sequence[Alert] = ()) -> None:
        """Make a unit durable that touches no auth state, so that the state's lock is not needed for it."""
        for alert in alerts:
            put_alert(unit, alert)
        try:
            await self._state.commit(unit)
        finally:
            for alert in alerts:
                alert.log()

    def force(self, target: SessionStatus, hint: str) -> None:
        """Be in a state although it cannot be written."""
        self.hint = hint.format(name=self.name)
        self._be(target)

    def _be(self, target: SessionStatus) -> None:
        self.status = target
        if target not in states.LIVE:
            self.lost()
        if target in states.LIVE:
            self.next_attempt_ms = None
        self.notify()

    def lost(self) -> None:
        """The connection is over; the state follows when it is known what comes next."""
        self.ready, self.qr, self.login = False, None, None
        self._judge(None)

    def _judge(self, healthy: bool | None) -> None:
        self.healthy = healthy
        if not healthy:
            self.healthy_since_ms = None
        elif self.healthy_since_ms is None:
            self.healthy_since_ms = self._clock.unix_ms()

    # For the connection.

    async def connecting(self) -> None:
        """The dial begins."""
        # An unpaired session that shows codes again stays in `pairing` meanwhile.
        self.hint, self.next_attempt_ms = "", None
        await self.enter("pairing" if self.status == "pairing" else "connecting")

    async def pairing(self) -> None:
        """The handshake of an unpaired device is complete."""
        self._judge(True)
        self.hint = f"wactl qr {self.name}"
        await self.enter("pairing")

    async def show(self, code: QrCode) -> None:
        """There is a code to scan."""
        expires_at = self._clock.unix_ms() + round(code.lifetime_s * MS)
        self.qr = QrView(
            session=self.name, qr=code.text, number=code.number, of=code.of, expires_at=expires_at
        )
        unit = self._state.unit()
        unit.event(*events.connection_qr(code.number, code.of, expires_at))
        await self.commit(unit)
        self.notify()

    async def opened(self, login: Login) -> None:
        """The session is open."""
        unit = self._state.unit()
        unit.set_session(last_connected_at=self._clock.unix_ms())
        self._judge(True)
        self.hint, self.login = "", login
        if login.result is not None:
            self.clock_offset_ms = login.result.clock_offset_ms
        await self.enter("open", unit, alerts=self._login_alerts(login), ready=False)
        self.counters = self.counters.opened()

    def _login_alerts(self, login: Login) -> list[Alert]:
        result = login.result
        if result is None:
            return []
        found: list[Alert] = []
        skew_s = result.clock_offset_ms / MS
        if abs(skew_s) > self._settings().alerts.clock_skew_s:
            text = f"this machine's clock differs from WhatsApp's by {skew_s:+.0f} s"
            found.append(Alert("warning", self.name, text, {"hint": "set the clock, for example by NTP"}))
        if result.lid_changed:
            found.append(
                Alert("warning", self.name, "WhatsApp names another LID for this device than before")
            )
        return found

    async def ready_now(self) -> None:
        """The work after the login is done."""
        self.ready = True
        await self.enter("open", ready=True)

    async def stable(self) -> None:
        """It has been open for long enough: what went wrong before is forgotten."""
        unit = self._state.unit()
        unit.set_session(last_disconnect=None, reconnect_attempt=0)
        await self.commit(unit)
        self.counters, self.record = self.counters.stable(), None
        self.notify()

    async def health(self, *, healthy: bool) -> None:
        """The connection became healthy or unhealthy."""
        self._judge(healthy)
        await self.enter(self.status, healthy=healthy)
