"""Many paired sessions in a database, quickly: all at once, in this process, with few prekeys each."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
import trio

from tests.e2e.in_process import Machine, machine
from tests.soak.inside import Watch
from waD.sandbox import Sandbox

FIRST_NUMBER: Final = 15550040000
PREKEYS: Final = 40
"""Enough that the server does not ask for more soon."""
AT_ONCE: Final = 10
PAIR_S: Final = 600.0


def name_of(number: int) -> str:
    return f"s{number:03}"


def phone_of(number: int) -> str:
    """Digits of the phone whose account a session belongs to."""
    return str(FIRST_NUMBER + number)


def database_in(directory: Path) -> Path:
    """Where `tests.e2e.daemon.Daemon` keeps it."""
    return directory / "state" / "waD" / "waD.db"


async def make_crowd(directory: Path, sandbox: Sandbox, count: int, watch: Watch | None = None) -> list[str]:
    """Pair sessions with phones of their own and stop them again; returns their names."""
    database = database_in(directory)
    database.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("waD.link.prekeys.HIGH_WATERMARK", PREKEYS)
        async with (
            machine(directory, sandbox, watch, database=database) as made,
            trio.open_nursery() as nursery,
        ):
            slots = trio.CapacityLimiter(AT_ONCE)
            for number in range(count):
                nursery.start_soon(_pair, made, number, slots)
    return [name_of(number) for number in range(count)]


async def _pair(made: Machine, number: int, slots: trio.CapacityLimiter) -> None:
    async with slots:
        with trio.fail_after(PAIR_S):
            await made.pair(made.sandbox.phone(phone_of(number)), name_of(number))
