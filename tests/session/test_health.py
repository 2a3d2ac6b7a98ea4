"""What a view says about health, what `daemon.check` makes of it, and settings that are read again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

import pytest
import trio
import trio.testing

from tests.session.fakes import START_MS, Bench, Step, refused
from tests.session.test_manager import Bed, Doors, bed, is_open, refuses, store  # noqa: F401 - fixtures
from tests.store.test_store import text
from waD.config import Settings, load
from waD.control.types import CheckReport, DisconnectView, Finding, SendRequest, SessionView
from waD.messaging.context import MessagingSettings
from waD.session.checkup import LAG, LOW_SPACE, check_up
from waD.session.network import NetworkDoors
from waD.session.vitals import Clock
from waD.store.errors import StorageUnavailable, StoreDamaged, StoreError
from waD.store.store import Store

CLOCK = Clock(unix_ms=lambda: START_MS, jitter=lambda: 0.5, random=os.urandom)


# Views.


async def test_an_open_session_shows_its_pulse(bed: Bed) -> None:  # noqa: F811
    bed.scripts["one"] = [Step(dial_s=0, login_s=0, goodbye_s=0, offset_ms=1500)]
    await bed.paired("one")
    async with bed.running() as manager:
        view = await bed.until("one", is_open)
        assert (view.healthy, view.healthy_since) == (True, START_MS)
        assert (view.ping_ms, view.unacked, view.unanswered) == (42, 2, 3)
        assert view.clock_offset_ms == 1500
        stopped = await manager.disconnect("one")
        assert (stopped.healthy, stopped.healthy_since, stopped.ping_ms) == (None, None, None)
        assert (stopped.unacked, stopped.unanswered, stopped.clock_offset_ms) == (0, 0, 1500)


async def test_healthy_since_the_last_recovery(autojump_clock: object) -> None:
    bench = Bench(Step(health=((5, False), (7, True)), open_s=100))
    async with bench.running():
        await bench.reaches("open")
        opened = bench.vitals.healthy_since_ms
        assert opened == START_MS + 1000
        await bench.vitals.until(lambda: bench.vitals.healthy is False)
        assert bench.vitals.healthy_since_ms is None
        await bench.vitals.until(lambda: bench.vitals.healthy is True)
        assert bench.vitals.healthy_since_ms == opened + 12_000


async def test_tallies_outlive_the_process(bed: Bed) -> None:  # noqa: F811
    await bed.paired("one")
    async with bed.running():
        view = await bed.until("one", is_open)
        entry = bed.manager.roster.entries[view.connection_id]
        unit = entry.supervisor.state.unit()
        unit.add_message(text("A1"))
        await entry.supervisor.state.commit(unit)
    bed.again()
    async with bed.running():
        view = await bed.until("one", is_open)
        assert (view.messages_received, view.messages_sent, view.decrypt_failures) == (1, 0, 0)


async def test_queued_counts_what_has_not_left(bed: Bed) -> None:  # noqa: F811
    await bed.paired("one", desired="down")
    async with bed.running() as manager:
        for n in range(3):
            await manager.send(SendRequest(session="one", to="15550000002", text=f"{n}"))
        assert (await manager.status("one")).queued == 3


# Policy.


async def test_policy_by_name_or_id(bed: Bed, tmp_path: Path) -> None:  # noqa: F811
    bed.settings = _load(tmp_path, '[sessions.one.reconnect.on]\nf401 = "hold"\n')
    await bed.paired("one", desired="down")
    async with bed.running() as manager:
        view = await manager.status("one")
        for name in ("one", view.connection_id):
            table = await manager.policy(name)
            assert table.session == "one"
            assert next(row.action for row in table.rows if row.cause == "f401") == "hold"
        general = await manager.policy(None)
        assert next(row.action for row in general.rows if row.cause == "f401") == "repair"
        assert (await manager.policy("not-made-yet")).session == "not-made-yet"


# Reload.


def _load(directory: Path, toml: str) -> Settings:
    config = directory / "again.toml"
    config.write_text("[daemon]\nrestore_spread = 0\nstop_timeout = 2\n" + toml)
    return load(config, {"HOME": str(directory)})


async def test_a_reload_reaches_every_part_and_no_connection(bed: Bed, tmp_path: Path) -> None:  # noqa: F811
    await bed.paired("one")
    async with bed.running() as manager:
        await bed.until("one", is_open)
        more = "restore_concurrency = 3\n[events]\ndays = 2.5\nrows = 5000\n[outbox]\nkeep_days = 1\n"
        bed.settings = _load(tmp_path, more)
        manager.reloaded()
        doors = cast(Doors, bed.doors["one"])
        assert (doors.refreshed, doors.live, len(doors.dials)) == (1, 1, 1)
        assert manager.roster.turns.at_once == 3
        kept = bed.store.settings
        assert (kept.event_days, kept.events_per_session, kept.outbox_days) == (2.5, 5000, 1)
        assert (await manager.status("one")).state == "open"


async def test_settings_of_messages_count_at_once(store: Store, tmp_path: Path) -> None:  # noqa: F811
    now = {"settings": _load(tmp_path, "")}
    doors = NetworkDoors(lambda: now["settings"].session("one"), CLOCK)
    row = await store.create_session("one")
    messaging = doors.messaging(await store.attach(row.id, "test"))
    assert messaging.context.settings == MessagingSettings()
    now["settings"] = _load(
        tmp_path,
        "[outbox]\nrate = 5\ntext_limit = 10\n[messages]\nretries = 2\nread_receipts = false\n"
        "[network]\nonline_on_connect = false\n",
    )
    doors.refresh(messaging)
    found = messaging.context.settings
    assert (found.rate_per_s, found.max_text, found.retries, found.send_read_receipts) == (5, 10, 2, False)
    assert found.available  # the server was told so at the login, and hears otherwise at the next one


async def test_a_text_limit_that_was_lowered_holds(bed: Bed, tmp_path: Path) -> None:  # noqa: F811
    class Refreshing(Doors):
        def refresh(self, messaging: Any) -> None:
            NetworkDoors(lambda: bed.settings.session("one"), CLOCK).refresh(messaging)

    bed.doors = {}
    bed._doors = lambda name: bed.doors.setdefault(name, Refreshing())  # type: ignore[method-assign]
    bed.again()
    await bed.paired("one", desired="down")
    async with bed.running() as manager:
        await manager.send(SendRequest(session="one", to="15550000002", text="x" * 20))
        bed.settings = _load(tmp_path, "[outbox]\ntext_limit = 10\n")
        manager.reloaded()
        await refuses(
            "invalid_text", manager.send(SendRequest(session="one", to="15550000002", text="x" * 20))
        )


# Check.


def view(**changes: Any) -> SessionView:
    fields: dict[str, Any] = {
        "name": "one", "connection_id": "no-such-id", "state": "open", "desired": "up", "ready": True,
        "healthy": True, "paired": True,
    }  # fmt: skip
    return SessionView(**{**fields, **changes})


@pytest.fixture
def place(bed: Bed, tmp_path: Path) -> Bed:  # noqa: F811
    """The store of the settings is the store that is open."""
    bed.settings = _load(tmp_path, f'[store]\npath = "{tmp_path}/state/waD.db"\n')
    for path in bed.settings.files:
        path.chmod(0o600)
    return bed


async def examine(place: Bed, *views: SessionView, socket: Path | None = None) -> CheckReport:
    async def shown() -> Sequence[SessionView]:
        return views

    return await check_up(
        place.store, place.log, shown, place.settings, socket or place.settings.store.path.with_name("none")
    )


def of(report: CheckReport, check: str) -> list[Finding]:
    return [finding for finding in report.findings if finding.check == check]


async def test_all_is_well(place: Bed) -> None:
    report = await examine(place, view(clock_offset_ms=-200, messages_received=100, decrypt_failures=1))
    bad = [finding for finding in report.findings if finding.level != "ok"]
    assert (report.level, bad) == ("ok", [])
    assert {f.check for f in report.findings} == {
        "store", "permissions", "session", "health", "clock", "decryption", "outbox", "kek",
    }  # fmt: skip
    assert not any(finding.hint for finding in report.findings)


CASES = [
    (
        view(state="failed", healthy=None, hint="wactl connect one"),
        "session",
        "critical",
        "wactl connect one",
    ),
    (view(state="needs_pairing", healthy=None, paired=False), "session", "critical", "scan the QR code"),
    (view(state="backoff", healthy=None), "session", "warning", "it reconnects by itself"),
    (view(ready=False), "session", "warning", ""),
    (view(state="stopped", desired="down", healthy=None), "session", "ok", ""),
    (view(state="stopped", held=True, healthy=None), "session", "ok", ""),
    (view(healthy=False), "health", "warning", "check the network"),
    (view(clock_offset_ms=75_000), "clock", "warning", "NTP"),
    (view(messages_received=100, decrypt_failures=10), "decryption", "warning", "undecryptable"),
    (view(messages_received=100_000, decrypt_failures=10), "decryption", "ok", ""),
    (view(queued=5000), "outbox", "warning", "outbox.rate"),
    (view(held_messages=2), "outbox", "warning", "wactl outbox release"),
]


@pytest.mark.parametrize(("shown", "check", "level", "hint"), CASES)
async def test_what_is_not_well_says_so(
    place: Bed, shown: SessionView, check: str, level: str, hint: str
) -> None:
    report = await examine(place, shown)
    (finding,) = of(report, check)
    assert (finding.level, finding.subject) == (level, "one")
    assert hint in finding.hint
    assert report.level == level


async def test_the_last_reason_is_told(place: Bed) -> None:
    last = DisconnectView(cause="f403", at=1, code=403, message="the account is restricted")
    report = await examine(place, view(state="failed", healthy=None, last_disconnect=last))
    assert "f403: the account is restricted" in of(report, "session")[0].message


async def test_held_messages_are_told(place: Bed) -> None:
    await place.paired("one", desired="down")
    async with place.running() as manager:
        await manager.send(SendRequest(session="one", to="15550000002", text="before"))
        await manager.logout("one")
        report = await examine(place, await manager.status("one"))
    (finding,) = of(report, "outbox")
    assert (finding.level, finding.data["held"]) == ("warning", 1)


async def test_permissions(place: Bed, tmp_path: Path) -> None:
    socket = tmp_path / "control.sock"
    socket.touch()
    socket.chmod(0o666)
    database = place.settings.store.path
    database.chmod(0o640)
    place.settings.files[0].chmod(0o662)
    report = await examine(place, socket=socket)
    found = {Path(f.subject).name: f for f in of(report, "permissions") if f.level != "ok"}
    assert {name: f.level for name, f in found.items()} == {
        "waD.db": "critical", "control.sock": "warning", "again.toml": "critical",
    }  # fmt: skip
    assert found["waD.db"].hint == f"chmod 600 {database}"
    assert found["waD.db"].data["mode"] == "0640"


async def test_a_damaged_store_is_told(place: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place.store.engine, "integrity", lambda quick: ["page 7 is gone"])
    report = await examine(place)
    assert report.level == "critical"
    assert any(
        "page 7 is gone" in finding.message and "backup" in finding.hint and finding.data["damaged"] is True
        for finding in of(report, "store")
    )


@pytest.mark.parametrize(
    ("error", "damaged"),
    [(StoreDamaged("page 7 is gone"), True), (StorageUnavailable("disk I/O error"), False)],
)
async def test_a_store_that_cannot_be_read_is_told(
    place: Bed, monkeypatch: pytest.MonkeyPatch, error: StoreError, damaged: bool
) -> None:
    def broken(*_: object) -> NoReturn:
        raise error

    for read in ("integrity", "event_bounds"):
        with monkeypatch.context() as patch:
            patch.setattr(place.store.engine, read, broken)
            found = [one for one in of(await examine(place, view()), "store") if one.level == "critical"]
        assert [one.message for one in found] == [str(error)], read
        assert found[0].data.get("damaged", False) is damaged
        assert ("backup" in found[0].hint) is damaged


async def test_a_list_of_sessions_that_is_damaged_is_a_finding(
    place: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> NoReturn:
        raise StoreDamaged("page 7 is gone")

    async with place.running() as manager:
        monkeypatch.setattr(place.store.engine, "sessions", broken)
        report = await check_up(place.store, place.log, manager.list, place.settings, Path("/nowhere"))
        (found,) = (one for one in of(report, "store") if one.level == "critical")
        assert found.data == {"damaged": True}
        monkeypatch.undo()


async def test_a_full_disk_is_told(place: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waD.session.checkup.LOW_SPACE", 1 << 60)
    (finding,) = of(await examine(place), "store")
    assert (finding.level, finding.hint) == ("warning", "make room")
    assert finding.data["freeBytes"] > 0
    assert LOW_SPACE == 100 * 1024 * 1024


async def test_slow_subscribers_are_told(place: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waD.session.checkup.LAG", 5)
    assert LAG == 10_000
    async with place.log.subscribe(name="slow"), place.log.subscribe(name="quick") as quick:
        for n in range(10):
            await place.store.append_event(None, "alert:raised", {"n": n})
        for _ in range(10):
            await anext(quick)
        found = {f.subject: f for f in of(await examine(place), "events")}
        assert (found["slow"].level, found["slow"].data["eventLag"]) == ("warning", 10)
        assert (found["quick"].level, found["quick"].data["eventLag"]) == ("ok", 0)
    assert place.log.readers == []


async def test_a_check_changes_nothing(place: Bed) -> None:
    before = await place.store.events(), await place.store.sessions()
    await examine(place, view(state="failed", healthy=None))
    assert (await place.store.events(), await place.store.sessions()) == before


async def test_an_idle_subscriber_with_a_filter_does_not_lag(place: Bed) -> None:
    async with trio.open_nursery() as nursery, place.log.subscribe(types=("alert:raised",)) as reader:

        async def read() -> None:
            async for _ in reader:
                pass

        nursery.start_soon(read)
        for _ in range(5):
            await place.store.append_event(None, "connection:status", {})
        await trio.testing.wait_all_tasks_blocked()
        assert reader.cursor == await place.log.newest()
        nursery.cancel_scope.cancel()


async def test_a_refused_dial_shows_no_pulse(bed: Bed) -> None:  # noqa: F811
    bed.scripts["one"] = [refused("dns", dial_s=0)] * 9
    await bed.paired("one")
    async with bed.running():
        found = await bed.until("one", lambda view: view.state == "backoff")
        assert (found.healthy, found.ping_ms, found.healthy_since) == (None, None, None)
