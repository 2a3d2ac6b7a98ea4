"""Jobs that share a transaction: what one of them undoes is not lost for the others."""

from __future__ import annotations

import pytest

from tests.store.test_store import queued
from waD.store.engine import Attach, CommitUnit, Job, MovePhase, ReleaseLease, ResetAuth, RestoreAuth, Seal
from waD.store.errors import LeaseLost, StoreError
from waD.store.state import SessionState
from waD.store.store import Store
from waD.store.unit import Committed, Unit


@pytest.fixture
async def state(store: Store) -> SessionState:
    row = await store.create_session("alerts")
    return await store.attach(row.id, "test")


def keys(value: int) -> Unit:
    unit = Unit()
    unit.put("session", "2.0", b"%d" % value)
    unit.set_creds(b'{"n":%d}' % value)
    return unit


async def write(store: Store, *jobs: Job) -> list[object]:
    return list(await store.read(store.engine.write, jobs))


async def is_sound(store: Store, state: SessionState, value: int) -> None:
    """The whole state matches its checksum, now and for whoever comes next."""
    assert await store.read(store.engine.checked_creds, state.session_id) == b'{"n":%d}' % value
    again = await store.attach(state.session_id, "test")
    assert await again.item("session", "2.0") == b"%d" % value
    await again.commit(keys(77))
    assert await store.read(store.engine.checked_creds, state.session_id) == b'{"n":77}'


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("refusal", ["stale reset", "stale restore", "bad restore", "phase"])
async def test_a_job_that_is_refused_after_it_wrote_the_head(
    store: Store, state: SessionState, first: bool, refusal: str
) -> None:
    """Whatever wants the state as it is has it written first; that must not vanish with its savepoint."""
    if not first:
        await state.commit(keys(1))
    name, token = state.session_id, state.row.lease_token
    restore = RestoreAuth(name, token, b"{}", {("session", "9.0"): b"9"}, {}, "auth:restored", {})
    refused: Job = {
        "stale reset": ResetAuth(name, token - 1, b"{}"),
        "stale restore": RestoreAuth(name, token - 1, b"{}", {}, {}, "auth:restored", {}),
        "bad restore": RestoreAuth(*[getattr(restore, part) for part in restore.__struct_fields__[:4]],
                                   {"no_such_column": 1}, "auth:restored", {}),
        "phase": MovePhase(name, token, "backfilled", "test", {}),
    }[refusal]  # fmt: skip
    good, bad = await write(store, CommitUnit(name, token, keys(2)), refused)
    assert isinstance(good, Committed)
    assert isinstance(bad, StoreError | ValueError)
    assert await store.seals(name) == []
    await is_sound(store, state, 2)


async def test_units_around_a_refused_one(store: Store, state: SessionState) -> None:
    name, token = state.session_id, state.row.lease_token
    bad = keys(2)
    bad.enqueue(queued("OUT1"))
    bad.enqueue(queued("OUT1"))
    outcomes = await write(
        store,
        CommitUnit(name, token, keys(1)),
        CommitUnit(name, token, bad),
        Seal(name, "manual"),
        CommitUnit(name, token, bad),
        CommitUnit(name, token, keys(3)),
    )
    assert [isinstance(outcome, Exception) for outcome in outcomes] == [False, True, False, True, False]
    (info,) = await store.seals(name)
    assert (await store.sealed(name, info)).items == {("session", "2.0"): b"1"}
    await is_sound(store, state, 3)


async def test_a_session_that_changes_hands_in_a_group(store: Store, state: SessionState) -> None:
    name, token = state.session_id, state.row.lease_token
    outcomes = await write(
        store,
        CommitUnit(name, token, keys(1)),
        Attach(name, "test"),
        CommitUnit(name, token, keys(2)),
        CommitUnit(name, token + 1, keys(3)),
        Attach(name, "test"),
    )
    assert isinstance(outcomes[2], LeaseLost)
    assert isinstance(outcomes[3], Committed)
    await is_sound(store, state, 3)


async def test_a_session_that_is_given_back_in_a_group(store: Store, state: SessionState) -> None:
    name, token = state.session_id, state.row.lease_token
    outcomes = await write(store, CommitUnit(name, token, keys(1)), ReleaseLease(name, token))
    assert outcomes[1] == 1
    await is_sound(store, state, 1)


async def test_a_reset_and_units_in_one_group(store: Store, state: SessionState) -> None:
    name, token = state.session_id, state.row.lease_token
    outcomes = await write(
        store,
        CommitUnit(name, token, keys(1)),
        ResetAuth(name, token, b'{"n":5}'),
        CommitUnit(name, token, keys(6)),
        ResetAuth(name, token - 1, b"{}"),
    )
    assert [isinstance(outcome, Exception) for outcome in outcomes] == [False, False, False, True]
    assert len(await store.seals(name)) == 1
    await is_sound(store, state, 6)


async def test_a_unit_without_keys_behind_a_reset_and_another_owner(
    store: Store, state: SessionState
) -> None:
    """The head that is not written yet goes on to the unit's version all the same."""
    name, token = state.session_id, state.row.lease_token
    without = Unit()
    without.event("message:new", {"n": 1})
    outcomes = await write(
        store,
        ResetAuth(name, token, b'{"n":5}'),
        ReleaseLease(name, token),
        CommitUnit(name, token + 1, without),
    )
    assert isinstance(outcomes[2], Committed)
    assert (await store.read(store.engine.auth_state, name)).creds == b'{"n":5}'
