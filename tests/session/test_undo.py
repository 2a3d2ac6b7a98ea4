"""Putting sealed credentials back: what is kept, what becomes receive-only, what goes, and when it is refused."""

from __future__ import annotations

import json
import os

import pytest
import trio
import trio.testing

from tests.e2ee.parties import Device
from tests.messaging.accounts import OWN_LID, OWN_PN, paired_credentials
from tests.session.fakes import START_MS, STAYS, Bench, rejected
from tests.session.test_manager import Bed, bed, is_open, refuses, store  # noqa: F401 - fixtures
from waD.control.types import SendRequest, SessionView, UndoResult
from waD.e2ee import groups, session
from waD.e2ee.errors import SignalError
from waD.e2ee.record import SessionRecord
from waD.link.credentials import Credentials, SignedPreKey, new_credentials
from waD.link.prekeys import OneTimePreKey, draw_prekeys
from waD.messaging import kinds
from waD.session.orders import Abandoned, Awaited, Busy, Errand
from waD.session.undo import DAY_MS, NothingToUndo, find, revive, undo
from waD.session.vitals import Clock
from waD.store.model import Sealed
from waD.store.state import SessionState
from waD.store.store import Store

NOW = 1_700_000_000_000
CLOCK = Clock(unix_ms=lambda: NOW, jitter=lambda: 0.0, random=os.urandom)
PEER = "200000000000002_1.0"
GROUP = "120363000000000001@g.us"
OWN = "100000000000001_1.7"


def a_session() -> tuple[Device, Device, bytes]:
    """Two devices that have talked both ways, and the record of the first."""
    alice, bob = Device("alice", 1), Device("bob", 2)
    bob.receive(alice, alice.send(bob, b"hi"))
    alice.receive(bob, bob.send(alice, b"hello"))
    return alice, bob, alice.stored["bob"]


def sealed(creds: Credentials, **kinds_of: dict[str, bytes]) -> Sealed:
    items = {
        (kind.replace("_", "-"), key): value for kind, all_ in kinds_of.items() for key, value in all_.items()
    }
    return Sealed(epoch=1, version=9, creds=creds.serialize(), items=items)


def test_sessions_decrypt_and_do_not_send_before_a_new_key_exchange() -> None:
    alice, bob, record = a_session()
    revival = revive(paired_credentials(), sealed(paired_credentials(), session={PEER: record}), CLOCK)
    assert (revival.receive_only, revival.damaged) == (1, 0)
    kept = SessionRecord.parse(revival.items[kinds.SESSION, PEER])
    assert not kept.has_usable_session
    with pytest.raises(SignalError) as refused:
        session.encrypt(kept, alice.local, b"on the old chain")
    assert refused.value.code == "no_session"
    alice.keep("bob", kept)
    assert alice.receive(bob, bob.send(alice, b"sent meanwhile")) == b"sent meanwhile"


def test_prekeys_decrypt_and_are_never_offered_again() -> None:
    creds = paired_credentials().change(next_prekey_id=813, server_has_prekeys=True, routing_info=b"here")
    made = list(draw_prekeys(1, 3, (), os.urandom))
    stored = {str(key.id): key.serialize() for key in made}
    revival = revive(creds, sealed(creds, prekey=stored), CLOCK)
    assert revival.stale_prekeys == 3
    for before in made:
        after = OneTimePreKey.parse(before.id, revival.items[kinds.PREKEY, str(before.id)])
        assert (after.key, after.state) == (before.key, "stale")
    assert revival.creds.next_prekey_id == 10_813
    assert not revival.creds.server_has_prekeys
    assert revival.creds.routing_info is None
    assert revival.creds.identity == creds.identity


def test_prekey_ids_wrap() -> None:
    creds = paired_credentials().change(next_prekey_id=16_777_215)
    assert revive(creds, sealed(creds), CLOCK).creds.next_prekey_id == 10_000


