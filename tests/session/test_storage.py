"""The steps of storage over a real store with the rows of a Node service, beside sessions that run."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.session.test_manager import Bed, is_open, refuses
from waD.config import load
from waD.control.types import (
    BackfillParams,
    PromoteParams,
    PurgeParams,
    RetireParams,
    RewrapParams,
    RollbackParams,
    StorageParams,
    StorageResult,
)
from waD.events import model as events
from waD.session.gates import DAY_MS
from waD.session.manager import Manager
from waD.session.storage_facts import Since, restarts
from waD.session.vitals import Clock
from waD.store.engine import MovePhase
from waD.store.model import MessageRow, SessionRow
from waD.store.store import Parts, Store, StoreSettings, open_store
from waD.transfer.legacy.codec import LegacyCodec

NAME = StorageParams(name="alerts")
DRY = StorageParams(name="alerts", dry_run=True)


class StorageBed(Bed):
    """Time goes on when the test says so."""

    later_ms = 0

    def again(self) -> Manager:
        clock = Clock(
            unix_ms=lambda: time.time_ns() // 1_000_000 + self.later_ms,
            jitter=lambda: 0.5,
            random=os.urandom,
        )
        self.manager = Manager(self.store, self.log, lambda: self.settings, self._doors, clock, "test/1")
        return self.manager

    async def fill(self, count: int = 5) -> None:
        """Items of several kinds."""
        state = await self.store.attach((await self.row()).id, "before")
        unit = state.unit()
        for number in range(count):
            unit.put("identity-change", f"{number}.0", b'"x"')
        await state.commit(unit)

    async def row(self) -> SessionRow:
        row = await self.store.session("alerts")
        assert row is not None
        return row

    async def phase(self) -> str:
        return (await self.row()).auth_phase

    async def backed_up(self) -> None:
        await self.store.append_event((await self.row()).id, events.AUTH_BACKUP, {"version": 1})


def failures(result: StorageResult) -> set[str]:
    return {check.check for check in result.checks if not check.ok}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "waD.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[Store]:
    settings = StoreSettings(path=path, legacy=True)
    async with open_store(settings, Parts(codec=LegacyCodec())) as opened:
        yield opened


@pytest.fixture
async def bed(store: Store, tmp_path: Path) -> StorageBed:
    config = tmp_path / "waD.toml"
    config.write_text("[daemon]\nrestore_spread = 0\nstop_timeout = 2\n[alerts]\nreconnects = 1000\n")
    made = StorageBed(store, load(config, {"HOME": str(tmp_path)}))
    await made.paired("alerts")
    await made.fill()
    return made


def damage(path: Path, statement: str) -> None:
    """As a disk, or somebody with an editor, does."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        assert db.execute(statement).rowcount > 0


async def test_all_the_way_with_every_demand(bed: StorageBed) -> None:
    async with bed.running() as manager:
        storage = manager.storage
        found = await storage.status("alerts")
        assert (found.phase, found.lag, found.encrypted, found.kek) == ("snapshot_primary", 0, True, "main")
        assert found.items >= 5
        assert found.legacy_rows > found.items

        back = await storage.rollback(RollbackParams(name="alerts", to="legacy_only"))
        assert (back.outcome, back.was, back.phase) == ("done", "snapshot_primary", "legacy_only")
        assert (await storage.status("alerts")).items == 0

        dry = await storage.dual_write(DRY)
        assert (dry.outcome, dry.phase, await bed.phase()) == ("possible", "legacy_only", "legacy_only")
        begun = await storage.dual_write(NAME)
        assert (begun.outcome, begun.phase) == ("done", "dual_write")
        assert {check.check for check in begun.checks} == {"verified", "room", "durability"}

        told = await storage.backfill(BackfillParams(name="alerts", dry_run=True))
        assert told.outcome == "possible"
        assert told.comparison is not None
        assert sum(told.comparison.missing.values()) >= 5
        first = await storage.backfill(BackfillParams(name="alerts", batch=2, batches=2))
        assert (first.outcome, first.phase) == ("unfinished", "dual_write")
        assert (await storage.verify(NAME)).outcome == "done"  # what is still to be copied is no difference
        assert first.progress is not None
        assert first.progress.copied == 4
        assert first.progress.remaining == sum(told.comparison.missing.values()) - 4
        last = await storage.backfill(BackfillParams(name="alerts", batch=2))
        assert (last.outcome, last.phase) == ("done", "backfilled")
        assert last.progress is not None
        assert (last.progress.copied, last.progress.remaining) == (first.progress.remaining, 0)
        assert (await storage.backfill(BackfillParams(name="alerts"))).outcome == "nothing"

        early = await storage.promote(PromoteParams(name="alerts"))
        assert (early.outcome, failures(early)) == ("refused", {"age", "restarts"})
        assert await bed.phase() == "backfilled"

    bed.again()
    async with bed.running() as manager:
        storage = manager.storage
        young = await storage.promote(PromoteParams(name="alerts"))
        assert failures(young) == {"age"}
        promoted = await storage.promote(PromoteParams(name="alerts", min_age=0))
        assert (promoted.outcome, promoted.phase) == ("done", "snapshot_primary")
        refused = await storage.cutover(NAME)
        assert (refused.outcome, failures(refused)) == ("refused", {"age", "restarts", "backup"})

    for _ in range(2):
        bed.again()
        async with bed.running():
            pass
    bed.again()
    await bed.backed_up()
    async with bed.running() as manager:
        assert failures(await manager.storage.cutover(NAME)) == {"age"}
        bed.later_ms = 8 * DAY_MS
        assert failures(await manager.storage.cutover(NAME)) == {"backup"}


