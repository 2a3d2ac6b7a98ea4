"""What to do about the end of a connection: a pure function of cause, counters and settings (chapter 02 §8, §9)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from waD.config.sections import Alerts, Reconnect
from waD.link.causes import Cause
from waD.session.counters import MAX_TIMES, Counters
from waD.session.table import ROWS, SCAN, SEVERITIES, Action, Row, Severity
from waD.store.model import SessionStatus

MAX_RESTARTS: Final = 3
RESTART_WINDOW_S: Final = 60.0
"""More connections at once than `MAX_RESTARTS` in this time, without a stable one between, go the slower way."""
FRESH_S: Final = 10.0
"""A connection that ends younger than this, before an answer to the login, is suspicious …"""
FRESH_TIMES: Final = 3
"""… this many times in a row."""
MAX_RETRY_AFTER_S: Final = 3600.0
"""A proxy may not keep us waiting for longer."""
BAN_S: Final = 86_400
"""Time of a ban whose end the server did not tell."""
MIN_WAIT_S: Final = 60
MAX_WAIT_S: Final = 366 * 86_400
MAX_EXPONENT: Final = 64

PAIRING_LOST: Final = ROWS["pair_socket_lost"]
STATE_AFTER: Final[dict[Action, SessionStatus]] = {
    "restart": "connecting",
    "backoff": "backoff",
    "slow": "backoff",
    "wait": "backoff",
    "repair": "pairing",
    "hold": "failed",
    "stop": "stopped",
    "close": "needs_pairing",
}
"""The state of a session after each action (chapter 02 §8.1)."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings of one session that the policy goes by."""

    reconnect: Reconnect = field(default_factory=Reconnect)
    alerts: Alerts = field(default_factory=Alerts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is done.

    Attributes:
        row: the row that was applied; its id may differ from the cause's.
        action: what is done; `hold` also when the attempts are used up.
        state: of the session afterwards.
        delay_ms: until the next connection; None: none until the operator acts.
        clears_auth: the credentials are sealed and cleared first.
        alert: severity, or None.
        too_often: raise the alert about frequent reconnects.
        gave_up: the attempts are used up.
        hint: what the operator does next, with `{name}` for the session.
        counters: the memory from now on.
    """

    row: Row
    action: Action
    state: SessionStatus
    delay_ms: int | None
    clears_auth: bool
    alert: Severity | None
    too_often: bool
    gave_up: bool
    hint: str
    counters: Counters


def decide(
    cause: Cause,
    counters: Counters,
    rules: Rules,
    now: float,
    *,
    jitter: float,
    paired: bool = True,
    just_paired: bool = False,
    newer_version: bool = False,
) -> Decision:
    """Decide about the end of a connection.

    Args:
        cause: why it ended.
        counters: the memory so far.
        rules: settings.
        now: monotonic seconds.
        jitter: a random number from 0 to below 1.
        paired: the session holds the credentials of a linked device.
        just_paired: this connection was the pairing; the next one is no reconnect.
        newer_version: a newer client version is known than the one that was used.
    """
    return _Case(cause, counters, rules, now, jitter, paired, just_paired, newer_version).decide()


def wants_newer_version(cause: Cause, counters: Counters, rules: Rules, now: float) -> bool:
    """Whether it matters for the decision if there is a newer client version."""
    row = ROWS.get(cause.id)
    if row is None or not row.needs_newer_version or cause.id in rules.reconnect.on or row.limit is None:
        return False
    return counters.count(row.group, now) < row.limit.times


class _Case:
    """One decision in the making."""

    def __init__(
        self,
        cause: Cause,
        counters: Counters,
        rules: Rules,
        now: float,
        jitter: float,
        paired: bool,
        just_paired: bool,
        newer_version: bool,
    ) -> None:
        self.cause = cause
        self.reconnect = rules.reconnect
        self.alerts = rules.alerts
        self.now = now
        self.jitter = jitter
        self.paired = paired
        self.just_paired = just_paired
        self.newer_version = newer_version
        self.row, group = self._find_row(counters)
        self.before = counters
        self.counters = counters.counted(group, now)
        self.count = self.counters.count(group, now)
        self.gave_up = False
        self.delay_ms: int | None = None

    def decide(self) -> Decision:
        action = self._within_attempts(self._limit_restarts(self._choose()))
        alert = self._alert(action)
        self._after(action)
        too_often = self._reconnecting(action)
        return Decision(
            row=self.row,
            action=action,
            state=STATE_AFTER[action],
            delay_ms=self.delay_ms,
            clears_auth=action == "repair" or self.row.clears_auth,
            alert=alert,
            too_often=too_often,
            gave_up=self.gave_up,
            hint=self._hint(action),
            counters=self.counters.change(steady=False),
        )

    # Which row.

    def _find_row(self, counters: Counters) -> tuple[Row, str]:
        """The row, and the name under which this occurrence is counted."""
        cause = self.cause
        row = ROWS.get(cause.id, ROWS["unknown"])
        if cause.code is not None:
            other = next((c.row for c in row.codes if c.low <= cause.code <= c.high), None)
            row = row if other is None else ROWS[other]
        if row.id != "eof" or not cause.reached or cause.was_open or cause.age_s > FRESH_S:
            return row, row.group
        fresh = ROWS["eof_fresh"]
        return (fresh if counters.count(fresh.group, self.now) + 1 >= FRESH_TIMES else row), fresh.group

    # Which action.

    def _choose(self) -> Action:
        on = self.reconnect.on
        override = on.get(self.cause.id) or on.get(self.row.id)
        fixed = self.row.section == "local" and self.row.id not in ("crash", "unknown")
        if override is not None and not fixed:
            return self._while_unpaired(override)
        limit = self.row.limit
        if limit is not None and self.count > limit.times:
            return self._while_unpaired(limit.then)
        if self.row.needs_newer_version and not self.newer_version:
            return "hold"
        if self.row.id == "qr_exhausted" and self.count < self.reconnect.pair_rounds:
            return "restart"
        return self._while_unpaired(self.row.action)

    def _while_unpaired(self, action: Action) -> Action:
        """Without credentials there is nothing to repair, and trying on for long shows codes to nobody."""
        if self.paired:
            return "backoff" if action == "close" else action  # a row of pairing: only a login can tell more
        if action == "repair":
            return "close"
        if action not in ("backoff", "slow"):
            return action
        group, limit = PAIRING_LOST.group, PAIRING_LOST.limit
        assert limit is not None
        if self.row is not PAIRING_LOST:
            self.counters = self.counters.counted(group, self.now)
        return limit.then if self.counters.count(group, self.now) > limit.times else action

    def _limit_restarts(self, action: Action) -> Action:
        if action != "restart":
            return action
        recent = tuple(at for at in self.counters.restarts if self.now - at < RESTART_WINDOW_S)
        if len(recent) >= MAX_RESTARTS:
            return "backoff"
        self.counters = self.counters.change(restarts=(*recent, self.now))
        self.delay_ms = 0
        return action

    def _within_attempts(self, action: Action) -> Action:
        """Count the attempt and draw its delay; without attempts left, give up."""
        if action not in ("backoff", "slow"):
            return action
        slow = action == "slow"
        done = self.counters.slow if slow else self.counters.attempts
        if done >= self.reconnect.attempts:
            return self._give_up()
        self.delay_ms = max(self._delay_ms(slow, done), self._retry_after_ms())
        self.counters = self.counters.change(**{"slow" if slow else "attempts": done + 1})
        return action

    def _give_up(self) -> Action:
        self.gave_up = True
        never_reached = self.row.section == "transport" and not self.cause.reached
        if never_reached and self.reconnect.after_max == "probe":
            self.delay_ms = round(self.reconnect.probe_interval_s * 1000)
        return "hold"

    # How long.

    def _delay_ms(self, slow: bool, done: int) -> int:
        row, settings = self.row, self.reconnect
        jitter = int(self.jitter * (settings.jitter_s * 1000 + 1))
        if row.fixed_s is not None:
            return round(row.fixed_s * 1000) + jitter
        if row.quick_after_stable and self.before.steady:
            return jitter
        first = (row.base_s or settings.slow_base_s) if slow else settings.base_s
        longest = settings.slow_max_s if slow else settings.max_s
        grown = first * settings.multiplier ** min(done, MAX_EXPONENT)
        return int(min(grown * 1000 + jitter, longest * 1000))

    def _retry_after_ms(self) -> int:
        asked = self.cause.retry_after_s or 0.0
        return int(max(0.0, min(asked, MAX_RETRY_AFTER_S)) * 1000)

    def _ban_ms(self) -> int:
        stanza = self.cause.stanza
        seconds = (stanza.int("expire") if stanza is not None else None) or BAN_S
        return max(MIN_WAIT_S, min(seconds, MAX_WAIT_S)) * 1000

    def _after(self, action: Action) -> None:
        if action == "wait":
            self.delay_ms = self._ban_ms()
        elif action == "repair":
            self.delay_ms = 0
            self.counters = self.counters.repaired()
        self.counters = self.counters.change(given_up=self.gave_up)

    # Whom to tell.

    def _alert(self, action: Action) -> Severity | None:
        found = [severity for n, severity in self.row.alerts if n == self.count]
        if self.gave_up:
            found += [] if self.before.given_up else ["critical"]
        elif action in ("hold", "repair"):
            found.append("critical")
        elif action == "wait":
            found.append("warning")
        return max(found, key=SEVERITIES.index, default=None)

    def _reconnecting(self, action: Action) -> bool:
        """Count it for the alert about frequent reconnects; say whether that is due (chapter 02 §9.2)."""
        if self.delay_ms is None or self.gave_up or action == "repair" or self.just_paired:
            return False
        window = self.alerts.reconnect_window_s
        recent = (*(at for at in self.counters.reconnects if self.now - at < window), self.now)[-MAX_TIMES:]
        told = self.counters.alerted_at
        due = len(recent) > self.alerts.reconnects and (told is None or self.now - told >= window)
        self.counters = self.counters.change(reconnects=recent, alerted_at=self.now if due else told)
        return due

    def _hint(self, action: Action) -> str:
        what = self.row.hint or self.row.meaning
        if self.gave_up:
            minutes = self.reconnect.probe_interval_s / 60
            tail = "" if self.delay_ms is None else f"; else it tries again every {minutes:g} min"
            return f"all attempts failed: {what}; wactl connect {{name}} tries at once{tail}"
        if action == "hold" and "wactl" not in what:
            return f"{what}; then wactl connect {{name}}"
        if action == "close" and "scan" not in what:
            return f"{what}; then {SCAN}"
        if action in ("backoff", "slow", "wait"):
            return f"{self.row.hint}; it tries again by itself".removeprefix("; ")
        return self.row.hint
