"""A database that the first version of the schema made is taken over whole, or left as it is."""

from __future__ import annotations

import base64
import hashlib
import json
import signal
import sqlite3
import stat
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio

from tests.store.test_damage import Raw, raw_in
from tests.store.test_store import text
from waD.store.canonical import as_it_is, canonical, canonicalise
from waD.store.checksum import creds_checksum, item_checksum, total
from waD.store.errors import StoreDamaged, StoreError
from waD.store.model import SealInfo
from waD.store.sqlite.database import APPLICATION_ID, migrations
from waD.store.state import SessionState
from waD.store.store import Parts, Store, StoreSettings, open_store
from waD.transfer.upgrade import upgrade_item

ONE, TWO, NEW = (str(uuid.UUID(int=number)) for number in (1, 2, 3))
CREDS = b'{"noise": {"priv":"AAAA"}, "me":"1@lid", "adv":"\xc3\xa9"}'
IDENTITY = bytes(range(32))
ITEMS: dict[tuple[str, str], tuple[int, bytes]] = {
    ("identity", "2.0"): (3, IDENTITY),
    ("lid-of-pn", "15550000002"): (3, b"2"),
    ("note", "json"): (4, b'{"b":1, "a":[true]}'),
    ("note", "bytes"): (4, b"\x08\xff\x00raw"),
    ("note", "empty"): (5, b""),
}
"""As the earlier program stored them: version and value."""
SEALED = [("identity", "2.0", IDENTITY), ("note", "bytes", b"\x08\xff\x00raw")]


def upgrade(kind: str, key: str, value: bytes) -> bytes:
    """Stands for that of a higher floor: the version and place of an item must be kept whatever it becomes."""
    return canonical({"kind": kind, "key": key, "was": value})


def fill(path: Path) -> None:
    """A database with two sessions and one that was never paired."""
    step = migrations()[0]
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA foreign_keys=ON")
        db.execute(
            "CREATE TABLE wa_schema_migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL, "
            "checksum BLOB NOT NULL, applied_at INTEGER NOT NULL) STRICT"
        )
        db.executescript(step.script)
        db.execute(
            "INSERT INTO wa_schema_migrations VALUES (?,?,?,0)", (step.version, step.name, step.checksum)
        )
        db.execute(f"PRAGMA application_id={APPLICATION_ID}")
        for session_id, name in ((ONE, "one"), (TWO, "two"), (NEW, "new")):
            _session(db, session_id, name, paired=session_id != NEW)


def _session(db: sqlite3.Connection, session_id: str, name: str, *, paired: bool) -> None:
    version = 7 if paired else 2  # units without keys count, too
    db.execute(
        "INSERT INTO wa_sessions (id, name, auth_epoch, auth_version, lease_token, messages_received, created_at, "
        "updated_at) VALUES (?,?,2,?,9,1,10,20)",
        (session_id, name, version),
    )
    if not paired:
        return
    db.execute("INSERT INTO wa_auth_snapshots VALUES (?,2,?,6)", (session_id, CREDS))
    for (kind, key), (at, value) in ITEMS.items():
        db.execute("INSERT INTO wa_auth_items VALUES (?,?,?,?,?)", (session_id, kind, key, at, value))
    document = _seal(session_id)
    db.execute(
        "INSERT INTO wa_auth_sealed VALUES (?,1,3,'pre_reset',?,?,?,30)",
        (session_id, document, len(SEALED), hashlib.sha256(document).digest()),
    )
    db.execute(
        "INSERT INTO wa_outbox (session_id, client_ref, chat, message_id, payload, created_at) VALUES (?,?,?,?,?,40)",
        (session_id, "ref", "2@lid", "OUT1", '{"text":"hi"}'),
    )
    db.execute("INSERT INTO wa_retry_buffer VALUES (?,'2@lid','OUT0',x'aabb',50)", (session_id,))
    db.execute("INSERT INTO wa_inbound_buffer VALUES (?,?,'2@lid','2@lid','A1',60)", (session_id, bytes(32)))
    db.execute(
        "INSERT INTO whatsapp_messages (session_id, chat, sender, message_id, from_me, ts, kind, body, raw, "
        "inserted_at) VALUES (?,'2@lid','2@lid','A1',0,5,'text','hi',x'0a',6)",
        (session_id,),
    )
    db.execute(
        "INSERT INTO wa_events (session_id, session, kind, payload, at) VALUES (?,?,'message:new','{}',7)",
        (session_id, name),
    )


