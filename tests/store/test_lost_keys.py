"""A key of the operator's that is gone: nothing new is stored, a state is replaced and kept, a found key opens it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.store.conftest import Raw, alone
from tests.store.rows_codec import RowsCodec
from tests.store.test_store import queued, text
from waD.store.engine import EncryptAuth, KeyUse, Locked, RewrapAuth, Rewrapped
from waD.store.errors import KekUnavailable, StoreDamaged
from waD.store.model import SecretRow
from waD.store.opening import default_key_file
from waD.store.state import SessionState
from waD.store.store import Parts, Store, StoreSettings, open_store

SECRET = b'"ratchet secret"'
CREDS = b'{"who":"us"}'
EVENT = ("auth:restored", {"reason": "archive"})
KEPT = SecretRow(
    chat="2@lid",
    sender="2@lid",
    message_id="IN",
    wire_sender="2@lid",
    secret=b"s" * 32,
    message_ts=5,
    expires_at=9,
)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Two keys of the operator's, `main` and `next`."""
    file = tmp_path / "keys" / "kek"
    file.parent.mkdir()
    for path, byte in ((file, 1), (file.with_name("kek.next"), 2)):
        path.write_bytes(bytes([byte]) * 32)
        path.chmod(0o400)
    return file


@pytest.fixture(params=["sqlite", "postgres"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def locked(settings: StoreSettings, keys: Path) -> StoreSettings:
    """Under the key `main`."""
    return msgspec.structs.replace(settings, encrypt=True, kek_file=keys)


@pytest.fixture
def after(locked: StoreSettings) -> StoreSettings:
    """Under the key `next`, once the other one is gone."""
    return msgspec.structs.replace(locked, kek="next")


def lose(key: Path) -> bytes:
    kept = key.read_bytes()
    key.unlink()
    return kept


def find(key: Path, kept: bytes) -> None:
    key.write_bytes(kept)
    key.chmod(0o400)


async def fill(store: Store, name: str = "alerts") -> SessionState:
    row = await store.create_session(name)
    state = await alone(store).attach(row.id, "one")
    unit = state.unit()
    unit.put("session", "2.0", SECRET)
    unit.put("identity", "2.0", b'"clear"')
    unit.set_creds(CREDS)
    unit.enqueue(queued("OUT", "ref"))
    unit.keep_plaintext("2@lid", "OUT", b"secret plaintext")
    unit.keep_secret(KEPT)
    unit.add_message(text())
    unit.set_session(me_pn="1:2@s.whatsapp.net")
    await state.commit(unit)
    return state


async def replaced(store: Store, session_id: str, creds: bytes = b'{"who":"backup"}') -> SessionState:
    state = await alone(store).attach(session_id, "two")
    done = await state.restore_auth(creds, {("session", "9.0"): b'"new"'}, {}, EVENT, locked=True)
    assert (done.locked, done.lost, done.held) == ("main", 1, 0)
    (event,) = done.events
    assert event.data == {"reason": "archive", "sealedVersion": done.sealed, "sealedUnder": "main"}
    return state


async def test_a_state_whose_key_is_lost_is_replaced_and_a_found_key_opens_it(
    locked: StoreSettings, after: StoreSettings, keys: Path, raw: Raw
) -> None:
    async with open_store(locked) as store:
        session = (await fill(store)).session_id
        assert await store.read(store.engine.locked, session) is None
        version = await store.seal(session, "shutdown")
    kept = lose(keys)
    async with open_store(after) as store:
        assert await store.read(store.engine.locked, session) == Locked("main", 2, True)
        state = await alone(store).attach(session, "two")
        with pytest.raises(KekUnavailable):
            await state.restore_auth(b'{"who":"backup"}', {}, {}, EVENT)
        before = await store.seals(session)
        state = await replaced(store, session)
        assert (state.creds, await state.item("session", "9.0")) == (b'{"who":"backup"}', b'"new"')
        assert await state.item("identity", "2.0") is None
        newest, *older = await store.seals(session)
        assert older == before
        assert (newest.reason, newest.version, newest.item_count) == ("pre_restore", version + 1, 2)
        for seal in (newest, *older):
            with pytest.raises(KekUnavailable, match="'main'"):
                await store.sealed(session, seal)
        (waiting,) = await state.outbox(("failed",))
        assert (waiting.payload, "key that is not here" in (waiting.last_error or "")) == ({}, True)
        assert await state.plaintext(["2@lid"], "OUT") is None
        assert await state.message_secret(["2@lid"], ["2@lid"], "IN") is None
        assert raw("SELECT count(*) FROM wa_message_secrets") == [(0,)]
        assert len(await store.messages(session)) == 1
        row = await store.session(session)
        assert row is not None
        assert (row.kek_id, row.auth_epoch) == ("next", 2)
        unit = state.unit()
        unit.put("session", "9.0", b'"goes on"')
        await state.commit(unit)
        assert (await store.read(store.engine.auth_state, session)).creds == b'{"who":"backup"}'
        assert await store.read(store.engine.seal_keks, session) == {"main": 2}
        assert await store.write(RewrapAuth(session, "next")) == Rewrapped(own=False, seals=0, left=2)
    find(keys, kept)
    async with open_store(after) as store:
        for seal in await store.seals(session):
            found = await store.sealed(session, seal)
            assert (found.epoch, found.version, found.creds) == (1, version, CREDS)
            assert found.items == {("session", "2.0"): SECRET, ("identity", "2.0"): b'"clear"'}
            was_kept = seal.reason == "pre_restore"
            assert found.texts == ({"OUT": b'{"text":"hi"}'} if was_kept else {})
            assert found.secrets == ([KEPT] if was_kept else [])
        assert await store.write(RewrapAuth(session, "next")) == Rewrapped(own=False, seals=2)
        assert await store.read(store.engine.seal_keks, session) == {"next": 2}
    lose(keys)
    async with open_store(after) as store:
        newest, *_ = await store.seals(session)
        assert (await store.sealed(session, newest)).items["session", "2.0"] == SECRET


async def test_what_was_kept_is_not_changed_unnoticed(
    locked: StoreSettings, after: StoreSettings, keys: Path, raw: Raw, backend: str
) -> None:
    async with open_store(locked) as store:
        session = (await fill(store)).session_id
    kept = lose(keys)
    async with open_store(after) as store:
        await replaced(store, session)
    document = "document" if backend == "sqlite" else "document::text"
    cast = "" if backend == "sqlite" else "::jsonb"
    raw(f"UPDATE wa_auth_sealed SET document=replace({document}, '\"2.0\"', '\"3.0\"'){cast}")
    find(keys, kept)
    async with open_store(after) as store:
        (seal,) = await store.seals(session)
        with pytest.raises(StoreDamaged, match="checksum"):
            await store.sealed(session, seal)


async def test_rows_of_another_service_open_it_without_a_key(
    locked: StoreSettings, after: StoreSettings, keys: Path
) -> None:
    """They are in the clear, and as good as the snapshot, as long as they are kept up."""
    parts = Parts(codec=RowsCodec())
    async with open_store(msgspec.structs.replace(locked, legacy=True), parts) as store:
        session = (await fill(store)).session_id
    lose(keys)
    async with open_store(after, parts) as store:
        await replaced(store, session)
        seal, *_ = await store.seals(session)
        found = await store.sealed(session, seal)
        assert (found.creds, found.items["session", "2.0"]) == (CREDS, SECRET)


async def test_what_is_kept_is_not_encrypted_twice(
    locked: StoreSettings, after: StoreSettings, keys: Path
) -> None:
    async with open_store(locked) as store:
        session = (await fill(store)).session_id
    kept = lose(keys)
    async with open_store(msgspec.structs.replace(after, encrypt=False)) as store:
        await replaced(store, session)
    find(keys, kept)
    async with open_store(after) as store:
        state = await alone(store).attach(session, "three")
        assert await store.write(EncryptAuth(session, state.row.lease_token)) > 0
        (seal,) = await store.seals(session)
        assert (await store.sealed(session, seal)).creds == CREDS


async def test_a_state_whose_key_is_here_is_sealed_as_ever(locked: StoreSettings) -> None:
    async with open_store(locked) as store:
        state = await fill(store)
        done = await state.restore_auth(b'{"who":"backup"}', {}, {}, EVENT, locked=True)
        assert (done.locked, done.lost, done.held) == (None, 0, 1)
        (seal,) = await store.seals(state.session_id)
        assert (await store.sealed(state.session_id, seal)).creds == CREDS


# What needs which key.


async def test_which_keys_are_in_use(locked: StoreSettings, settings: StoreSettings) -> None:
    async with open_store(locked) as store:
        one = (await fill(store)).session_id
        two = (await fill(store, "old")).session_id
        await store.seal(one, "manual")
        await store.seal(two, "manual")
        await store.update_session(two, desired_state="retired")
        assert await store.write(RewrapAuth(one, "next")) == Rewrapped(own=True, seals=1)
        use: KeyUse = await store.read(store.engine.key_use)
        assert {row.name: row.kek_id for row in use.sessions} == {"alerts": "next", "old": "main"}
        assert use.seals == {one: {"next": 1}, two: {"main": 1}}
        assert await store.write(RewrapAuth(two, "next")) == Rewrapped(own=True, seals=1)
        use = await store.read(store.engine.key_use)
        assert use.seals == {one: {"next": 1}, two: {"next": 1}}
        assert await store.read(store.engine.kek_lost) == ""
    async with open_store(msgspec.structs.replace(settings, encrypt=False)) as store:
        clear = (await fill(store, "clear")).session_id
        await store.seal(clear, "manual")
        assert clear not in (await store.read(store.engine.key_use)).seals


# The default key.


@pytest.fixture
def default(tmp_path: Path) -> StoreSettings:
    """A database file whose key lies beside it."""
    return StoreSettings(path=tmp_path / "state" / "waD.db")


async def test_without_the_default_key_nothing_new_is_made(
    default: StoreSettings, caplog: pytest.LogCaptureFixture
) -> None:
    clear = msgspec.structs.replace(default, encrypt=False)
    async with open_store(clear) as store:
        open_ = await fill(store, "clear")
    async with open_store(default) as store:
        session = (await fill(store)).session_id
        retired = (await fill(store, "old")).session_id
        await store.update_session(retired, desired_state="retired")
    key = default_key_file(default.path)
    lose(key)
    async with open_store(default) as store:
        assert "is gone" in caplog.text
        with pytest.raises(KekUnavailable) as refused:
            await store.create_session("new")
        for word in (str(key), "put it back", "wad-kek", "store.kek", 'store.encrypt = "off"'):
            assert word in str(refused.value)
            assert word in await store.read(store.engine.kek_lost)
        assert await store.session("new") is None
        assert (await store.create_session("alerts")).id == session
        assert (await store.create_session("old")).desired_state == "down"
        # What is in the clear goes on so.
        state = await alone(store).attach(open_.session_id, "two")
        await state.reset_auth(b'{"who":"again"}')
        assert state.creds == b'{"who":"again"}'
        # What is encrypted does not come into the clear.
        blind = await alone(store).attach(session, "two")
        with pytest.raises(KekUnavailable, match="is gone"):
            await blind.restore_auth(b'{"who":"backup"}', {}, {}, EVENT, locked=True)
        assert await store.seals(session) == []
        assert not key.exists()
    async with open_store(clear) as store:
        assert (await store.create_session("new")).kek_id is None
    second = key.with_name(key.name + ".second")
    find(second, b"2" * 32)
    async with open_store(msgspec.structs.replace(default, kek="second")) as store:
        assert (await store.create_session("newer")).kek_id == "second"
        await replaced(store, session)


async def test_a_session_under_another_key_stays_under_it(default: StoreSettings) -> None:
    """Its next epoch as well, while the key for new ones is gone."""
    async with open_store(default) as store:
        state = await fill(store)
        other = default_key_file(default.path)
    second = other.with_name(other.name + ".second")
    find(second, b"2" * 32)
    async with open_store(default) as store:
        await store.write(RewrapAuth(state.session_id, "second"))
    lose(other)
    async with open_store(default) as store:
        state = await alone(store).attach(state.session_id, "two")
        await state.reset_auth(b'{"who":"again"}')
        row = await store.session("alerts")
        assert row is not None
        assert (row.kek_id, row.auth_epoch) == ("second", 2)
        with pytest.raises(KekUnavailable):
            await store.create_session("new")


async def test_a_server_whose_key_is_not_given_gets_nothing_new_either(
    locked: StoreSettings, settings: StoreSettings, backend: str
) -> None:
    async with open_store(locked) as store:
        await fill(store)
    async with open_store(settings) as store:
        with pytest.raises(KekUnavailable, match=r"store\.kek"):
            await store.create_session("new")
        assert (await store.create_session("alerts")).kek_id == "main"
    if backend == "postgres":
        async with open_store(msgspec.structs.replace(settings, encrypt=False)) as store:
            assert (await store.create_session("new")).kek_id is None
