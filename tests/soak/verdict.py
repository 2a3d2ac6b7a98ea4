"""What must be true at the end of a life (see `life.py`)."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Final

import trio
import trio.testing

from tests.soak.inside import Inside, Watch, inside, with_sandbox
from tests.soak.life import ALICE, DAY_MS, LOW, Life, Plan, Tables
from waD.sandbox import Environment, Sandbox, Settings, run_sandbox

SLACK: Final = 10
"""Objects of one type that may be alive by chance, such as the last work of each task; breaks are more."""
MORE_BYTES: Final = 600_000
"""The bounded caches (512 items, 256 events) hold other entries later; this is less than 90 bytes a message."""
PINGS_TO_DEATH: Final = 2
SHORTEST_PING_S: Final = 20.0
LONGEST_PING_S: Final = 30.0
BUFFERS_LIVE_MS: Final = 15 * DAY_MS
"""After that neither the retry buffer nor the journal needs an entry (chapter 08)."""


async def live_and_judge(plan: Plan, directory: Path, clock: trio.testing.MockClock) -> None:
    """Live a plan in a fresh daemon against a fresh sandbox, and check everything."""
    watch = Watch(clock)
    environment = Environment(clock=watch.unix_ms)
    idle = trio.lowlevel.current_statistics().tasks_living
    async with run_sandbox(None, environment=environment, settings=Settings(low_prekeys=LOW)) as sandbox:
        serve, root_key = with_sandbox(sandbox)
        async with inside(directory, serve, root_key, watch) as daemon:
            life = Life(plan, daemon, sandbox)
            await life.run()
            _judge_heap(life)
            _judge_pings(life)
            _judge_server(life, sandbox)
            await _judge_events(life, daemon)
            await _judge_tables(life, daemon)
            assert not await daemon.store.integrity_check()
    assert trio.lowlevel.current_statistics().tasks_living == idle


def _judge_heap(life: Life) -> None:
    first, last = life.first, life.last
    assert {name: more for name, more in last.growth(first).items() if more > SLACK} == {}
    assert last.tasks == first.tasks
    assert last.files == first.files
    assert (first.threads, last.threads) == (1, 1)
    assert last.more_bytes(first) < MORE_BYTES, (last.held - first.held).most_common(20)


def _judge_pings(life: Life) -> None:
    """Regular in the quiet hour, and answered but for those that met a stalled server."""
    quiet = [later - earlier for earlier, later in pairwise(life.traffic.between(*life.quiet))]
    assert quiet
    assert min(quiet) >= SHORTEST_PING_S
    assert max(quiet) <= LONGEST_PING_S
    assert life.traffic.unanswered == PINGS_TO_DEATH * life.tally.stalls


def _judge_server(life: Life, sandbox: Sandbox) -> None:
    world, device = sandbox.core.world, sandbox.device(ALICE)
    assert world.keys.report()["reused"] == []
    assert world.complaints() == []
    assert not device.queue
    assert len(device.record.keys.one_time) >= LOW - 1
    assert device.record.logins >= life.tally.breaks + 1
    for friend in life.friends:
        texts = [one.text for one in friend.messages() if not one.from_me]
        assert texts == life.tally.written_to[friend.number]


async def _judge_events(life: Life, daemon: Inside) -> None:
    """Each text once, as it came or when it could be read at last; each own message sent and delivered once."""
    events = await daemon.events()
    counts = Counter(event.type for event in events)
    new = [event.data for event in events if event.type == "message:new"]
    resolved = [event.data for event in events if event.type == "message:update"]
    assert Counter(data["body"] for data in (*new, *resolved) if "body" in data) == Counter(
        life.tally.received
    )
    assert len(new) == len({data["messageId"] for data in new}) == len(life.tally.received)
    assert {data["reason"] for data in resolved} <= {"resolved"}
    assert len(resolved) == sum("body" not in data for data in new) > 0
    statuses = Counter(
        (event.data["messageId"], event.data["status"]) for event in events if event.type == "message:status"
    )
    assert statuses == Counter({(name, how): 1 for name in life.tally.sent for how in ("sent", "delivered")})
    assert counts["connection:error"] == life.tally.errors
    assert counts["connection:qr"] == 1
    ready = sum(event.data.get("ready") is True for event in events if event.type == "connection:status")
    assert ready == life.sandbox.device(ALICE).record.logins
    assert len(events) == Tables(daemon.path).rows("wa_events")


async def _judge_tables(life: Life, daemon: Inside) -> None:
    tables, tally = Tables(daemon.path), life.tally
    people = len(life.friends) + tally.strangers
    waiting = len(life.sandbox.device(ALICE).record.keys.one_time)
    devices = people + 1
    items = tables.items()
    # Keys that nobody used yet are kept: a message under one of them may still come.
    assert items.pop("prekey") == waiting + tally.lost_prekeys
    assert items.pop("app-state-key") == 1
    kept = [one for one in life.sandbox.phone(ALICE).phone.app_state._replicas.values() if one.entries]
    assert items.pop("app-state-version") == len(kept)
    assert len(kept) <= items.pop("app-state-entries") <= sum(len(one.entries) for one in kept)
    assert items.pop("device-list") == len(life.friends) + 1
    assert items == dict.fromkeys(("session", "identity", "lid-of-pn", "pn-of-lid"), devices)
    assert tables.outbox() == {"sent": len(tally.sent)}
    assert tables.rows("whatsapp_messages") == len(tally.received) + len(tally.sent)
    await daemon.store.prune(daemon.watch.unix_ms() + BUFFERS_LIVE_MS)
    for table in ("wa_retry_buffer", "wa_inbound_buffer"):
        assert tables.rows(table) == 0
    assert tables.rows("whatsapp_messages") == len(tally.received) + len(tally.sent)
