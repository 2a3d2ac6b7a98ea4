"""Backups, restores and verifications of sessions that run, over a real store with scripted connections."""
# ruff: noqa: F811 - fixtures of another module are arguments here

from __future__ import annotations

import hashlib
import io
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pyrage
import pytest

from tests.messaging.accounts import OWN_LID, OWN_PN
from tests.session.test_manager import Bed, bed, is_open, refuses  # noqa: F401 - a fixture
from tests.store.postgres_server import Server, running_server
from tests.transfer.samples import BOB, NOW, Sample, Taken, a_row, a_sample, archive_of, content_of
from waD.control.types import (
    BackupParams,
    BackupResult,
    CompareParams,
    RestoreParams,
    RestoreResult,
    SendRequest,
    VerifyResult,
)
from waD.e2ee.record import SessionRecord
from waD.link.credentials import Credentials
from waD.messaging import kinds
from waD.session.manager import Manager
from waD.store.errors import StorageUnavailable
from waD.store.model import SecretRow, SessionRow
from waD.store.postgres.settings import PostgresSettings
from waD.store.store import Store, StoreSettings, open_store
from waD.transfer import age_header
from waD.transfer.archive_reading import open_archive
from waD.transfer.archive_writing import About
from waD.transfer.sealing import Identities, Key, Passphrase
from waD.transfer.state import AuthState, Report

SAMPLE = a_sample()
IDENTITY = pyrage.x25519.Identity.generate()
RECIPIENT = str(IDENTITY.to_public())


async def put(bed: Bed, sample: Sample = SAMPLE, name: str = "alerts") -> SessionRow:
    """A stored session with that auth state."""
    row = await bed.store.create_session(name)
    state = await bed.store.attach(row.id, "before")
    unit = state.unit()
    creds = sample.state.creds
    unit.set_creds(creds.serialize())
    for (kind, key), value in sample.state.items.items():
        unit.put(kind, key, value)
    unit.set_session(me_pn=str(creds.me_pn), me_lid=str(creds.me_lid), current_status="stopped")
    await state.commit(unit)
    return row


async def fetched(manager: Manager, made: BackupResult) -> bytes:
    data, end = b"", False
    while not end:
        part = await manager.auth.fetch(made.id, len(data))
        data, end = data + part.data, part.end
    return data


async def uploaded(manager: Manager, data: bytes) -> str:
    upload = None
    for at in range(0, len(data), 100_000):
        result = await manager.auth.upload(upload, data[at : at + 100_000])
        upload = result.id
    assert upload is not None
    return upload


def plain(data: bytes, spool: Path, key: Key | None = None) -> bytes:
    """An archive without its encryption."""
    out = io.BytesIO()
    key = Identities([str(IDENTITY)]) if key is None else key
    with open_archive(io.BytesIO(data), spool, key, Report()) as opened:
        opened.copy_to(out)
    return out.getvalue()


def an_archive(spool: Path, sample: Sample = SAMPLE, *, final: bool = False, **row: Any) -> bytes:
    creds = sample.state.creds
    row = {"me_pn": str(creds.me_pn), "me_lid": str(creds.me_lid), **row}
    return archive_of(
        content_of(sample.state, msgspec.structs.replace(a_row(), **row)),
        spool,
        About(1_699_000_000_000, "waD 1", 2, final=final),
    )


def damaged(sample: Sample = SAMPLE) -> Sample:
    state = sample.with_items({(kinds.SESSION, BOB): b'{"no":"session"}'})
    return replace(sample, state=state)


# ---------------------------------------------------------------------------------------------------------- backup


