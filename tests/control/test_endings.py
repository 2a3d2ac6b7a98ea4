"""Hang-ups at any time, bugs behind the methods, and the daemon's stop."""

from __future__ import annotations

import logging
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from tests.control.client import Client, Refused, Running, request, serving
from tests.control.fakes import view
from waD.control import types as t
from waD.control.api import ControlError
from waD.control.settings import ControlSettings

SEND = {"session": "alerts", "to": "15550000002", "text": "the secret text"}

# ----------------------------------------------------------------------------------------------- hang-ups


async def test_a_wait_whose_client_hangs_up_is_cancelled(running: Running) -> None:
    with running.sessions.block("wait"):
        async with running.client() as client:
            await client.post("message.wait", session="alerts", messageId="A")
            await running.sessions.entered("wait")
        await running.emptied()
        assert running.sessions.cancelled == ["wait"]


@pytest.mark.parametrize(
    ("method", "params", "called"),
    [
        ("message.send", SEND, "send"),
        ("session.connect", {"name": "alerts"}, "connect"),
        ("session.logout", {"name": "alerts"}, "logout"),
        ("message.read", {"session": "alerts", "chat": "15550000002", "ids": ["A"]}, "mark_read"),
    ],
)
async def test_a_command_goes_on_without_its_client(
    running: Running, method: str, params: dict[str, Any], called: str
) -> None:
    with running.sessions.block(called) as release:
        async with running.client() as client:
            await client.post(method, **params)
            await running.sessions.entered(called)
        await trio.testing.wait_all_tasks_blocked()
        assert running.sessions.finished == []
        release.set()
        await running.emptied()
    assert (running.sessions.finished, running.sessions.cancelled) == ([called], [])


async def test_a_hang_up_is_seen_while_requests_wait_unread(tmp_path: Path) -> None:
    async with serving(tmp_path, requests=1) as running:
        with running.sessions.block("wait"):
            async with running.client() as client:
                for _ in range(3):
                    await client.post("message.wait", session="alerts", messageId="A")
                await running.sessions.entered("wait")
            await running.emptied()
        assert len(running.sessions.calls) == 1


async def test_the_last_word_is_no_hang_up(running: Running, client: Client) -> None:
    with running.sessions.block("wait") as release:
        request_id = await client.post("message.wait", session="alerts", messageId="A")
        await client.stream.send_eof()
        await running.sessions.entered("wait")
        await trio.testing.wait_all_tasks_blocked()
        release.set()
        assert "result" in await client.answer(request_id)
    assert await client.read() is None


async def test_a_hang_up_after_the_last_word_is_one(running: Running) -> None:
    with running.sessions.block("wait"):
        async with running.client() as client:
            await client.post("message.wait", session="alerts", messageId="A")
            await client.stream.send_eof()
            await running.sessions.entered("wait")
        await running.emptied()
    assert running.sessions.cancelled == ["wait"]


@pytest.mark.parametrize("cut", [0, 1, 30, 10_000])
async def test_a_hang_up_anywhere_leaves_the_server_well(running: Running, client: Client, cut: int) -> None:
    async with running.client() as other:
        await other.raw((request(1, "events.subscribe", {"since": 0}) + request(2, "session.list"))[:cut])
    await running.emptied(but=1)
    await client.call("daemon.ping")


# --------------------------------------------------------------------------------------------------- bugs


