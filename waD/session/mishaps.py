"""When a session's state cannot be read or written, or is somebody else's now: told in every way that is left."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

from waD.events import model as events
from waD.session.alerts import Alert
from waD.session.table import ROWS
from waD.session.vitals import Vitals
from waD.store.errors import KekUnavailable, LeaseLost, StoreDamaged, StoreError
from waD.store.model import SessionStatus
from waD.store.state import SessionState

Announce: TypeAlias = Callable[[str, dict[str, Any]], Awaitable[object]]
"""Makes an event of a session durable although the session has another owner: type, data. Raises StoreError."""

FAULT: Final = (
    "a fault of this program stopped the session; see the log and report it, then wactl connect {name}"
)

_log = logging.getLogger(__name__)


class Mishaps:
    """Reports what went wrong outside a connection.

    Args:
        state: the session's state.
        vitals: where the session is put into a state that says so.
        announce: for events that belong to no unit.
    """

    def __init__(self, state: SessionState, vitals: Vitals, announce: Announce) -> None:
        self._state = state
        self._vitals = vitals
        self._announce = announce

    async def report(self, error: Exception, target: SessionStatus) -> None:
        """Be in the state `target`, and tell why; raises nothing but cancellation.

        Args:
            error: what happened; a lost lease always means `stopped`.
            target: the state that is left.
        """
        vitals = self._vitals
        if isinstance(error, LeaseLost):
            vitals.force("stopped", ROWS["lease_lost"].hint)
            await self._tell_of_owner(error)
        elif isinstance(error, StoreError):
            row = ROWS["auth_corrupt" if isinstance(error, StoreDamaged | KekUnavailable) else "auth_write"]
            vitals.force(target, row.hint)
            await self._tell_of_storage(error, row.id)
        else:
            _log.critical("session %s: a fault of this program", vitals.name, exc_info=error)
            vitals.force(target, FAULT)

    async def _tell_of_owner(self, error: LeaseLost) -> None:
        """No unit can be committed any more, but an event can be appended."""
        row = ROWS["lease_lost"]
        more = {"cause": row.id, "hint": self._vitals.hint, "error": str(error)}
        alert = Alert("critical", self._vitals.name, row.meaning, more)
        try:
            await self._announce(*alert.event())
        except StoreError as failure:
            _log.warning("session %s: the alert could not be made an event: %s", self._vitals.name, failure)
        finally:
            alert.log()

    async def _tell_of_storage(self, error: StoreError, cause: str) -> None:
        vitals = self._vitals
        alert = Alert("critical", vitals.name, str(error), {"cause": cause, "hint": vitals.hint})
        unit = self._state.unit()
        unit.event(events.STORAGE_WRITE_FAILED, {"error": str(error)})
        unit.set_session(current_status=vitals.status)
        try:
            await vitals.commit(unit, [alert])
        except StoreError:
            _log.critical("session %s: the failure could not even be recorded", vitals.name)
