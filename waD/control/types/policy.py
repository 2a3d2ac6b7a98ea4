"""The disconnect table as it is shown."""

from __future__ import annotations

from typing import Literal

from waD.control.types.base import Answer, NameParam, Params


class PolicyParams(Params, frozen=True, kw_only=True):
    """Parameters of `policy.show`: the session whose settings count, whether it exists or not."""

    session: NameParam | None = None


class PolicyLimit(Answer, frozen=True, kw_only=True):
    """How often an action is taken before another one is.

    Attributes:
        times: occurrences that get the row's own action.
        then: the action for the next one.
        within: only occurrences of the last so many seconds count; null: all.
        until: what starts the count anew: the next `open`, the next `stable` one, or `never` by itself.
    """

    times: int
    then: str
    within: float | None = None
    until: Literal["open", "stable", "never"] = "stable"


class PolicyAlert(Answer, frozen=True, kw_only=True):
    """From which occurrence on an alert is raised, and how urgent it is."""

    occurrence: int
    severity: Literal["info", "warning", "critical"]


class PolicyException(Answer, frozen=True, kw_only=True):
    """Numbers of a cause that are handled as another row says."""

    low: int
    high: int
    handled_as: str


class PolicyRow(Answer, frozen=True, kw_only=True):
    """What happens when a connection ends for one reason.

    Attributes:
        cause: id of the row.
        section: where it arises: `transport`, `stream`, `failure`, `pairing` or `local`.
        code: the number of the disconnect reason, null when the cause brings its own or has none.
        action: what is done, settings included.
        default_action: what is done without settings.
        origin: where the action comes from: `default`, or `FILE:LINE`.
        fixed: no setting can change the action.
        clears_auth: the credentials are sealed and cleared, by the action or by the one that follows its limit.
        counts: it counts as an attempt; when these are used up the session is `failed`.
        counted_as: the name under which occurrences are counted; several rows may share one.
        in_a_row: another cause in between starts the count anew.
        limit: how often the action is taken; null without a limit, or when a setting replaced the action.
        delay: seconds before the next connection, where they do not grow.
        base: first delay in seconds, where it is the row's own.
        alerts: when an alert is raised.
        exceptions: numbers for which another row counts.
        needs_newer_version: the action is taken only if there is a newer client version, else `hold`.
        meaning: what happened.
        hint: what the operator does next.
    """

    cause: str
    section: str
    code: int | None
    action: str
    default_action: str
    origin: str = "default"
    fixed: bool = False
    clears_auth: bool = False
    counts: bool = False
    counted_as: str = ""
    in_a_row: bool = False
    limit: PolicyLimit | None = None
    delay: float | None = None
    base: float | None = None
    alerts: list[PolicyAlert] = []
    exceptions: list[PolicyException] = []
    needs_newer_version: bool = False
    meaning: str = ""
    hint: str = ""


class PolicyTable(Answer, frozen=True, kw_only=True):
    """Answer of `policy.show`: the disconnect table in force, for one session or for those without settings."""

    session: str | None
    rows: list[PolicyRow]