async def test_a_bug_is_answered_with_a_reference_and_logged_without_content(
    running: Running, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    cause = KeyError("the secret text")
    error = ValueError("the secret text to 15550000002")
    error.__cause__ = cause
    for raised in (error, ExceptionGroup("the secret text", [error, RuntimeError("15550000002")])):
        running.sessions.raises["send"] = raised
        error_sent = (await client.answer(await client.post("message.send", **SEND)))["error"]
        assert (error_sent["data"]["symbol"], error_sent["code"]) == ("internal_error", -32603)
        assert error_sent["data"]["reference"] in caplog.text
        assert "secret" not in str(error_sent)
    assert "message.send" in caplog.text
    assert "ValueError" in caplog.text
    assert "KeyError" in caplog.text
    assert "fakes.py" in caplog.text
    for hidden in ("secret", "5550000002"):
        assert hidden not in caplog.text
    await client.call("daemon.ping")


async def test_an_answer_that_cannot_be_written_down_is_a_bug(running: Running, client: Client) -> None:
    running.sessions.answers["status"] = object()
    running.sessions.raises["connect"] = ControlError("refused", "no", {"code": object()})
    for method in ("session.status", "session.connect"):
        with pytest.raises(Refused) as refused:
            await client.call(method, name="alerts")
        assert refused.value.symbol == "internal_error"


async def _stumble() -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise ValueError("secret")


async def _stumble_when_cancelled(entered: trio.Event) -> t.DaemonInfo:
    """Break in clean-up while a sibling is cancelled in order, so that both come out in one group."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stumble)
        nursery.start_soon(trio.sleep_forever)
        await trio.testing.wait_all_tasks_blocked()
        entered.set()
    raise AssertionError("never gets here")


@pytest.mark.parametrize("end", ["hang up", "cancel"])
async def test_a_bug_in_cleaning_up_stays_with_its_connection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    entered = trio.Event()
    async with serving(tmp_path) as running:
        monkeypatch.setattr(running.daemon, "info", lambda: _stumble_when_cancelled(entered))
        async with running.client() as client:
            async with running.client() as broken:
                await broken.post("daemon.info")
                await entered.wait()
                if end == "cancel":
                    running.cancel()
                    await running.ended.wait()
            await running.emptied(but=1)
            if end == "hang up":
                await client.call("daemon.ping")
    assert "ValueError" in caplog.text
    assert "secret" not in caplog.text


async def test_credentials_that_cannot_be_read_cost_one_client_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path) as running:
        running.fault = OSError(5, "kernel says no")
        async with running.client() as client:
            assert await client.read() is None
        running.fault = ValueError("secret")
        async with running.client() as client:
            assert await client.read() is None
        running.fault = None
        async with running.client() as client:
            await client.call("daemon.ping")
    assert "kernel says no" in caplog.text
    assert "secret" not in caplog.text


async def test_ordinary_use_logs_no_content(
    running: Running, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await client.call("message.send", **SEND)
    with pytest.raises(Refused):
        await client.call("message.send", **{**SEND, "to": "secret"})
    await client.raw(b"secret\n" + request(1, "secret", {"secret": "secret"}))
    await client.read()
    await client.read()
    assert "message.send" in caplog.text
    assert "secret" not in caplog.text
    assert "5550000002" not in caplog.text


# --------------------------------------------------------------------------------------------------- stop


async def test_stop_lets_idle_clients_go_and_removes_the_socket(running: Running, client: Client) -> None:
    await client.call("daemon.ping")
    running.server.stop()
    running.server.stop()
    assert await client.read() is None
    await running.ended.wait()
    assert not running.path.exists()


async def test_stop_tells_subscribers_where_they_are(running: Running, client: Client) -> None:
    async with running.client() as other:
        for _ in range(3):
            running.sessions.log.append()
        await client.call("events.subscribe", since=0)
        await other.call("events.subscribe")
        for _ in range(3):
            await client.notice()
        running.server.stop()
        for reader in (client, other):
            assert (await reader.notice())["params"] == {
                "subscription": 1,
                "reason": "stopped",
                "cursor": 3,
                "error": None,
            }
            assert await reader.read() is None
    await running.ended.wait()
    assert running.sessions.log.open == 0


async def test_a_subscription_ends_after_its_answer_also_when_that_waits(
    running: Running, client: Client
) -> None:
    running.sessions.answers["status"] = msgspec.structs.replace(view(), hint="x" * 100_000)
    for _ in range(25):  # more than socket and outbox hold
        await client.post("session.status", name="alerts")
    await running.sessions.entered("status", 25)
    request_id = await client.post("events.subscribe")
    await running.sessions.entered("subscribe")
    await trio.testing.wait_all_tasks_blocked()
    running.server.stop()
    await trio.testing.wait_all_tasks_blocked()
    assert "result" in await client.answer(request_id)
    assert client.notices == []
    assert (await client.notice())["params"]["reason"] == "stopped"


async def test_stop_while_a_subscription_opens(running: Running, client: Client) -> None:
    with running.sessions.block("subscribe"):
        request_id = await client.post("events.subscribe")
        await running.sessions.entered("subscribe")
        running.server.stop()
        answer = await client.answer(request_id)
    assert answer["error"]["data"]["symbol"] == "shutting_down"
    assert await client.read() is None


async def test_stop_ends_waits_and_finishes_commands(running: Running, client: Client) -> None:
    with running.sessions.block("wait"), running.sessions.block("connect") as release:
        waiting = await client.post("message.wait", session="alerts", messageId="A")
        connecting = await client.post("session.connect", name="alerts")
        await running.sessions.entered("wait")
        await running.sessions.entered("connect")
        running.server.stop()
        refused = await client.answer(waiting)
        assert refused["error"]["data"]["symbol"] == "shutting_down"
        with pytest.raises(Refused, match="stopping"):
            await client.call("session.list")
        assert not running.ended.is_set()
        release.set()
        assert "result" in await client.answer(connecting)
        assert await client.read() is None
    await running.ended.wait()
    assert running.sessions.finished == ["connect"]


async def test_nobody_new_is_let_in_while_it_drains(running: Running, client: Client) -> None:
    with running.sessions.block("connect") as release:
        await client.post("session.connect", name="alerts")
        await running.sessions.entered("connect")
        running.server.stop()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(FileNotFoundError):
            await trio.open_unix_socket(str(running.path))
        release.set()
        await running.ended.wait()


async def test_what_does_not_finish_in_time_is_cancelled(
    tmp_path: Path, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path, drain=7) as running, running.client() as client:
        with running.sessions.block("logout"):
            await client.post("session.logout", name="alerts")
            await running.sessions.entered("logout")
            start = trio.current_time()
            running.server.stop()
            assert await client.read() is None
            await running.ended.wait()
        assert trio.current_time() - start == pytest.approx(7, abs=0.1)
        assert running.sessions.cancelled == ["logout"]
        assert "1 control clients were cut off" in caplog.text


async def test_a_subscriber_that_reads_nothing_does_not_keep_the_daemon(
    tmp_path: Path, autojump_clock: Any
) -> None:
    async with serving(tmp_path, drain=7) as running, running.client() as client:
        for _ in range(100):
            running.sessions.log.append(text="x" * 20_000)
        await client.call("events.subscribe", since=0)
        running.server.stop()
        await running.ended.wait()
        assert running.sessions.log.open == 0


async def test_cancelling_the_server_cancels_commands_too(tmp_path: Path) -> None:
    async with serving(tmp_path) as running, running.client() as client:
        with running.sessions.block("logout"), running.sessions.block("send"):
            await client.post("session.logout", name="alerts")
            await client.post("message.send", **SEND)
            await running.sessions.entered("logout")
            await running.sessions.entered("send")
            running.cancel()
            await running.ended.wait()
        assert sorted(running.sessions.cancelled) == ["logout", "send"]


async def test_the_socket_is_for_its_owner_and_group(running: Running) -> None:
    assert stat.S_IMODE(running.path.stat().st_mode) == 0o660


async def test_a_stop_before_the_start_is_a_stop(tmp_path: Path) -> None:
    running = Running(tmp_path / "control.sock", ControlSettings())
    running.server.stop()
    async with trio.open_nursery() as nursery:
        await nursery.start(running.serve)
    assert running.ended.is_set()
    assert not running.path.exists()