async def shift_phase(bed: StorageBed, path: Path, days: int) -> None:
    """Let the present phase have begun so much earlier."""
    damage(path, f"UPDATE wa_auth_phase_log SET at=at-{days * DAY_MS}")
    damage(path, f"UPDATE wa_sessions SET created_at=created_at-{days * DAY_MS}")


async def test_cut_over_back_while_connected_and_retired(bed: StorageBed, path: Path) -> None:
    for _ in range(3):
        bed.again()
        async with bed.running():
            pass
    await bed.backed_up()
    damage(path, f"UPDATE wa_sessions SET created_at=created_at-{8 * DAY_MS}")
    bed.again()
    async with bed.running() as manager:
        storage = manager.storage
        await bed.until("alerts", is_open)
        done = await storage.cutover(NAME)
        assert (done.outcome, done.phase, failures(done)) == ("done", "cut_over", set())
        await bed.until("alerts", is_open)
        (log,) = await bed.store.read(bed.store.engine.phase_log, (await bed.row()).id, 1)
        assert {check["check"] for check in log["report"]["checks"]} >= {"age", "backup", "alarms", "equal"}
        assert log["report"]["leaseToken"] == (await bed.row()).lease_token
        assert log["report"]["comparison"]["missing"] == {}

        state = next(iter(manager.roster.entries.values())).supervisor.state
        async with state.lock:
            unit = state.unit()
            unit.put("identity-change", "0.0", b'"newer"')
            unit.put("identity-change", "new.0", b'"new"')
            unit.delete("identity-change", "1.0")
            await state.commit(unit)
        status = await storage.status("alerts")
        assert (status.phase, status.lag > 0) == ("cut_over", True)

        back = await storage.rollback(RollbackParams(name="alerts"))
        assert (back.outcome, back.phase) == ("done", "snapshot_primary")
        assert [check.check for check in back.checks] == ["readable", "equal"]
        assert (await storage.status("alerts")).lag == 0
        await bed.until("alerts", is_open)
        down = await storage.rollback(RollbackParams(name="alerts", to="legacy_only"))
        assert down.phase == "legacy_only"
        entry = next(iter(manager.roster.entries.values()))
        found = await entry.supervisor.state.all_items("identity-change")
        assert found["0.0"] == b'"newer"'
        assert found["new.0"] == b'"new"'
        assert "1.0" not in found


async def test_what_is_down_stays_down_on_the_way_back(store: Store, bed: StorageBed) -> None:
    await store.update_session((await bed.row()).id, desired_state="down")
    async with bed.running() as manager:
        await move(bed, "cut_over")
        result = await manager.storage.rollback(RollbackParams(name="alerts", to="backfilled"))
        assert (result.outcome, result.phase) == ("done", "backfilled")
        assert (await manager.status("alerts")).state in ("new", "stopped")


async def move(bed: StorageBed, to: Any) -> None:
    """Without any question."""
    row = await bed.row()
    await bed.store.write(MovePhase(row.id, row.lease_token, to, "test", {"leaseToken": row.lease_token}))


async def test_retiring_demands_the_name(bed: StorageBed, path: Path) -> None:
    await bed.backed_up()
    async with bed.running() as manager:
        await move(bed, "cut_over")
        early = await manager.storage.retire_legacy(RetireParams(name="alerts", confirm="alerts"))
        assert failures(early) == {"age"}
        await shift_phase(bed, path, 15)
        row = await bed.row()
        for confirm in ("", "Alerts", row.id):
            wrong = await manager.storage.retire_legacy(RetireParams(name=row.id, confirm=confirm))
            assert (wrong.outcome, failures(wrong)) == ("refused", {"confirmed"})
        done = await manager.storage.retire_legacy(RetireParams(name=row.id, confirm="alerts"))
        assert (done.outcome, done.phase) == ("done", "legacy_retired")
        status = await manager.storage.status("alerts")
        assert status.legacy_rows == 0
        error = await refuses("wrong_state", manager.storage.rollback(RollbackParams(name="alerts")))
        assert "restore a backup" in error.message


