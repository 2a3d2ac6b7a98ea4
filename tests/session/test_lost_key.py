"""The operator's key is gone, and there is a backup: the session comes back under its own name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.session.test_authority import RECIPIENT, SAMPLE, fetched, plain, put, restore
from tests.session.test_manager import Bed, is_open, refuses
from tests.transfer.samples import BOB
from waD.config import Settings, load
from waD.control.types import BackupParams, SealRestoreParams, SendRequest
from waD.messaging import kinds
from waD.session.manager import Manager
from waD.store.opening import default_key_file
from waD.store.store import StoreSettings, open_store

DAVE = "400000000000004_1.0"
ALERTS = BackupParams(name="alerts", recipients=[RECIPIENT])


@pytest.fixture
def place(tmp_path: Path) -> StoreSettings:
    return StoreSettings(path=tmp_path / "state" / "waD.db")


@pytest.fixture
def key(place: StoreSettings) -> Path:
    return default_key_file(place.path)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    config = tmp_path / "waD.toml"
    config.write_text("[daemon]\nrestore_spread = 0\nstop_timeout = 2\n[alerts]\nreconnects = 1000\n")
    return load(config, {"HOME": str(tmp_path)})


@asynccontextmanager
async def running(place: StoreSettings, settings: Settings) -> AsyncIterator[tuple[Bed, Manager]]:
    async with open_store(place) as store:
        bed = Bed(store, settings)
        async with bed.running() as manager:
            yield bed, manager


@pytest.fixture
async def archive(place: StoreSettings, settings: Settings, tmp_path: Path) -> bytes:
    """Of a session that went on afterwards, with a message that waits."""
    async with open_store(place) as store:
        bed = Bed(store, settings)
        await put(bed)
        async with bed.running() as manager:
            data = plain(await fetched(manager, await manager.auth.backup(ALERTS)), tmp_path)
            await manager.send(SendRequest(session="alerts", to="15550000002", text="waits"))
            state = (await manager.roster.find("alerts"))[1].supervisor.state
            async with state.lock:
                unit = state.unit()
                unit.put(kinds.IDENTITY, DAVE, SAMPLE.state.items[kinds.IDENTITY, BOB])
                await state.commit(unit)
        await store.seal(state.session_id, "shutdown")
    return data


def lose(key: Path, place: StoreSettings) -> tuple[bytes, StoreSettings]:
    """The key goes, and there is a new one under another name."""
    kept = key.read_bytes()
    key.unlink()
    second = key.with_name(key.name + ".second")
    second.write_bytes(b"2" * 32)
    second.chmod(0o400)
    return kept, msgspec.structs.replace(place, kek="second")


def find(key: Path, kept: bytes) -> None:
    key.write_bytes(kept)
    key.chmod(0o400)


def warnings(result: Any) -> dict[str, str]:
    return {note.code: note.detail for note in result.verdict.warnings}


async def test_it_comes_back_under_its_own_name(
    archive: bytes, place: StoreSettings, settings: Settings, key: Path
) -> None:
    kept, after = lose(key, place)
    async with running(after, settings) as (bed, manager):
        before = await bed.store.session("alerts")
        assert before is not None
        await manager.connect("alerts")
        await bed.until("alerts", lambda view: view.state == "failed")
        planned = await restore(manager, archive, dry_run=True)
        told = warnings(planned)["state_locked"]
        for words in ("'main'", "not here", "kept as it is", "1 older sealed cop", "1 messages on their way"):
            assert words in told
        done = await restore(manager, archive)
        assert (done.done, done.connection_id, done.lost) == (True, before.id, 1)
        assert done.backup is not None
        assert "under the key 'main'" in done.backup
        row = await bed.store.session("alerts")
        assert row is not None
        assert (row.kek_id, row.desired_state, row.me_pn) == ("second", "down", before.me_pn)
        assert row.auth_epoch > before.auth_epoch
        page = await manager.messages("alerts", chat=None, before=None, limit=10)
        assert [message.body for message in page.messages] == ["waits"]
        assert (await manager.auth.verify("alerts", 3)).verdict.errors == []
        await manager.connect("alerts")
        await bed.until("alerts", is_open)
        await manager.disconnect("alerts")
        seals = (await manager.auth.seals("alerts")).seals
        old = next(seal for seal in seals if seal.reason == "pre_restore")
        order = SealRestoreParams(
            name="alerts", epoch=old.epoch, version=old.version, rollback_anyway=True, dry_run=True
        )
        error = await refuses("storage_unavailable", manager.auth.restore_seal(order))
        assert "'main'" in error.message
    find(key, kept)
    async with running(after, settings) as (bed, manager):
        done = await manager.auth.restore_seal(msgspec.structs.replace(order, dry_run=False))
        assert (done.done, done.exact, done.held) == (True, False, 1)
        waiting = await manager.outbox("alerts", states=("held",), limit=10)
        assert [message.body for message in waiting.messages] == ["waits"]
        state = (await manager.roster.find("alerts"))[1].supervisor.state
        assert await state.item(kinds.IDENTITY, DAVE) == SAMPLE.state.items[kinds.IDENTITY, BOB]


async def test_without_a_new_key_nothing_is_done(
    archive: bytes, place: StoreSettings, settings: Settings, key: Path
) -> None:
    lose(key, place)
    async with running(place, settings) as (bed, manager):
        for order in ({}, {"dry_run": True}, {"name": "other"}, {"name": "other", "dry_run": True}):
            error = await refuses("refused", restore(manager, archive, **order))
            assert error.data["code"] == "kek_unavailable"
            assert str(key) in error.message
        error = await refuses("storage_unavailable", manager.connect("new"))
        assert str(key) in error.message
        assert [row.name for row in await bed.store.sessions(include_retired=True)] == ["alerts"]
        row = await bed.store.session("alerts")
        assert row is not None
        assert (row.kek_id, row.auth_epoch) == ("main", 1)


async def test_another_device_is_not_replaced(
    archive: bytes, place: StoreSettings, settings: Settings, key: Path
) -> None:
    """By what is in the clear; and where nothing is, by the operator's word only."""
    _, after = lose(key, place)
    async with running(after, settings) as (bed, manager):
        row = await bed.store.session("alerts")
        assert row is not None
        for stranger in (
            {"me_pn": "15550009999:3@s.whatsapp.net"},
            {"me_pn": str(SAMPLE.state.creds.me_pn), "me_lid": "99:3@lid"},
        ):
            await bed.store.update_session(row.id, **stranger)
            error = await refuses("refused", restore(manager, archive, replace_unreadable=True))
            assert error.data["code"] == "other_identity"
        await bed.store.update_session(row.id, me_pn=None, me_lid=None)
        error = await refuses("refused", restore(manager, archive))
        assert (error.data["code"], "--replace-unreadable" in error.message) == ("identity_unknown", True)
        assert await bed.store.seals(row.id) == [
            seal for seal in await bed.store.seals(row.id) if seal.epoch == 1
        ]
        done = await restore(manager, archive, replace_unreadable=True)
        assert (done.done, done.connection_id) == (True, row.id)


async def test_one_that_never_had_credentials_is_replaced(
    archive: bytes, place: StoreSettings, settings: Settings, key: Path
) -> None:
    async with open_store(place) as store:
        fresh = await store.create_session("fresh")
    _, after = lose(key, place)
    async with running(after, settings) as (bed, manager):
        done = await restore(manager, archive, name="fresh")
        assert (done.done, done.connection_id) == (True, fresh.id)
        # The same device lies locked under its old name, which must never run again.
        assert [view.name for view in await manager.list()] == ["fresh"]
        old = await bed.store.session("alerts")
        assert old is not None
        assert old.desired_state == "retired"


async def test_without_a_backup_it_can_be_removed_and_found_again(
    archive: bytes, place: StoreSettings, settings: Settings, key: Path
) -> None:
    """Another one is paired instead; nothing of the old one is destroyed."""
    kept, after = lose(key, place)
    async with running(after, settings) as (bed, manager):
        assert (await manager.remove("alerts")).backup is None
        assert await manager.list() == []
        assert [seal.reason for seal in (await manager.auth.seals("alerts")).seals] == ["shutdown"]
    find(key, kept)
    async with running(after, settings) as (bed, manager):
        await manager.connect("alerts")
        await bed.until("alerts", is_open)
