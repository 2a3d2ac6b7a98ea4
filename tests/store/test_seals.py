"""Sealed auth states: made, kept, read, restored; and the tallies of a session."""

from __future__ import annotations

import threading

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.store.conftest import Raw
from tests.store.test_store import queued, text
from waD.store.errors import LeaseLost, StoreDamaged
from waD.store.model import UNDECRYPTABLE, SealInfo, SessionRow
from waD.store.seals import DAY_MS, DAYS, NEWEST, ROUTINE, superfluous
from waD.store.state import SessionState
from waD.store.store import Store

MONTH = 30 * DAY_MS
REASONS = ["periodic", "shutdown", "pre_reset", "pre_restore", "manual"]


@pytest.fixture
async def state(store: Store) -> SessionState:
    row = await store.create_session("alerts")
    state = await store.attach(row.id, "test")
    unit = state.unit()
    unit.set_creds(b'"first"')
    unit.put("session", "2.0", b'"ratchet"')
    unit.put("identity", "2.0", b'"trusted"')
    await state.commit(unit)
    return state


async def row_of(store: Store) -> SessionRow:
    return await store.require_session("alerts")


async def put(state: SessionState, key: str, value: bytes = b'"x"') -> None:
    unit = state.unit()
    unit.put("session", key, value)
    await state.commit(unit)


# Which are kept.


def seal(version: int, at: int, reason: str = "periodic") -> SealInfo:
    return SealInfo(epoch=1, version=version, reason=reason, sealed_at=at, item_count=0)


