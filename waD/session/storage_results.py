"""What came of a step of storage: its outcome, for the client and for the phase log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from waD.control.caller import caller
from waD.control.types import BackfillProgress, CheckView, ComparisonView, StorageOutcome, StorageResult
from waD.session import gates
from waD.session.gates import Check, Step
from waD.session.refusals import wrong_state
from waD.session.storage_facts import Found
from waD.store.engine import Comparison
from waD.store.model import SessionRow
from waD.store.phases import Phase


class Told(NamedTuple):
    """What the phase log gets: the whole report, and who wanted the change."""

    report: dict[str, Any]
    actor: str


def require(step: Step, row: SessionRow) -> None:
    """Raises ControlError when a step does not begin in the session's phase."""
    allowed = gates.FROM[step]
    if row.auth_phase not in allowed:
        wanted = " or ".join(phase for phase in gates.ORDER if phase in allowed)
        raise wrong_state(
            row.name, row.auth_phase, f"it is in the phase {row.auth_phase}, and this needs {wanted}"
        )


def outcome_of(judged: Sequence[Check], dry_run: bool) -> StorageOutcome:
    """What the checks come to."""
    failed = [check for check in judged if not check.ok]
    if any(check.damage for check in failed):
        return "damaged"
    if failed:
        return "refused"
    return "possible" if dry_run else "done"


async def to_log(judged: Sequence[Check], found: Found) -> Told:
    """What the log is to say; by the caller's own task: what is done at rest is done by the session's."""
    return Told(_report(judged, found), await caller())


def _report(judged: Sequence[Check], found: Found) -> dict[str, Any]:
    """The whole report, for the phase log."""
    compared = found.facts.comparison
    return {
        "checks": [{"check": one.name, "ok": one.ok, "detail": one.detail} for one in judged],
        "comparison": None
        if compared is None or not compared.compared
        else {
            "items": compared.items,
            "missing": compared.missing,
            "different": compared.different,
            "extra": compared.extra,
        },
        "errors": [str(note) for note in found.report.errors],
        "warnings": [str(note) for note in found.report.warnings],
        "counts": found.counts,
        "versions": found.versions,
    }


def result(
    row: SessionRow,
    outcome: StorageOutcome,
    phase: Phase | None = None,
    judged: Sequence[Check] = (),
    compared: Comparison | None = None,
    copied: int | None = None,
    **more: Any,
) -> StorageResult:
    """The answer for the client.

    Args:
        row: of the session as it was before.
        outcome: of the step.
        phase: the one it is in now, if another.
        judged: what was demanded.
        compared: both representations, if that was looked at.
        copied: items, by a backfill.
        **more: further fields.
    """
    seen = compared if compared is not None and compared.compared else None
    left = 0 if seen is None else sum(seen.missing.values())
    return StorageResult(
        name=row.name,
        connection_id=row.id,
        outcome=outcome,
        was=row.auth_phase,
        phase=phase or row.auth_phase,
        checks=[CheckView(check=one.name, ok=one.ok, detail=one.detail, damage=one.damage) for one in judged],
        comparison=None
        if seen is None
        else ComparisonView(
            items=seen.items, missing=seen.missing, different=seen.different, extra=seen.extra
        ),
        progress=None if copied is None else BackfillProgress(copied=copied, remaining=left),
        **more,
    )
