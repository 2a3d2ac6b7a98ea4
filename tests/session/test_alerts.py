"""Alerts: the event, the line in the log, and the operator's command."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from waD.config import Alerts
from waD.events.log import EventLog
from waD.events.model import ALERT_RAISED, alert
from waD.session.alerts import Alert, put_alert, run_alert_commands, run_command
from waD.store.model import EventRow
from waD.store.store import Store, StoreSettings, open_store
from waD.store.unit import Announce, Unit

DATA = {"severity": "info"}
EVENT = EventRow(cursor=7, time=1, connection_id="c", session="alerts", type=ALERT_RAISED, data=DATA)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(StoreSettings(path=tmp_path / "state" / "waD.db")) as opened:
        yield opened


def python(code: str, *arguments: object) -> tuple[str, ...]:
    return (sys.executable, "-c", code, *map(str, arguments))


APPEND = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read())"


@pytest.mark.parametrize(("severity", "level"), [("info", 20), ("warning", 30), ("critical", 50)])
def test_an_alert_is_an_event_and_a_line_of_its_priority(
    severity: str, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    raised = Alert(severity, "alerts", "it is gone", {"cause": "f401", "code": None, "hint": "scan"})  # type: ignore[arg-type]
    unit = Unit()
    put_alert(unit, raised)
    raised.log()
    (step,) = unit.steps
    assert isinstance(step, Announce)
    assert (step.type, step.data) == (
        "alert:raised",
        {"severity": severity, "subject": "alerts", "message": "it is gone", "cause": "f401", "hint": "scan"},
    )
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (level, "alert: session alerts: it is gone (scan)")


async def test_the_command_gets_the_event_on_its_standard_input(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert await run_command(Alerts(command=python(APPEND, out)), EVENT)
    assert json.loads(out.read_text()) == {
        "cursor": 7, "time": 1, "connectionId": "c", "session": "alerts", "type": "alert:raised",
        "data": {"severity": "info"},
    }  # fmt: skip


async def test_a_command_that_reads_nothing_is_fine() -> None:
    big = EventRow(cursor=1, time=1, connection_id=None, session=None, type="x", data={"x": "y" * 500_000})
    assert await run_command(Alerts(command=python("pass")), big)


async def test_a_command_that_takes_too_long_is_killed(caplog: pytest.LogCaptureFixture) -> None:
    settings = Alerts(command=python("import time; time.sleep(60)"), command_timeout_s=0.3)
    with trio.fail_after(10):
        assert not await run_command(settings, EVENT)
    assert "was killed after 0.3 s" in caplog.text


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (python("raise SystemExit(3)"), "ended with status 3"),
        (("/no/such/program",), "/no/such/program cannot be run: No such file or directory"),
    ],
)
async def test_a_command_that_fails_is_reported(
    command: tuple[str, ...], complaint: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert not await run_command(Alerts(command=command), EVENT)
    assert complaint in caplog.text


@asynccontextmanager
async def commands(store: Store, settings: Alerts) -> AsyncIterator[EventLog]:
    log = EventLog(store)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_alert_commands, log, lambda: settings)
        await trio.testing.wait_all_tasks_blocked(0.1)
        yield log
        nursery.cancel_scope.cancel()


async def until_lines(where: Path, count: int) -> list[str]:
    path = trio.Path(where)
    with trio.fail_after(20):
        while True:
            lines = (await path.read_text()).splitlines() if await path.exists() else []
            if len(lines) >= count:
                return lines
            await trio.sleep(0.02)


async def test_it_runs_for_each_new_alert_and_for_nothing_else(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "out"
    await store.append_event(None, *alert("info", "s", "before"))
    async with commands(store, Alerts(command=python(APPEND, out), command_concurrency=1)):
        for number in range(3):
            await store.append_event(None, "connection:status", {"status": "open"})
            await store.append_event(None, *alert("warning", "s", f"number {number}"))
        lines = await until_lines(out, 3)
    assert [json.loads(line)["data"]["message"] for line in lines] == ["number 0", "number 1", "number 2"]


async def test_no_more_of_them_at_a_time_than_set(store: Store, tmp_path: Path) -> None:
    code = (
        "import os, sys, time; sys.stdin.read(); name = sys.argv[1] + '/' + str(os.getpid()); open(name, 'w').close();"
        "open(sys.argv[2], 'a').write(str(len(os.listdir(sys.argv[1]))) + chr(10)); time.sleep(0.1); os.unlink(name)"
    )
    running, out = tmp_path / "running", tmp_path / "out"
    running.mkdir()
    async with commands(store, Alerts(command=python(code, running, out), command_concurrency=2)):
        for number in range(6):
            await store.append_event(None, *alert("info", "s", str(number)))
        lines = await until_lines(out, 6)
    assert max(map(int, lines)) <= 2


async def test_without_a_command_alerts_only_pass_by(store: Store) -> None:
    async with commands(store, Alerts()):
        await store.append_event(None, *alert("info", "s", "x"))
        await trio.testing.wait_all_tasks_blocked(0.1)


async def test_a_log_that_cannot_be_read_is_tried_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from waD.session import alerts
    from waD.store.errors import StorageUnavailable

    monkeypatch.setattr(alerts, "_RETRY_S", 0.05)
    last_cursor = store.last_cursor
    failures = [StorageUnavailable("input/output error")]

    async def failing() -> int:
        if failures:
            raise failures.pop()
        return await last_cursor()

    monkeypatch.setattr(store, "last_cursor", failing)
    out = tmp_path / "out"
    async with commands(store, Alerts(command=python(APPEND, out))):
        while failures or "waits for the event log" not in caplog.text:  # noqa: ASYNC110
            await trio.sleep(0.01)
        await trio.sleep(0.2)
        await store.append_event(None, *alert("info", "s", "after"))
        assert len(await until_lines(out, 1)) == 1
