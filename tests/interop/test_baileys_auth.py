"""A session moves from Baileys 7.0.0-rc14 into waD and back, in the middle of conversations (chapter 08 §2, §9).

Alice moves; Bob is another Baileys, and Carol a phone. Nobody they talk to takes part in the move.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.e2e.daemon import ALICE, BOB, CAROL, Daemon, running
from tests.interop.baileys_client import BaileysClient
from tests.interop.conftest import Baileys, pair
from tests.interop.test_waD import healthy
from waD.e2ee.record import SessionRecord
from waD.link.credentials import Credentials
from waD.messaging import kinds
from waD.sandbox import Sandbox, run_sandbox
from waD.store.engine import Attach, CommitUnit, CreateSession
from waD.store.model import SessionRow
from waD.store.opening import open_engine
from waD.store.store import Parts, StoreSettings
from waD.store.unit import Committed, Unit
from waD.transfer.baileys import SourceRefused, convert, read_directory
from waD.transfer.baileys.export import write_directory
from waD.transfer.state import AuthState
from waD.transfer.verify import verify

NAME = "alerts"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def imported(directory: Path) -> AuthState:
    """What real Baileys left behind, checked as a migration does."""
    with pytest.raises(SourceRefused) as refusal:
        read_directory(directory, now_ms=now_ms())
    assert refusal.value.code == "source_running"  # it wrote a moment ago
    state, report = convert(read_directory(directory, now_ms=now_ms(), stopped=True), now_ms())
    assert state is not None, [str(note) for note in report.notes]
    assert {note.code for note in report.warnings} <= {"creds_field_dropped"}
    assert [str(note) for note in verify(state, now_ms()).errors] == []
    return state


def put(daemon: Daemon, state: AuthState) -> None:
    """Write a state into the database of a daemon that does not run."""
    (database,) = (daemon.directory / "state").rglob("*.db")
    engine = open_engine(StoreSettings(path=database), Parts())
    try:
        (row,) = engine.write([CreateSession(NAME)])
        assert isinstance(row, SessionRow)
        (owned,) = engine.write([Attach(row.id, "test")])
        assert isinstance(owned, SessionRow)
        unit = Unit()
        unit.creds = state.creds.serialize()
        unit.items.update(state.items)
        (done,) = engine.write([CommitUnit(row.id, owned.lease_token, unit)])
        assert isinstance(done, Committed)
    finally:
        engine.close()


def taken(daemon: Daemon) -> AuthState:
    """The state in the database of a daemon that does not run."""
    (database,) = (daemon.directory / "state").rglob("*.db")
    engine = open_engine(StoreSettings(path=database), Parts())
    try:
        (row,) = engine.sessions(include_retired=False)
        stored = engine.auth_state(row.id)
        assert stored.creds is not None
        return AuthState(
            Credentials.parse(stored.creds), {name: value for name, (_, value) in stored.items.items()}
        )
    finally:
        engine.close()


@asynccontextmanager
async def both_linked(
    baileys: Baileys, tmp_path: Path, addressing: str
) -> AsyncIterator[tuple[Sandbox, BaileysClient]]:
    """Alice's directory exists and was used; Bob is online."""
    async with run_sandbox() as sandbox:
        for number, name in ((ALICE, "Alice"), (BOB, "Bob"), (CAROL, "Carol")):
            await sandbox.phone(number, name).configure(addressing=addressing)
        async with baileys(sandbox, tmp_path / "bob", pushName="Bob") as bob:
            await pair(bob, sandbox, BOB)
            await sandbox.phone(BOB).configure(online=False)
            yield sandbox, bob
            assert bob.crashes == []


async def talk(alice: BaileysClient, sandbox: Sandbox, bob: BaileysClient, label: str) -> None:
    """Both ways with everybody, and several times, so that there are old chains."""
    for number in range(3):
        await alice.send(sandbox.phone(BOB).lid, f"{label} to bob {number}")
        await bob.text(f"{label} to bob {number}")
        await bob.send(sandbox.phone(ALICE).lid, f"{label} to alice {number}")
        await alice.text(f"{label} to alice {number}")
    carol = sandbox.phone(CAROL)
    await alice.send(carol.lid, f"{label} to carol")
    await carol.wait_message(lambda one: one.text == f"{label} to carol")
    await carol.send(ALICE, f"{label} from carol")
    await alice.text(f"{label} from carol")


async def left(sandbox: Sandbox) -> None:
    """Until Alice's companion is gone from the server."""
    await sandbox.wait(lambda: sandbox.device(ALICE).link is None)


async def while_away(sandbox: Sandbox, bob: BaileysClient, label: str) -> None:
    """Messages that wait at the server: on a session in use, on one more chain, and by a phone."""
    for number in range(3):
        await bob.send(sandbox.phone(ALICE).lid, f"{label} while away {number}")
    await sandbox.phone(CAROL).send(ALICE, f"{label} of carol while away")
    await sandbox.wait(lambda: len(sandbox.device(ALICE).queue) >= 4)


