"""What must be the case before an auth state goes to another phase (chapter 08 §6.5): pure, all facts are given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from waD.store.engine import Comparison
from waD.store.phases import Phase

Step: TypeAlias = Literal["dual_write", "backfill", "promote", "cutover", "rollback", "retire_legacy"]

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
CUTOVER_AGE_MS: Final = 7 * DAY_MS
CUTOVER_RESTARTS: Final = 2
RETIRE_AGE_MS: Final = 14 * DAY_MS
BACKUP_AGE_MS: Final = 24 * HOUR_MS
ROOM: Final = 3
"""So many times its own size a state needs on the disk before it is written twice."""

FROM: Final[dict[Step, frozenset[Phase]]] = {
    "dual_write": frozenset({"legacy_only"}),
    "backfill": frozenset({"dual_write"}),
    "promote": frozenset({"backfilled"}),
    "cutover": frozenset({"snapshot_primary"}),
    "rollback": frozenset({"dual_write", "backfilled", "snapshot_primary", "cut_over"}),
    "retire_legacy": frozenset({"cut_over"}),
}
"""The phases in which a step can be taken."""
TO: Final[dict[Step, Phase]] = {
    "dual_write": "dual_write",
    "backfill": "backfilled",
    "promote": "snapshot_primary",
    "cutover": "cut_over",
    "retire_legacy": "legacy_retired",
}
BACK: Final[dict[Phase, Phase]] = {
    "dual_write": "legacy_only",
    "backfilled": "legacy_only",
    "snapshot_primary": "backfilled",
    "cut_over": "snapshot_primary",
}
"""One step back."""
ORDER: Final[tuple[Phase, ...]] = (
    "legacy_only",
    "dual_write",
    "backfilled",
    "snapshot_primary",
    "cut_over",
    "legacy_retired",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that the checks look at. Times are Unix milliseconds.

    Attributes:
        phase: of the session now.
        now_ms: the present.
        since_ms: when the phase began.
        restarts: how often the session was taken up in it, at least.
        fallback_hits: items found only in legacy rows in it.
        storage_errors: other error events of the store in it.
        alarms: alerts of the session within the last day.
        comparison: snapshot against legacy rows; None where it could not be made.
        lag: versions that the legacy rows are behind.
        readable: the state matches its checksums, and can be decrypted.
        faults: what the verification at level 3 that was just made found, empty when it is sound.
        sealed_ms: when the state was sealed last.
        backup_ms: when a backup was taken away last.
        free_bytes: on the disk of the database; None where that cannot be seen.
        state_bytes: size of the state.
        weaknesses: settings of the database that may lose commits.
        min_age_ms: how long the session must have been in the phase, for `promote`.
        confirmed: the operator has typed the session's name.
    """

    phase: Phase
    now_ms: int
    since_ms: int
    restarts: int = 0
    fallback_hits: int = 0
    storage_errors: int = 0
    alarms: int = 0
    comparison: Comparison | None = None
    lag: int = 0
    readable: bool = True
    faults: tuple[str, ...] = ()
    sealed_ms: int | None = None
    backup_ms: int | None = None
    free_bytes: int | None = None
    state_bytes: int = 0
    weaknesses: tuple[str, ...] = ()
    min_age_ms: int = DAY_MS
    confirmed: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """One demand: a stable name, whether it is met, and in words what was found.

    `damage` says that damage or a difference was found, rather than that the time has not come.
    """

    name: str
    ok: bool
    detail: str
    damage: bool = False


def checks(step: Step, facts: Facts) -> list[Check]:
    """What a step demands, and whether it is so. All of them are looked at, whatever the first ones say."""
    return [*_GATES[step](facts)]


def way_back(phase: Phase, to: Phase | None) -> list[Phase]:
    """The phases through which a rollback goes.

    Raises:
        ValueError: there is no way from here to there.
    """
    if phase not in BACK:
        raise ValueError(
            "there is nothing behind it to go back to"
            if phase == "legacy_only"
            else "its key-value rows are deleted, so there is no way back; restore a backup instead"
        )
    target = BACK[phase] if to is None else to
    if target == "dual_write" or ORDER.index(target) >= ORDER.index(phase):
        raise ValueError(f"there is no way back from {phase} to {target}")
    if phase == "cut_over" and target != "snapshot_primary":
        return ["snapshot_primary", target]
    return [target]


def _dual_write(facts: Facts) -> Iterator[Check]:
    yield _sound(facts)
    yield _room(facts)
    weak = ", ".join(facts.weaknesses)
    yield Check(
        "durability", not weak, f"the database may lose commits: {weak}" if weak else "commits are durable"
    )


def _backfill(facts: Facts) -> Iterator[Check]:
    yield equal(facts.comparison)
    yield _sound(facts)