async def test_a_backup_of_a_running_session(bed: Bed, tmp_path: Path) -> None:
    row = await put(bed)
    async with bed.running() as manager:
        await manager.connect("alerts")
        await bed.until("alerts", is_open)
        made = await manager.auth.backup(BackupParams(name="alerts", recipients=[RECIPIENT]))
        assert (made.name, made.connection_id, made.verdict.ok) == ("alerts", row.id, True)
        assert re.fullmatch(r"alerts-\d{8}T\d{6}Z-v\d+\.wadbackup\.age", made.file_name)
        data = await fetched(manager, made)
        assert len(data) == made.size
        assert hashlib.sha256(data).hexdigest() == made.sha256
        with open_archive(io.BytesIO(data), tmp_path, Identities([str(IDENTITY)]), Report()) as opened:
            found = opened.session(row.id)
            assert Credentials.parse(found.creds).identity == SAMPLE.state.creds.identity
            assert {kind for kind, _ in found.items} >= {kinds.SESSION, kinds.PREKEY}
        assert (await manager.status("alerts")).last_backup_at is None
        await manager.auth.discard(made.id, kept=True)
        (event,) = await bed.store.events(types=["auth:backup"])
        assert event.data == {"version": made.version, "sha256": made.sha256, "recipients": [RECIPIENT]}
        view = await manager.status("alerts")
        assert (view.last_backup_at, view.state) == (event.time, "open")
        assert view.backup_due_at == event.time + 26 * 3_600_000
        await refuses("bad_params", manager.auth.fetch(made.id, 0))
        await refuses("bad_params", manager.auth.discard(made.id, kept=True))
        await manager.auth.discard(made.id, kept=False)
    bed.again()
    async with bed.running() as manager:
        assert (await manager.status("alerts")).last_backup_at == event.time


