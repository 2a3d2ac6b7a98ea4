"""Repairs over a real store, with scripted connections: what is advised, what is done, what is refused."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from tests.session.fakes import START_MS, FakeLink, why
from tests.session.test_manager import Bed, bed, is_open, refuses, store  # noqa: F401
from tests.transfer.samples import BOB, CAROL, GROUP, NOW, OWN_KEY, PEER_KEY, Sample, a_sample
from waD.config import load
from waD.control.types import REPAIRS, RepairAction, RepairParams, RepairResult, StorageParams
from waD.e2ee.curve import KeyPair
from waD.e2ee.limits import MAX_PREKEY_ID
from waD.link.credentials import Credentials
from waD.link.errors import Disconnected, MalformedReply, RequestError, RequestTimeout
from waD.link.prekeys import draw_prekeys
from waD.messaging import kinds
from waD.messaging.appstate.stored import Head
from waD.messaging.appstate.syncing import ResyncFailed
from waD.messaging.values import encode_text
from waD.session import repairs, symptoms
from waD.session.checkup import check_up
from waD.session.manager import Manager
from waD.session.repairs import advise
from waD.store.model import SealInfo
from waD.store.state import SessionState
from waD.store.store import Parts, Store, StoreSettings, open_store
from waD.store.unit import ItemKey
from waD.transfer.legacy.codec import LegacyCodec
from waD.transfer.state import AuthState, Note
from waD.transfer.verify import CREDENTIAL_FAULTS, ITEM_FAULTS, verify

BROKEN = b'"broken"'
BOB_PN = "15550000002"
BOB_LID = "200000000000002@lid"
THREE: Mapping[ItemKey, bytes] = {
    (kinds.SESSION, BOB): BROKEN,
    (kinds.PREKEY, "2"): BROKEN,
    (kinds.SENDER_KEY, OWN_KEY): BROKEN,
}


class RepairBed:
    """One session with something of every kind."""

    def __init__(self, bed: Bed, sample: Sample) -> None:  # noqa: F811
        self.bed = bed
        self.sample = sample

    async def make(
        self, changes: Mapping[ItemKey, bytes] = {}, *, desired: str = "down", **creds: Any
    ) -> None:
        """Store it as a process before left it."""
        row = await self.bed.store.create_session("alerts")
        state = await self.bed.store.attach(row.id, "before")
        own = self.sample.state.creds.change(**creds)
        unit = state.unit()
        for item, document in {**self.sample.state.items, **changes}.items():
            unit.put(*item, document)
        unit.set_creds(own.serialize())
        unit.set_session(
            me_pn=str(own.me_pn), me_lid=str(own.me_lid), desired_state=desired, current_status="stopped"
        )
        await state.commit(unit)

    @property
    def state(self) -> SessionState:
        (entry,) = self.bed.manager.roster.entries.values()
        return entry.supervisor.state

    async def run(self, action: RepairAction, target: str | None = None) -> RepairResult:
        order = RepairParams(name="alerts", action=action, target=target)
        return await self.bed.manager.repair.run(order)

    async def items(self) -> dict[ItemKey, bytes]:
        whole = await self.bed.store.read(self.bed.store.engine.auth_state, self.state.session_id)
        return {item: document for item, (_, document) in whole.items.items()}

    async def creds(self) -> Credentials:
        document = await self.bed.store.read(self.bed.store.engine.creds, self.state.session_id)
        assert document is not None
        return Credentials.parse(document)

    async def is_sound(self) -> bool:
        state = AuthState(await self.creds(), await self.items())
        return verify(state, NOW).ok

    async def seals(self) -> list[SealInfo]:
        return await self.bed.store.seals(self.state.session_id)

    async def told(self) -> list[dict[str, Any]]:
        return [event.data for event in await self.bed.store.events(types=["auth:repaired"])]

    async def untouched(self, before: dict[ItemKey, bytes]) -> None:
        assert await self.items() == before
        assert await self.told() == []

    async def link(self) -> FakeLink:
        await self.bed.until("alerts", is_open)
        return self.bed.doors["alerts"].links[-1]


@pytest.fixture
def place(bed: Bed) -> RepairBed:  # noqa: F811
    return RepairBed(bed, a_sample())


# ----------------------------------------------------------------------------------------------------- what is advised


def test_every_fault_of_an_item_has_a_repair_and_no_fault_of_the_credentials_has() -> None:
    assert set(repairs.ADVISED) >= ITEM_FAULTS
    assert not set(repairs.ADVISED) & CREDENTIAL_FAULTS
    assert set(repairs.ADVISED.values()) <= set(REPAIRS)


def test_findings_of_one_repair_are_put_together() -> None:
    notes = [
        Note("error", "item_unreadable", "session/1.0"),
        Note("warning", "identity_mismatch", f"session/{BOB}"),
        Note("warning", "identity_mismatch", "session/200000000000002_129.3"),
        Note("warning", "no_backup"),
        Note("error", "pre_key_mismatch", "prekey/4"),
        Note("warning", "session_exhausted", f"session/{CAROL}"),
        Note("error", "live_identity_mismatch", "creds"),
        Note("warning", "lid_map_conflict", "lid-of-pn/15550000002"),
        Note("warning", "lid_map_conflict", "pn-of-lid/200000000000002"),
        Note("warning", "app_state_hash_mismatch", "app-state-version/regular"),
    ]
    found, beyond = advise(notes)
    assert [(one.action, one.target, len(one.notes)) for one in found] == [
        ("drop-damaged", None, 2),
        ("drop-session", BOB_LID, 2),
        ("drop-session", "15550000003@s.whatsapp.net", 1),
        ("refresh-devices", "15550000002@s.whatsapp.net", 1),
        ("refresh-devices", BOB_LID, 1),
        ("resync", "regular", 1),
    ]
    assert [note.code for note in beyond] == ["live_identity_mismatch"]


@pytest.mark.parametrize(
    ("begin", "ids", "wanted"),
    [
        (6, ["1", "5"], None),
        (6, [], None),
        (6, ["6"], 7),
        (6, ["3", "9", "7", "x", "9" * 30], 10),
        (MAX_PREKEY_ID, ["2", str(MAX_PREKEY_ID)], 3),
        (3, [str(MAX_PREKEY_ID)], None),
    ],
)
def test_the_counter_that_is_behind(begin: int, ids: list[str], wanted: int | None) -> None:
    creds = a_sample().state.creds.change(next_prekey_id=begin)
    assert repairs.counter_ahead(creds, ids) == wanted


def test_damaged_items_are_found_alone() -> None:
    sample = a_sample()
    long = "x" * 400
    state = sample.with_items(
        {**THREE, (kinds.SENDER_KEY, long): BROKEN, (kinds.SENDER_KEY, long + "y"): BROKEN}
    )
    found = repairs.damaged(state, NOW)
    assert set(found) == {*THREE, (kinds.SENDER_KEY, long), (kinds.SENDER_KEY, long + "y")}
    assert repairs.damaged(sample.state, NOW) == []
    assert repairs.unchanged({("a", "1"): b"x", ("a", "2"): b"x"}, {("a", "1"): b"x", ("a", "2"): b"y"}) == [
        ("a", "1")
    ]


async def test_the_list(place: RepairBed) -> None:
    await place.make(THREE)
    async with place.bed.running() as manager:
        found = await manager.repair.list("alerts")
        assert (found.name, found.level, found.beyond) == ("alerts", 3, [])
        advice, low = found.advice
        assert (low.action, low.possible) == ("upload-prekeys", False)
        assert (advice.action, advice.target, advice.possible, advice.count) == (
            "drop-damaged",
            None,
            True,
            3,
        )
        assert {reason.code for reason in advice.reasons} == {"item_unreadable"}
        assert [choice.action for choice in found.choices] == list(REPAIRS)
        possible = {choice.action for choice in found.choices if choice.possible}
        assert possible == {"drop-damaged", "drop-session", "reset-sender-key"}
        assert await place.told() == []
        await refuses("no_such_session", manager.repair.list("nobody"))


async def test_damage_to_the_credentials_is_beyond_repair(place: RepairBed) -> None:
    noise = place.sample.state.creds.noise
    await place.make(THREE, noise=KeyPair(noise.private, KeyPair.generate(os.urandom).public))
    async with place.bed.running() as manager:
        found = await manager.repair.list("alerts")
        assert found.advice == []
        assert [note.code for note in found.beyond] == ["noise_key_mismatch"]
        before = await place.items()
        refused = await refuses("damaged", place.run("drop-damaged"))
        assert "restore a backup" in refused.message
        await refuses("damaged", place.run("reset-sender-key", GROUP))
        await place.untouched(before)


# -------------------------------------------------------------------------------------------------------- drop-damaged


async def test_damaged_items_go_and_are_named(place: RepairBed) -> None:
    await place.make(THREE)
    async with place.bed.running():
        assert not await place.is_sound()
        before = await place.items()
        done = await place.run("drop-damaged")
        assert set(done.items) == {f"{kind}/{key}" for kind, key in THREE}
        assert done.count == 3
        assert await place.is_sound()
        # A sender key that others are said to have is not the next one.
        gone = {*THREE, (kinds.SENDER_KEY_MEMORY, GROUP)}
        assert await place.items() == {key: value for key, value in before.items() if key not in gone}
        (seal,) = await place.seals()
        assert seal.reason == "manual"
        sealed = await place.bed.store.sealed(place.state.session_id, seal)
        assert sealed.items == before
        assert done.backup == f"sealed in the store as version {seal.version}"
        assert await place.told() == [{"action": "drop-damaged", "count": 3, "sealedVersion": seal.version}]
        assert await place.state.item(kinds.SESSION, BOB) is None
        again = await place.run("drop-damaged")
        assert (again.count, again.items, again.backup) == (0, [], None)
        assert len(await place.seals()) == len(await place.told()) == 1


async def test_a_prekey_counter_is_put_right(place: RepairBed) -> None:
    await place.make(next_prekey_id=2)
    async with place.bed.running() as manager:
        assert not await place.is_sound()
        advice = (await manager.repair.list("alerts")).advice[0]
        assert (advice.action, advice.reasons[0].code) == ("drop-damaged", "prekey_counter_behind")
        done = await place.run("drop-damaged")
        assert (done.count, done.items) == (1, ["creds"])
        assert (await place.creds()).next_prekey_id == 6
        assert await place.is_sound()


async def test_what_changes_meanwhile_is_left_alone(place: RepairBed) -> None:
    """It is judged without the lock; a message that made another session in between must not lose it."""
    await place.make(THREE)
    async with place.bed.running():
        state, fresh = place.state, place.sample.me.stored["carol"]
        async with trio.open_nursery() as nursery:
            await state.lock.acquire()
            nursery.start_soon(place.run, "drop-damaged")
            with trio.fail_after(10):
                while not state.lock.statistics().tasks_waiting:  # noqa: ASYNC110 - a worker thread judges
                    await trio.sleep(0.01)
            unit = state.unit()
            unit.put(kinds.SESSION, BOB, fresh)
            await state.commit(unit)
            state.lock.release()
        items = await place.items()
        assert items[kinds.SESSION, BOB] == fresh
        assert (kinds.PREKEY, "2") not in items


# --------------------------------------------------------------------------------- sessions, sender keys, device lists


@pytest.mark.parametrize("target", [BOB_PN, f"{BOB_PN}@s.whatsapp.net", BOB_LID, "200000000000002:3@lid"])
async def test_all_sessions_with_a_peer_go(place: RepairBed, target: str) -> None:
    record = place.sample.me.stored["bob"]
    others = [f"{BOB_PN}1.0", "2000000000000022_1.0", CAROL]
    theirs = [BOB, f"{BOB_PN}.3", f"{BOB_PN}_128.99", "200000000000002_129.99"]
    await place.make(
        {
            **{(kinds.SESSION, key): record for key in (*others, *theirs)},
            (kinds.RETRY, f"recreated|{BOB}"): b'{"at":1}',
        }
    )
    async with place.bed.running():
        done = await place.run("drop-session", target)
        assert done.items == sorted(f"session/{key}" for key in theirs)
        assert (done.count, done.target) == (4, BOB_LID)
        items = await place.items()
        assert {key for kind, key in items if kind == kinds.SESSION} == set(others)
        assert (kinds.RETRY, f"recreated|{BOB}") not in items
        assert (kinds.IDENTITY, BOB) in items  # or a new identity would not be noticed
        ((told),) = await place.told()
        (seal,) = await place.seals()
        assert told == {
            "action": "drop-session",
            "target": BOB_LID,
            "count": 4,
            "sealedVersion": seal.version,
        }


async def test_the_own_sender_key_goes_with_the_memory_of_it(place: RepairBed) -> None:
    await place.make()
    async with place.bed.running():
        done = await place.run("reset-sender-key", GROUP)
        assert done.items == [f"sender-key/{OWN_KEY}", f"sender-key-memory/{GROUP}"]
        items = await place.items()
        assert (kinds.SENDER_KEY, PEER_KEY) in items
        assert (kinds.SENDER_KEY, OWN_KEY) not in items
        assert (kinds.SENDER_KEY_MEMORY, GROUP) not in items
        assert await place.is_sound()
        assert [told["target"] for told in await place.told()] == [GROUP]
        assert (await place.run("reset-sender-key", GROUP)).count == 0


async def test_a_device_list_is_dropped_and_asked_for(place: RepairBed) -> None:
    await place.make(desired="up")
    async with place.bed.running():
        link = await place.link()
        done = await place.run("refresh-devices", BOB_PN)
        # By the address that was named: the number may have another LID now.
        assert link.repairs == [f"refresh_devices {BOB_PN}@s.whatsapp.net"]
        assert (done.target, done.count) == (BOB_LID, 0)
        assert (kinds.DEVICES, BOB_LID) not in await place.items()
        assert [told["action"] for told in await place.told()] == ["refresh-devices"]


# --------------------------------------------------------------------------------------------------------- own prekeys


@pytest.mark.parametrize(
    ("action", "asked", "count"),
    [("upload-prekeys", "upload_prekeys", 812), ("rotate-signed-prekey", "rotate_signed_prekey", 1)],
)
async def test_what_goes_over_the_connection(
    place: RepairBed, action: RepairAction, asked: str, count: int
) -> None:
    await place.make(desired="up")
    async with place.bed.running():
        link = await place.link()
        done = await place.run(action)
        assert link.repairs == [asked]
        assert done.count == count
        (seal,) = await place.seals()
        assert seal.reason == "manual"
        assert await place.told() == [{"action": action, "count": count, "sealedVersion": seal.version}]
        assert (await place.bed.manager.status("alerts")).state == "open"


@pytest.mark.parametrize("target", [None, "regular_low"])
async def test_the_app_state_is_fetched_anew(place: RepairBed, target: str | None) -> None:
    await place.make(desired="up")
    async with place.bed.running():
        link = await place.link()
        done = await place.run("resync", target)
        asked = target or "critical_block critical_unblock_low regular_high regular regular_low"
        assert link.repairs == [f"resync {asked}"]
        assert (done.count, done.target) == (7, target)
        (told,) = await place.told()
        assert (told["action"], told["count"], told.get("target")) == ("resync", 7, target)
        link.repair_fails = ResyncFailed("regular waits for 1 keys")
        refused = await refuses("refused", place.run("resync", target))
        assert "waits for" in refused.message


# ----------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("action", "target"),
    [
        ("upload-prekeys", None),
        ("rotate-signed-prekey", None),
        ("refresh-devices", BOB_PN),
        ("resync", None),
        ("resync", "regular"),
    ],
)
async def test_without_a_connection(place: RepairBed, action: RepairAction, target: str | None) -> None:
    await place.make()
    async with place.bed.running() as manager:
        before = await place.items()
        refused = await refuses("wrong_state", place.run(action, target))
        assert "wactl connect alerts" in refused.message
        await place.untouched(before)
        assert await place.seals() == []
        choices = {one.action: one for one in (await manager.repair.list("alerts")).choices}
        assert not choices[action].possible
        assert choices[action].connected


@pytest.mark.parametrize(
    ("fault", "symbol"),
    [
        (RequestError(406, "not-acceptable"), "refused"),
        (RequestTimeout("the upload", 60), "timeout"),
        (MalformedReply("no list"), "refused"),
        ("gone", "wrong_state"),
    ],
)
async def test_what_whatsapp_refuses(place: RepairBed, fault: Any, symbol: str) -> None:
    await place.make(desired="up")
    async with place.bed.running():
        link = await place.link()
        link.repair_fails = Disconnected(why("eof")) if fault == "gone" else fault
        refused = await refuses(symbol, place.run("upload-prekeys"))
        if isinstance(fault, RequestError):
            assert refused.data == {"code": 406}
        assert await place.told() == []
        assert (await place.bed.manager.status("alerts")).state == "open"


@pytest.mark.parametrize(
    ("action", "target"),
    [
        ("drop-session", "120363000000000001@g.us"),
        ("drop-session", "a b@lid"),
        ("refresh-devices", "@lid"),
        ("reset-sender-key", BOB_LID),
        ("reset-sender-key", "no address"),
        ("resync", "irregular"),
    ],
)
async def test_a_target_that_cannot_be_meant(place: RepairBed, action: RepairAction, target: str) -> None:
    await place.make()
    async with place.bed.running():
        before = await place.items()
        refused = await refuses("bad_params", place.run(action, target))
        assert refused.data == {"param": "target"}
        await place.untouched(before)


async def test_a_peer_without_sessions_changes_nothing(place: RepairBed) -> None:
    await place.make()
    async with place.bed.running():
        before = await place.items()
        done = await place.run("drop-session", "15550000009")
        assert (done.count, done.backup, done.target) == (0, None, "15550000009@s.whatsapp.net")
        await place.untouched(before)


async def test_unpaired_and_unknown(place: RepairBed, store: Store) -> None:  # noqa: F811
    await place.make()
    async with place.bed.running() as manager:
        await store.create_session("fresh")
        await refuses("wrong_state", manager.repair.run(RepairParams(name="fresh", action="drop-damaged")))
        await refuses("no_such_session", manager.repair.run(RepairParams(name="none", action="drop-damaged")))


async def test_a_damaged_lid_map_is_told(place: RepairBed) -> None:
    await place.make({(kinds.LID_OF_PN, BOB_PN): b"[]"})
    async with place.bed.running() as manager:
        refused = await refuses("damaged", place.run("drop-session", BOB_PN))
        assert "drop-damaged" in refused.message
        assert (await place.run("drop-damaged")).items == [f"lid-of-pn/{BOB_PN}"]
        # What is left of the pair says what to ask for.
        (advice,) = (await manager.repair.list("alerts")).advice
        assert (advice.action, advice.target) == ("refresh-devices", BOB_LID)


async def test_another_owner_keeps_what_it_has(place: RepairBed, store: Store) -> None:  # noqa: F811
    await place.make(THREE)
    async with place.bed.running():
        session_id = place.state.session_id
        before = await place.items()
        await store.attach(session_id, "another")
        await refuses("lease_held", place.run("drop-damaged"))
        await place.untouched(before)


# -------------------------------------------------------------------------------------------------------------- doctor


async def examine(manager: Manager, bed: Bed) -> dict[str, Any]:  # noqa: F811
    socket = bed.settings.store.path.with_name("none")
    report = await check_up(bed.store, bed.log, manager.list, bed.settings, socket, manager.repair.symptoms)
    found = [
        one
        for one in report.findings
        if one.check in ("keys", "decryption", "app_state") and one.level != "ok"
    ]
    return {one.hint: one for one in found}


async def test_the_doctor_advises_what_helps(place: RepairBed) -> None:
    asked = {
        (kinds.RETRY, f"asked|{BOB_LID}|{BOB_LID}|{number}"): msgspec.json.encode({"at": START_MS - number})
        for number in range(symptoms.MANY_UNREAD)
    }
    await place.make(asked)
    async with place.bed.running() as manager:
        found = await examine(manager, place.bed)
        assert set(found) == {f"wactl repair alerts drop-session {BOB_LID}"}
        async with place.state.lock:
            unit = place.state.unit()
            unit.delete(kinds.PREKEY, "1")
            await place.state.commit(unit)
        assert set(await examine(manager, place.bed)) > {"wactl repair alerts upload-prekeys"}


async def test_the_doctor_sees_collections_that_do_not_go_on(place: RepairBed) -> None:
    def head(**more: Any) -> bytes:
        return Head(version=1, hash=bytes(128), macs={}, **more).serialize()

    version = kinds.APP_STATE_VERSION
    more = {(kinds.PREKEY, str(one.id)): one.serialize() for one in draw_prekeys(6, 9, (), os.urandom)}
    more |= {
        (version, "regular"): head(),
        (version, "regular_low"): head(disabled="patch-mac"),
        (version, "regular_high"): head(mismatch=True),
        (version, "critical_block"): BROKEN,
    }
    await place.make(more, next_prekey_id=15)
    async with place.bed.running() as manager:
        found = await examine(manager, place.bed)
        assert {hint: one.message for hint, one in found.items()} == {
            "wactl repair alerts resync critical_block": (
                "the app state critical_block: what is stored of it is damaged"
            ),
            "wactl repair alerts resync regular_high": (
                "the app state regular_high: its hash is not the one that other devices have"
            ),
            "wactl repair alerts resync regular_low": "the app state regular_low: its syncing ended: patch-mac",
        }


async def test_the_doctor_sees_an_old_signed_prekey(place: RepairBed) -> None:
    old = msgspec.structs.replace(
        place.sample.state.creds.signed_prekey, created_ms=START_MS - 31 * 86_400_000
    )
    more = {(kinds.PREKEY, str(one.id)): one.serialize() for one in draw_prekeys(6, 9, (), os.urandom)}
    await place.make(more, signed_prekeys=(old,), next_prekey_id=15)
    async with place.bed.running() as manager:
        (found,) = (await examine(manager, place.bed)).values()
        assert (found.hint, found.data["signedPrekeyDays"]) == (
            "wactl repair alerts rotate-signed-prekey",
            31,
        )


def test_who_cannot_be_read() -> None:
    def note(at: int) -> bytes:
        return msgspec.json.encode({"at": at, "count": 1})

    notes = {f"asked|c|{BOB_LID}|{number}|x": note(NOW) for number in range(7)}
    notes |= {f"asked|c|1@lid|{number}": note(NOW) for number in range(4)}
    notes |= {f"asked|c|2@lid|{number}": note(NOW - 86_400_000) for number in range(9)}
    notes |= {f"answered|c|3@lid|{number}": note(NOW) for number in range(9)}
    notes |= {f"asked|c|4@lid|{number}": encode_text("x") for number in range(9)}
    notes |= {"asked|": note(NOW), "asked|a|b": note(NOW)}
    assert symptoms.unread(notes, NOW) == [(BOB_LID, 7)]


async def test_key_value_rows_lose_it_as_well(tmp_path: Path) -> None:
    config = tmp_path / "waD.toml"
    config.write_text("[daemon]\nrestore_spread = 0\n")
    settings = StoreSettings(path=tmp_path / "rows" / "waD.db", legacy=True)
    async with open_store(settings, Parts(codec=LegacyCodec())) as opened:
        place = RepairBed(Bed(opened, load(config, {"HOME": str(tmp_path)})), a_sample())
        await place.make({(kinds.PREKEY, "2"): BROKEN})
        async with place.bed.running() as manager:
            before = await manager.storage.status("alerts")
            assert (before.phase, before.legacy_rows > 20) == ("snapshot_primary", True)
            assert (await place.run("drop-session", BOB_PN)).count == 1
            assert (await place.run("drop-damaged")).items == ["prekey/2"]
            after = await manager.storage.status("alerts")
            assert after.legacy_rows <= before.legacy_rows - 2
            assert after.lag == 0
            assert (await manager.storage.verify(StorageParams(name="alerts"))).outcome == "done"
            assert await place.is_sound()