def in_flight(label: str) -> list[str]:
    return [*(f"{label} while away {number}" for number in range(3)), f"{label} of carol while away"]


@pytest.mark.parametrize("addressing", ["lid", "pn"])
async def test_a_session_moves_in_and_out(baileys: Baileys, tmp_path: Path, addressing: str) -> None:
    async with both_linked(baileys, tmp_path, addressing) as (sandbox, bob):
        async with baileys(sandbox, tmp_path / "alice", pushName="Alice") as alice:
            await pair(alice, sandbox, ALICE)
            await sandbox.phone(ALICE).configure(online=False)
            await talk(alice, sandbox, bob, "baileys")
            await alice.command("close")
            await left(sandbox)
            assert alice.crashes == []
        await while_away(sandbox, bob, "first")
        state = imported(tmp_path / "alice")
        async with running(tmp_path / "waD", sandbox) as daemon:
            await daemon.stop()
            put(daemon, state)
            await daemon.start()
            await continue_in_waD(daemon, sandbox, bob)
            await healthy(sandbox, daemon)
            await daemon.stop()
            await left(sandbox)
            await while_away(sandbox, bob, "second")
            exported = taken(daemon)
        report = write_directory(exported, tmp_path / "back")
        assert {note.code for note in report.notes} <= {
            "not_exported",
            "prekey_states_lost",
            "creds_field_dropped",
        }
        async with baileys(sandbox, tmp_path / "back", pushName="Alice") as alice:
            await alice.wait_for("offline")
            for text in in_flight("second"):
                await alice.text(text)
            await talk(alice, sandbox, bob, "back")
            assert alice.crashes == []
        assert sandbox.core.world.keys.report()["reused"] == []
        assert [text for text in bob.texts if text.startswith("waD to bob")] == [
            f"waD to bob {n}" for n in range(3)
        ]


async def continue_in_waD(daemon: Daemon, sandbox: Sandbox, bob: BaileysClient) -> None:  # noqa: N802
    """What waited is read, and nobody has to begin anew: no first message, no retry."""
    await daemon.call("session.connect", name=NAME)
    await daemon.until("open", ready=True)
    for text in in_flight("first"):
        await daemon.event("message:new", body=text)
    for number in range(3):
        message_id = await daemon.send(BOB, f"waD to bob {number}")
        await bob.text(f"waD to bob {number}")
        assert await daemon.wait(message_id) == "delivered"
        await bob.send(sandbox.phone(ALICE).lid, f"bob to waD {number}")
        await daemon.event("message:new", body=f"bob to waD {number}")
    await daemon.send(CAROL, "waD to carol")
    await sandbox.phone(CAROL).wait_message(lambda one: one.text == "waD to carol")
    await sandbox.phone(CAROL).send(ALICE, "carol to waD")
    await daemon.event("message:new", body="carol to waD")
    told = [row["xml"] for row in sandbox.core.world.traffic(sandbox.device(ALICE).key)]
    assert [xml for xml in told if xml.startswith("<receipt") and "<retry" in xml] == []


async def test_the_same_session_keeps_its_conversations(baileys: Baileys, tmp_path: Path) -> None:
    """The open sessions of the directory are the ones that are used: their base keys are the same afterwards."""
    async with both_linked(baileys, tmp_path, "lid") as (sandbox, bob):
        async with baileys(sandbox, tmp_path / "alice", pushName="Alice") as alice:
            await pair(alice, sandbox, ALICE)
            await sandbox.phone(ALICE).configure(online=False)
            await talk(alice, sandbox, bob, "baileys")
        await left(sandbox)
        state = imported(tmp_path / "alice")
        async with running(tmp_path / "waD", sandbox) as daemon:
            await daemon.stop()
            put(daemon, state)
            await daemon.start()
            await continue_without_queue(daemon, bob)
            await daemon.stop()
            after = taken(daemon)
        device = sandbox.device(BOB)
        address = f"{device.lid.user}_1.{device.lid.device}"
        assert base_key(after, address) == base_key(state, address)
        assert after.creds.identity == state.creds.identity
        assert after.creds.next_prekey_id >= state.creds.next_prekey_id


async def continue_without_queue(daemon: Daemon, bob: BaileysClient) -> None:
    await daemon.call("session.connect", name=NAME)
    await daemon.until("open", ready=True)
    await daemon.send(BOB, "still alice")
    with trio.fail_after(30):
        await bob.text("still alice")


def base_key(state: AuthState, address: str) -> bytes:
    current = SessionRecord.parse(state.items[kinds.SESSION, address]).current
    assert current is not None
    return current.base_key
