"""Sealed snapshots: of paired sessions, every six hours if keys changed, and at the end."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from tests.session.test_manager import Bed, bed, store  # noqa: F401 - fixtures
from waD.session.snapshots import EVERY_MS, seal_at_end, snapshot_all
from waD.store.errors import KekUnavailable, StorageUnavailable
from waD.store.seals import DAY_MS
from waD.store.sqlite.engine import wall_clock_ms


async def change(bed: Bed, name: str = "one") -> None:  # noqa: F811
    row = await bed.store.require_session(name)
    state = await bed.store.attach(row.id, "test")
    unit = state.unit()
    unit.put("session", "2.0", b"another")
    await state.commit(unit)


async def reasons(bed: Bed, name: str = "one") -> list[str]:  # noqa: F811
    row = await bed.store.require_session(name)
    return [seal.reason for seal in await bed.store.seals(row.id)]


async def test_every_six_hours_if_keys_changed(bed: Bed) -> None:  # noqa: F811
    await bed.paired("one", desired="down")
    await bed.store.create_session("never-paired")
    now = wall_clock_ms()

    async def look(hours: float) -> int:
        return await snapshot_all(bed.store, bed.settings, lambda: now + round(hours * 3_600_000))

    assert await look(0) == 1
    await change(bed)
    assert await look(5) == 0
    assert await look(6.1) == 1
    assert await look(12) == 0
    assert await reasons(bed) == ["periodic", "periodic"]
    assert await reasons(bed, "never-paired") == []


async def test_old_ones_are_pruned_by_the_sessions_own_setting(bed: Bed, tmp_path: Path) -> None:  # noqa: F811
    await bed.paired("one", desired="down")
    row = await bed.store.require_session("one")
    for _ in range(8):
        await change(bed)
        await bed.store.seal(row.id, "periodic")
    later = wall_clock_ms() + 8 * DAY_MS
    await snapshot_all(bed.store, bed.settings, lambda: later)
    assert len(await reasons(bed)) == 4


async def test_at_the_end_what_changed_is_sealed(bed: Bed) -> None:  # noqa: F811
    await bed.paired("one", "two", desired="down")
    assert await seal_at_end(bed.store) == 2
    await change(bed)
    assert await seal_at_end(bed.store) == 1
    assert await reasons(bed) == ["shutdown", "shutdown"]
    assert await reasons(bed, "two") == ["shutdown"]


async def test_one_session_without_its_key_does_not_keep_the_others_from_it(
    bed: Bed,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await bed.paired("one", "two", desired="down")
    lost, seal = await bed.store.require_session("one"), bed.store.seal

    async def refuse(session_id: str, *args: Any, **more: Any) -> int:
        if session_id == lost.id:
            raise KekUnavailable("the key 'main' is not here")
        return await seal(session_id, *args, **more)

    monkeypatch.setattr(bed.store, "seal", refuse)
    assert await snapshot_all(bed.store, bed.settings, wall_clock_ms) == 1
    await change(bed, "two")
    assert await seal_at_end(bed.store) == 1
    assert (await reasons(bed), await reasons(bed, "two")) == ([], ["shutdown", "periodic"])
    assert caplog.text.count("session one: no snapshot of its keys was made: the key 'main'") == 2


async def test_a_store_that_refuses_is_logged(
    bed: Bed,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await bed.paired("one", desired="down")

    async def full(*args: object, **more: object) -> int:
        raise StorageUnavailable("waD.db: disk full")

    monkeypatch.setattr(bed.store, "seal", full)
    with caplog.at_level(logging.WARNING):
        assert await snapshot_all(bed.store, bed.settings, lambda: 0) == 0
        assert await seal_at_end(bed.store) == 0
    assert caplog.text.count("disk full") == 2
    assert EVERY_MS == 6 * 3_600_000
