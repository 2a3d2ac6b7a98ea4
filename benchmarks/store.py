"""What durability costs: commits of received messages, loading a large state, backup and verification.

Every commit here is on the disk when it returns; the file store of Baileys beside it never asks for that.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pyrage
import trio

from benchmarks import peer
from benchmarks.e2ee import conversation
from tests.store.postgres_server import binaries, running_server
from tests.transfer.samples import a_sample
from waD.e2ee.interop import node
from waD.store.engine import Engine
from waD.store.model import MessageRow
from waD.store.opening import open_engine
from waD.store.postgres.settings import PostgresSettings
from waD.store.sql.reading import Reads
from waD.store.state import SessionState
from waD.store.store import Parts, Store, StoreSettings
from waD.transfer.backup import Order, make_backup
from waD.transfer.legacy.codec import LegacyCodec

PARALLEL: Final = (1, 10, 100)
MESSAGES: Final = 2_000
PEERS: Final = 5_000
BACKED_UP: Final = 100
GOAL: Final = "group commit: messages in a second grow with the sessions that write at the same time"


@contextmanager
def stores() -> Iterator[dict[str, StoreSettings]]:
    """The stores that are compared, each in a directory or database of its own."""
    with ExitStack() as stack:
        directory = Path(
            stack.enter_context(tempfile.TemporaryDirectory(dir=os.environ.get("WAD_BENCH_DIR")))
        )
        found = {
            "sqlite": StoreSettings(path=directory / "plain" / "waD.db", encrypt=False),
            "sqliteEncrypted": StoreSettings(path=directory / "sealed" / "waD.db"),
            "sqliteDual": StoreSettings(path=directory / "dual" / "waD.db", encrypt=False, legacy=True),
        }
        if binaries() is not None:
            server = stack.enter_context(running_server())
            for name, legacy in (("postgres", False), ("postgresDual", True)):
                url = PostgresSettings(url=server.url(server.database()))
                found[name] = StoreSettings(path=directory / name / "waD.db", postgres=url, legacy=legacy)
        for settings in found.values():
            settings.path.parent.mkdir(mode=0o700)
        yield found


def run() -> dict[str, Any]:
    """Milliseconds and bytes for one received message, and the rest in milliseconds."""
    logging.disable(logging.WARNING)
    record = conversation()[0].record
    assert record is not None
    peers = peer.run(
        "filestore.mjs",
        {
            "record": json.dumps(node.export_session(record).value),
            "parallel": PARALLEL,
            "count": MESSAGES,
            "peers": PEERS,
        },
    )
    with stores() as all_stores:
        ours = {name: trio.run(_measure, settings, record) for name, settings in all_stores.items()}
    return {"goal": GOAL, "stores": ours, "baileysFiles": peers}


async def _measure(settings: StoreSettings, record: Any) -> dict[str, Any]:
    engine = await trio.to_thread.run_sync(open_engine, settings, Parts(codec=LegacyCodec()))
    store = Store(engine, settings)
    try:
        received = {str(count): await _receive(store, engine, count, record) for count in PARALLEL}
        return {
            "received": received,
            "loadMs": await _load(store, engine, record),
            **await _back_up(store, engine, settings.path.parent),
        }
    finally:
        await store.close()


async def _receive(store: Store, engine: Engine, sessions: int, record: Any) -> dict[str, Any]:
    """Every session commits one message after the other, as an open chat does."""
    states = [await _attached(store, f"s{sessions}-{number}") for number in range(sessions)]
    each = MESSAGES // sessions
    for state in states:
        await _one(state, -1, record)
    written, began, cpu = _written(engine), time.perf_counter(), time.process_time()
    async with trio.open_nursery() as nursery:
        for state in states:
            nursery.start_soon(_many, state, each, record)
    spent, used = time.perf_counter() - began, time.process_time() - cpu
    count = each * sessions
    return {
        "messagesPerSecond": round(count / spent),
        "msPerMessage": round(spent / count * 1000, 3),
        "cpuUsPerMessage": round(used / count * 1e6),
        "bytesPerMessage": round((_written(engine) - written) / count),
    }


async def _attached(store: Store, name: str) -> SessionState:
    row = await store.create_session(name)
    return await store.attach(row.id, "benchmark")


async def _many(state: SessionState, count: int, record: Any) -> None:
    for number in range(count):
        await _one(state, number, record)


async def _one(state: SessionState, number: int, record: Any) -> None:
    name = f"M{number}"
    unit = state.unit()
    unit.put("session", "15550000002.0", record)
    unit.add_message(
        MessageRow(
            chat="2@lid",
            sender="2@lid",
            message_id=name,
            from_me=False,
            ts=1,
            kind="text",
            body="hi",
            raw=bytes(40),
        )
    )
    unit.journal("2@lid", "2@lid", name, os.urandom(32))
    unit.event("message:new", {"messageId": name, "body": "hi"})
    await state.commit(unit)


def _written(engine: Engine) -> int:
    """Bytes that were written so far: WAL of the server, or all that this process wrote to files."""
    if isinstance(engine, Reads) and engine.shared:
        query = "SELECT CAST(pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0') AS BIGINT)"
        return int(engine.look(lambda db: db.execute(query).fetchone()[0]))
    counters = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counters["wchar"])


async def _load(store: Store, engine: Engine, record: Any) -> float:
    """Attach a session that has written with thousands: everything is read and checked."""
    state = await _attached(store, "large")
    document = record.serialize()
    for start in range(0, PEERS, 500):
        unit = state.unit()
        for number in range(start, start + 500):
            unit.put("session", f"{number}.0", document)
        await state.commit(unit)
    began = time.perf_counter()
    await store.read(engine.checked_creds, state.session_id)
    return round((time.perf_counter() - began) * 1000, 1)


async def _back_up(store: Store, engine: Engine, directory: Path) -> dict[str, float]:
    """One archive of a hundred sessions: written, read again and verified to level 2."""
    names = []
    for number in range(BACKED_UP):
        sample = a_sample(number + 1).state
        state = await _attached(store, f"b{number}")
        unit = state.unit()
        unit.set_creds(sample.creds.serialize())
        unit.set_session(me_pn=f"{15550000000 + number}:1@s.whatsapp.net")
        for (kind, key), value in sample.items.items():
            unit.put(kind, key, value)
        await state.commit(unit)
        names.append(state.session_id)
    recipient = str(pyrage.x25519.Identity.generate().to_public())
    began = time.perf_counter()
    made = await trio.to_thread.run_sync(
        make_backup, engine.view, Order(tuple(names), (recipient,)), directory, "benchmark", 1_800_000_000_000
    )
    spent = (time.perf_counter() - began) * 1000
    return {"backupAndVerifyMs": round(spent, 1), "backupBytes": made.size}