def test_the_signed_prekey_is_rotated_at_once_and_old_ones_stay() -> None:
    creds = paired_credentials()
    staged = SignedPreKey.make(2, creds.identity, os.urandom, NOW)
    revived = revive(creds, sealed(creds), CLOCK).creds
    candidate = revived.rotation_candidate
    assert candidate is not None
    assert (candidate.id, candidate.signed_by(creds.identity.public)) == (17, True)
    assert revived.signed_prekey.created_ms == revived.last_rotation_ms == 0
    assert revived.find_signed_prekey(1) is not None
    again = revive(creds.change(rotation_candidate=staged), sealed(creds), CLOCK).creds
    assert again.find_signed_prekey(2) is not None
    assert again.rotation_candidate is not None
    assert again.rotation_candidate.id == 18


def test_own_sender_keys_and_device_lists_go_and_others_stay() -> None:
    creds = paired_credentials()
    key = groups.create(os.urandom).serialize()
    held = sealed(
        creds,
        sender_key={f"{GROUP}|{OWN}": key, f"{GROUP}|15550000001.7": key, f"{GROUP}|{PEER}": key, "odd": key},
        device_list={"200000000000002@lid": b"list"},
        identity={PEER: bytes(32)},
    )
    revival = revive(creds, held, CLOCK)
    assert revival.sender_keys == 2
    assert set(revival.items) == {
        (kinds.SENDER_KEY, f"{GROUP}|{PEER}"),
        (kinds.SENDER_KEY, "odd"),
        (kinds.IDENTITY, PEER),
    }


def test_damaged_items_are_dropped_and_counted() -> None:
    creds = paired_credentials()
    held = sealed(creds, session={PEER: b"rubbish"}, prekey={"1": b"{}", "one": b"{}"}, identity={PEER: b"k"})
    revival = revive(creds, held, CLOCK)
    assert revival.damaged == 3
    assert set(revival.items) == {(kinds.IDENTITY, PEER)}


# Which seal.


@pytest.fixture
async def state(store: Store) -> SessionState:  # noqa: F811 - the fixture
    row = await store.create_session("alerts")
    state = await store.attach(row.id, "test")
    unit = state.unit()
    unit.set_creds(paired_credentials().serialize())
    await state.commit(unit)
    return state


def fresh() -> bytes:
    return new_credentials(os.urandom, NOW).serialize()


async def test_the_newest_paired_credentials_are_put_back(
    store: Store,  # noqa: F811
    state: SessionState,
) -> None:
    _, _, record = a_session()
    unit = state.unit()
    unit.put(kinds.SESSION, PEER, record)
    await state.commit(unit)
    was = state.creds
    await state.reset_auth(fresh())
    await state.reset_auth(fresh())  # never paired in between: not what is looked for
    done = await undo(store, state, 30, CLOCK)
    assert was is not None
    assert state.creds is not None
    assert Credentials.parse(state.creds).identity == Credentials.parse(was).identity
    assert list(await state.all_items(kinds.SESSION)) == [PEER]
    assert done.seal.epoch == 1
    row = await store.require_session("alerts")
    assert (row.me_pn, row.me_lid, row.auth_epoch) == (str(OWN_PN), str(OWN_LID), 4)
    (event,) = [event for event in await store.events() if event.type == "auth:restored"]
    assert event.data["restoredEpoch"] == 1
    assert [seal.reason for seal in await store.seals(state.session_id)] == [
        "pre_restore",
        "pre_reset",
        "pre_reset",
    ]


async def test_nothing_was_cleared(store: Store, state: SessionState) -> None:  # noqa: F811
    with pytest.raises(NothingToUndo, match="paired"):
        await undo(store, state, 30, CLOCK)
    with pytest.raises(NothingToUndo, match="no credentials of this session were cleared"):
        await find(store, state.session_id, 30, NOW)


async def test_what_was_cleared_long_ago_stays_so(store: Store, state: SessionState) -> None:  # noqa: F811
    await state.reset_auth(fresh())
    ((info,)) = await store.seals(state.session_id)
    late = info.sealed_at + 30 * DAY_MS + 1
    with pytest.raises(NothingToUndo, match="undo_days"):
        await find(store, state.session_id, 30, late)
    found, _, creds = await find(store, state.session_id, 31, late)
    assert (found, creds.registered) == (info, True)