def _promote(facts: Facts) -> Iterator[Check]:
    yield _age(facts, facts.min_age_ms)
    yield _restarts(facts, 1)
    yield _no_fallback(facts)
    yield equal(facts.comparison)
    yield _sound(facts)


def _cutover(facts: Facts) -> Iterator[Check]:
    yield _age(facts, CUTOVER_AGE_MS)
    yield _restarts(facts, CUTOVER_RESTARTS)
    yield equal(facts.comparison)
    yield _sound(facts)
    yield _backup(facts)
    errors = facts.storage_errors + facts.fallback_hits
    yield Check("storage_errors", not errors, f"{_count(errors, 'error event')} of the store in this phase")
    yield Check("alarms", not facts.alarms, f"{_count(facts.alarms, 'alert')} within 24 hours")


def _rollback(facts: Facts) -> Iterator[Check]:
    """In dual phases nothing but current rows: this is also the way out of a damaged snapshot (chapter 08 §6.6)."""
    if facts.phase == "cut_over":
        words = "the snapshot matches its checksum" if facts.readable else "the snapshot is damaged"
        yield Check("readable", facts.readable, words, damage=not facts.readable)
    else:
        words = "current" if not facts.lag else f"{_count(facts.lag, 'version')} behind the snapshot"
        yield Check("rows_current", not facts.lag, f"the key-value rows are {words}")


def _retire(facts: Facts) -> Iterator[Check]:
    yield _age(facts, RETIRE_AGE_MS)
    yield _sound(facts)
    yield Check(
        "sealed", facts.sealed_ms is not None, f"the last sealed copy: {_ago(facts, facts.sealed_ms)}"
    )
    yield _backup(facts)
    yield Check(
        "confirmed",
        facts.confirmed,
        "the name was typed" if facts.confirmed else "the session's name must be typed to confirm",
    )


_GATES: Final[dict[Step, Callable[[Facts], Iterator[Check]]]] = {
    "dual_write": _dual_write,
    "backfill": _backfill,
    "promote": _promote,
    "cutover": _cutover,
    "rollback": _rollback,
    "retire_legacy": _retire,
}


def _age(facts: Facts, least_ms: int) -> Check:
    age = facts.now_ms - facts.since_ms
    return Check(
        "age", age >= least_ms, f"in {facts.phase} for {_span(age)}, and {_span(least_ms)} are demanded"
    )


def _restarts(facts: Facts, least: int) -> Check:
    return Check(
        "restarts",
        facts.restarts >= least,
        f"{_count(facts.restarts, 'restart')} in this phase, and {least} demanded",
    )


def _no_fallback(facts: Facts) -> Check:
    hits = facts.fallback_hits
    return Check(
        "fallback", not hits, f"{_count(hits, 'item')} found only in key-value rows in this phase", hits > 0
    )


def equal(found: Comparison | None) -> Check:
    """Whether both representations say the same."""
    if found is None or not found.compared:
        return Check("equal", False, "the two representations could not be compared")
    counts = (
        ("not in the snapshot", found.missing),
        ("different", found.different),
        ("not in the rows", found.extra),
    )
    wrong = [f"{sum(kinds.values())} {word} ({', '.join(sorted(kinds))})" for word, kinds in counts if kinds]
    if wrong:
        return Check("equal", False, "; ".join(wrong), damage=True)
    return Check("equal", True, f"both representations say the same, {_count(found.items, 'item')}")


def _sound(facts: Facts) -> Check:
    if facts.faults:
        more = f" and {len(facts.faults) - 1} more" if len(facts.faults) > 1 else ""
        return Check("verified", False, f"verification found {facts.faults[0]}{more}", damage=True)
    return Check("verified", True, "verified now, nothing found")


def _room(facts: Facts) -> Check:
    need = ROOM * facts.state_bytes
    if facts.free_bytes is None:
        return Check("room", True, f"{need} bytes are needed on the database's disk, which cannot be seen")
    return Check("room", facts.free_bytes >= need, f"{facts.free_bytes} bytes are free, and {need} needed")


def _backup(facts: Facts) -> Check:
    made = facts.backup_ms
    fresh = made is not None and facts.now_ms - made < BACKUP_AGE_MS
    return Check("backup", fresh, f"the last backup: {_ago(facts, made)}; it must be less than 24 hours old")


def _ago(facts: Facts, at_ms: int | None) -> str:
    return "none" if at_ms is None else f"{_span(facts.now_ms - at_ms)} ago"


def _span(ms: int) -> str:
    if ms >= 2 * DAY_MS:
        return f"{ms / DAY_MS:.3g} days"
    return f"{ms / HOUR_MS:.3g} hours" if ms >= HOUR_MS else f"{max(0, ms) // 1000} s"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
