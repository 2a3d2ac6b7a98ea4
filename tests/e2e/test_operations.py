"""What operators do with a running daemon: look, hold, reset, undo, reload; and what the service manager hears."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.daemon import ALICE, BOB, Daemon, Refused, running
from waD.config import load
from waD.daemon import PATIENCE_S, Application
from waD.link.credentials import new_credentials
from waD.sandbox import Sandbox, run_sandbox
from waD.store.engine import Attach, ResetAuth
from waD.store.opening import open_engine
from waD.store.store import Parts, StoreSettings
from waD.systemd import Notifier

PERIOD_S = 0.9


async def test_hold_release_reset(tmp_path: Path) -> None:
    async with run_sandbox() as sandbox, running(tmp_path, sandbox) as daemon:
        await daemon.pair(sandbox)
        held = await daemon.call("session.hold", name="alerts")
        assert (held["state"], held["held"], held["desired"]) == ("stopped", True, "up")
        assert held["hint"] == "held; wactl release alerts"
        with pytest.raises(Refused) as refused:
            await daemon.call("session.connect", name="alerts")
        assert refused.value.symbol == "wrong_state"
        assert await daemon.stop() == 0
        await daemon.start()
        assert (await daemon.status())["state"] == "stopped"
        await daemon.call("session.release", name="alerts")
        await daemon.until("open", ready=True)
        view = await daemon.call("session.reset", name="alerts")
        assert (view["state"], view.get("lastDisconnect")) == ("open", None)


async def test_health_and_tallies_in_the_view(tmp_path: Path) -> None:
    async with run_sandbox() as sandbox, running(tmp_path, sandbox) as daemon:
        await daemon.pair(sandbox)
        bob = sandbox.phone(BOB)
        await daemon.wait(await daemon.send(BOB, "hello"))
        await bob.send(ALICE, "hello yourself")
        await daemon.event("message:new", body="hello yourself")
        view = await daemon.status()
        assert (view["messagesSent"], view["messagesReceived"], view["decryptFailures"]) == (1, 1, 0)
        assert (view["unacked"], view["queued"]) == (0, 0)
        assert view["healthySince"] > 0
        assert abs(view["clockOffsetMs"]) < 5000


async def test_undo_brings_the_login_back(tmp_path: Path) -> None:
    async with run_sandbox() as sandbox, running(tmp_path, sandbox) as daemon:
        first = await daemon.pair(sandbox)
        bob = sandbox.phone(BOB)
        await daemon.wait(await daemon.send(BOB, "one"))
        await bob.send(ALICE, "two")
        await daemon.event("message:new", body="two")
        with pytest.raises(Refused) as refused:
            await daemon.call("session.undo", name="alerts")
        assert refused.value.symbol == "wrong_state"
        await daemon.stop()
        _clear_as_a_repair_does(tmp_path)
        await daemon.start()
        await daemon.until("pairing")
        undone = await daemon.call("session.undo", name="alerts")
        assert undone["session"]["state"] == "stopped"
        assert undone["session"]["desired"] == "down"
        assert undone["session"]["me"] == first["me"]
        assert undone["receiveOnly"] >= 1
        assert undone["stalePrekeys"] > 0
        await daemon.call("session.connect", name="alerts")
        await daemon.until("open", ready=True)
        await bob.send(ALICE, "three")
        await daemon.event("message:new", body="three")
        await daemon.wait(await daemon.send(BOB, "four"))
        await bob.wait_message(lambda message: message.text == "four")
        assert sandbox.core.world.keys.report()["reused"] == []
        assert (await daemon.events("auth:restored"))[0]["data"]["reason"] == "undo"
        view = await daemon.status()
        assert (view["decryptFailures"], view["connectionId"]) == (0, first["connectionId"])


def _clear_as_a_repair_does(directory: Path) -> None:
    """Seal and clear the credentials although the device is still linked, as after four answers of 500."""
    engine = open_engine(StoreSettings(path=directory / "state" / "waD" / "waD.db"), Parts())
    (row,) = engine.sessions(include_retired=False)
    engine.write([Attach(row.id, "test")])
    (row,) = engine.sessions(include_retired=False)
    (sealed,) = engine.write([ResetAuth(row.id, row.lease_token, new_credentials(os.urandom).serialize())])
    assert isinstance(sealed, int)
    engine.close()


async def test_policy_config_and_check(tmp_path: Path) -> None:
    more = '[reconnect.on]\nf403 = "hold"\n[sessions.alerts.outbox]\nrate = 3\n'
    async with run_sandbox() as sandbox, running(tmp_path, sandbox, more=more) as daemon:
        await daemon.pair(sandbox)
        table = await daemon.call("policy.show", session="alerts")
        row = next(row for row in table["rows"] if row["cause"] == "f403")
        assert (row["action"], row["defaultAction"]) == ("hold", "slow")
        assert row["origin"].startswith(f"{daemon.config}:")
        config = await daemon.call("config.show")
        shown = {option["key"]: option for option in config["options"]}
        assert shown["sessions.alerts.outbox.rate"]["value"] == "3"
        assert shown["reconnect.multiplier"]["origin"] == "default"
        assert config["files"] == [str(daemon.config)]
        daemon.config.chmod(0o600)
        report = await daemon.call("daemon.check")
        assert [f for f in report["findings"] if f["level"] != "ok"] == []
        assert {f["check"] for f in report["findings"]} >= {"store", "permissions", "session", "clock"}
        daemon.config.chmod(0o666)
        report = await daemon.call("daemon.check")
        (bad,) = [f for f in report["findings"] if f["level"] != "ok"]
        assert (bad["subject"], bad["level"], report["level"]) == (str(daemon.config), "critical", "critical")


async def test_subscribers_and_their_lag(tmp_path: Path) -> None:
    async with run_sandbox() as sandbox, running(tmp_path, sandbox) as daemon, daemon.client() as reader:
        await reader.call("events.subscribe", since=0)
        await daemon.call("session.connect", name="alerts")
        await daemon.until("pairing")
        info = await daemon.call("daemon.info")
        names = [subscriber["name"] for subscriber in info["subscribers"]]
        assert sorted(set(names)) == ["alert command", "client"]
        assert info["eventLag"] >= 0


async def test_another_server_counts_from_the_next_connection_on(tmp_path: Path) -> None:
    async with run_sandbox() as sandbox, running(tmp_path, sandbox) as daemon:
        before = await daemon.pair(sandbox)
        toml = daemon.config.read_text()
        wrong = toml.replace(sandbox.root_key.hex(), "ab" * 32)
        assert wrong != toml
        daemon.config.write_text(wrong)
        result = await daemon.call("daemon.reload")
        assert result == {"applied": ["network.root_key"], "restartNeeded": []}
        view = await daemon.status()
        assert (view["state"], view["lastConnectedAt"]) == ("open", before["lastConnectedAt"])
        await daemon.call("session.disconnect", name="alerts")
        await daemon.call("session.connect", name="alerts")
        view = await daemon.until("backoff")
        assert view["lastDisconnect"]["cause"] == "noise_fail"
        daemon.config.write_text(toml)
        assert (await daemon.call("daemon.reload"))["applied"] == ["network.root_key"]
        await daemon.call("session.connect", name="alerts")
        await daemon.until("open")


async def test_what_needs_a_restart_stays_as_it_is(tmp_path: Path) -> None:
    async with run_sandbox() as sandbox, running(tmp_path, sandbox) as daemon:
        store = (await daemon.call("daemon.info"))["store"]
        daemon.config.write_text(daemon.config.read_text() + f'\n[store]\npath = "{tmp_path}/other.db"\n')
        for _ in range(2):
            result = await daemon.call("daemon.reload")
            assert result == {"applied": [], "restartNeeded": ["store.path"]}
        assert (await daemon.call("daemon.info"))["store"] == store
        options = {one["key"]: one for one in (await daemon.call("config.show"))["options"]}
        assert f"sqlite:{options['store.path']['value'][1:-1]}" == store
        assert options["store.path"]["origin"] == "default"


async def test_a_reload_reaches_a_running_session(tmp_path: Path) -> None:
    async with run_sandbox() as sandbox, running(tmp_path, sandbox) as daemon:
        before = await daemon.pair(sandbox)
        toml = daemon.config.read_text()
        daemon.config.write_text(toml.replace("rate = 0\n", "rate = 0\ntext_limit = 10\n"))
        result = await daemon.call("daemon.reload")
        assert result["applied"] == ["outbox.text_limit"]
        with pytest.raises(Refused) as refused:
            await daemon.send(BOB, "longer than ten characters")
        assert refused.value.symbol == "invalid_text"
        daemon.config.write_text(toml.replace("rate = 0\n", "rate = -1\n"))
        with pytest.raises(Refused) as faulty:
            await daemon.call("daemon.reload")
        assert "outbox.rate" in str(faulty.value)
        view = await daemon.status()
        assert (view["state"], view["lastConnectedAt"]) == ("open", before["lastConnectedAt"])
        daemon.config.write_text(toml)
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGHUP)
        with trio.fail_after(10):
            while True:
                try:
                    await daemon.send(BOB, "longer than ten characters")
                    break
                except Refused:
                    await trio.sleep(0.02)


async def test_a_stop_seals_the_keys(tmp_path: Path) -> None:
    async with run_sandbox() as sandbox, running(tmp_path, sandbox) as daemon:
        await daemon.pair(sandbox)
        assert await daemon.stop() == 0
        with sqlite3.connect(tmp_path / "state" / "waD" / "waD.db") as db:
            assert db.execute("SELECT reason FROM wa_auth_sealed").fetchall() == [("shutdown",)]
        db.close()


# The service manager.


class Managed(Daemon):
    """A daemon with a service manager that listens."""

    def __init__(self, directory: Path, sandbox: Sandbox) -> None:
        super().__init__(directory, sandbox)
        self.notices = trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {
            "NOTIFY_SOCKET": str(self.directory / "notify"),
            "WATCHDOG_USEC": str(round(PERIOD_S * 1_000_000)),
        }

    async def hear(self, *wanted: str) -> list[str]:
        """Wait for a notice that has all of these; returns all lines that came."""
        lines: list[str] = []
        with trio.fail_after(20):
            while True:
                came = (await self.notices.recv(65_536)).decode().splitlines()
                lines += came
                if all(any(line.startswith(want) for line in came) for want in wanted):
                    return lines


@asynccontextmanager
async def managed(directory: Path, sandbox: Sandbox) -> AsyncIterator[Managed]:
    daemon = Managed(directory, sandbox)
    await daemon.notices.bind(str(directory / "notify"))
    await daemon.start(wait=False)
    try:
        yield daemon
    finally:
        daemon.notices.close()
        if daemon.process is not None:
            with trio.CancelScope(shield=True):
                daemon.process.kill()
                await daemon.process.wait()


async def test_what_the_service_manager_hears(tmp_path: Path) -> None:
    async with run_sandbox() as sandbox, managed(tmp_path, sandbox) as daemon:
        first = await daemon.hear("READY=1", "STATUS=0 of 0 sessions open")
        assert not any(line.startswith(("WATCHDOG", "RELOADING")) for line in first)
        pong: dict[str, Any] = await daemon.call("daemon.ping")  # ready means that it answers
        assert daemon.process is not None
        assert pong["pid"] == daemon.process.pid
        await daemon.pair(sandbox)
        await daemon.hear("WATCHDOG=1")
        await daemon.hear("STATUS=1 of 1 sessions open")
        daemon.process.send_signal(signal.SIGHUP)
        await daemon.hear("RELOADING=1", "MONOTONIC_USEC=")
        await daemon.hear("READY=1")
        daemon.process.send_signal(signal.SIGTERM)
        await daemon.hear("STOPPING=1")
        assert await daemon.ended() == 0


async def test_the_watchdog_goes_hungry_when_nobody_can_talk_to_the_daemon(tmp_path: Path) -> None:
    async with run_sandbox() as sandbox, managed(tmp_path, sandbox) as daemon:
        await daemon.hear("READY=1")
        await daemon.hear("WATCHDOG=1")
        daemon.socket.unlink()
        await daemon.hear("STATUS=")  # what was on its way
        await daemon.hear("STATUS=")
        lines = [line for _ in range(4) for line in await daemon.hear("STATUS=")]
        assert "WATCHDOG=1" not in lines
        assert "the control socket" in daemon.log.read_text()


async def test_a_long_migration_asks_for_time(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Listening(Notifier):
        def __init__(self) -> None:
            super().__init__()
            self.asked: list[float] = []

        def extend(self, seconds: float) -> None:
            self.asked.append(trio.current_time() + seconds)

    @asynccontextmanager
    async def slow(*_: object) -> AsyncIterator[object]:
        await trio.sleep(100)
        yield "the store"

    monkeypatch.setattr("waD.daemon.open_store", slow)
    application = Application(load(None, {"HOME": str(tmp_path)}), None, {})
    notifier = application._notifier = Listening()
    began = trio.current_time()
    async with AsyncExitStack() as stack:
        assert await application._open_store(stack) == "the store"  # type: ignore[comparison-overlap]
    assert trio.current_time() - began == 100
    assert notifier.asked[0] - began < 90  # before systemd's own patience ends
    asked_at = [deadline - PATIENCE_S for deadline in notifier.asked]
    assert all(later < deadline for later, deadline in zip(asked_at[1:], notifier.asked, strict=False))
    assert notifier.asked[-1] > began + 100


async def test_a_stop_during_the_start_is_obeyed(tmp_path: Path) -> None:
    async with run_sandbox() as sandbox:
        daemon = Daemon(tmp_path, sandbox)
        await daemon.start()
        await daemon.call("session.connect", name="alerts")
        assert await daemon.stop() == 0
        await daemon.start(wait=False)
        assert daemon.process is not None
        with trio.fail_after(20):
            while not _handles_sigterm(daemon.process.pid):  # noqa: ASYNC110 - another process's state
                await trio.sleep(0.005)
        daemon.process.send_signal(signal.SIGTERM)
        assert await daemon.ended() == 0


def _handles_sigterm(pid: int) -> bool:
    """Whether the process catches SIGTERM by now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False
