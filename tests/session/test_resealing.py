"""Sealed copies of a session's auth state: listed, and put back, whatever they were made for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.session.test_authority import SAMPLE, damage, put, restore, server, store  # noqa: F401 - fixtures
from tests.session.test_manager import Bed, bed, is_open, refuses  # noqa: F401 - a fixture
from tests.transfer.samples import BOB, a_sample
from waD.control.types import BackupParams, RestoreResult, SealRestoreParams, SealView, SendRequest
from waD.e2ee.record import SessionRecord
from waD.messaging import kinds
from waD.session.manager import Manager
from waD.store.engine import SealReason
from waD.store.errors import StorageUnavailable

REASONS: tuple[SealReason, ...] = ("manual", "periodic", "shutdown", "pre_migration")


async def commit(manager: Manager, text: bytes) -> None:
    state = (await manager.roster.find("alerts"))[1].supervisor.state
    async with state.lock:
        unit = state.unit()
        unit.put(kinds.IDENTITY_CHANGE, BOB, text)
        await state.commit(unit)


async def seal_back(manager: Manager, seal: SealView, **order: object) -> RestoreResult:
    params = SealRestoreParams(name="alerts", epoch=seal.epoch, version=seal.version, **order)  # type: ignore[arg-type]
    return await manager.auth.restore_seal(params)


@pytest.mark.parametrize("reason", REASONS)
async def test_any_sealed_copy_comes_back_as_an_old_state(bed: Bed, reason: SealReason) -> None:  # noqa: F811
    row = await put(bed)
    async with bed.running() as manager:
        await commit(manager, b'"sealed"')
        await bed.store.seal(row.id, reason)
        await manager.connect("alerts")
        await bed.until("alerts", is_open)
        await manager.disconnect("alerts")
        await manager.send(SendRequest(session="alerts", to="15550000002", text="waits"))
        await commit(manager, b'"later"')
        listed = await manager.auth.seals("alerts")
        (seal,) = listed.seals
        assert (listed.connection_id, seal.reason, seal.current) == (row.id, reason, False)
        assert seal.items == len(SAMPLE.state.items)
        assert (listed.epoch, listed.version) > (seal.epoch, seal.version)
        error = await refuses("refused", seal_back(manager, seal))
        assert (error.data["code"], "--rollback-anyway" in error.message) == ("target_newer", True)
        planned = await seal_back(manager, seal, rollback_anyway=True, dry_run=True)
        assert (planned.done, planned.exact, planned.peers) == (False, False, 2)
        assert [one.reason for one in (await manager.auth.seals("alerts")).seals] == [reason]
        done = await seal_back(manager, seal, rollback_anyway=True, mode="receive-only")
        assert (done.done, done.exact, done.held, done.sessions) == (True, False, 1, 2)
        state = (await manager.roster.find("alerts"))[1].supervisor.state
        # What the state in place knew of others is newer.
        assert await state.item(kinds.IDENTITY_CHANGE, BOB) == b'"later"'
        record = await state.record(kinds.SESSION, BOB, SessionRecord.parse)
        assert record is not None
        assert not record.has_usable_session
        assert await state.item_keys(kinds.SENDER_KEY, "") != []
        first, second = (await manager.auth.seals("alerts")).seals
        assert (first.reason, second) == ("pre_restore", seal)
        (event,) = await bed.store.events(types=["auth:restored"])
        assert event.data == {
            "reason": "seal", "restoredEpoch": seal.epoch, "restoredVersion": seal.version, "peers": 2,
            "sealedVersion": first.version,
        }  # fmt: skip
        assert (await manager.status("alerts")).desired == "down"
        assert (await manager.auth.verify("alerts", 3)).verdict.errors == []
        await manager.connect("alerts")
        await bed.until("alerts", is_open)


async def test_the_last_version_goes_on_exactly(bed: Bed) -> None:  # noqa: F811
    """Such as after the disk has damaged what was sealed at the end."""
    row = await put(bed)
    await bed.store.update_session(row.id, current_status="stopped")
    await bed.store.seal(row.id, "shutdown")
    await damage(bed, row.id)
    async with bed.running() as manager:
        (seal,) = (await manager.auth.seals("alerts")).seals
        assert seal.current
        planned = await seal_back(manager, seal, dry_run=True)
        assert (planned.exact, planned.peers) == (True, 0)
        done = await seal_back(manager, seal)
        assert (done.done, done.exact) == (True, True)
        state = (await manager.roster.find("alerts"))[1].supervisor.state
        assert await state.item(kinds.SESSION, BOB) == SAMPLE.state.items[kinds.SESSION, BOB]
        (event,) = await bed.store.events(types=["auth:restored"])
        assert event.data["reason"] == "exact"
        # The same seal is an old one now.
        assert not (await seal_back(manager, seal, rollback_anyway=True, dry_run=True)).exact


async def test_what_was_promised_to_go_on_exactly_is_not_restored_otherwise(bed: Bed) -> None:  # noqa: F811
    row = await put(bed)
    async with bed.running() as manager:
        await manager.connect("alerts")
        await bed.until("alerts", is_open)
        await bed.store.seal(row.id, "manual")
        (seal,) = (await manager.auth.seals("alerts")).seals
        assert seal.current
        error = await refuses("refused", seal_back(manager, seal, rollback_anyway=True))
        assert error.data["code"] == "moved_on"
        await bed.until("alerts", is_open)
        assert await bed.store.events(types=["auth:restored"]) == []


async def test_what_was_cleared_comes_back_without_insisting(bed: Bed) -> None:  # noqa: F811
    await put(bed)
    async with bed.running() as manager:
        await manager.logout("alerts")
        (seal,) = (await manager.auth.seals("alerts")).seals
        assert seal.reason == "pre_reset"
        done = await seal_back(manager, seal)
        assert (done.done, (await manager.status("alerts")).paired) == (True, True)


async def test_what_is_no_sealed_copy_or_not_this_device(bed: Bed) -> None:  # noqa: F811
    row = await put(bed)
    async with bed.running() as manager:
        await refuses("no_such_session", manager.auth.seals("nobody"))
        order = SealRestoreParams(name="nobody", epoch=1, version=1)
        await refuses("no_such_session", manager.auth.restore_seal(order))
        await bed.store.seal(row.id, "manual")
        (seal,) = (await manager.auth.seals("alerts")).seals
        error = await refuses("refused", manager.auth.restore_seal(
            SealRestoreParams(name="alerts", epoch=seal.epoch, version=seal.version + 5)
        ))  # fmt: skip
        assert "--seals" in error.message
        # Another device was linked since.
        state = (await manager.roster.find("alerts"))[1].supervisor.state
        async with state.lock:
            unit = state.unit()
            unit.set_creds(a_sample(7).state.creds.serialize())
            await state.commit(unit)
        error = await refuses("refused", seal_back(manager, seal, rollback_anyway=True))
        assert error.data["code"] == "other_identity"
        assert [one.reason for one in (await manager.auth.seals("alerts")).seals] == ["manual"]


async def test_one_that_would_not_work_and_one_of_no_device(bed: Bed) -> None:  # noqa: F811
    sample = replace(SAMPLE, state=SAMPLE.with_items({(kinds.SESSION, BOB): b'{"no":"session"}'}))
    row = await put(bed, sample)
    await bed.store.create_session("fresh")
    async with bed.running() as manager:
        await bed.store.seal(row.id, "manual")
        (seal,) = (await manager.auth.seals("alerts")).seals
        error = await refuses("damaged", seal_back(manager, seal, rollback_anyway=True))
        assert "the sealed copy would not work, so nothing was changed" in error.message
        await bed.store.seal((await bed.store.require_session("fresh")).id, "manual")
        (empty,) = (await manager.auth.seals("fresh")).seals
        order = SealRestoreParams(name="fresh", epoch=empty.epoch, version=empty.version)
        error = await refuses("refused", manager.auth.restore_seal(order))
        assert error.data["code"] == "not_paired"


async def test_a_removed_session_comes_back_with_it_and_a_moved_one_does_not(
    bed: Bed,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = await put(bed)
    async with bed.running() as manager:
        await manager.remove("alerts")
        (seal,) = (await manager.auth.seals("alerts")).seals
        assert seal.reason == "manual"

        async def full(*_: object, **__: object) -> None:
            raise StorageUnavailable("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr("waD.store.state.SessionState.restore_auth", full)
            await refuses("storage_unavailable", seal_back(manager, seal, rollback_anyway=True))
        assert await manager.list() == []
        assert (await seal_back(manager, seal, rollback_anyway=True)).connection_id == row.id
        assert [view.name for view in await manager.list()] == ["alerts"]
        await manager.auth.backup(BackupParams(name="alerts", passphrase="x" * 20, final=True))
        error = await refuses("wrong_state", seal_back(manager, seal, rollback_anyway=True))
        assert "--unretire" in error.message
