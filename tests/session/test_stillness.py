"""A store whose transaction does not end: told by the log, the alert command, the views and the monitor."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio

from tests.session.test_alerts import APPEND, python, until_lines
from tests.session.test_manager import Bed, bed, store  # noqa: F401 - fixtures
from waD.config import Alerts
from waD.session import stillness
from waD.session.checkup import check_up
from waD.session.stillness import StillnessWatch
from waD.store.engine import Job, Outcome
from waD.store.store import Store


class Hanging:
    """Stands before an engine's `write`, which waits while the disk hangs."""

    def __init__(self, store: Store) -> None:  # noqa: F811
        self._write = store.engine.write
        self._goes_on = threading.Event()
        self._goes_on.set()
        self.entered = threading.Event()

    def write(self, jobs: Sequence[Job]) -> list[Outcome]:
        self.entered.set()
        assert self._goes_on.wait(20), "nobody let the disk go on"
        return self._write(jobs)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        self._goes_on.clear()
        try:
            yield
        finally:
            self._goes_on.set()


@pytest.fixture
def disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> Hanging:  # noqa: F811
    made = Hanging(store)
    monkeypatch.setattr(store.engine, "write", made.write)
    monkeypatch.setattr(stillness, "WRITE_STUCK_S", 0.15)
    monkeypatch.setattr(stillness, "LOOK_EVERY_S", 0.02)
    return made


@asynccontextmanager
async def watched(store: Store, settings: Alerts) -> AsyncIterator[None]:  # noqa: F811
    async with trio.open_nursery() as nursery:
        nursery.start_soon(StillnessWatch(store, lambda: settings, lambda: 4711).run)
        yield
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in a thread or a log
            await trio.sleep(0.01)


async def test_a_transaction_that_hangs_is_told_once_and_its_end_is_an_event(
    store: Store,  # noqa: F811
    disk: Hanging,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = tmp_path / "out"
    async with watched(store, Alerts(command=python(APPEND, out))), trio.open_nursery() as nursery:
        with disk.hanging():
            nursery.start_soon(store.append_event, None, "connection:status", {"status": "open"})
            (line,) = await until_lines(out, 1)
            event = json.loads(line)
            assert (event["cursor"], event["time"], event["type"]) == (0, 4711, "alert:raised")
            assert (event["data"]["severity"], event["data"]["subject"]) == ("critical", "store")
            assert "check the disk" in event["data"]["hint"]
            await trio.sleep(0.3)
        await until(lambda: "goes on" in caplog.text)
        with trio.fail_after(10):
            while not (told := await store.events(types=["alert:raised"])):  # noqa: ASYNC110 - likewise
                await trio.sleep(0.01)
    assert "goes on" in told[0].data["message"]
    assert len(out.read_text().splitlines()) == 1
    assert caplog.text.count("stands still") == 1
    assert [record.levelname for record in caplog.records if "stands still" in record.message] == ["CRITICAL"]


async def test_each_incident_is_told(
    store: Store,  # noqa: F811
    disk: Hanging,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = tmp_path / "out"
    async with watched(store, Alerts(command=python(APPEND, out))):
        for number in range(2):
            async with trio.open_nursery() as nursery:
                with disk.hanging():
                    nursery.start_soon(store.append_event, None, "connection:status", {"status": "open"})
                    await until_lines(out, number + 1)
            await until(lambda number=number: caplog.text.count("goes on") == number + 1)  # type: ignore[misc]
    assert len(out.read_text().splitlines()) == 2


async def test_without_a_command_the_log_is_what_is_left(
    store: Store,  # noqa: F811
    disk: Hanging,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with watched(store, Alerts()), trio.open_nursery() as nursery:
        with disk.hanging():
            nursery.start_soon(store.append_event, None, "connection:status", {"status": "open"})
            await until(lambda: "stands still" in caplog.text)


async def test_a_slow_transaction_is_no_incident(
    store: Store,  # noqa: F811
    disk: Hanging,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stillness, "WRITE_STUCK_S", 30.0)
    async with watched(store, Alerts()), trio.open_nursery() as nursery:
        with disk.hanging():
            nursery.start_soon(store.append_event, None, "connection:status", {"status": "open"})
            await until(disk.entered.is_set)
            await trio.sleep(0.2)
    assert "stands still" not in caplog.text


async def test_views_and_the_check_show_it(
    bed: Bed,  # noqa: F811
    disk: Hanging,
) -> None:
    await bed.paired("one", desired="down")
    async with bed.running() as manager:
        assert (await manager.status("one")).hint == ""
        async with trio.open_nursery() as nursery:
            with disk.hanging():
                nursery.start_soon(bed.store.append_event, None, "connection:status", {"status": "open"})
                await until(lambda: stillness.standing_still(bed.store) is not None)
                view = await manager.status("one")
                report = await check_up(bed.store, bed.log, manager.list, bed.settings, Path("/none"))
        assert "a transaction has been running" in view.hint
        assert "check the disk" in view.hint
        (found,) = (one for one in report.findings if "transaction" in one.message)
        assert (found.check, found.level) == ("store", "critical")
        assert found.data.keys() == {"stuckSeconds"}
        await until(lambda: stillness.standing_still(bed.store) is None)
        assert (await manager.status("one")).hint == ""
