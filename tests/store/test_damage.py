"""What happens to a session whose stored state is damaged, and that nothing happens to the others."""

from __future__ import annotations

import shutil
import sqlite3
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.store.test_store import queued
from waD.store.canonical import as_it_is
from waD.store.errors import KekUnavailable, StoreDamaged
from waD.store.model import Sealed
from waD.store.opening import default_key_file
from waD.store.state import SessionState
from waD.store.store import Store, StoreSettings, open_store

Raw = Callable[..., list[Any]]
CREDS = b'{"identity":"AAAA","noise":"BBBB"}'
SESSIONS = {f"{number}.0": b'{"cur":{"rk":"%d"}}' % number for number in range(5)}
IDENTITY = b'"AAAAAAAA"'


def raw_in(path: Path) -> Raw:
    """Statements beside the store, while it is closed."""

    def run(sql: str, *values: Any) -> list[Any]:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
            return db.execute(sql, values).fetchall()

    return run


@pytest.fixture(params=["encrypted", "clear"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> StoreSettings:
    return StoreSettings(path=tmp_path / "waD.db", encrypt=None if request.param == "encrypted" else False)


@pytest.fixture
def raw(settings: StoreSettings) -> Raw:
    return raw_in(settings.path)


async def paired(store: Store, name: str) -> str:
    row = await store.create_session(name)
    state = await store.attach(row.id, "test")
    unit = state.unit()
    unit.set_creds(b'"first"')
    unit.put("session", "0.0", b'"first"')
    await state.commit(unit)
    unit = state.unit()
    unit.set_creds(CREDS)
    for key, value in SESSIONS.items():
        unit.put("session", key, value)
    unit.put("identity", "0.0", IDENTITY)
    unit.enqueue(queued())
    unit.keep_plaintext("2@lid", "OUT1", b"plain")
    await state.commit(unit)
    return row.id


@pytest.fixture
def victim(settings: StoreSettings) -> str:
    """Id of the session that is damaged; the database is closed."""

    async def prepare() -> str:
        async with open_store(settings) as store:
            await paired(store, "neighbour")
            return await paired(store, "victim")

    return trio.run(prepare)


async def look(store: Store) -> tuple[SessionState, SessionState]:
    """The victim, and the neighbour, who must be well in any case."""
    neighbour, victim = [await store.attach(row.id, "test") for row in await store.sessions()]
    assert neighbour.creds == CREDS
    assert await neighbour.all_items("session") == SESSIONS
    assert await neighbour.plaintext(["2@lid"], "OUT1") == b"plain"
    unit = neighbour.unit()
    unit.put("session", "0.0", SESSIONS["0.0"])
    await neighbour.commit(unit)
    return victim, neighbour


async def is_damaged(settings: StoreSettings, *, sealed: int = 6) -> None:
    """The victim says so and nobody else; then it can be sealed, restored and reset, and is well again."""
    async with open_store(settings) as store:
        victim, _ = await look(store)
        with pytest.raises(StoreDamaged) as damage:
            _ = victim.creds
        text = str(damage.value)
        assert any(word in text for word in ("restore", "install"))
        assert not any(secret in text for secret in ("AAAA", "BBBB", "rk"))
        version = await store.seal(victim.session_id, "manual")
        kept = await newest(store, victim)
        assert (kept.version, len(kept.items)) == (version, sealed)
        assert all(value in (*SESSIONS.values(), IDENTITY, b'"first"') for value in kept.items.values())
        with pytest.raises(StoreDamaged):
            _ = victim.creds  # a seal repairs nothing
    async with open_store(settings) as store:
        victim, neighbour = await look(store)
        with pytest.raises(StoreDamaged):
            _ = victim.creds
        items = {("session", key): value for key, value in SESSIONS.items()}
        done = await victim.restore_auth(CREDS, items, {}, ("auth:restored", {}))
        assert done.held == 1
        await is_well(store, victim, CREDS, SESSIONS)
        assert (await victim.outbox(("held",)))[0].payload == {"text": "hi"}
        await victim.reset_auth(b'"fresh"')
        await is_well(store, victim, b'"fresh"', {})
        assert neighbour.creds == CREDS


async def newest(store: Store, state: SessionState) -> Sealed:
    infos = await store.seals(state.session_id)
    return await store.sealed(state.session_id, infos[0])


async def is_well(store: Store, state: SessionState, creds: bytes, items: dict[str, bytes]) -> None:
    assert state.creds == creds
    unit = state.unit()
    unit.put("retry", "mark", b"1")
    await state.commit(unit)
    again = await store.read(store.engine.checked_creds, state.session_id)
    assert again == creds
    assert await state.all_items("session") == items


ANY: Any = ("session", "1.0")
WHERE = "WHERE session_id=? AND type=? AND id=?"


async def test_without_damage_all_is_well(settings: StoreSettings, victim: str) -> None:
    async with open_store(settings) as store:
        state, _ = await look(store)
        await is_well(store, state, CREDS, SESSIONS)


@pytest.mark.parametrize("item", [("session", "1.0"), ("identity", "0.0")])
async def test_a_changed_letter(
    settings: StoreSettings, raw: Raw, victim: str, item: tuple[str, str]
) -> None:
    ((value,),) = raw(f"SELECT value FROM wa_auth_items {WHERE}", victim, *item)
    changed = value.replace("1", "2", 1) if "1" in value else value.replace("A", "B", 1)
    raw(f"UPDATE wa_auth_items SET value=? {WHERE}", changed, victim, *item)
    clear = settings.encrypt is False or item[0] == "identity"
    async with open_store(settings) as store:
        state, _ = await look(store)
        with pytest.raises(StoreDamaged, match="checksum"):
            _ = state.creds
        await store.seal(victim, "manual")
        assert len((await newest(store, state)).items) == 5 + clear
        await state.reset_auth(b'"fresh"')
        await is_well(store, state, b'"fresh"', {})


@hypothesis_settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(data=st.data())
def test_any_changed_byte(settings: StoreSettings, victim: str, data: st.DataObject) -> None:
    """Of any item, its checksum, version or name, the head, or the key."""
    place = data.draw(
        st.sampled_from(
            [
                *[("wa_auth_items", column) for column in ("value", "checksum", "version", "id", "type")],
                *[("wa_auth_snapshots", column) for column in ("snapshot", "checksum", "version", "creds_version",
                                                               "item_count", "epoch", "format")],
                ("wa_sessions", "auth_version"),
                ("wa_sessions", "auth_epoch"),
            ]
        )
    )  # fmt: skip
    table, column = place
    path = settings.path.with_name(f"{uuid.uuid4()}.db")
    own = msgspec.structs.replace(settings, path=path)

    shutil.copy(settings.path, path)
    if settings.encrypt is None:
        shutil.copy(default_key_file(settings.path), default_key_file(path))

    async def check() -> None:
        run = raw_in(path)
        which = "id=?" if table == "wa_sessions" else "session_id=?"
        extra = " AND type='session' AND id='1.0'" if table == "wa_auth_items" else ""
        ((value,),) = run(f"SELECT {column} FROM {table} WHERE {which}{extra}", victim)
        changed = _changed(data, value)
        run(f"UPDATE OR REPLACE {table} SET {column}=? WHERE {which}{extra}", changed, victim)
        async with open_store(own) as store:
            state, _ = await look(store)
            with pytest.raises((StoreDamaged, KekUnavailable)):
                _ = state.creds
            if column != "auth_epoch":  # to which the key is bound
                await state.reset_auth(b'"fresh"')
                await is_well(store, state, b'"fresh"', {})

    trio.run(check)


def _changed(data: st.DataObject, value: Any) -> Any:
    if isinstance(value, int):
        return value ^ 1 << data.draw(st.integers(0, 8))
    raw_bytes = bytearray(value.encode() if isinstance(value, str) else value)
    at = data.draw(st.integers(0, len(raw_bytes) - 1))
    letters = st.integers(0x20, 0x7E) if isinstance(value, str) else st.integers(0, 255)
    raw_bytes[at] = data.draw(letters.filter(lambda letter: letter != raw_bytes[at]))
    return raw_bytes.decode() if isinstance(value, str) else bytes(raw_bytes)


async def test_bytes_that_are_no_text(settings: StoreSettings, raw: Raw, victim: str) -> None:
    """A flipped high bit makes a column of text undecodable."""
    for table, column, where in (
        ("wa_auth_items", "value", "type='session' AND id='1.0'"),
        ("wa_auth_snapshots", "snapshot", "1"),
    ):
        raw(f"UPDATE {table} SET {column}=CAST(x'7b22ff' AS TEXT) WHERE session_id=? AND {where}", victim)
    await is_damaged(settings, sealed=5)


async def test_a_deleted_item(settings: StoreSettings, raw: Raw, victim: str) -> None:
    raw(f"DELETE FROM wa_auth_items {WHERE}", victim, *ANY)
    await is_damaged(settings, sealed=5)


async def test_an_item_too_many(settings: StoreSettings, raw: Raw, victim: str) -> None:
    raw(
        "INSERT INTO wa_auth_items SELECT session_id, type, '9.0', version, value, checksum FROM wa_auth_items "
        f"{WHERE}",
        victim,
        *ANY,
    )
    await is_damaged(settings, sealed=7 if settings.encrypt is False else 6)


async def test_an_old_item_put_back(settings: StoreSettings, raw: Raw) -> None:
    async with open_store(settings) as store:
        await paired(store, "neighbour")
        row = await store.create_session("victim")
        state = await store.attach(row.id, "test")
        for value in (b'"first"', SESSIONS["0.0"]):
            unit = state.unit()
            unit.put("session", "0.0", value)
            unit.set_creds(CREDS)
            unit.keep_plaintext("2@lid", "OUT1", b"plain")
            await state.commit(unit)
            if value == b'"first"':
                ((*old,),) = raw(
                    "SELECT version, value, checksum FROM wa_auth_items WHERE session_id=?", row.id
                )
        unit = state.unit()
        unit.enqueue(queued())
        await state.commit(unit)
    raw(
        "UPDATE wa_auth_items SET version=?, value=?, checksum=? WHERE session_id=? AND id='0.0'",
        *old,
        row.id,
    )
    await is_damaged(settings, sealed=1)


async def test_the_whole_state_put_back(settings: StoreSettings, raw: Raw) -> None:
    """Even a consistent old one: its version is behind that of the row, and stays behind when units follow."""
    async with open_store(settings) as store:
        await paired(store, "neighbour")
        victim = await paired(store, "victim")
    items = raw("SELECT * FROM wa_auth_items WHERE session_id=?", victim)
    ((*head,),) = raw("SELECT * FROM wa_auth_snapshots WHERE session_id=?", victim)
    async with open_store(settings) as store:
        state = await store.attach(victim, "test")
        unit = state.unit()
        unit.put("session", "0.0", b'"later"')
        await state.commit(unit)
    raw("DELETE FROM wa_auth_items WHERE session_id=?", victim)
    for row in items:
        raw("INSERT INTO wa_auth_items VALUES (?,?,?,?,?,?)", *row)
    raw("DELETE FROM wa_auth_snapshots WHERE session_id=?", victim)
    raw(f"INSERT INTO wa_auth_snapshots VALUES ({','.join('?' * len(head))})", *head)
    async with open_store(settings) as store:
        state, _ = await look(store)
        unit = state.unit()
        unit.set_session(current_status="failed")
        unit.event("connection:status", {})
        await state.commit(unit)
        again = await store.attach(victim, "test")
        with pytest.raises(StoreDamaged, match="version"):
            _ = again.creds
        unit = again.unit()
        unit.put("session", "0.0", b'"a key used again"')
        with pytest.raises(StoreDamaged, match="version"):
            await again.commit(unit)
    await is_damaged(settings)


@pytest.mark.parametrize(
    "change",
    [
        "checksum=zeroblob(32)",
        "version=version-1",
        "version=version+1",
        "epoch=epoch+1",
        "item_count=item_count+1",
        "creds_version=creds_version-1",
        "format=2",
    ],
)
async def test_a_changed_head(settings: StoreSettings, raw: Raw, victim: str, change: str) -> None:
    raw(f"UPDATE wa_auth_snapshots SET {change} WHERE session_id=?", victim)
    await is_damaged(settings)


async def test_a_head_that_is_gone(settings: StoreSettings, raw: Raw, victim: str) -> None:
    """It must not look like a session that was never paired."""
    raw("DELETE FROM wa_auth_snapshots WHERE session_id=?", victim)
    await is_damaged(settings)


@pytest.mark.parametrize("creds", ['{"identity":"AA', "", "{}", "null", '{"$wad":1,"n":"AAAA","c":""}'])
async def test_damaged_credentials(settings: StoreSettings, raw: Raw, victim: str, creds: str) -> None:
    raw("UPDATE wa_auth_snapshots SET snapshot=? WHERE session_id=?", creds, victim)
    await is_damaged(settings)


async def test_items_of_two_sessions_exchanged(settings: StoreSettings, raw: Raw) -> None:
    async with open_store(settings) as store:
        ours = await paired(store, "neighbour")
        victim = await paired(store, "victim")
    for table in ("wa_auth_items", "wa_auth_snapshots"):
        raw(f"DELETE FROM {table} WHERE session_id=?", victim)
        names = [name for _, name, *_ in raw(f"PRAGMA table_info({table})")]
        columns = ", ".join("?" if name == "session_id" else name for name in names)
        raw(f"INSERT INTO {table} SELECT {columns} FROM {table} WHERE session_id=?", victim, ours)
    if settings.encrypt is False:
        return  # a consistent state in the clear: only keys tell the two apart
    await is_damaged(settings, sealed=1)
    # … nor does the key go along with them.
    async with open_store(settings) as store:
        state, neighbour = await look(store)
    raw("UPDATE wa_sessions SET (dek_wrapped, auth_epoch, auth_version)=(SELECT dek_wrapped, auth_epoch, auth_version "
        "FROM wa_sessions WHERE id=?) WHERE id=?", neighbour.session_id, victim)  # fmt: skip
    async with open_store(settings) as store:
        neighbour, state = [await store.attach(row.id, "test") for row in await store.sessions()]
        assert neighbour.creds == CREDS
        with pytest.raises(KekUnavailable):
            _ = state.creds


async def test_damaged_messages_on_their_way(settings: StoreSettings, raw: Raw, victim: str) -> None:
    """They are lost; the account is not."""
    if settings.encrypt is False:
        raw("UPDATE wa_auth_snapshots SET snapshot='' WHERE session_id=?", victim)
    else:
        raw("UPDATE wa_outbox SET payload='{\"$wad\":1}' WHERE session_id=?", victim)
        raw("UPDATE wa_retry_buffer SET plaintext=x'00' WHERE session_id=?", victim)
    async with open_store(settings) as store:
        state, _ = await look(store)
        done = await state.restore_auth(CREDS, {}, {}, ("auth:restored", {}))
        assert done.held == (settings.encrypt is False)
        ((row,),) = [await state.outbox(("failed", "held"))]
        assert (row.state, row.payload) == (("held", {"text": "hi"}) if done.held else ("failed", {}))
        await is_well(store, state, CREDS, {})
        await state.reset_auth(b'"fresh"')


async def test_a_sound_seal_is_not_replaced_by_that_of_a_damaged_state(
    settings: StoreSettings, raw: Raw, victim: str
) -> None:
    """At a clean end a state is sealed; what breaks afterwards has the same version."""
    async with open_store(settings) as store:
        version = await store.seal(victim, "shutdown")
    raw("UPDATE wa_auth_snapshots SET snapshot='' WHERE session_id=?", victim)
    raw(f"DELETE FROM wa_auth_items {WHERE}", victim, *ANY)
    async with open_store(settings) as store:
        state, _ = await look(store)
        assert await state.reset_auth(b'"fresh"') == version
        (info,) = await store.seals(victim)
        assert (info.reason, info.item_count) == ("pre_reset", 6)
        kept = await newest(store, state)
        assert (kept.creds, len(kept.items)) == (CREDS, 6)


async def test_ended_messages_stay_readable_in_the_next_epoch(settings: StoreSettings, victim: str) -> None:
    """The key they were encrypted with is gone by then."""
    async with open_store(settings) as store:
        state, _ = await look(store)
        unit = state.unit()
        unit.update_outbox("OUT1", state="sent", sent_at=5)
        await state.commit(unit)
        await state.reset_auth(b'"fresh"')
        row = await state.outbox_by_ref("ref")
        assert row is not None
        assert (row.state, row.payload) == ("sent", {"text": "hi"})


async def test_an_item_that_is_no_document_does_not_spoil_a_seal(
    settings: StoreSettings, victim: str
) -> None:
    async with open_store(settings) as store:
        state, _ = await look(store)
        unit = state.unit()
        unit.put("session", "odd", b'{"b":1, "a":')
        unit.put("session", "blanks", b'{"b":1, "a":2}')
        await state.commit(unit)
        await store.seal(victim, "manual")
        kept = await newest(store, state)
        assert kept.items["session", "blanks"] == b'{"a":2,"b":1}'
        assert kept.items["session", "odd"] == as_it_is("session", "odd", b'{"b":1, "a":')
        assert kept.items["session", "1.0"] == SESSIONS["1.0"]


async def test_a_newer_format_is_left_alone(settings: StoreSettings, raw: Raw, victim: str) -> None:
    raw("UPDATE wa_auth_snapshots SET format=2 WHERE session_id=?", victim)
    async with open_store(settings) as store:
        state, _ = await look(store)
        unit = state.unit()
        unit.put("session", "1.0", b'"x"')
        with pytest.raises(StoreDamaged, match="format 2"):
            await state.commit(unit)
    assert raw("SELECT format, version FROM wa_auth_snapshots WHERE session_id=?", victim) == [(2, 2)]
