"""An auth state with something of every kind goes through the phases of storage as real rows of Baileys and back."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.transfer.samples import a_sample
from waD.store.engine import Backfill, MovePhase
from waD.store.phases import NEXT, Phase
from waD.store.state import SessionState
from waD.store.store import Parts, Store, StoreSettings, open_store
from waD.transfer.legacy.codec import LegacyCodec

WAY: tuple[Phase, ...] = (
    "legacy_only", "dual_write", "backfilled", "snapshot_primary", "cut_over", "snapshot_primary", "legacy_only",
)  # fmt: skip
Items = dict[tuple[str, str], bytes]


@asynccontextmanager
async def attached(path: Path) -> AsyncIterator[tuple[Store, SessionState]]:
    settings = StoreSettings(path=path / "state" / "waD.db", legacy=True)
    async with open_store(settings, Parts(codec=LegacyCodec())) as store:
        row = await store.create_session("alerts")
        yield store, await store.attach(row.id, "test")


async def go(store: Store, state: SessionState, phase: Phase) -> None:
    token = state.row.lease_token
    row = await store.session(state.session_id)
    assert row is not None
    if row.auth_phase == "dual_write":
        while await store.write(Backfill(state.session_id, token, 3)):
            pass
    await store.write(MovePhase(state.session_id, token, phase, "test", {}))


async def stored(store: Store, state: SessionState) -> tuple[bytes | None, Items]:
    whole = await store.read(store.engine.auth_state, state.session_id)
    return whole.creds, {key: document for key, (_, document) in whole.items.items()}


async def equal(store: Store, state: SessionState) -> bool:
    found = await store.read(store.engine.compare, state.session_id)
    return found.equal or found.phase == "dual_write"


async def test_every_kind_survives_every_phase_and_a_restart_in_each(tmp_path: Path) -> None:
    sample = a_sample().state
    expected = (sample.creds.serialize(), dict(sample.items))
    async with attached(tmp_path) as (store, state):
        unit = state.unit()
        unit.set_creds(expected[0])
        for (kind, key), document in expected[1].items():
            unit.put(kind, key, document)
        await state.commit(unit)
        assert await stored(store, state) == expected
    for phase in WAY:
        async with attached(tmp_path) as (store, state):
            await go(store, state, phase)
            assert await stored(store, state) == expected, phase
            assert await equal(store, state)
        async with attached(tmp_path) as (store, state):
            assert state.creds == expected[0]
            assert await stored(store, state) == expected, phase
            for (kind, key), document in expected[1].items():
                assert await state.item(kind, key) == document


async def test_changes_in_every_phase_arrive_in_both_forms(tmp_path: Path) -> None:
    chance = random.Random(8)
    pool = [a_sample(seed).state for seed in (1, 11, 21)]
    kinds = sorted({key for state in pool for key in state.items})
    expected: Items = {}
    async with attached(tmp_path) as (store, state):
        unit = state.unit()
        creds = pool[0].creds.serialize()
        unit.set_creds(creds)
        await state.commit(unit)
        phase: Phase = "snapshot_primary"
        for _ in range(60):
            unit = state.unit()
            for key in chance.sample(kinds, 4):
                if chance.random() < 0.3:
                    unit.delete(*key)
                    expected.pop(key, None)
                else:
                    source = chance.choice([one for one in pool if key in one.items])
                    unit.put(*key, source.items[key])
                    expected[key] = source.items[key]
            if chance.random() < 0.3:
                creds = chance.choice(pool).creds.serialize()
                unit.set_creds(creds)
            await state.commit(unit)
            phase = chance.choice(sorted(NEXT[phase] - {"legacy_retired"}))  # type: ignore[assignment]
            await go(store, state, phase)
            assert await stored(store, state) == (creds, expected), phase
            assert await equal(store, state), phase
