"""Alerts: an event, a line in the log with its priority, and a command of the operator's for each."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import trio

from waD.config import Alerts
from waD.events import model as events
from waD.events.log import EventLog
from waD.session.table import Severity
from waD.store.errors import CursorExpired, StoreError
from waD.store.model import EventRow
from waD.store.unit import Unit

LEVELS: Final[dict[Severity, int]] = {
    "info": logging.INFO,
    "warning": logging.WARNING,
    "critical": logging.CRITICAL,
}
_RETRY_S: Final = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that an operator should know.

    Attributes:
        severity: how urgent.
        session: name.
        message: one sentence.
        more: further facts for the event, such as `cause` and `hint`.
    """

    severity: Severity
    session: str
    message: str
    more: dict[str, Any] = field(default_factory=dict)

    def event(self) -> events.Event:
        """Type and data of its event."""
        return events.alert(self.severity, self.session, self.message, **self.more)

    def log(self) -> None:
        """Write it to the log."""
        hint = self.more.get("hint")
        tail = f" ({hint})" if hint else ""
        _log.log(LEVELS[self.severity], "alert: session %s: %s%s", self.session, self.message, tail)


def put_alert(unit: Unit, alert: Alert) -> None:
    """Add the event of an alert to a unit; the caller logs it when the unit is durable, or could not be made so."""
    unit.event(*alert.event())


async def run_alert_commands(log: EventLog, settings: Callable[[], Alerts]) -> None:
    """Run the operator's command for each alert, with the event as JSON on its standard input, until cancelled.

    At most `command_concurrency` run at a time; while they do, further alerts wait in the log. A command that fails or
    takes too long is reported in the daemon's log and not repeated.
    """
    cursor: int | None = None
    while True:
        try:
            async with (
                log.subscribe(since=cursor, types=(events.ALERT_RAISED,), name="alert command") as alerts,
                trio.open_nursery() as nursery,
            ):
                slots = trio.Semaphore(settings().command_concurrency)
                async for event in alerts:
                    cursor = event.cursor
                    now = settings()
                    if now.command:
                        await slots.acquire()
                        nursery.start_soon(_run_and_release, now, event, slots)
        except* CursorExpired as expired:
            cursor = None
            _log.warning("alerts were missed by the alert command: %s", expired.exceptions[0])
        except* StoreError as error:
            _log.warning("the alert command waits for the event log: %s", error.exceptions[0])
        await trio.sleep(_RETRY_S)


async def _run_and_release(settings: Alerts, event: EventRow, slots: trio.Semaphore) -> None:
    try:
        await run_command(settings, event)
    finally:
        slots.release()


async def run_command(settings: Alerts, event: EventRow) -> bool:
    """Run the command for one event; says whether it ended well. Raises nothing but cancellation."""
    program = settings.command[0]
    try:
        with trio.fail_after(settings.command_timeout_s):
            done = await trio.run_process(
                list(settings.command),
                stdin=msgspec.json.encode(event) + b"\n",
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            )
    except trio.TooSlowError:
        _log.warning("the alert command %s was killed after %g s", program, settings.command_timeout_s)
        return False
    except OSError as error:
        _log.warning("the alert command %s cannot be run: %s", program, error.strerror)
        return False
    if done.returncode:
        _log.warning("the alert command %s ended with status %d", program, done.returncode)
    return done.returncode == 0
