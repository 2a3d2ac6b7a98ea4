"""What each step of storage demands (chapter 08 §6.5): every demand, alone and together."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any, get_args

import pytest

from waD.session.gates import BACK, DAY_MS, FROM, HOUR_MS, ORDER, TO, Facts, Step, checks, equal, way_back
from waD.store.engine import Comparison
from waD.store.phases import NEXT, Phase

NOW = 1_700_000_000_000
EQUAL = Comparison(phase="backfilled", compared=True, items=12)
GOOD = Facts(
    phase="backfilled",
    now_ms=NOW,
    since_ms=NOW - 15 * DAY_MS,
    restarts=2,
    comparison=EQUAL,
    sealed_ms=NOW - DAY_MS,
    backup_ms=NOW - HOUR_MS,
    free_bytes=300,
    state_bytes=100,
    confirmed=True,
)
DIFFERENT = Comparison(phase="backfilled", compared=True, items=12, different={"session": 2})
MISSING = Comparison(phase="backfilled", compared=True, items=12, missing={"prekey": 1})
EXTRA = Comparison(phase="backfilled", compared=True, items=12, extra={"identity": 3})
NONE = Comparison(phase="cut_over", compared=False)

FAULTS: dict[str, list[dict[str, Any]]] = {
    "verified": [{"faults": ("session_invalid session/2.0",)}],
    "room": [{"free_bytes": 299}, {"free_bytes": 0}],
    "durability": [{"weaknesses": ("fsync = off",)}],
    "equal": [
        {"comparison": DIFFERENT},
        {"comparison": MISSING},
        {"comparison": EXTRA},
        {"comparison": NONE},
        {"comparison": None},
    ],
    "restarts": [{"restarts": 0}],
    "fallback": [{"fallback_hits": 1}],
    "backup": [{"backup_ms": None}, {"backup_ms": NOW - DAY_MS}],
    "storage_errors": [{"storage_errors": 1}, {"fallback_hits": 1}],
    "alarms": [{"alarms": 1}],
    "sealed": [{"sealed_ms": None}],
    "confirmed": [{"confirmed": False}],
    "rows_current": [{"lag": 1}],
}
"""Facts that break one demand each."""
DEMANDS: dict[Step, set[str]] = {
    "dual_write": {"verified", "room", "durability"},
    "backfill": {"equal", "verified"},
    "promote": {"age", "restarts", "fallback", "equal", "verified"},
    "cutover": {"age", "restarts", "equal", "verified", "backup", "storage_errors", "alarms"},
    "rollback": {"rows_current"},
    "retire_legacy": {"age", "verified", "sealed", "backup", "confirmed"},
}
AGES: dict[Step, int] = {"promote": DAY_MS, "cutover": 7 * DAY_MS, "retire_legacy": 14 * DAY_MS}
RESTARTS: dict[Step, int] = {"promote": 1, "cutover": 2}
DAMAGE = {"verified", "fallback"}
STEPS: tuple[Step, ...] = get_args(Step)


def failed(step: Step, facts: Facts) -> set[str]:
    return {check.name for check in checks(step, facts) if not check.ok}


@pytest.mark.parametrize("step", STEPS)
def test_what_is_demanded_is_told_whatever_is_found(step: Step) -> None:
    for facts in (GOOD, replace(GOOD, faults=("x",), comparison=None, restarts=0, backup_ms=None)):
        told = checks(step, facts)
        assert {check.name for check in told} == DEMANDS[step]
        assert len(told) == len(DEMANDS[step])
        assert all(check.detail for check in told)
    assert failed(step, GOOD) == set()


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("demand", FAULTS)
def test_each_fault_fails_the_demand_it_is_about_and_no_other(step: Step, demand: str) -> None:
    for change in FAULTS[demand]:
        expected = {other for other in DEMANDS[step] if any(change == one for one in FAULTS.get(other, []))}
        assert failed(step, replace(GOOD, **change)) == expected


@pytest.mark.parametrize("step", STEPS)
def test_any_combination_of_faults_fails_just_those_demands(step: Step) -> None:
    own = [name for name in FAULTS if name in DEMANDS[step]]
    for size in range(len(own) + 1):
        for chosen in itertools.combinations(own, size):
            changes: dict[str, Any] = {}
            for name in chosen:
                changes |= FAULTS[name][0]
            assert failed(step, replace(GOOD, **changes)) == set(chosen)


@pytest.mark.parametrize("step", AGES)
def test_the_age_counts_to_the_millisecond(step: Step) -> None:
    assert failed(step, replace(GOOD, since_ms=NOW - AGES[step])) == set()
    assert failed(step, replace(GOOD, since_ms=NOW - AGES[step] + 1)) == {"age"}
    assert failed(step, replace(GOOD, since_ms=NOW + 5)) == {"age"}


def test_only_the_age_of_promote_can_be_set() -> None:
    young = replace(GOOD, since_ms=NOW - 5, min_age_ms=5)
    assert failed("promote", young) == set()
    assert failed("promote", replace(young, min_age_ms=6)) == {"age"}
    assert failed("cutover", young) == {"age"}
    assert failed("retire_legacy", young) == {"age"}


@pytest.mark.parametrize("step", RESTARTS)
def test_restarts_are_counted(step: Step) -> None:
    for restarts in range(4):
        wanted = set() if restarts >= RESTARTS[step] else {"restarts"}
        assert failed(step, replace(GOOD, restarts=restarts)) == wanted


@pytest.mark.parametrize("step", STEPS)
def test_damage_is_told_apart_from_impatience(step: Step) -> None:
    for name in DEMANDS[step] & FAULTS.keys():
        (check,) = [one for one in checks(step, replace(GOOD, **FAULTS[name][0])) if not one.ok]
        assert check.damage == (name in DAMAGE or name == "equal")
    assert not any(check.damage for check in checks(step, GOOD))


def test_what_could_not_be_compared_is_no_difference() -> None:
    for found in (None, NONE):
        check = equal(found)
        assert (check.ok, check.damage) == (False, False)
    assert (equal(EQUAL).ok, equal(EQUAL).damage) == (True, False)
    words = equal(
        Comparison(phase="x", compared=True, missing={"a": 1}, different={"b": 2, "c": 3}, extra={"d": 4})
    ).detail
    assert words == "1 not in the snapshot (a); 5 different (b, c); 4 not in the rows (d)"


def test_a_server_whose_disk_cannot_be_seen_is_told_what_it_needs() -> None:
    (room,) = [one for one in checks("dual_write", replace(GOOD, free_bytes=None)) if one.name == "room"]
    assert room.ok
    assert "300 bytes are needed" in room.detail


def test_back_from_cut_over_only_a_snapshot_that_can_be_read_is_demanded() -> None:
    cut = replace(GOOD, phase="cut_over", lag=99, comparison=None, faults=("item_unreadable x",))
    assert failed("rollback", cut) == set()
    (check,) = checks("rollback", replace(cut, readable=False))
    assert (check.name, check.ok, check.damage) == ("readable", False, True)


def test_out_of_a_damaged_snapshot_there_is_a_way_back_while_the_rows_are_current() -> None:
    damaged = replace(
        GOOD, phase="snapshot_primary", readable=False, faults=("store_damaged",), comparison=None
    )
    assert failed("rollback", damaged) == set()


@pytest.mark.parametrize("phase", ORDER)
@pytest.mark.parametrize("to", [None, *ORDER])
def test_every_way_back_is_made_of_steps_that_there_are(phase: Phase, to: Phase | None) -> None:
    possible = {
        "dual_write": {"legacy_only"},
        "backfilled": {"legacy_only"},
        "snapshot_primary": {"backfilled", "legacy_only"},
        "cut_over": {"snapshot_primary", "backfilled", "legacy_only"},
    }.get(phase, set())
    if (to is None and not possible) or (to is not None and to not in possible):
        with pytest.raises(ValueError, match=r"way back|nothing behind"):
            way_back(phase, to)
        return
    way = way_back(phase, to)
    assert way[-1] == (to or BACK[phase])
    for one, other in itertools.pairwise([phase, *way]):
        assert other in NEXT[one]


def test_the_steps_are_those_of_the_phases() -> None:
    for step, target in TO.items():
        for phase in FROM[step]:
            assert target in NEXT[phase]
