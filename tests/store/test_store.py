"""The store on every database: units, group commit, fencing, history, outbox, retention."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import msgspec
import psycopg
import pytest
import trio

from tests.store.conftest import Raw, alone
from waD.store.engine import CommitUnit
from waD.store.errors import CursorExpired, LeaseLost, SessionUnknown, StorageUnavailable
from waD.store.model import UNDECRYPTABLE, DisconnectRecord, EventRow, MessageRow, OutboxRow
from waD.store.sqlite.engine import SqliteEngine
from waD.store.state import CACHED_ITEMS, SessionState
from waD.store.store import Store, StoreSettings, open_store
from waD.store.unit import Unit

DAY = 86_400_000


class Counter(msgspec.Struct, frozen=True):
    """A record that counts how often it was decoded."""

    value: int

    def serialize(self) -> bytes:
        return str(self.value).encode()

    @classmethod
    def parse(cls, data: bytes) -> Counter:
        return cls(int(data))


IN_A_FILE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
"""Of tests that are about the file."""


@pytest.fixture
async def state(store: Store) -> SessionState:
    row = await store.create_session("alerts")
    return await store.attach(row.id, "test")


def text(message_id: str = "A1", **changes: object) -> MessageRow:
    row = MessageRow(
        chat="2@lid",
        sender="2@lid",
        message_id=message_id,
        from_me=False,
        ts=5,
        kind="text",
        body="hi",
        raw=b"\x0a",
    )
    return msgspec.structs.replace(row, **changes)


def queued(message_id: str = "OUT1", client_ref: str = "ref") -> OutboxRow:
    return OutboxRow(client_ref=client_ref, chat="2@lid", message_id=message_id, payload={"text": "hi"})


async def test_a_unit_is_there_whole(store: Store, state: SessionState) -> None:
    unit = state.unit()
    unit.put("session", "2.0", b'"ratchet"')
    unit.set_creds(b"{}")
    unit.set_session(me_lid="1:7@lid", last_message_at=9)
    unit.add_message(text(content={"quoted": "A0"}))
    unit.enqueue(queued())
    unit.keep_plaintext("2@lid", "OUT1", b"plain")
    unit.journal("2@lid", "2@lid", "A1", bytes(32))
    unit.event("message:new", {"id": "A1"})
    committed = await state.commit(unit)
    assert committed.version == 1
    assert await state.item("session", "2.0") == b'"ratchet"'
    assert state.creds == b"{}"
    row = await store.session("alerts")
    assert row is not None
    assert (row.me_lid, row.last_message_at, row.auth_version) == ("1:7@lid", 9, 1)
    (message,) = await store.messages(row.id)
    assert (message.body, message.content, message.from_me, message.raw) == (
        "hi",
        {"quoted": "A0"},
        False,
        b"\x0a",
    )
    assert [out.message_id for out in await state.outbox()] == ["OUT1"]
    assert await state.plaintext(["other", "2@lid"], "OUT1") == b"plain"
    assert await state.journal_seen("2@lid", "2@lid", "A1") == [bytes(32)]
    assert await state.journal_ciphers([bytes(32), b"1" * 32]) == {bytes(32)}
    (event,) = await store.events()
    assert event == committed.events[0]
    assert (event.connection_id, event.session, event.type, event.data) == (
        row.id,
        "alerts",
        "message:new",
        {"id": "A1"},
    )


async def test_what_was_committed_survives_a_reopening(settings: StoreSettings) -> None:
    async with open_store(settings) as store:
        row = await store.create_session("alerts")
        state = await alone(store).attach(row.id, "one")
        unit = state.unit()
        unit.put("prekey", "1", b'"key"')
        unit.set_creds(b'"creds"')
        unit.event("connection:status", {})
        await state.commit(unit)
    async with open_store(settings) as store:
        state = await alone(store).attach(row.id, "two")
        assert state.creds == b'"creds"'
        assert await state.item("prekey", "1") == b'"key"'
        assert await state.all_items("prekey") == {"1": b'"key"'}
        assert await store.last_cursor() == 1


async def test_nothing_of_a_refused_unit_is_there(store: Store, state: SessionState) -> None:
    await state.commit(_with_outbox(state, "OUT1", "ref"))
    unit = _with_outbox(state, "OUT2", "ref")
    unit.put("session", "2.0", b'"ratchet"')
    unit.event("message:status", {})
    with pytest.raises(ValueError, match="refused"):
        await state.commit(unit)
    assert await state.item("session", "2.0") is None
    assert await store.events() == []
    assert [row.message_id for row in await state.outbox()] == ["OUT1"]


def _with_outbox(state: SessionState, message_id: str, client_ref: str) -> Unit:
    unit = state.unit()
    unit.enqueue(queued(message_id, client_ref))
    return unit


async def test_a_bad_unit_does_not_take_its_neighbours_along(store: Store) -> None:
    states = [await store.attach((await store.create_session(f"s{n}")).id, "test") for n in range(3)]
    bad = states[1].unit()
    bad.set_session(no_such_column=1)
    jobs = []
    for state in states:
        unit = bad if state is states[1] else state.unit()
        unit.put("session", "a", b"1")
        jobs.append(CommitUnit(state.session_id, state.row.lease_token, unit))
    outcomes = await store.read(store.engine.write, jobs)
    assert [isinstance(outcome, Exception) for outcome in outcomes] == [False, True, False]
    assert [await state.item("session", "a") for state in states] == [b"1", None, b"1"]


async def test_commits_that_arrive_together_share_a_transaction(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []
    write = store.engine.write
    monkeypatch.setattr(store.engine, "write", lambda jobs: groups.append(len(jobs)) or write(jobs))
    states = [await store.attach((await store.create_session(f"s{n}")).id, "test") for n in range(20)]
    groups.clear()

    async def commit(state: SessionState) -> None:
        unit = state.unit()
        unit.event("message:new", {})
        await state.commit(unit)

    async with trio.open_nursery() as nursery:
        for state in states:
            nursery.start_soon(commit, state)
    assert sum(groups) == 20
    assert len(groups) < 20


async def test_events_are_published_in_the_order_of_their_cursors(store: Store, state: SessionState) -> None:
    published: list[EventRow] = []
    store.on_commit = published.extend
    for n in range(5):
        unit = state.unit()
        unit.event("message:new", {"n": n})
        unit.event("message:status", {"n": n})
        await state.commit(unit)
    assert [event.cursor for event in published] == list(range(1, 11))
    assert published == await store.events()


async def test_an_old_owner_commits_nothing(store: Store, state: SessionState) -> None:
    successor = await store.attach(state.session_id, "successor")
    unit = state.unit()
    unit.put("session", "2.0", b'"ratchet"')
    with pytest.raises(LeaseLost):
        await state.commit(unit)
    with pytest.raises(LeaseLost):
        await state.reset_auth(b"{}")
    assert await successor.item("session", "2.0") is None


async def test_a_step_that_fails_leaves_nothing(state: SessionState) -> None:
    unit = state.unit()
    unit.put("session", "kept", b"1")
    unit.put("session", "changed", b"1")
    unit.set_session(last_message_at=1)
    with unit.step():
        unit.put("session", "fine", b"1")
    with pytest.raises(RuntimeError), unit.step():  # noqa: PT012 - the block is what is discarded
        unit.put("session", "changed", b"2")
        unit.delete("session", "kept")
        unit.put("session", "new", b"2")
        with unit.step():
            unit.put("session", "fine", b"2")
        unit.event("message:new", {})
        unit.set_session(last_message_at=2)
        unit.set_creds(b"")
        raise RuntimeError
    await state.commit(unit)
    found = await state.all_items("session")
    assert found == {"kept": b"1", "changed": b"1", "fine": b"1"}
    assert (unit.session, unit.steps, unit.creds) == ({"last_message_at": 1}, [], None)


async def test_reads_see_the_units_own_changes(state: SessionState) -> None:
    unit = state.unit()
    unit.put("session", "a", Counter(1))
    assert await state.record("session", "a", Counter.parse, unit) == Counter(1)
    assert await state.item("session", "a", unit) == b"1"
    assert await state.item("session", "a") is None
    await state.commit(unit)
    assert await state.items("session", ["a", "b"]) == {"a": b"1"}
    unit = state.unit()
    unit.delete("session", "a")
    assert await state.record("session", "a", Counter.parse, unit) is None
    assert await state.items("session", ["a"], unit) == {}


async def test_a_record_is_decoded_once(store: Store, state: SessionState) -> None:
    unit = state.unit()
    unit.put("session", "a", b"7")
    await state.commit(unit)
    successor = await store.attach(state.session_id, "again")
    first = await successor.record("session", "a", Counter.parse)
    assert first == Counter(7)
    assert await successor.record("session", "a", Counter.parse) is first


async def test_the_cache_is_bounded_and_right(state: SessionState) -> None:
    for start in range(0, CACHED_ITEMS + 50, 100):
        unit = state.unit()
        for n in range(start, start + 100):
            unit.put("session", str(n), str(n).encode())
        await state.commit(unit)
    assert len(state._cache) == CACHED_ITEMS
    assert await state.item("session", "0") == b"0"


async def test_a_read_that_a_commit_overtakes_is_not_remembered(
    store: Store, state: SessionState, monkeypatch: pytest.MonkeyPatch
) -> None:
    overtaken = trio.Event()
    read = store.read

    async def slow(query: object, *args: object) -> object:
        found = await read(query, *args)  # type: ignore[arg-type]
        if query == store.engine.items and not overtaken.is_set():
            overtaken.set()
            unit = state.unit()
            unit.put("session", "a", b'"new"')
            await state.commit(unit)
        return found

    monkeypatch.setattr(store, "read", slow)
    await state.item("session", "a")
    assert await state.item("session", "a") == b'"new"'


async def test_a_commit_is_not_in_doubt_when_it_is_cancelled(state: SessionState) -> None:
    unit = state.unit()
    unit.put("session", "a", b"1")
    with trio.CancelScope() as scope:
        scope.cancel()
        await state.commit(unit)
    assert await state.item("session", "a") == b"1"
    assert await state.all_items("session") == {"a": b"1"}


async def test_a_status_is_never_lowered(store: Store, state: SessionState) -> None:
    unit = state.unit()
    unit.add_message(text("M", from_me=True, sender="1@lid"))
    unit.raise_status("2@lid", "M", 4)
    unit.raise_status("2@lid", "M", 3)
    unit.raise_status("3@lid", "M", 5)
    await state.commit(unit)
    (row,) = await state.find_message("M", "2@lid")
    assert row.status == 4


async def test_an_undecryptable_message_is_resolved_and_others_stay(state: SessionState) -> None:
    unit = state.unit()
    unit.add_message(text(kind=UNDECRYPTABLE, body=None, raw=None))
    unit.add_message(text())
    unit.add_message(text(body="again"))
    unit.update_message("2@lid", "2@lid", "A1", revoked_at=8)
    await state.commit(unit)
    (row,) = await state.find_message("A1")
    assert (row.kind, row.body, row.revoked_at) == ("text", "hi", 8)


async def test_history_is_paged_newest_first_and_never_deleted(
    store: Store, state: SessionState, raw: Raw
) -> None:
    unit = state.unit()
    for n in range(5):
        unit.add_message(text(f"M{n}"))
    await state.commit(unit)
    first = await store.messages(state.session_id, limit=2)
    assert [row.message_id for row in first] == ["M4", "M3"]
    rest = await store.messages(state.session_id, chats=["2@lid"], before_seq=first[-1].seq)
    assert [row.message_id for row in rest] == ["M2", "M1", "M0"]
    with pytest.raises((sqlite3.Error, psycopg.Error), match="WA001"):
        raw("DELETE FROM whatsapp_messages")


async def test_the_outbox_by_reference_and_state(state: SessionState) -> None:
    await state.commit(_with_outbox(state, "OUT1", "ref"))
    unit = state.unit()
    unit.update_outbox("OUT1", state="sending", stanza=b"node", attempts=1)
    await state.commit(unit)
    row = await state.outbox_by_ref("ref")
    assert row is not None
    assert (row.state, row.stanza, row.attempts, row.payload) == ("sending", b"node", 1, {"text": "hi"})
    assert await state.outbox_by_message_id("OUT1") == row
    assert await state.outbox_by_ref("other") is None
    assert await state.outbox(("sent",)) == []


async def test_a_reset_seals_and_keeps_history(store: Store, state: SessionState) -> None:
    unit = state.unit()
    unit.set_creds(b'"old"')
    unit.put("session", "2.0", b'"ratchet"')
    unit.add_message(text())
    unit.enqueue(queued())
    unit.event("message:new", {})
    unit.set_session(last_disconnect=DisconnectRecord(cause="f401", code=401, at_ms=3, detail={"age": 1}))
    await state.commit(unit)
    assert await state.reset_auth(b'"new"') == 1
    assert state.creds == b'"new"'
    assert await state.all_items("session") == {}
    assert len(await store.messages(state.session_id)) == len(await store.events()) == 1
    assert [row.state for row in await state.outbox(("held",))] == ["held"]
    row = await store.session("alerts")
    assert row is not None
    assert (row.auth_epoch, row.last_disconnect) == (
        2,
        DisconnectRecord(cause="f401", code=401, at_ms=3, detail={"age": 1}),
    )
    (info,) = await store.seals(state.session_id)
    assert info.reason == "pre_reset"
    sealed = await store.sealed(state.session_id, info)
    assert (sealed.creds, sealed.items) == (b'"old"', {("session", "2.0"): b'"ratchet"'})


async def test_a_retired_session_comes_back_as_itself(store: Store) -> None:
    first = await store.create_session("alerts")
    await store.update_session(first.id, desired_state="retired")
    assert await store.sessions() == []
    with pytest.raises(SessionUnknown):
        await store.require_session("alerts")
    again = await store.create_session("alerts")
    assert (again.id, again.desired_state) == (first.id, "down")
    await store.update_session(first.id, desired_state="up")
    assert (await store.create_session("alerts")).desired_state == "up"
    with pytest.raises(SessionUnknown):
        await store.attach("nobody", "test")


async def test_retention_and_expired_cursors(store: Store, state: SessionState) -> None:
    unit = state.unit()
    unit.enqueue(queued())
    unit.keep_plaintext("2@lid", "OUT1", b"plain")
    unit.journal("2@lid", "2@lid", "A1", bytes(32))
    unit.add_message(text())
    for _ in range(3):
        unit.event("message:new", {})
    events = (await state.commit(unit)).events
    now = events[0].time
    assert await store.prune(now) == 0
    assert await store.prune(now + 8 * DAY) == 1
    assert await state.plaintext(["2@lid"], "OUT1") is None
    assert await store.prune(now + 31 * DAY) == 4
    with pytest.raises(CursorExpired) as expired:
        await store.events(after=0)
    assert expired.value.oldest == events[-1].cursor
    assert await store.events(after=expired.value.oldest) == []
    assert len(await store.messages(state.session_id)) == len(await state.outbox()) == 1
    assert (await store.append_event(None, "alert:raised", {})).cursor == events[-1].cursor + 1


async def test_a_crowded_log_loses_its_oldest(settings: StoreSettings) -> None:
    async with open_store(msgspec.structs.replace(settings, events_per_session=2)) as store:
        row = await store.create_session("alerts")
        for _ in range(5):
            await store.append_event(row.id, "message:new", {})
        await store.prune(0)
        assert [event.cursor for event in await store.events(after=3)] == [4, 5]


async def test_events_by_session_type_and_page(store: Store) -> None:
    one, two = await store.create_session("one"), await store.create_session("two")
    for row in (one, two, one):
        await store.append_event(row.id, "message:new", {})
        await store.append_event(row.id, "message:status", {})
    assert [event.cursor for event in await store.events(session_id=one.id)] == [1, 2, 5, 6]
    assert [event.cursor for event in await store.events(types=["message:new"])] == [1, 3, 5]
    assert [event.cursor for event in await store.events(after=2, limit=2)] == [3, 4]


@IN_A_FILE
async def test_files_are_closed_to_others(store: Store, state: SessionState, tmp_path: Path) -> None:
    for path in (tmp_path / "state").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert os.listdir(tmp_path) == ["state"]


async def test_a_closed_store_says_so(settings: StoreSettings) -> None:
    async with open_store(settings) as store:
        pass
    with pytest.raises(StorageUnavailable, match="closed"):
        await store.create_session("late")


@IN_A_FILE
async def test_a_full_disk_fails_loudly_and_changes_nothing(store: Store, state: SessionState) -> None:
    engine = store.engine
    assert isinstance(engine, SqliteEngine)
    pages = engine._db.execute("PRAGMA page_count").fetchone()[0]
    engine._db.execute(f"PRAGMA max_page_count={pages + 2}")
    unit = state.unit()
    unit.put("session", "big", bytes(1 << 20))
    with pytest.raises(StorageUnavailable, match=r"waD\.db"):
        await state.commit(unit)
    engine._db.execute("PRAGMA max_page_count=1000000")
    assert await state.item("session", "big") is None
    await state.commit(unit)
    assert await state.item("session", "big") == bytes(1 << 20)
    assert await store.integrity_check() == []


async def test_item_keys_by_prefix_see_the_unit(state: SessionState) -> None:
    unit = state.unit()
    for key in ("15.0", "15.1", "150.0", "16.0"):
        unit.put("session", key, b'"x"')
    unit.put("identity", "15.2", b'"x"')
    await state.commit(unit)
    assert await state.item_keys("session", "15.") == ["15.0", "15.1"]
    later = state.unit()
    later.delete("session", "15.0")
    later.put("session", "15.9", b'"y"')
    assert await state.item_keys("session", "15.", later) == ["15.1", "15.9"]
    assert await state.item_keys("session", "15.") == ["15.0", "15.1"]


async def test_moving_a_person_keeps_what_the_new_key_holds(store: Store, state: SessionState) -> None:
    unit = state.unit()
    unit.add_message(text("A1", chat="2@s.whatsapp.net", sender="2@s.whatsapp.net"))
    unit.add_message(text("A2", chat="2@s.whatsapp.net", sender="1@lid", from_me=True))
    unit.add_message(text("A1"))
    unit.enqueue(msgspec.structs.replace(queued(), chat="2@s.whatsapp.net"))
    await state.commit(unit)
    unit = state.unit()
    unit.move_person("2@s.whatsapp.net", "2@lid")
    await state.commit(unit)
    found = {(row.chat, row.sender, row.message_id) for row in await store.messages(state.session_id)}
    assert found == {
        ("2@s.whatsapp.net", "2@s.whatsapp.net", "A1"),
        ("2@lid", "1@lid", "A2"),
        ("2@lid", "2@lid", "A1"),
    }
    assert [row.chat for row in await state.outbox()] == ["2@lid"]
    both = await store.messages(state.session_id, chats=["2@lid", "2@s.whatsapp.net"])
    assert len(both) == 3


async def test_a_fault_in_one_unit_takes_no_other_along(store: Store, state: SessionState) -> None:
    class Unwritable:
        def serialize(self) -> bytes:
            raise TypeError("no such thing")

    other = await store.attach((await store.create_session("other")).id, "test")
    bad, good = state.unit(), other.unit()
    bad.put("session", "1.0", Unwritable())
    good.put("session", "1.0", b'"fine"')
    outcomes: list[str] = []

    async def commit(owner: SessionState, unit: Unit) -> None:
        try:
            await owner.commit(unit)
        except StorageUnavailable as error:
            outcomes.append(str(error))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(commit, state, bad)
        nursery.start_soon(commit, other, good)
    assert len(outcomes) == 1
    assert "unforeseen" in outcomes[0]
    assert await other.item("session", "1.0") == b'"fine"'
    again = state.unit()
    again.put("session", "1.0", b'"later"')
    await state.commit(again)


async def test_a_crowd_of_new_items_drives_nothing_out(store: Store, state: SessionState) -> None:
    unit = state.unit()
    unit.put("counter", "busy", Counter(1))
    await state.commit(unit)
    crowd = state.unit()
    crowd.put("counter", "busy", Counter(2))
    for number in range(CACHED_ITEMS + 1):
        crowd.put("prekey", str(number), b'"key"')
    await state.commit(crowd)
    known = await state.record("counter", "busy", Counter.parse)
    assert known is await state.record("counter", "busy", Counter.parse)
    assert known == Counter(2)
    assert len(await state.all_items("prekey")) == CACHED_ITEMS + 1
    assert await state.item("prekey", "7") == b'"key"'
