"""Which backup files to keep: `7d4w6m` (chapter 08 §7.6): pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

MAX_COUNT: Final = 9999

_POLICY: Final = re.compile(r"(?:[0-9]{1,4}[dwmy])+", re.ASCII)
_RULE: Final = re.compile(r"([0-9]{1,4})([dwmy])", re.ASCII)
_NAME: Final = re.compile(
    r"(?P<series>.{1,200})-(?P<when>[0-9]{8}T[0-9]{6}Z)-v(?P<version>[0-9]{1,19})\.wadbackup(?:\.age)?",
    re.ASCII,
)

_PERIODS: Final[dict[str, Callable[[datetime], tuple[int, ...]]]] = {
    "d": lambda at: (at.year, at.month, at.day),
    "w": lambda at: tuple(at.isocalendar()[:2]),
    "m": lambda at: (at.year, at.month),
    "y": lambda at: (at.year,),
}


class PolicyError(ValueError):
    """A policy cannot be read; the message says what one looks like."""


@dataclass(frozen=True, slots=True, order=True)
class Backup:
    """A backup file by its name: when it was made, at which version, and of what."""

    made: datetime
    version: int
    series: str
    name: str


def parse_policy(text: str) -> dict[str, int]:
    """How many days (d), ISO weeks (w), months (m) and years (y) to keep.

    Raises:
        PolicyError: it keeps nothing, says a unit twice, or is something else.
    """
    rules = _RULE.findall(text) if _POLICY.fullmatch(text) else []
    policy = {unit: int(count) for count, unit in rules}
    if not any(policy.values()) or len(policy) != len(rules):
        raise PolicyError(
            f"{text[:40]!r} is not a policy such as 7d4w6m: days, weeks, months, years, each once"
        )
    return policy


def parse_name(name: str) -> Backup | None:
    """What a file's name says; None for a file that is none of ours."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    try:
        made = datetime.strptime(match["when"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
    return Backup(made, int(match["version"]), match["series"], name)


def superfluous(names: Iterable[str], policy: str) -> list[str]:
    """The files that may go, oldest first.

    Of each series (owner and name) the newest backup stays, and the newest of each of the last so many days, weeks,
    months and years *that have one*: a machine that was off loses nothing. All times are UTC. Files of other names
    are never listed.

    Args:
        names: of files, without their directory.
        policy: such as `7d4w6m`.

    Raises:
        PolicyError: the policy cannot be read.
    """
    rules = parse_policy(policy)
    series: dict[str, list[Backup]] = {}
    for name in set(names):
        if (backup := parse_name(name)) is not None:
            series.setdefault(backup.series, []).append(backup)
    gone = [backup for backups in series.values() for backup in _superfluous_of(backups, rules)]
    return [backup.name for backup in sorted(gone)]


def _superfluous_of(backups: list[Backup], rules: dict[str, int]) -> list[Backup]:
    newest_first = sorted(backups, reverse=True)
    kept = {newest_first[0]}
    for unit, count in rules.items():
        newest: dict[tuple[int, ...], Backup] = {}
        for backup in newest_first:
            newest.setdefault(_PERIODS[unit](backup.made), backup)
        kept.update([*newest.values()][:count])
    return [backup for backup in backups if backup not in kept]
