"""Real Baileys goes on with key-value rows that this program wrote, and this program with what comes back.

The rows are those of a service that keeps them in a database (chapter 08 §6.5); here the store between both programs
is Baileys' own directory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.daemon import ALICE, BOB, Daemon
from tests.interop.conftest import Baileys
from tests.interop.test_waD import at_bobs, linked_waD
from waD.e2ee.record import SessionRecord
from waD.messaging import kinds
from waD.store.canonical import canonicalise
from waD.store.codec import LegacyKey
from waD.store.engine import Attach, CommitUnit, Engine
from waD.store.model import SessionRow
from waD.store.opening import open_engine
from waD.store.store import Parts, StoreSettings
from waD.store.unit import Committed, Unit
from waD.transfer.baileys.names import CREDS, TYPES, file_name, read_name
from waD.transfer.legacy import LegacyCodec

CODEC = LegacyCodec()
Rows = dict[LegacyKey, bytes]


@contextmanager
def database_of(daemon: Daemon) -> Iterator[tuple[Engine, SessionRow]]:
    """The store of a daemon that is not running, and its one session."""
    (database,) = (daemon.directory / "state").rglob("*.db")
    engine = open_engine(StoreSettings(path=database), Parts(codec=CODEC))
    try:
        (row,) = engine.sessions(include_retired=False)
        yield engine, row
    finally:
        engine.close()


def rows_of(daemon: Daemon) -> Rows:
    """The rows that a store with key-value rows would hold."""
    with database_of(daemon) as (engine, row):
        state = engine.auth_state(row.id)
    assert state.creds is not None
    rows = {**CODEC.creds_rows(state.creds)}
    for (kind, key), (_, document) in state.items.items():
        rows |= CODEC.item_rows(kind, key, document)
    return {name: value for name, value in rows.items() if value is not None}


def write_files(rows: Rows, directory: Path) -> None:
    """What an adapter for Baileys would hand over."""
    directory.mkdir(mode=0o700)
    for (kind, text), value in rows.items():
        if kind in TYPES:
            (directory / file_name(kind, text)).write_bytes(value)
    (directory / f"{CREDS}.json").write_bytes(rows[CREDS, ""])


def read_files(directory: Path) -> Rows:
    """What Baileys made of it."""
    files = {path.stem: canonicalise(path.read_bytes()) for path in directory.glob("*.json")}
    rows: Rows = {(CREDS, ""): files.pop(CREDS)}
    return rows | {read_name(name): value for name, value in files.items()}


def put_back(daemon: Daemon, rows: Rows) -> None:
    """Replace the state of a daemon that is not running by what rows say."""
    native = {name for name in map(CODEC.native, rows) if name is not None}
    unit = Unit()
    with database_of(daemon) as (engine, row):
        for kind, key in engine.auth_state(row.id).items.keys() | native:
            named = {name: rows[name] for name in CODEC.names(kind, key) if name in rows}
            document = CODEC.item(kind, key, named)
            if document is None:
                unit.delete(kind, key)
            else:
                unit.put(kind, key, document)
        creds = CODEC.creds({name: rows[name] for name in CODEC.creds_names() if name in rows})
        assert creds is not None
        unit.set_creds(creds)
        (owned,) = engine.write([Attach(row.id, "test")])
        assert isinstance(owned, SessionRow)
        (done,) = engine.write([CommitUnit(row.id, owned.lease_token, unit)])
        assert isinstance(done, Committed)


def ratchets(rows: Rows) -> dict[str, bytes]:
    """The own ratchet key of every session that can send."""
    found = {}
    for name in rows:
        native = CODEC.native(name)
        if native is not None and native[0] == kinds.SESSION:
            document = CODEC.item(*native, {row: rows[row] for row in CODEC.names(*native) if row in rows})
            current = None if document is None else SessionRecord.parse(document).current
            if current is not None:
                found[native[1]] = current.sender.public
    return found


async def test_baileys_goes_on_with_our_rows_and_we_with_its(baileys: Baileys, tmp_path: Path) -> None:
    directory = tmp_path / "rows"
    async with (
        linked_waD(tmp_path) as (sandbox, alice),
        at_bobs(baileys, sandbox, tmp_path / "bob") as bob,
    ):
        alice_lid, bob_lid = sandbox.phone(ALICE).lid, sandbox.phone(BOB).lid
        bob_device = f"{bob_lid.partition('@')[0]}_1.{sandbox.device(BOB).id}"
        message_id = await alice.send(BOB, "one")
        await bob.text("one")
        assert await alice.wait(message_id) == "delivered"
        await bob.send(alice_lid, "two")
        await alice.event("message:new", body="two")
        await alice.send(BOB, "three")
        await bob.text("three")
        assert await alice.stop() == 0
        rows = rows_of(alice)
        write_files(rows, directory)
        await bob.send(alice_lid, "while nobody was there")

        async with baileys(sandbox, directory) as at_node:
            await at_node.wait_for("open")
            await at_node.text("while nobody was there")
            sent = await at_node.send(bob_lid, "from the service")
            await bob.text("from the service")
            await at_node.status(sent, 3)
            await bob.send(alice_lid, "to the service")
            await at_node.text("to the service")
            assert at_node.crashes == []
            await at_node.command("close")
        await sandbox.wait(lambda: sandbox.device(ALICE).link is None)

        changed = read_files(directory)
        kept = {name: value for name, value in rows.items() if name[0].startswith("x-wad-")}
        assert ratchets(changed | kept)[bob_device] != ratchets(rows)[bob_device]
        put_back(alice, changed | kept)
        await bob.send(alice_lid, "again while nobody was there")
        await alice.start()
        await alice.event("message:new", body="again while nobody was there")
        message_id = await alice.send(BOB, "and back")
        await bob.text("and back")
        assert await alice.wait(message_id) == "delivered"
        await bob.send(alice_lid, "good")
        await alice.event("message:new", body="good")
        asked = [row["xml"] for row in sandbox.core.world.traffic(sandbox.device(ALICE).key)]
        assert not [xml for xml in asked if 'type="retry"' in xml], "every message was read at once"
