"""Which backups go: 7d4w6m over names of files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waD.transfer.archive import file_name
from waD.transfer.retention import PolicyError, parse_name, parse_policy, superfluous

START = datetime(2026, 1, 1, 3, tzinfo=UTC)


def named(at: datetime, version: int = 1, series: str = "alerts") -> str:
    return file_name("", series, int(at.timestamp() * 1000), version)


def daily(days: int, series: str = "alerts") -> list[str]:
    return [named(START + timedelta(days=day), day, series) for day in range(days)]


def kept(names: list[str], policy: str) -> list[str]:
    gone = set(superfluous(names, policy))
    assert gone <= set(names)
    return [name for name in names if name not in gone]


def test_a_year_of_daily_backups() -> None:
    names = daily(365)
    stay = kept(names, "7d4w6m")
    dates = [parse_name(name).made.strftime("%m-%d") for name in stay]  # type: ignore[union-attr]
    # 2026-12-31 is a Thursday: weeks end on Sundays.
    assert dates == [
        "07-31", "08-31", "09-30", "10-31", "11-30", "12-13", "12-20",
        "12-25", "12-26", "12-27", "12-28", "12-29", "12-30", "12-31",
    ]  # fmt: skip
    assert kept(stay, "7d4w6m") == stay
    assert len(kept(names, "2y")) == 1
    assert len(kept(names, "365d")) == 365


def test_a_machine_that_was_off_loses_nothing() -> None:
    old = daily(10)
    late = [named(START + timedelta(days=400))]
    assert kept(old + late, "3d") == [*old[-2:], *late]


def test_of_one_day_the_newest_stays_whatever_the_order() -> None:
    hours = [named(START + timedelta(hours=hour), hour) for hour in range(5)]
    assert kept(hours[::-1], "1d") == [hours[-1]]
    same = [named(START, version) for version in (9, 10)]
    assert kept(same, "1d") == [same[1]]


def test_series_do_not_compete() -> None:
    names = daily(5) + daily(3, "jobs")
    assert kept(names, "1d") == [names[4], names[7]]


@pytest.mark.parametrize(
    "name",
    ["README", "alerts.wadbackup.age", "a-20260101T030000Z-v1.wadbackup.age.part", "x-20261301T030000Z-v1.wadbackup",
     "-20260101T030000Z-v1.wadbackup.age", "x-20260101T030000Z-v.wadbackup.age", ".x-20260101-v1.wadbackup"],
)  # fmt: skip
def test_other_files_are_never_touched(name: str) -> None:
    assert parse_name(name) is None
    assert superfluous([name, *daily(3)], "1d") == daily(2)


def test_plain_and_sealed_are_one_series() -> None:
    plain = file_name("", "alerts", int(START.timestamp() * 1000), 1, sealed=False)
    assert superfluous([plain, *daily(2)], "1d") == sorted([plain, daily(1)[0]])


@pytest.mark.parametrize(
    "text", ["", "7", "d", "7h", "7d7d", "0d", "0d0w", "-1d", "7d 4w", "99999d", "7d4w6mx", "٣d"]
)
def test_what_is_no_policy(text: str) -> None:
    with pytest.raises(PolicyError, match="7d4w6m"):
        superfluous(daily(3), text)


def test_policies() -> None:
    assert parse_policy("7d4w6m") == {"d": 7, "w": 4, "m": 6}
    assert parse_policy("0d2w") == {"d": 0, "w": 2}


@settings(deadline=None, max_examples=50)
@given(
    hours=st.sets(st.integers(0, 20_000), min_size=1, max_size=60),
    counts=st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)).filter(any),
)
def test_the_newest_stays_and_keeping_is_idempotent(hours: set[int], counts: tuple[int, int, int]) -> None:
    names = [named(START + timedelta(hours=hour), hour) for hour in sorted(hours)]
    policy = "".join(f"{count}{unit}" for count, unit in zip(counts, "dwm", strict=True))
    stay = kept(names, policy)
    assert names[-1] in stay
    assert len(stay) <= sum(counts) + 1
    assert kept(stay, policy) == stay
