"""The installed unit under a real systemd, all of its hardening in force."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.e2e.daemon import ALICE, BOB
from tests.systemd.machine import CommandError, Machine
from tests.systemd.unit import SERVICE, Unit, ask, eventually, kill, set_up
from waD.sandbox import run_sandbox

CREDENTIAL = "/run/credentials/waD.service/network.toml"


async def test_a_hardened_service_pairs_and_talks(machine: Machine, tmp_path: Path) -> None:
    async with run_sandbox() as sandbox:
        unit = Unit(tmp_path, machine, sandbox)
        await unit.systemctl("start", SERVICE)
        await unit.pair(sandbox)
        bob = sandbox.phone(BOB)
        message_id = await unit.send(BOB, "disk full on db1")
        assert await unit.wait(message_id) == "delivered"
        assert (await bob.wait_message(lambda one: True)).text == "disk full on db1"
        await bob.send(ALICE, "on my way")
        await unit.event("message:new", body="on my way")
        assert sandbox.core.world.complaints() == []
        lines = await unit.run("journalctl", "--output=json", "--unit", SERVICE, "WAD_LOGGER=waD.daemon")
        entry = json.loads(lines.splitlines()[-1])
        assert (entry["SYSLOG_IDENTIFIER"], entry["PRIORITY"], entry["EVENT"]) == ("waD", "6", "ready: %s")
        state = machine.path("/var/lib/waD")
        assert state.stat().st_mode & 0o777 == 0o700
        assert {file.stat().st_mode & 0o077 for file in state.iterdir()} == {0}


async def test_a_stop_is_orderly_and_in_time(machine: Machine, tmp_path: Path) -> None:
    async with run_sandbox() as sandbox:
        unit = Unit(tmp_path, machine, sandbox)
        await unit.systemctl("start", SERVICE)
        await unit.pair(sandbox)
        began = time.monotonic()
        await unit.systemctl("stop", SERVICE)
        assert time.monotonic() - began < 25
        ended = await unit.show("Result", "ExecMainStatus", "ExecMainCode", "ActiveState")
        assert ended == {
            "Result": "success", "ExecMainStatus": "0", "ExecMainCode": "1", "ActiveState": "inactive",
        }  # fmt: skip
        assert unit.socket.exists(), "the socket is systemd's and stays"
        view = await unit.until("open", ready=True)  # the first question starts the service again
        assert view["paired"]


async def test_a_reload_changes_settings_and_drops_nothing(machine: Machine, tmp_path: Path) -> None:
    async with run_sandbox() as sandbox:
        unit = Unit(tmp_path, machine, sandbox)
        await unit.systemctl("start", SERVICE)
        before = await unit.pair(sandbox)
        sandbox.phone(BOB)
        last = (await unit.call("daemon.info"))["lastCursor"]
        pid = (await unit.show("MainPID"))["MainPID"]
        whole = unit.config.read_text()
        unit.configure(whole + '\n[daemon]\nlog_level = "debug"\n')
        await unit.systemctl("reload", SERVICE)
        await unit.said("configuration read again: daemon.log_level")
        await unit.shows(ActiveState="active", SubState="running", MainPID=pid)
        unit.configure(whole + '\n[daemon]\nlog_level = "loud"\n')
        await unit.systemctl("reload", SERVICE)
        await unit.said("the configuration stays as it was")
        await unit.shows(ActiveState="active", SubState="running", MainPID=pid)
        after = await unit.status()
        assert after["lastConnectedAt"] == before["lastConnectedAt"]
        assert after["reconnectCount"] == before["reconnectCount"]
        assert await unit.events("connection:status", since=last) == []
        assert await unit.wait(await unit.send(BOB, "still here")) == "delivered"


async def test_a_daemon_that_hangs_is_killed_and_started_again(machine: Machine, tmp_path: Path) -> None:
    set_up(machine, "[Service]\nWatchdogSec=5\nRestartSec=1\n")
    async with run_sandbox() as sandbox:
        unit = Unit(tmp_path, machine, sandbox)
        await unit.systemctl("start", SERVICE)
        before = await unit.pair(sandbox)
        sandbox.phone(BOB)
        kill(machine, "STOP")
        await unit.shows(NRestarts="1", ActiveState="active")
        await unit.said("Watchdog timeout")
        after = await unit.until("open", ready=True)
        assert after["connectionId"] == before["connectionId"]
        assert await unit.wait(await unit.send(BOB, "back again")) == "delivered"
        await unit.shows(StatusText="1 of 1 sessions open")
        assert 'Status: "1 of 1 sessions open"' in await unit.systemctl("status", "--no-pager", SERVICE)


async def test_a_healthy_daemon_feeds_the_watchdog(machine: Machine, tmp_path: Path) -> None:
    set_up(machine, "[Service]\nWatchdogSec=3\n")
    async with run_sandbox() as sandbox:
        unit = Unit(tmp_path, machine, sandbox)
        await unit.systemctl("start", SERVICE)
        first = (await unit.show("WatchdogTimestampMonotonic"))["WatchdogTimestampMonotonic"]
        seen = {first}
        deadline = time.monotonic() + 30
        while len(seen) < 5:
            assert time.monotonic() < deadline
            seen |= set((await unit.show("WatchdogTimestampMonotonic")).values())
        assert (await unit.show("NRestarts"))["NRestarts"] == "0"


async def test_a_crash_is_followed_by_another_start(machine: Machine, tmp_path: Path) -> None:
    async with run_sandbox() as sandbox:
        unit = Unit(tmp_path, machine, sandbox)
        await unit.systemctl("start", SERVICE)
        before = await unit.pair(sandbox)
        sandbox.phone(BOB)
        await unit.call("session.disconnect", name="alerts")
        message_id = await unit.send(BOB, "queued over a crash")
        kill(machine, "KILL")
        await unit.shows(NRestarts="1", ActiveState="active")
        await unit.call("session.connect", name="alerts")
        assert await unit.wait(message_id) == "delivered"
        assert (await unit.status())["connectionId"] == before["connectionId"]


def test_the_socket_starts_the_daemon(machine: Machine) -> None:
    machine.run("systemctl", "start", "waD.socket")
    assert machine.properties(SERVICE, "ActiveState") == {"ActiveState": "inactive"}
    status, answer = ask(machine, "waD")
    assert status == 0, answer
    assert json.loads(answer)["result"]["role"] == "admin"
    assert machine.properties(SERVICE, "ActiveState") == {"ActiveState": "active"}
    found = machine.path("/run/waD/control.sock").stat()
    group = int(machine.run("id", "-g", "waD"))
    assert (found.st_mode & 0o777, found.st_gid) == (0o660, group)


def test_roles_are_told_apart(machine: Machine) -> None:
    users = "\n".join(f"u {name} -" for name in ("wad-alice", "wad-bob", "wad-carol", "wad-eve"))
    members = "\n".join(f"m {name} waD" for name in ("wad-alice", "wad-bob", "wad-carol"))
    machine.write("/etc/sysusers.d/test.conf", f"{users}\n{members}\n")
    machine.run("systemd-sysusers", "test.conf")
    machine.path("/etc/waD/waD.toml").write_text(
        '[control.roles]\noperator = ["wad-alice"]\nobserver = ["@wad-bob"]\n'
    )
    machine.run("systemctl", "start", SERVICE)
    assert json.loads(ask(machine, "wad-alice")[1])["result"]["role"] == "operator"
    assert json.loads(ask(machine, "wad-bob")[1])["result"]["role"] == "observer"
    assert "result" not in json.loads(ask(machine, "wad-carol")[1]), "in the group, but without a role"
    status, answer = ask(machine, "wad-eve")
    assert status != 0
    assert "Permission denied" in answer


def test_a_broken_configuration_is_not_tried_again(machine: Machine) -> None:
    machine.path("/etc/waD/waD.toml").write_text("[outbox]\nrate = 5\nretention = 3\n")
    with pytest.raises(CommandError):
        machine.run("systemctl", "start", SERVICE)
    ended = machine.properties(SERVICE, "ActiveState", "Result", "ExecMainStatus", "NRestarts")
    assert ended == {"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "2", "NRestarts": "0"}
    assert "/etc/waD/waD.toml:3" in machine.journal("--unit", SERVICE)


def test_a_client_that_waits_does_not_start_a_broken_daemon_for_ever(machine: Machine) -> None:
    toml = machine.path("/etc/waD/waD.toml")
    toml.write_text("[outbox]\nretention = 3\n")
    machine.run("systemctl", "start", "waD.socket")
    status, answer = ask(machine, "waD")
    assert status != 0 or answer.strip() == ""
    socket = eventually(
        lambda: machine.properties("waD.socket", "Result"), lambda now: now["Result"] != "success"
    )
    assert socket["Result"] == "service-start-limit-hit"
    toml.write_text("")
    machine.run("systemctl", "reset-failed", SERVICE, "waD.socket")
    machine.run("systemctl", "start", SERVICE)
    assert ask(machine, "waD")[0] == 0


def test_a_secret_comes_as_a_credential(machine: Machine) -> None:
    """Follows the steps at the top of credentials.conf.example."""
    machine.write("/etc/waD/network.secret", '[network]\nproxy = "http://me:hunter2@127.0.0.1:9"\n', 0o600)
    example = machine.path("/usr/share/doc/waD/credentials.conf.example").read_text()
    machine.write("/etc/systemd/system/waD.service.d/credentials.conf", example)
    machine.run("ln", "-s", "/run/credentials/waD.service/network.toml", "/etc/waD/conf.d/90-network.toml")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", SERVICE)
    found = machine.path(CREDENTIAL).stat()
    assert (found.st_uid, found.st_mode & 0o777) == (int(machine.run("id", "-u", "waD")), 0o400)
    assert "/etc/waD/conf.d/90-network.toml" in ask(machine, "root", "daemon.info")[1]
    journal = machine.journal("--unit", SERVICE)
    assert "hunter2" not in journal
    assert "every user can read" not in journal
    status, output = machine.status("setpriv", "--reuid=nobody", "--clear-groups", "cat", CREDENTIAL)
    assert status != 0
    assert "hunter2" not in output


def test_a_secret_comes_encrypted(machine: Machine) -> None:
    """The other line of credentials.conf.example."""
    machine.write("/etc/waD/network.secret", '[network]\nproxy = "http://me:hunter2@127.0.0.1:9"\n', 0o600)
    example = machine.path("/usr/share/doc/waD/credentials.conf.example").read_text()
    plain, encrypted = "LoadCredential=network", "#LoadCredentialEncrypted=network"
    text = example.replace(f"\n{plain}", f"\n#{plain}").replace(encrypted, encrypted[1:])
    machine.write("/etc/systemd/system/waD.service.d/credentials.conf", text)
    machine.run("mkdir", "-p", "/etc/credstore.encrypted")
    target = "/etc/credstore.encrypted/waD.network.toml"
    host = ("--with-key=host", "--name=network.toml")
    machine.run("systemd-creds", "encrypt", *host, "/etc/waD/network.secret", target)
    assert b"hunter2" not in machine.path(target).read_bytes()
    machine.path("/etc/waD/network.secret").unlink()
    machine.run("ln", "-s", CREDENTIAL, "/etc/waD/conf.d/90-network.toml")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", SERVICE)
    assert "hunter2" in machine.path(CREDENTIAL).read_text()
    assert "/etc/waD/conf.d/90-network.toml" in ask(machine, "root", "daemon.info")[1]


async def test_the_journal_can_be_searched_by_session(machine: Machine, tmp_path: Path) -> None:
    async with run_sandbox() as sandbox:
        unit = Unit(tmp_path, machine, sandbox)
        await unit.systemctl("start", SERVICE)
        view = await unit.pair(sandbox)
        lines = await unit.run("journalctl", "--output=json", "--unit", SERVICE, "SESSION=alerts")
        assert lines
        assert json.loads(lines.splitlines()[0])["CONNECTION_ID"] == view["connectionId"]


def test_the_installed_units_are_sound(machine: Machine) -> None:
    said = machine.run(
        "systemd-analyze", "verify", "--man=no", "waD.service", "waD.socket", "waD-wait@x.service"
    )
    assert [line for line in said.splitlines() if "waD" in line] == []
    assert machine.run("waD", "--version").startswith("waD")
    assert "valid" in machine.run("waD", "--check-config")


def test_enabling_the_service_enables_the_socket(machine: Machine) -> None:
    machine.run("systemctl", "enable", SERVICE)
    for unit, target in ((SERVICE, "multi-user.target"), ("waD.socket", "sockets.target")):
        assert machine.run("systemctl", "is-enabled", unit).strip() == "enabled"
        assert machine.path(f"/etc/systemd/system/{target}.wants/{unit}").is_symlink()


async def test_other_units_can_wait_for_a_session(machine: Machine, tmp_path: Path) -> None:
    async with run_sandbox() as sandbox:
        unit = Unit(tmp_path, machine, sandbox)
        await unit.systemctl("start", SERVICE)
        await unit.pair(sandbox)
        await unit.systemctl("restart", SERVICE)
        await unit.systemctl("start", "waD-wait@alerts.service")
        assert (await unit.status())["state"] == "open"