# Through the manager.


async def test_undo_after_a_repair(bed: Bed) -> None:  # noqa: F811
    bed.scripts["one"] = [rejected("f401", 401), STAYS]
    await bed.paired("one")
    async with bed.running() as manager:
        await bed.until("one", lambda view: view.state == "pairing")
        done = await manager.undo("one")
        assert isinstance(done, UndoResult)
        view: SessionView = done.session
        assert (view.state, view.desired, view.paired) == ("stopped", "down", True)
        assert "sealed in the store as version" in done.restored
        assert view.last_disconnect is not None  # why it was cleared is not forgotten
        assert bed.doors["one"].live == 0
        error = await refuses("wrong_state", manager.undo("one"))
        assert "paired" in error.message
        await manager.connect("one")
        await bed.until("one", is_open)
        await refuses("wrong_state", manager.undo("one"))
        assert (await manager.status("one")).state == "open"
    assert bed.doors["one"].registered[-1] is True


async def test_undo_after_a_logout_holds_what_was_on_its_way(bed: Bed) -> None:  # noqa: F811
    await bed.paired("one")
    async with bed.running() as manager:
        await bed.until("one", is_open)
        await manager.send(SendRequest(session="one", to="15550000002", text="before"))
        await manager.logout("one")
        done = await manager.undo("one")
        assert (done.session.queued, done.session.held_messages) == (0, 1)
        state = bed.manager.roster.entries[done.session.connection_id].supervisor.state
        (note,) = (await state.all_items(kinds.RESTORE_POINT)).values()
        assert json.loads(note) == {"at": START_MS, "backup": done.sealed_at}
        rows = await bed.store.read(bed.store.engine.outbox, done.session.connection_id, ("held",), 10)
        assert [row.payload["text"] for row in rows] == ["before"]


async def test_undo_of_nothing_changes_nothing(bed: Bed) -> None:  # noqa: F811
    async with bed.running() as manager:
        await manager.connect("one")
        await bed.until("one", lambda view: view.state == "pairing")
        error = await refuses("wrong_state", manager.undo("one"))
        assert "no credentials of this session were cleared" in error.message
        view = await manager.status("one")
        assert (view.state, view.desired) == ("pairing", "up")
        assert (await bed.store.require_session("one")).auth_epoch == 1
        await refuses("no_such_session", manager.undo("nobody"))


async def test_a_connect_meanwhile_waits_for_the_errand(autojump_clock: object) -> None:
    bench = Bench(paired=True)
    async with bench.running():
        await bench.reaches("open")
        leave, seen = trio.Event(), []

        async def work() -> int:
            seen.append((bench.status, bench.doors.live))
            await leave.wait()
            return 7

        results: list[int] = []
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                results.append(await bench.supervisor.at_rest(work))

            nursery.start_soon(wait)
            await bench.reaches("stopped")
            bench.supervisor.connect()
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(Busy):
                await bench.supervisor.at_rest(work)
            assert bench.doors.live == 0
            leave.set()
        assert (results, seen) == ([7], [("stopped", 0)])
        await bench.reaches("open")
    assert bench.doors.messagings == 2


async def test_a_failing_errand_is_its_callers(autojump_clock: object) -> None:
    bench = Bench(paired=True)
    async with bench.running():
        await bench.reaches("open")

        async def work() -> None:
            raise NothingToUndo("nothing")

        with pytest.raises(NothingToUndo):
            await bench.supervisor.at_rest(work)
        assert (bench.status, bench.doors.messagings) == ("stopped", 1)
        bench.supervisor.connect()
        await bench.reaches("open")


async def test_only_the_first_outcome_counts() -> None:
    order: Awaited[int] = Awaited()
    order.settle(1)
    order.settle(ValueError("late"))
    assert await order.wait() == 1


async def test_a_cancelled_errand_is_abandoned() -> None:
    async def work() -> None:
        await trio.sleep_forever()

    errand = Errand(work)
    with trio.move_on_after(0):
        await errand.run()
    with pytest.raises(Abandoned):
        await errand.wait()
