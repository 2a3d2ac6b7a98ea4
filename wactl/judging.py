"""How sessions do, in the words of a monitor: a level, a sentence and numbers."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from wactl.sessions import next_step
from wactl.text import clean, duration
from waD.control import types as t

OK: Final = 0
WARNING: Final = 1
CRITICAL: Final = 2
UNKNOWN: Final = 3
LEVELS: Final = ("OK", "WARNING", "CRITICAL", "UNKNOWN")

CLOCK_SKEW_MS: Final = 60_000
"""By how much the clocks may differ: the default of alerts.clock_skew."""

STUCK_S: Final = 30
"""A transaction of the store that takes longer stands still."""

LAG: Final = 10_000
"""Entries of the event log; a subscriber farther behind has stopped reading, or will lose events one day."""

UNDER_WAY: Final[frozenset[t.State]] = frozenset({"connecting", "pairing", "backoff"})


class Problem(NamedTuple):
    """Something that is not as it should be."""

    level: int
    text: str


class Number(NamedTuple):
    """A measurement; `unit` is one of the plugins' units: empty, `s`, or `c` for a counter."""

    value: float
    unit: str = ""

    def __str__(self) -> str:
        digits = str(int(self.value)) if self.value == int(self.value) else f"{self.value:.3f}"
        return digits + self.unit


@dataclass(frozen=True, slots=True)
class Report:
    """What the monitor gets.

    Attributes:
        level: the worst one.
        sentences: the worst first.
        numbers: measurements by name.
    """

    level: int
    sentences: Sequence[str]
    numbers: Mapping[str, Number]

    def line(self) -> str:
        """One line: `WAD LEVEL - text|name=value ...`; a "|" has a meaning and appears nowhere else."""
        text = clean("; ".join(self.sentences)).replace("|", "/")
        numbers = " ".join(f"{name}={number}" for name, number in self.numbers.items())
        return f"WAD {LEVELS[self.level]} - {text}" + (f"|{numbers}" if numbers else "")

    def document(self) -> dict[str, Any]:
        """The same for `--json`."""
        return {
            "level": LEVELS[self.level],
            "exit": self.level,
            "messages": list(self.sentences),
            "performance": {name: number.value for name, number in self.numbers.items()},
        }


def one_session(view: t.SessionView) -> Report:
    """Report on a session that somebody relies on by name."""
    problems = [*_problems(view, named=True)]
    numbers = {
        "open": Number(view.state == "open"),
        "queued": Number(view.queued),
        "held_messages": Number(view.held_messages),
        "unacked": Number(view.unacked),
        "unanswered": Number(view.unanswered),
        "reconnects": Number(view.reconnect_count, "c"),
        "received": Number(view.messages_received, "c"),
        "sent": Number(view.messages_sent, "c"),
        "decrypt_failures": Number(view.decrypt_failures, "c"),
        "retry_requests": Number(view.retry_requests, "c"),
    }
    if view.last_backup_at is not None:
        numbers["backup_age"] = _age(view.last_backup_at)
    if view.ping_ms is not None:
        numbers["ping"] = Number(view.ping_ms / 1000, "s")
    if view.clock_offset_ms is not None:
        numbers["clock_offset"] = Number(view.clock_offset_ms / 1000, "s")
    return _report(problems, f"{view.name} is {view.state}", numbers)


def now_ms() -> int:
    """The time of day in Unix milliseconds."""
    return time.time_ns() // 1_000_000


def _age(at_ms: int) -> Number:
    return Number(max(0, now_ms() - at_ms) // 1000, "s")


def all_sessions(views: Sequence[t.SessionView], info: t.DaemonInfo) -> Report:
    """Report on everything."""
    problems = [problem for view in views for problem in _problems(view, named=False)]
    if info.event_lag > LAG:
        problems.append(Problem(WARNING, f"a subscriber is {info.event_lag} events behind"))
    if info.store_stuck_seconds > STUCK_S:
        text = f"the store stands still: a transaction has been running for {info.store_stuck_seconds} s"
        problems.append(Problem(CRITICAL, text))
    wanted = [view for view in views if _wanted(view)]
    is_open = sum(view.state == "open" for view in wanted)
    numbers = {
        "sessions": Number(len(views)),
        "wanted": Number(len(wanted)),
        "open": Number(is_open),
        "queued": Number(sum(view.queued for view in views)),
        "held_messages": Number(sum(view.held_messages for view in views)),
        "unacked": Number(sum(view.unacked for view in views)),
        "event_lag": Number(info.event_lag),
    }
    backups = [view.last_backup_at for view in views if view.last_backup_at is not None]
    if backups:
        numbers["backup_age"] = _age(min(backups))
    down = len(views) - len(wanted)
    fine = f"{is_open} of {len(wanted)} sessions open" + (f", {down} down as wanted" if down else "")
    return _report(problems, fine, numbers)


def _report(problems: list[Problem], fine: str, numbers: Mapping[str, Number]) -> Report:
    problems.sort(key=lambda problem: -problem.level)
    if not problems:
        return Report(OK, [fine], numbers)
    return Report(problems[0].level, [problem.text for problem in problems], numbers)


def _wanted(view: t.SessionView) -> bool:
    return view.desired == "up" and not view.held


def _problems(view: t.SessionView, *, named: bool) -> Iterator[Problem]:
    if not _wanted(view) and view.state != "open":
        if named:
            yield Problem(WARNING, _not_open(view))
    elif view.state != "open":
        yield Problem(WARNING if view.state in UNDER_WAY else CRITICAL, _not_open(view))
    elif not view.ready:
        yield Problem(WARNING, f"{view.name} is open, still starting")
    elif view.healthy is False:
        yield Problem(WARNING, f"{view.name} is open, but its connection does not answer")
    if view.move is not None:
        way = "from" if view.move.into else "to"
        text = f"a move of {view.name} {way} {view.move.store} has not ended, next: {view.move.command}"
        yield Problem(WARNING, text)
    if view.held_messages:
        text = f"{view.held_messages} messages of {view.name} are held, next: wactl outbox list {view.name}"
        yield Problem(WARNING, text)
    if view.last_backup_at is not None and view.backup_due_at is not None and view.backup_due_at < now_ms():
        age = duration((now_ms() - view.last_backup_at) // 1000)
        text = f"the last backup of {view.name} is {age} old, next: wactl backup-auth {view.name}"
        yield Problem(WARNING, text)
    offset_ms = view.clock_offset_ms or 0
    if abs(offset_ms) > CLOCK_SKEW_MS:
        yield Problem(WARNING, f"the clock differs from WhatsApp's by {offset_ms / 1000:+.1f} s")


def _not_open(view: t.SessionView) -> str:
    last = view.last_disconnect
    why = "" if last is None else f" ({last.cause}{': ' if last.message else ''}{last.message})"
    held = " and held" if view.held else ""
    step = re.sub(r"^held; ", "", next_step(view))
    return f"{view.name} is {view.state}{held}{why}" + (f", next: {step}" if step else "")