async def test_a_passphrase(bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(age_header, "WORK_FACTOR", 10)
    await put(bed)
    async with bed.running() as manager:
        made = await manager.auth.backup(BackupParams(name="alerts", passphrase="tell nobody"))
        assert plain(await fetched(manager, made), tmp_path, Passphrase("tell nobody"))


async def test_what_cannot_be_backed_up(bed: Bed) -> None:
    await bed.store.create_session("fresh")
    await put(bed)
    async with bed.running() as manager:
        auth = manager.auth
        await refuses("no_such_session", auth.backup(BackupParams(name="nobody", recipients=[RECIPIENT])))
        await refuses("wrong_state", auth.backup(BackupParams(name="fresh", recipients=[RECIPIENT])))
        await refuses("bad_params", auth.backup(BackupParams(name="alerts", recipients=["age1x"])))
        assert await bed.store.events(types=["auth:backup"]) == []


async def test_a_backup_that_would_not_work_is_given_out_and_does_not_count(bed: Bed) -> None:
    await put(bed, damaged())
    async with bed.running() as manager:
        made = await manager.auth.backup(BackupParams(name="alerts", recipients=[RECIPIENT]))
        assert [note.code for note in made.verdict.errors] == ["item_unreadable"]
        await manager.auth.discard(made.id, kept=True)
        assert (await manager.status("alerts")).last_backup_at is None


async def test_too_many_at_once(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waD.session.spool.MAX_FILES", 1)
    await put(bed)
    async with bed.running() as manager:
        await manager.auth.upload(None, b"x")
        order = BackupParams(name="alerts", recipients=[RECIPIENT], final=True)
        await refuses("refused", manager.auth.backup(order))
        assert (await manager.status("alerts")).paired


# ------------------------------------------------------------------------------------------------------------ move


FINAL = BackupParams(name="alerts", recipients=[RECIPIENT], final=True)


async def test_a_move_retires_the_session(bed: Bed, tmp_path: Path) -> None:
    row = await put(bed)
    async with bed.running() as manager:
        await manager.connect("alerts")
        await bed.until("alerts", is_open)
        made = await manager.auth.backup(FINAL)
        data = await fetched(manager, made)
        await refuses("no_such_session", manager.auth.backup(FINAL))
        assert await manager.list() == []
        kept = await bed.store.session("alerts")
        assert kept is not None
        assert (kept.id, kept.desired_state, kept.me_pn) == (row.id, "retired", None)
        assert kept.auth_epoch > made.epoch
        with open_archive(io.BytesIO(data), tmp_path, Identities([str(IDENTITY)]), Report()) as opened:
            assert opened.manifest.final
        view = await manager.connect("alerts")
        assert not view.paired
        await manager.disconnect("alerts")


async def test_a_move_of_what_would_not_work_is_refused(bed: Bed) -> None:
    await put(bed, damaged())
    async with bed.running() as manager:
        await manager.connect("alerts")
        await bed.until("alerts", is_open)
        error = await refuses("damaged", manager.auth.backup(FINAL))
        assert "it stays here" in error.message
        view = await bed.until("alerts", is_open)
        assert (view.desired, view.paired) == ("up", True)


async def test_a_move_that_the_store_refuses_changes_nothing(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(bed)
    async with bed.running() as manager:
        row, entry = await manager.roster.find("alerts")

        async def full(creds: bytes) -> int:
            raise StorageUnavailable("the disk is full")

        monkeypatch.setattr(entry.supervisor.state, "reset_auth", full)
        await refuses("storage_unavailable", manager.auth.backup(FINAL))
        view = await manager.status("alerts")
        assert (view.paired, view.desired) == (True, "down")
        kept = await bed.store.session("alerts")
        assert kept is not None
        assert (kept.auth_epoch, kept.desired_state) == (row.auth_epoch, "down")


async def test_a_move_that_is_called_off(bed: Bed) -> None:
    await put(bed)
    async with bed.running() as manager:
        await refuses("no_such_session", manager.unretire("nobody"))
        await refuses("wrong_state", manager.unretire("alerts"))
        made = await manager.auth.backup(FINAL)
        manager.auth.close()
        done = await manager.unretire("alerts")
        assert (done.session.paired, done.session.desired, done.session.state) == (True, "down", "stopped")
        assert (done.receive_only, str(made.version) in done.restored) == (2, True)
        state = (await manager.roster.find("alerts"))[1].supervisor.state
        record = await state.record(kinds.SESSION, BOB, SessionRecord.parse)
        assert record is not None
        assert not record.has_usable_session
        await manager.connect("alerts")
        await bed.until("alerts", is_open)


async def test_what_was_only_removed_is_not_brought_back_so(bed: Bed) -> None:
    await put(bed)
    async with bed.running() as manager:
        await manager.remove("alerts")
        error = await refuses("wrong_state", manager.unretire("alerts"))
        assert "wactl connect" in error.message
        kept = await bed.store.session("alerts")
        assert kept is not None
        assert kept.desired_state == "retired"


async def test_too_late_to_call_it_off(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a seal that is young enough it stays retired."""
    await put(bed)
    async with bed.running() as manager:
        await manager.auth.backup(FINAL)

        async def nothing(session_id: str) -> list[Any]:
            return []

        monkeypatch.setattr(bed.store, "seals", nothing)
        await refuses("wrong_state", manager.unretire("alerts"))
        assert await manager.list() == []


# --------------------------------------------------------------------------------------------------------- restore


async def restore(manager: Manager, data: bytes, **order: Any) -> RestoreResult:
    return await manager.auth.restore(RestoreParams(id=await uploaded(manager, data), **order))


async def test_into_an_empty_store(bed: Bed, tmp_path: Path) -> None:
    async with bed.running() as manager:
        planned = await restore(manager, an_archive(tmp_path), dry_run=True)
        assert (planned.done, planned.exact, planned.peers, planned.sessions) == (False, False, 2, 2)
        assert await manager.list() == []
        done = await restore(manager, an_archive(tmp_path))
        assert (done.done, done.exact, done.name, done.peers) == (True, False, "alerts", 2)
        view = await manager.status("alerts")
        assert (view.state, view.desired, view.paired) == ("stopped", "down", True)
        assert view.me_pn == str(SAMPLE.state.creds.me_pn)
        entry = (await manager.roster.find("alerts"))[1]
        assert await entry.supervisor.state.all_items(kinds.SESSION) == {}
        row = await bed.store.session("alerts")
        assert row is not None
        assert row.auth_epoch == 3
        (event,) = await bed.store.events(types=["auth:restored"])
        assert (event.data["reason"], event.data["peers"]) == ("archive", 2)
        await manager.connect("alerts")
        await bed.until("alerts", is_open)


async def test_conversations_that_only_receive(bed: Bed, tmp_path: Path) -> None:
    async with bed.running() as manager:
        await restore(manager, an_archive(tmp_path), mode="receive-only", name="other")
        state = (await manager.roster.find("other"))[1].supervisor.state
        record = await state.record(kinds.SESSION, BOB, SessionRecord.parse)
        assert record is not None
        assert not record.has_usable_session


async def test_a_planned_move_arrives_once(bed: Bed, tmp_path: Path) -> None:
    data = an_archive(tmp_path, final=True)
    async with bed.running() as manager:
        done = await restore(manager, data)
        assert (done.exact, done.peers) == (True, 0)
        state = (await manager.roster.find("alerts"))[1].supervisor.state
        assert await state.item(kinds.SESSION, BOB) == SAMPLE.state.items[kinds.SESSION, BOB]
        # The same again is an old state, also in another envelope.
        again = await restore(manager, data, rollback_anyway=True, sha256="ab" * 32, dry_run=True)
        assert not again.exact


async def test_where_it_left_it_is_an_old_state(bed: Bed, tmp_path: Path) -> None:
    await put(bed)
    async with bed.running() as manager:
        made = await manager.auth.backup(FINAL)
        data = plain(await fetched(manager, made), tmp_path)
        assert not (await restore(manager, data, dry_run=True)).exact


async def test_a_newer_state_is_replaced_only_on_request(bed: Bed, tmp_path: Path) -> None:
    await put(bed)
    async with bed.running() as manager:
        made = await manager.auth.backup(BackupParams(name="alerts", recipients=[RECIPIENT]))
        data = plain(await fetched(manager, made), tmp_path)
        await manager.connect("alerts")
        await bed.until("alerts", is_open)
        state = (await manager.roster.find("alerts"))[1].supervisor.state
        async with state.lock:
            unit = state.unit()
            unit.put(kinds.IDENTITY_CHANGE, "x", b'"y"')
            await state.commit(unit)
        error = await refuses("refused", restore(manager, data))
        assert (error.data["code"], "--rollback-anyway" in error.message) == ("target_newer", True)
        view = await manager.status("alerts")
        assert (view.state, view.desired) == ("open", "up")
        done = await restore(manager, data, rollback_anyway=True)
        assert (done.done, done.backup is not None) == (True, True)
        assert [seal.reason for seal in await bed.store.seals(made.connection_id)] == ["pre_restore"]


async def test_another_device_in_its_place_and_itself_in_two_places(bed: Bed, tmp_path: Path) -> None:
    await put(bed, a_sample(5), "other")
    await bed.paired("third", desired="down")
    async with bed.running() as manager:
        stranger = a_sample(9)
        creds = stranger.state.creds.change(
            me_pn=OWN_PN.account.with_device(30), me_lid=OWN_LID.account.with_device(30)
        )
        stranger = replace(stranger, state=AuthState(creds, stranger.state.items))
        error = await refuses("refused", restore(manager, an_archive(tmp_path, stranger), name="other"))
        assert error.data["code"] == "other_identity"
        error = await refuses("refused", restore(manager, an_archive(tmp_path), name="second"))
        assert error.data["code"] == "already_here"
        assert await bed.store.session("second") is None


async def test_a_damaged_state_is_replaced_by_its_own_backup_only(bed: Bed, tmp_path: Path) -> None:
    row = await put(bed)
    await bed.store.update_session(row.id, me_pn="15550009999:3@s.whatsapp.net")
    await damage(bed, row.id)
    async with bed.running() as manager:
        error = await refuses("refused", restore(manager, an_archive(tmp_path)))
        assert error.data["code"] == "other_identity"
        await bed.store.update_session(row.id, me_pn=str(SAMPLE.state.creds.me_pn))
        done = await restore(manager, an_archive(tmp_path, auth_version=1_000))
        assert done.done
        found = await manager.auth.verify("alerts", 3)
        assert found.verdict.errors == []


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as started:
        yield started


@pytest.fixture(params=["sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """Both databases; one that is shared would want its leases renewed, which has tests of its own."""
    settings = StoreSettings(path=tmp_path / "state" / "waD.db")
    if request.param == "postgres":
        found: Server = request.getfixturevalue("server")
        postgres = PostgresSettings(url=found.url(found.database()))
        settings = msgspec.structs.replace(settings, postgres=postgres)
    async with open_store(settings) as opened:
        opened.engine.shared = False
        yield opened


async def damage(bed: Bed, session_id: str) -> None:
    """Let the stored state not match its checksum any more."""
    statement = "UPDATE wa_auth_snapshots SET checksum = {} WHERE session_id = '{}'"
    settings = bed.store.settings
    if settings.postgres is not None:
        with psycopg.connect(settings.postgres.url, autocommit=True) as server:
            server.execute(statement.format(f"'\\x{'00' * 32}'", session_id))
        return
    with closing(sqlite3.connect(settings.path)) as opened, opened:
        opened.execute(statement.format("zeroblob(32)", session_id))


async def test_what_is_no_archive_changes_nothing(bed: Bed, tmp_path: Path) -> None:
    good = an_archive(tmp_path)
    later = Taken.apart(good)
    manifest = msgspec.json.decode(later.members["manifest.json"]) | {"version": 2}
    later.members["manifest.json"] = msgspec.json.encode(manifest)
    async with bed.running() as manager:
        await refuses("bad_params", manager.auth.restore(RestoreParams(id="0" * 32)))
        error = await refuses("refused", restore(manager, later.together()))
        assert error.data["code"] == "archive_too_new"
        for data in (good[:-2000], b"rubbish", bytes(2048), an_archive(tmp_path, damaged())):
            await refuses("damaged", restore(manager, data))
        await refuses("bad_params", restore(manager, good, name="../x"))
        await refuses("refused", restore(manager, good, source="nobody"))
        assert await bed.store.sessions(include_retired=True) == []


@asynccontextmanager
async def elsewhere(bed: Bed, tmp_path: Path) -> AsyncIterator[Manager]:
    """A manager over another store."""
    settings = StoreSettings(path=tmp_path / "there" / "waD.db")
    async with open_store(settings) as opened, Bed(opened, bed.settings).running() as manager:
        yield manager


async def test_messages_on_their_way_are_held_and_history_is_added(bed: Bed, tmp_path: Path) -> None:
    await put(bed)
    async with bed.running() as manager:
        for number in range(3):
            await manager.send(SendRequest(session="alerts", to="15550000002", text=f"message {number}"))
        order = BackupParams(name="alerts", recipients=[RECIPIENT], outbox=True, history=True, final=True)
        made = await manager.auth.backup(order)
        data = plain(await fetched(manager, made), tmp_path)
    async with elsewhere(bed, tmp_path) as there:
        done = await restore(there, data, history=True)
        assert (done.exact, done.held, done.messages) == (True, 3, 3)
        assert (await there.status("alerts")).held_messages == 3
        page = await there.messages("alerts", chat=None, before=None, limit=10)
        texts = {message.body for message in page.messages}
        assert texts == {f"message {number}" for number in range(3)}


# ---------------------------------------------------------------------------------------------------- verification


def a_secret(message_id: str, byte: int, ts: int) -> SecretRow:
    return SecretRow(
        chat=BOB, sender=BOB, message_id=message_id, wire_sender=BOB, secret=bytes([byte]) * 32, message_ts=ts
    )


async def secrets_of(bed: Bed, name: str = "alerts") -> dict[str, int]:
    row = await bed.store.session(name)
    assert row is not None
    found, _ = await bed.store.read(bed.store.engine.secrets, row.id, ("", "", ""), 100)
    return {one.message_id: one.secret[0] for one in found}


@pytest.mark.parametrize("final", [False, True], ids=["old", "moved"])
async def test_secrets_of_messages_are_merged(bed: Bed, tmp_path: Path, final: bool) -> None:
    creds = SAMPLE.state.creds
    archived = [a_secret("A", 1, 10), a_secret("B", 2, 10), a_secret("C", 3, 10)]
    row = msgspec.structs.replace(a_row(), me_pn=str(creds.me_pn), me_lid=str(creds.me_lid))
    data = archive_of(
        content_of(SAMPLE.state, row, secrets=archived), tmp_path, About(NOW, "waD 1", 3, final=final)
    )
    state = await bed.store.attach((await bed.store.create_session("alerts")).id, "before")
    unit = state.unit()
    for one in (a_secret("A", 8, 11), a_secret("B", 9, 9), a_secret("D", 4, 1)):
        unit.keep_secret(one)
    await state.commit(unit)
    async with bed.running() as manager:
        assert not (await restore(manager, data, dry_run=True)).done
        assert await secrets_of(bed) == {"A": 8, "B": 9, "D": 4}
        done = await restore(manager, data)
        assert (done.done, done.exact) == (True, final)
        assert await secrets_of(bed) == {"A": 8, "B": 2, "C": 3, "D": 4}
        made = await manager.auth.backup(BackupParams(name="alerts", recipients=[RECIPIENT]))
        archive = plain(await fetched(manager, made), tmp_path)
    with open_archive(io.BytesIO(archive), tmp_path, None, Report()) as opened:
        (listed,) = opened.manifest.sessions
        assert [one.secret[0] for one in opened.secrets(listed.id)] == [8, 2, 3, 4]


async def test_a_refused_restore_adds_no_secrets(bed: Bed, tmp_path: Path) -> None:
    await put(bed)
    stranger = content_of(a_sample(5).state, a_row(), secrets=[a_secret("A", 1, 10)])
    async with bed.running() as manager:
        await refuses("refused", restore(manager, archive_of(stranger, tmp_path), name="alerts"))
    assert await secrets_of(bed) == {}


async def test_comparing(bed: Bed, tmp_path: Path) -> None:
    await put(bed)
    async with bed.running() as manager:
        made = await manager.auth.backup(BackupParams(name="alerts", recipients=[RECIPIENT]))
        upload = await uploaded(manager, plain(await fetched(manager, made), tmp_path))
        found = await manager.auth.compare(CompareParams(id=upload, name="alerts"))
        assert (found.same_identity, found.same_epoch, found.equal, found.exact) == (True, True, True, False)
        state = (await manager.roster.find("alerts"))[1].supervisor.state
        async with state.lock:
            unit = state.unit()
            unit.delete(kinds.SESSION, BOB)
            unit.put(kinds.IDENTITY_CHANGE, BOB, b'"later"')
            unit.put(kinds.IDENTITY_CHANGE, "new", b'"x"')
            await state.commit(unit)
        found = await manager.auth.compare(CompareParams(id=upload, name="alerts"))
        assert not found.equal
        assert (found.kinds["session"].only_archive, found.kinds["session"].equal) == (1, 1)
        changes = found.kinds[kinds.IDENTITY_CHANGE]
        assert (changes.older, changes.only_store, changes.newer) == (1, 1, 0)
        assert found.store["version"] > found.archive["version"]
        assert found.plan
        await refuses("no_such_session", manager.auth.compare(CompareParams(id=upload, name="nobody")))


def codes(found: VerifyResult) -> tuple[list[str], list[str]]:
    verdict = found.verdict
    return [note.code for note in verdict.errors], [note.code for note in verdict.warnings]


async def test_verifying(bed: Bed) -> None:
    row = await put(bed)
    async with bed.running() as manager:
        found = await manager.auth.verify("alerts", 2)
        assert (codes(found), found.verdict.level) == (([], []), 2)
        assert found.verdict.counts["session"] == 2
        found = await manager.auth.verify("alerts", 3)
        assert codes(found) == ([], ["no_backup"])
        (_, second) = await bed.store.events(types=["auth:verified"])
        assert second.data == {"level": 3, "ok": True, "errors": 0}
        assert (await manager.status("alerts")).last_verified_at == second.time
        await refuses("wrong_state", manager.auth.verify("alerts", 4))
        await refuses("no_such_session", manager.auth.verify("nobody", 3))
        await damage(bed, row.id)
        found = await manager.auth.verify("alerts", 1)
        assert codes(found)[0] == ["store_damaged"]
        assert (await manager.status("alerts")).last_verified_at is None


async def test_a_disk_that_is_full_is_no_reason_not_to_say_it(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(bed)

    async def full(*_: Any) -> Any:
        raise StorageUnavailable("the disk is full")

    async with bed.running() as manager:
        monkeypatch.setattr(bed.store, "append_event", full)
        assert codes(await manager.auth.verify("alerts", 2))[0] == []