def _seal(session_id: str) -> bytes:
    return json.dumps(
        {
            "format": "wad-seal/1",
            "session": session_id,
            "epoch": 1,
            "version": 3,
            "creds": base64.b64encode(CREDS).decode(),
            "items": [[kind, key, base64.b64encode(value).decode()] for kind, key, value in SEALED],
        },
        separators=(",", ":"),
    ).encode()


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[StoreSettings]:
    path = tmp_path / "waD.db"
    path.touch(0o600)
    fill(path)
    yield StoreSettings(path=path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.fixture
def raw(settings: StoreSettings) -> Raw:
    return raw_in(settings.path)


PARTS = Parts(upgrade=upgrade)


async def attached(store: Store, session_id: str = ONE) -> SessionState:
    return await store.attach(session_id, "test")


async def test_everything_is_there(settings: StoreSettings) -> None:
    async with open_store(settings, PARTS) as store:
        for session_id in (ONE, TWO):
            state = await attached(store, session_id)
            assert state.creds == canonicalise(CREDS)
            for (kind, key), (_, value) in ITEMS.items():
                assert await state.item(kind, key) == upgrade(kind, key, value)
            assert set(await state.all_items("note")) == {"json", "bytes", "empty"}
            row = state.row
            assert (row.auth_epoch, row.auth_version, row.auth_phase, row.kek_id) == (2, 7, "cut_over", None)
            assert (row.lease_token, row.messages_received, row.created_at) == (10, 1, 10)
            assert [out.payload for out in await state.outbox()] == [{"text": "hi"}]
            assert await state.plaintext(["2@lid"], "OUT0") == b"\xaa\xbb"
            assert await state.journal_seen("2@lid", "2@lid", "A1") == [bytes(32)]
            (message,) = await store.messages(session_id)
            assert message == text(seq=message.seq, session_id=session_id)
        assert [event.session for event in await store.events()] == ["one", "two"]
        assert await store.integrity_check() == []


async def test_checksums_are_those_of_the_new_documents(settings: StoreSettings, raw: Raw) -> None:
    async with open_store(settings, PARTS):
        pass
    found = raw(
        "SELECT epoch, version, format, snapshot, creds_version, item_count, checksum, complete "
        "FROM wa_auth_snapshots WHERE session_id=?",
        ONE,
    )
    creds = canonicalise(CREDS)
    parts = [creds_checksum(6, creds)]
    for (kind, key), (version, value) in ITEMS.items():
        own = item_checksum(kind, key, version, upgrade(kind, key, value))
        assert raw(
            "SELECT checksum FROM wa_auth_items WHERE session_id=? AND type=? AND id=?", ONE, kind, key
        ) == [(own,)]
        parts.append(own)
    assert found == [(2, 7, 1, creds.decode(), 6, len(ITEMS), total(parts), 1)]


async def test_units_go_on(settings: StoreSettings) -> None:
    async with open_store(settings, PARTS) as store:
        for session_id in (ONE, NEW):
            state = await attached(store, session_id)
            unit = state.unit()
            unit.put("session", "2.0", b'"ratchet"')
            unit.delete("note", "bytes")
            unit.set_creds(b'"later"')
            await state.commit(unit)
    async with open_store(settings, PARTS) as store:
        for session_id in (ONE, NEW):
            state = await attached(store, session_id)
            assert state.creds == b'"later"'
            assert await state.item("session", "2.0") == b'"ratchet"'
            assert await state.item("note", "bytes") is None


async def test_earlier_seals_can_be_read(settings: StoreSettings, raw: Raw) -> None:
    async with open_store(settings, PARTS) as store:
        assert await store.seals(ONE) == [
            SealInfo(epoch=1, version=3, reason="pre_reset", sealed_at=30, item_count=2)
        ]
        (info,) = await store.seals(ONE)
        sealed = await store.sealed(ONE, info)
        assert (sealed.epoch, sealed.version) == (1, 3)
        assert canonicalise(sealed.creds or b"") == canonicalise(CREDS)
        assert sealed.items == {(kind, key): upgrade(kind, key, value) for kind, key, value in SEALED}
        version = await store.seal(ONE, "manual")
        newest, _ = await store.seals(ONE)
        assert newest.version == version == 7
        assert len((await store.sealed(ONE, newest)).items) == len(ITEMS)
        raw("UPDATE wa_auth_sealed SET document=replace(document, 'A', 'B') WHERE epoch=1")
        with pytest.raises(StoreDamaged):
            await store.sealed(ONE, info)


async def test_opening_twice_changes_nothing(settings: StoreSettings, raw: Raw) -> None:
    tables = ("wa_sessions", "wa_auth_items", "wa_auth_snapshots", "wa_auth_sealed", "wa_schema_migrations")

    def all_of_it() -> list[object]:
        return [raw(f"SELECT * FROM {table} ORDER BY 1, 2, 3") for table in tables]

    async with open_store(settings, PARTS):
        pass
    before = all_of_it()
    async with open_store(settings, Parts(upgrade=lambda *_: b'"never asked"')):
        pass
    assert all_of_it() == before
    assert [version for version, *_ in raw("SELECT version FROM wa_schema_migrations")] == [
        step.version for step in migrations()
    ]


async def test_without_a_higher_floor_documents_stay_and_bytes_are_wrapped(settings: StoreSettings) -> None:
    async with open_store(settings) as store:
        state = await attached(store)
        assert await state.item("note", "json") == b'{"a":[true],"b":1}'
        for key in ("bytes", "empty"):
            assert await state.item("note", key) == as_it_is("note", key, ITEMS["note", key][1])
            assert await state.item("note", key) != ITEMS["note", key][1]


async def test_with_the_upgrade_of_the_program(settings: StoreSettings) -> None:
    async with open_store(settings, Parts(upgrade=upgrade_item)) as store:
        state = await attached(store)
        assert await state.item("identity", "2.0") == b'"%s"' % base64.b64encode(b"\x05" + IDENTITY)
        assert await state.item("lid-of-pn", "15550000002") == b'"2"'
        assert await state.item("note", "json") == b'{"a":[true],"b":1}'


@pytest.mark.parametrize("creds", [b'{"noise":{"priv":"AA', b"", b"\xff\xfe{}", b"[" * 50_000])
async def test_damaged_credentials_of_one_session(settings: StoreSettings, raw: Raw, creds: bytes) -> None:
    raw("UPDATE wa_auth_snapshots SET snapshot=? WHERE session_id=?", creds, ONE)
    async with open_store(settings, PARTS) as store:
        assert (await attached(store, TWO)).creds == canonicalise(CREDS)
        state = await attached(store)
        assert (
            state.creds == creds.decode("utf-8", "replace").encode()
        )  # whoever reads them calls them damaged
        assert await state.item("note", "json") is not None
        version = await store.seal(ONE, "manual")
        newest, *_ = await store.seals(ONE)
        sealed = await store.sealed(ONE, newest)
        assert (newest.version, len(sealed.items)) == (version, len(ITEMS))
        await state.reset_auth(b'"fresh"')
        assert await store.read(store.engine.checked_creds, ONE) == b'"fresh"'


async def test_an_upgrade_that_fails_changes_nothing(settings: StoreSettings, raw: Raw) -> None:
    def broken(kind: str, key: str, value: bytes) -> bytes:
        if key == "empty":
            raise ZeroDivisionError
        return upgrade(kind, key, value)

    with pytest.raises(StoreError, match=r"waD\.db"):
        async with open_store(settings, Parts(upgrade=broken)):
            pytest.fail("it was opened")
    _is_as_before(raw)
    async with open_store(settings, PARTS) as store:
        assert (await attached(store)).creds == canonicalise(CREDS)


def _is_as_before(raw: Raw) -> None:
    assert raw("SELECT version FROM wa_schema_migrations") == [(1,)]
    assert raw("SELECT snapshot FROM wa_auth_snapshots WHERE session_id=?", ONE) == [(CREDS,)]
    assert raw("SELECT value FROM wa_auth_items WHERE session_id=? AND id='bytes'", ONE) == [
        (ITEMS["note", "bytes"][1],)
    ]
    assert raw("SELECT count(*) FROM wa_auth_items") == [(2 * len(ITEMS),)]
    assert raw("SELECT name FROM sqlite_schema WHERE name IN ('wa_auth_keys', 'wa_auth_items_1')") == []


KILLED = """
import os, signal, sys
from pathlib import Path
from waD.store.canonical import canonical
from waD.store.sqlite.engine import SqliteEngine

left = int(sys.argv[2])

def upgrade(kind, key, value):
    global left
    left -= 1
    if left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return canonical({"kind": kind, "key": key, "was": value})

SqliteEngine(Path(sys.argv[1]), upgrade=upgrade)
"""


@pytest.mark.parametrize("at", [1, len(ITEMS), 2 * len(ITEMS)])
def test_a_kill_in_the_middle_leaves_the_old_state(settings: StoreSettings, raw: Raw, at: int) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, settings.path, str(at)], check=False)
    assert done.returncode == -signal.SIGKILL
    _is_as_before(raw)

    async def opens() -> None:
        async with open_store(settings, PARTS) as store:
            assert (await attached(store, TWO)).creds == canonicalise(CREDS)
            assert await store.integrity_check() == []

    trio.run(opens)