async def test_a_step_from_the_wrong_phase_is_refused_with_the_phase(bed: StorageBed) -> None:
    async with bed.running() as manager:
        storage = manager.storage
        for work in (
            storage.dual_write(NAME),
            storage.backfill(BackfillParams(name="alerts")),
            storage.retire_legacy(RetireParams(name="alerts", confirm="alerts")),
        ):
            error = await refuses("wrong_state", work)
            assert error.data == {"state": "snapshot_primary", "name": "alerts"}
        assert (await storage.promote(PromoteParams(name="alerts"))).outcome == "nothing"
        assert (
            await storage.rollback(RollbackParams(name="alerts", to="snapshot_primary"))
        ).outcome == "nothing"
        await refuses("no_such_session", storage.status("nobody"))
        await refuses("no_such_session", storage.cutover(StorageParams(name="nobody")))


async def test_only_one_step_at_a_time(bed: StorageBed) -> None:
    outcomes: list[str] = []

    async def verify_and_cut(manager: Manager) -> None:
        try:
            outcomes.append((await manager.storage.cutover(DRY)).outcome)
        except Exception as error:  # which of the two comes first is chance
            outcomes.append(getattr(error, "symbol", type(error).__name__))

    async with bed.running() as manager:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(verify_and_cut, manager)
        assert sorted(outcomes) == ["refused", "wrong_state"]


async def test_verify_finds_a_difference_and_damage_and_records_it(bed: StorageBed, path: Path) -> None:
    async with bed.running() as manager:
        storage = manager.storage
        dry = await storage.verify(DRY)
        assert dry.outcome == "done"
        assert (await storage.status("alerts")).verified_at is None
        sound = await storage.verify(NAME)
        assert sound.outcome == "done"
        assert sound.verdict is not None
        assert sound.comparison is not None
        status = await storage.status("alerts")
        assert (status.verified_ok, status.verified_level) == (True, 3)

        damage(path, "DELETE FROM wa_auth_keys WHERE type='x-wad-identity-change' AND id='1.0'")
        differs = await storage.verify(NAME)
        assert (differs.outcome, failures(differs)) == ("damaged", {"equal"})
        assert differs.comparison is not None
        assert differs.comparison.extra == {"identity-change": 1}
        assert (await storage.status("alerts")).verified_ok is False
        assert (await storage.cutover(NAME)).outcome == "damaged"

        damage(path, "DELETE FROM wa_auth_items WHERE type='identity-change' AND id='2.0'")
        broken = await storage.verify(NAME)
        assert broken.outcome == "damaged"
        assert broken.verdict is not None
        assert [note.code for note in broken.verdict.errors] == ["store_damaged"]
        assert (await storage.cutover(NAME)).outcome == "damaged"
        assert await bed.phase() == "snapshot_primary"


async def test_a_damaged_snapshot_is_left_by_the_way_back(bed: StorageBed, path: Path) -> None:
    damage(path, "DELETE FROM wa_auth_items WHERE type='identity-change' AND id='2.0'")
    async with bed.running() as manager:
        await bed.until("alerts", lambda view: view.state == "failed")
        result = await manager.storage.rollback(RollbackParams(name="alerts", to="legacy_only"))
        assert (result.outcome, result.phase) == ("done", "legacy_only")
        view = await bed.until("alerts", is_open)
        assert view.paired
        assert (await manager.storage.verify(NAME)).outcome == "done"
        assert (await manager.storage.dual_write(NAME)).outcome == "done"
        assert (await manager.storage.backfill(BackfillParams(name="alerts"))).outcome == "done"


async def test_errors_of_the_phase_hold_up_the_cutover(bed: StorageBed) -> None:
    session = (await bed.row()).id
    await bed.store.append_event(session, events.STORAGE_WRITE_FAILED, {})
    await bed.store.append_event(session, *events.alert("info", "alerts", "nothing"))
    async with bed.running() as manager:
        refused = await manager.storage.cutover(NAME)
        assert "storage_errors" in failures(refused)
        assert "alarms" not in failures(refused)
        await bed.store.append_event(session, *events.alert("warning", "alerts", "reconnects"))
        assert "alarms" in failures(await manager.storage.cutover(NAME))
        bed.later_ms = 2 * DAY_MS
        assert "alarms" not in failures(await manager.storage.cutover(NAME))
        await bed.store.append_event(session, events.STORAGE_FALLBACK, {"count": 3, "kinds": {"session": 3}})
        assert (await manager.storage.status("alerts")).fallback_hits == 3


