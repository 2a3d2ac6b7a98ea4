"""From key-value rows to the snapshot and back (chapter 08 §6.5), on every database."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from tests.store.conftest import Raw, alone
from tests.store.rows_codec import RowsCodec
from waD.store.engine import Backfill, MovePhase
from waD.store.errors import LeaseLost, StoreDamaged
from waD.store.phases import NEXT, Phase
from waD.store.state import SessionState
from waD.store.store import Parts, Store, StoreSettings, open_store

Items = dict[tuple[str, str], bytes]
PHASES: tuple[Phase, ...] = (
    "legacy_only", "dual_write", "backfilled", "snapshot_primary", "cut_over", "legacy_retired",
)  # fmt: skip


class Bed:
    """A store with one session, and a book of what its state must be."""

    def __init__(self, settings: StoreSettings) -> None:
        self.settings = msgspec.structs.replace(settings, legacy=True)
        self.codec = RowsCodec()
        self.store: Store = None  # type: ignore[assignment]
        self.state: SessionState = None  # type: ignore[assignment]
        self.creds: bytes | None = None
        self.book: Items = {}
        self._count = 0

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Bed]:
        """As a process does; everything in memory is gone afterwards."""
        async with open_store(self.settings, Parts(codec=self.codec)) as store:
            self.store = alone(store)
            row = await store.create_session("alerts")
            self.state = await store.attach(row.id, f"process {self._count}")
            self._count += 1
            yield self

    @property
    def id(self) -> str:
        return self.state.session_id

    async def put(self, **items: str | None) -> None:
        """Change sessions by name, None deletes."""
        unit = self.state.unit()
        for name, value in items.items():
            document = None if value is None else b'"%b"' % value.encode()
            unit.put("session", name, document) if document else unit.delete("session", name)
            if document is None:
                self.book.pop(("session", name), None)
            else:
                self.book["session", name] = document
        await self.state.commit(unit)

    async def pair(self, text: str) -> None:
        unit = self.state.unit()
        self.creds = b'{"who":"%b"}' % text.encode()
        unit.set_creds(self.creds)
        unit.put("prekey", "7", b'"key"')
        unit.put("identity", "2.0", b'"clear"')
        self.book |= {("prekey", "7"): b'"key"', ("identity", "2.0"): b'"clear"'}
        await self.state.commit(unit)

    async def go(self, to: Phase, **report: Any) -> None:
        await self.store.write(MovePhase(self.id, self.state.row.lease_token, to, "test", report))

    async def fill(self, limit: int = 500) -> int:
        copied = await self.store.write(Backfill(self.id, self.state.row.lease_token, limit))
        assert isinstance(copied, int)
        return copied

    async def phase(self) -> Phase:
        row = await self.store.session(self.id)
        assert row is not None
        return row.auth_phase

    async def check(self) -> None:
        """What is stored is what the book says, in whole and one by one."""
        whole = await self.store.read(self.store.engine.auth_state, self.id)
        assert {key: document for key, (_, document) in whole.items.items()} == self.book
        assert whole.creds == self.creds
        for kind in ("session", "prekey", "identity"):
            wanted = {key: value for (one, key), value in self.book.items() if one == kind}
            assert await self.state.all_items(kind) == wanted
            assert await self.state.item_keys(kind, "") == sorted(wanted)
        comparison = await self.store.read(self.store.engine.compare, self.id)
        assert (comparison.different, comparison.extra) == ({}, {})
        if await self.phase() != "dual_write":
            assert comparison.equal


@pytest.fixture
async def bed(settings: StoreSettings) -> AsyncIterator[Bed]:
    made = Bed(settings)
    async with made.opened():
        await made.pair("us")
        await made.put(a="1", b="2", c="3")
        yield made


async def to_legacy_only(bed: Bed) -> None:
    await bed.go("legacy_only")


async def test_all_the_way_forth_and_back_with_traffic_in_every_phase(bed: Bed) -> None:
    assert await bed.phase() == "snapshot_primary"
    await bed.check()
    await to_legacy_only(bed)
    await bed.put(a="4", d="5", c=None)
    await bed.check()

    await bed.go("dual_write")
    await bed.check()
    await bed.put(b="6", e="7")
    await bed.put(d=None)
    await bed.check()
    assert (
        await bed.fill() == 3
    )  # a, the prekey and the identity; b and e were written since, c and d are gone
    assert await bed.fill() == 0
    await bed.check()

    for phase in PHASES[2:5]:
        await bed.go(phase)
        await bed.put(a=phase, **{phase: "x"})
        await bed.check()
    assert (await bed.store.read(bed.store.engine.compare, bed.id)).compared is False

    await bed.go("snapshot_primary")
    await bed.check()
    await bed.go("legacy_only")
    await bed.check()
    await bed.put(a="the end")
    await bed.check()


async def test_nothing_in_memory_is_needed(settings: StoreSettings) -> None:
    bed = Bed(settings)
    async with bed.opened():
        await bed.pair("us")
        await bed.put(a="1", b="2")
        await to_legacy_only(bed)
    for phase in ("dual_write", "backfilled", "snapshot_primary", "cut_over", "snapshot_primary"):
        async with bed.opened():
            await bed.check()
            assert bed.state.creds == bed.creds
            if phase == "backfilled":
                await bed.fill()
            await bed.go(phase)  # type: ignore[arg-type]
            await bed.put(b=phase)
            await bed.check()
    async with bed.opened():
        await bed.check()


async def test_a_backfill_goes_on_after_an_end_between_two_batches(settings: StoreSettings) -> None:
    bed = Bed(settings)
    async with bed.opened():
        await bed.pair("us")
        await bed.put(**{f"s{number}": str(number) for number in range(9)})
        await to_legacy_only(bed)
        await bed.go("dual_write")
    copied = 0
    for _ in range(20):
        async with bed.opened():
            await bed.check()
            count = await bed.fill(2)
            copied += count
            if not count:
                break
            await bed.put(s3=f"during {copied}")
    assert copied == 11 - 1  # one of them was written before its turn
    async with bed.opened():
        await bed.go("backfilled")
        await bed.check()


async def test_a_random_walk_through_the_phases_loses_nothing(settings: StoreSettings) -> None:
    bed, chance = Bed(settings), random.Random(5)
    async with bed.opened():
        await bed.pair("us")
        for step in range(120):
            phase = await bed.phase()
            if chance.random() < 0.6:
                names = chance.sample("abcdefgh", 3)
                await bed.put(**{name: None if chance.random() < 0.3 else f"v{step}" for name in names})
                continue
            allowed = sorted(NEXT[phase] - {"legacy_retired"})
            target = chance.choice(allowed)
            if phase == "dual_write":
                while await bed.fill(2):
                    pass
            await bed.go(target)  # type: ignore[arg-type]
            await bed.check()


@pytest.mark.parametrize("start", PHASES)
async def test_a_step_that_there_is_not_changes_nothing(bed: Bed, start: Phase) -> None:
    forth: tuple[Phase, ...] = ("legacy_only", *PHASES[1 : PHASES.index(start) + 1])
    for phase in forth:
        if phase == "backfilled":
            await bed.fill()
        await bed.go(phase)
    for target in PHASES:
        if target not in NEXT[start] and target != start:
            with pytest.raises(ValueError, match=f"no step from {start} to {target}"):
                await bed.go(target)
    assert await bed.phase() == start
    await bed.check()


async def test_somebody_else_cannot_move_it(bed: Bed) -> None:
    old = bed.state.row.lease_token
    await bed.store.attach(bed.id, "another")
    with pytest.raises(LeaseLost):
        await bed.go("cut_over")
    with pytest.raises(LeaseLost):
        await bed.store.write(Backfill(bed.id, old, 10))
    assert await bed.phase() == "snapshot_primary"


async def test_rows_that_are_behind_are_refused_by_the_database_itself(bed: Bed, raw: Raw) -> None:
    await bed.go("cut_over")
    await bed.put(a="newer")
    with pytest.raises(Exception, match=r"WA003|stale"):
        raw("UPDATE wa_sessions SET auth_phase='snapshot_primary'")
    with pytest.raises(Exception, match=r"WA002|illegal"):
        raw("UPDATE wa_sessions SET auth_phase='dual_write'")
    assert await bed.phase() == "cut_over"


async def test_a_way_back_that_would_lose_something_is_not_taken(bed: Bed) -> None:
    await bed.go("cut_over")
    await bed.put(a="newer")
    before = await bed.store.read(bed.store.engine.auth_size, bed.id)
    bed.codec.broken = {"session"}
    with pytest.raises(StoreDamaged, match=r"alerts.*session.*nothing was changed"):
        await bed.go("snapshot_primary")
    bed.codec.broken = set()
    assert await bed.phase() == "cut_over"
    assert await bed.store.read(bed.store.engine.auth_size, bed.id) == before
    await bed.put(b="it goes on")
    await bed.check()


async def test_the_state_is_sealed_before_what_cannot_be_undone(bed: Bed) -> None:
    await to_legacy_only(bed)
    assert await bed.store.seals(bed.id) == []
    await bed.go("dual_write")
    (seal,) = await bed.store.seals(bed.id)
    sealed = await bed.store.sealed(bed.id, seal)
    assert (seal.reason, sealed.creds, dict(sealed.items)) == ("pre_migration", bed.creds, bed.book)
    await bed.fill()
    await bed.go("backfilled")
    await bed.go("snapshot_primary")
    await bed.put(a="last")
    await bed.go("cut_over")
    newest = (await bed.store.seals(bed.id))[0]
    assert dict((await bed.store.sealed(bed.id, newest)).items) == bed.book


async def test_retired_rows_are_gone(bed: Bed) -> None:
    await bed.go("cut_over")
    await bed.go("legacy_retired")
    assert (await bed.store.read(bed.store.engine.auth_size, bed.id)).legacy_rows == 0
    await bed.put(a="after")
    await bed.check()
    with pytest.raises(ValueError, match="no step"):
        await bed.go("snapshot_primary")


async def test_the_log_keeps_every_report(bed: Bed) -> None:
    await bed.go("backfilled", why=1)
    await bed.go("legacy_only", why=2)
    log = await bed.store.read(bed.store.engine.phase_log, bed.id, 10)
    assert [(one["from"], one["to"], one["actor"], one["report"]) for one in log] == [
        ("backfilled", "legacy_only", "test", {"why": 2}),
        ("snapshot_primary", "backfilled", "test", {"why": 1}),
    ]
    assert all(one["at"] > 1_700_000_000_000 for one in log)


async def test_a_difference_is_seen_both_ways(bed: Bed, raw: Raw) -> None:
    raw("DELETE FROM wa_auth_keys WHERE type='old-session' AND id='a'")
    raw("UPDATE wa_auth_keys SET value='\"other\"' WHERE type='old-session' AND id='b'")
    raw(
        "INSERT INTO wa_auth_keys (session_id, type, id, value, updated_at) "
        "SELECT session_id, type, 'only here', value, updated_at FROM wa_auth_keys WHERE type='old-prekey'"
    )
    found = await bed.store.read(bed.store.engine.compare, bed.id)
    assert (found.compared, found.equal, found.items) == (True, False, 5)
    assert (found.extra, found.different, found.missing) == ({"session": 1}, {"session": 1}, {"prekey": 1})


async def test_an_item_that_only_the_rows_have_is_told_once_the_snapshot_is_complete(
    bed: Bed, raw: Raw
) -> None:
    await bed.go("backfilled")
    raw(
        "INSERT INTO wa_auth_keys (session_id, type, id, value, updated_at) "
        "SELECT session_id, type, 'lost', value, updated_at FROM wa_auth_keys WHERE type='old-prekey'"
    )
    assert await bed.state.item("prekey", "lost") == b'"key"'
    found = await bed.store.events(types=["storage:fallback"])
    assert [(event.session, event.data) for event in found] == [
        ("alerts", {"count": 1, "kinds": {"prekey": 1}})
    ]
    assert await bed.state.item("prekey", "nobody") is None
    assert len(await bed.store.events(types=["storage:fallback"])) == 1
    listed = await bed.store.read(
        bed.store.engine.newest_events, bed.id, ["storage:fallback"], found[0].time, 5
    )
    assert [event.cursor for event in listed] == [found[0].cursor]
    later = await bed.store.read(
        bed.store.engine.newest_events, bed.id, ["storage:fallback"], found[0].time + 1, 5
    )
    assert later == []


async def test_while_the_snapshot_is_filled_a_fallback_is_no_fault(bed: Bed) -> None:
    await to_legacy_only(bed)
    await bed.go("dual_write")
    assert await bed.state.all_items("prekey") == {"7": b'"key"'}
    assert await bed.store.events(types=["storage:fallback"]) == []


async def test_the_size_of_a_state(bed: Bed) -> None:
    size = await bed.store.read(bed.store.engine.auth_size, bed.id)
    assert (size.items, size.legacy_rows) == (5, 6)
    assert size.bytes > 30


async def test_what_the_database_says_about_itself(bed: Bed) -> None:
    engine = bed.store.engine
    room = await bed.store.read(engine.free_bytes)
    if bed.settings.postgres is None:
        assert room is not None
        assert room > 0
    else:
        assert room is None  # only the server's own machine could tell
    assert await bed.store.read(engine.weaknesses) == []