def test_four_and_one_a_day_for_a_week() -> None:
    now = 1000 * DAY_MS
    every_six_hours = [seal(1000 - n, now - n * DAY_MS // 4) for n in range(4 * 20)]
    gone = superfluous(every_six_hours, now, MONTH)
    kept = [one for one in every_six_hours if one not in gone]
    assert kept[:NEWEST] == every_six_hours[:NEWEST]
    days = [one.sealed_at // DAY_MS for one in kept[NEWEST:]]
    assert days == sorted(set(days), reverse=True)
    assert len(kept) <= NEWEST + DAYS
    assert now - kept[-1].sealed_at < DAYS * DAY_MS


def test_what_can_be_undone_stays() -> None:
    now = 1000 * DAY_MS
    reset = seal(1, now - 29 * DAY_MS, "pre_reset")
    later = [seal(100 - n, now - n * 1000) for n in range(20)]
    assert reset not in superfluous([*later, reset], now, MONTH)
    assert reset in superfluous([*later, reset], now, 28 * DAY_MS)


@given(
    st.lists(st.tuples(st.integers(0, 60 * DAY_MS), st.sampled_from(REASONS)), max_size=60),
    st.integers(1, 60 * DAY_MS),
)
def test_whatever_there_is(made: list[tuple[int, str]], undo_ms: int) -> None:
    now = 1000 * DAY_MS
    ages = sorted(made)
    seals = [seal(1000 - n, now - age, reason) for n, (age, reason) in enumerate(ages)]
    gone = superfluous(seals, now, undo_ms)
    kept = [one for one in seals if one not in gone]
    assert kept[:NEWEST] == seals[:NEWEST]
    assert len(kept) <= 2 * NEWEST + DAYS + 2
    resets = [one for one in seals if one.reason == "pre_reset" and now - one.sealed_at <= undo_ms]
    assert resets[:1] == [one for one in kept if one in resets][:1]
    assert superfluous(kept, now, undo_ms) == []
    assert all(one.reason in ROUTINE or one in kept for one in seals[:NEWEST])


# Making and reading.


async def test_a_seal_holds_everything_and_is_read_back(store: Store, state: SessionState) -> None:
    version = await store.seal(state.session_id, "manual")
    await put(state, "2.0", b'"later"')
    (info,) = await store.seals(state.session_id)
    assert (info.version, info.reason, info.item_count) == (version, "manual", 2)
    sealed = await store.sealed(state.session_id, info)
    assert sealed.creds == b'"first"'
    assert sealed.items == {("session", "2.0"): b'"ratchet"', ("identity", "2.0"): b'"trusted"'}
    assert "ratchet" not in repr(sealed)


async def test_only_changed_keys_make_another_one(store: Store, state: SessionState) -> None:
    assert await store.seal(state.session_id, "periodic", if_changed=True) > 0
    assert await store.seal(state.session_id, "periodic", if_changed=True) == 0
    unit = state.unit()
    unit.set_session(current_status="open")
    unit.event("connection:status", {})
    await state.commit(unit)
    assert await store.seal(state.session_id, "periodic", if_changed=True) == 0
    await put(state, "3.0")
    assert await store.seal(state.session_id, "periodic", if_changed=True) > 0
    unit = state.unit()
    unit.set_creds(b'"second"')
    await state.commit(unit)
    assert await store.seal(state.session_id, "shutdown", if_changed=True) > 0
    assert [one.reason for one in await store.seals(state.session_id)] == ["shutdown", "periodic", "periodic"]


async def test_a_seal_that_was_changed_is_refused(
    store: Store, state: SessionState, raw: Raw, backend: str
) -> None:
    await store.seal(state.session_id, "manual")
    (info,) = await store.seals(state.session_id)
    document = "document" if backend == "sqlite" else "document::text"
    changed = f"replace(replace({document}, 'first', 'other'), '\"data\":', '\"data\":\"AAAA\",\"x\":')"
    raw(f"UPDATE wa_auth_sealed SET document={changed}{'' if backend == 'sqlite' else '::jsonb'}")
    with pytest.raises(StoreDamaged, match=r"damaged|checksum"):
        await store.sealed(state.session_id, info)
    with pytest.raises(StoreDamaged, match="gone"):
        await store.sealed(state.session_id, seal(77, 0))


async def test_old_seals_go(store: Store, state: SessionState) -> None:
    for n in range(8):
        await put(state, f"{n}.0")
        await store.seal(state.session_id, "periodic")
    newest = await store.seals(state.session_id)
    assert await store.prune_seals(state.session_id, newest[0].sealed_at + 8 * DAY_MS, MONTH) == 4
    assert await store.seals(state.session_id) == newest[:4]
    assert await store.prune_seals(state.session_id, newest[0].sealed_at, MONTH) == 0


# Restoring.


async def test_a_restore_replaces_keys_and_keeps_the_rest(store: Store, state: SessionState) -> None:
    unit = state.unit()
    unit.add_message(text())
    unit.enqueue(queued())
    await state.commit(unit)
    await state.item("session", "2.0")  # in the cache
    done = await state.restore_auth(
        b'"old"',
        {("session", "9.0"): b'"stale"'},
        {"me_pn": "1:2@s.whatsapp.net"},
        ("auth:restored", {"why": 1}),
    )
    assert state.creds == b'"old"'
    assert await state.item("session", "2.0") is None
    assert await state.all_items("session") == {"9.0": b'"stale"'}
    assert done.held == 1
    assert [row.stanza for row in await state.outbox(("held",))] == [None]
    (event,) = done.events
    assert (event.type, event.data) == ("auth:restored", {"why": 1, "sealedVersion": done.sealed})
    assert (await store.events())[-1] == event
    row = await row_of(store)
    assert (row.auth_epoch, row.me_pn) == (2, "1:2@s.whatsapp.net")
    assert len(await store.messages(state.session_id)) == 1
    newest, *_ = await store.seals(state.session_id)
    assert newest.reason == "pre_restore"
    assert (await store.sealed(state.session_id, newest)).creds == b'"first"'
    await put(state, "9.0", b'"goes on"')


async def test_only_the_owner_restores(store: Store, state: SessionState) -> None:
    await store.attach(state.session_id, "somebody else")
    with pytest.raises(LeaseLost):
        await state.restore_auth(b'"old"', {}, {}, ("auth:restored", {}))
    assert (await row_of(store)).auth_epoch == 1
    assert await store.seals(state.session_id) == []


# Tallies and counts.


async def test_messages_are_counted_once(store: Store, state: SessionState) -> None:
    for _ in range(2):  # the second time they are duplicates
        unit = state.unit()
        unit.add_message(text("A1"))
        unit.add_message(text("A2", source="offline"))
        unit.add_message(text("A3", source="history"))
        unit.add_message(text("A4", from_me=True))
        await state.commit(unit)
    unit = state.unit()
    unit.add_message(text("A5", kind=UNDECRYPTABLE, body=None, raw=None))
    await state.commit(unit)
    row = await row_of(store)
    assert (row.messages_received, row.messages_sent, row.decrypt_failures) == (2, 0, 1)
    unit = state.unit()
    unit.add_message(text("A5"))
    await state.commit(unit)
    row = await row_of(store)
    assert (row.messages_received, row.decrypt_failures) == (3, 1)


async def test_requests_to_repeat_are_counted(store: Store, state: SessionState) -> None:
    for _ in range(2):
        unit = state.unit()
        unit.tally("retry_requests")
        await state.commit(unit)
    assert (await row_of(store)).retry_requests == 2


async def test_sent_messages_are_counted_once(store: Store, state: SessionState) -> None:
    unit = state.unit()
    unit.enqueue(queued())
    await state.commit(unit)
    assert await store.outbox_count(state.session_id, ("queued", "sending")) == 1
    for _ in range(2):
        unit = state.unit()
        unit.update_outbox("OUT1", state="sent", sent_at=5)
        await state.commit(unit)
    assert (await row_of(store)).messages_sent == 1
    assert await store.outbox_count(state.session_id, ("queued", "sending")) == 0
    assert await store.outbox_count(state.session_id, ("sent",)) == 1


async def test_a_number_that_one_session_gave_up_another_may_have(store: Store) -> None:
    rows = [await store.create_session(name) for name in ("one", "two")]
    for row in rows:
        state = await store.attach(row.id, "test")
        unit = state.unit()
        unit.set_session(me_pn="15550000001:7@s.whatsapp.net")
        await state.commit(unit)
    assert {row.me_pn for row in await store.sessions()} == {"15550000001:7@s.whatsapp.net"}


async def test_a_check_does_not_hold_up_readers(store: Store, state: SessionState) -> None:
    engine = store.engine
    original, entered, leave = engine.integrity, trio.Event(), threading.Event()

    def slow(quick: bool) -> list[str]:
        trio.from_thread.run_sync(entered.set)
        leave.wait(10)
        return original(quick)

    engine.integrity = slow  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: store.integrity_check(quick=True))
        await entered.wait()
        assert await state.all_items("session")
        await put(state, "4.0")
        leave.set()
    assert await store.integrity_check() == []


async def test_a_transaction_that_stands_still_shows(store: Store, state: SessionState) -> None:
    engine = store.engine
    original, entered, leave = engine.write, trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()

    def slow(jobs: object) -> object:
        token.run_sync_soon(entered.set)
        leave.wait(10)
        return original(jobs)  # type: ignore[arg-type]

    engine.write = slow  # type: ignore[method-assign,assignment]
    assert store.write_stuck_s == 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(put, state, "5.0")
        await entered.wait()
        assert store.write_stuck_s > 0
        leave.set()
    assert store.write_stuck_s == 0