async def test_encryption_says_what_it_costs(tmp_path: Path, path: Path) -> None:
    config = tmp_path / "waD.toml"
    config.write_text("[daemon]\nrestore_spread = 0\nstop_timeout = 2\n")
    settings = load(config, {"HOME": str(tmp_path)})
    clear = StoreSettings(path=path, legacy=True, encrypt=False)
    async with open_store(clear, Parts(codec=LegacyCodec())) as store:
        bed = StorageBed(store, settings)
        await bed.paired("alerts")
        async with bed.running() as manager:
            refused = await manager.storage.encrypt(NAME)
            assert (refused.outcome, failures(refused)) == ("refused", {"kek"})
            assert (await manager.storage.rewrap(RewrapParams(name="alerts"))).outcome == "refused"
    async with open_store(StoreSettings(path=path, legacy=True), Parts(codec=LegacyCodec())) as store:
        bed = StorageBed(store, settings)
        async with bed.running() as manager:
            storage = manager.storage
            await bed.until("alerts", is_open)
            dry = await storage.encrypt(DRY)
            assert dry.outcome == "possible"
            assert not (await storage.status("alerts")).encrypted
            done = await storage.encrypt(NAME)
            assert done.outcome == "done"
            assert any("this state is lost" in note for note in done.notes)
            assert any("stay in clear text" in note for note in done.notes)
            assert (await storage.status("alerts")).kek == "main"
            assert (await storage.encrypt(NAME)).outcome == "nothing"
            assert (await storage.verify(NAME)).outcome == "done"
            assert (await storage.rewrap(RewrapParams(name="alerts"))).outcome == "nothing"
            missing = await storage.rewrap(RewrapParams(name="alerts", kek="nobody"))
            assert (missing.outcome, failures(missing)) == ("refused", {"kek"})
        bed.again()
        async with bed.running():
            await bed.until("alerts", is_open)


async def test_a_store_that_cannot_read_rows_refuses(tmp_path: Path, path: Path) -> None:
    config = tmp_path / "waD.toml"
    config.write_text("[daemon]\nrestore_spread = 0\nstop_timeout = 2\n")
    async with open_store(StoreSettings(path=path)) as store:
        bed = StorageBed(store, load(config, {"HOME": str(tmp_path)}))
        await bed.paired("alerts")
        async with bed.running() as manager:
            error = await refuses("refused", manager.storage.rollback(RollbackParams(name="alerts")))
            assert "nothing was changed" in error.message
            assert await bed.phase() == "cut_over"
            await bed.until("alerts", is_open)


def test_restarts_are_never_counted_too_many() -> None:
    row = SessionRow(id="x", name="x", lease_token=7, lease_holder="b")
    assert restarts(row, Since(0, 7, "b"), shared=False) == 0
    assert restarts(row, Since(0, 4, "a"), shared=False) == 3
    assert restarts(row, Since(0, 9, "a"), shared=False) == 0
    assert restarts(row, Since(0, 6, "b"), shared=True) == 0
    assert restarts(row, Since(0, 6, "a"), shared=True) == 1
    assert restarts(row, Since(0, 3, "a"), shared=True) == 2
    assert restarts(row, Since(0, 7, "a"), shared=True) == 0


async def test_history_is_purged_by_order_only(bed: StorageBed) -> None:
    row = await bed.row()
    state = await bed.store.attach(row.id, "before")
    unit = state.unit()
    for number in range(7):
        chat = f"1555000000{number % 2 + 2}@s.whatsapp.net"
        unit.add_message(
            MessageRow(
                chat=chat,
                sender=chat,
                message_id=f"M{number}",
                from_me=False,
                ts=number,
                kind="text",
                body="x",
            )
        )
    await state.commit(unit)
    async with bed.running() as manager:
        error = await refuses("bad_params", manager.purge(PurgeParams(session="alerts")))
        assert "which messages" in error.message
        counted = await manager.purge(PurgeParams(session="alerts", before=5, dry_run=True))
        assert (counted.found, counted.deleted) == (5, 0)
        assert len(await bed.store.messages(row.id)) == 7
        one = await manager.purge(PurgeParams(session="alerts", before=5, chat="15550000002"))
        assert (one.found, one.deleted) == (3, 3)
        rest = await manager.purge(PurgeParams(session="alerts", chat="15550000003@s.whatsapp.net"))
        assert (rest.found, rest.deleted) == (3, 3)
        assert [message.message_id for message in await bed.store.messages(row.id)] == ["M6"]
        told = await bed.store.events(types=[events.MESSAGES_PURGED])
        assert [event.data["count"] for event in told] == [3, 3]
