"""The disconnect table as it is in force, with the settings' changes and where they stand."""

from __future__ import annotations

from collections.abc import Mapping

from waD.config import FIXED_CAUSES, Settings
from waD.control.types import PolicyAlert, PolicyException, PolicyLimit, PolicyRow, PolicyTable
from waD.session.table import ROWS, Row

COUNTED = frozenset({"backoff", "slow"})
"""Actions that count as attempts."""
CLEARING = frozenset({"repair"})
"""Actions that clear the credentials."""


def policy_table(settings: Settings, session: str | None) -> PolicyTable:
    """The whole table.

    Args:
        settings: in force.
        session: whose; None: of sessions without settings of their own.
    """
    reconnect = settings.reconnect if session is None else settings.session(session).reconnect
    rows = [_row(row, reconnect.on, _origin(settings, row, session), session) for row in ROWS.values()]
    return PolicyTable(session=session, rows=rows)


def _origin(settings: Settings, row: Row, session: str | None) -> str:
    return "default" if row.id in FIXED_CAUSES else settings.origin(f"reconnect.on.{row.id}", session)


def _row(row: Row, on: Mapping[str, str], origin: str, session: str | None) -> PolicyRow:
    action = on.get(row.id, row.action)
    limit = row.limit if row.id not in on else None
    return PolicyRow(
        cause=row.id,
        section=row.section,
        code=row.code,
        action=action,
        default_action=row.action,
        origin=origin,
        fixed=row.id in FIXED_CAUSES,
        clears_auth=row.clears_auth or action in CLEARING or (limit is not None and limit.then in CLEARING),
        counts=action in COUNTED,
        counted_as=row.group,
        in_a_row=row.in_a_row,
        limit=None
        if limit is None
        else PolicyLimit(times=limit.times, then=limit.then, within=limit.within_s, until=limit.until),
        delay=row.fixed_s,
        base=row.base_s,
        alerts=[PolicyAlert(occurrence=number, severity=severity) for number, severity in row.alerts],
        exceptions=[PolicyException(low=one.low, high=one.high, handled_as=one.row) for one in row.codes],
        needs_newer_version=row.needs_newer_version and row.id not in on,
        meaning=row.meaning,
        hint=row.hint.format(name=session or "NAME"),
    )
