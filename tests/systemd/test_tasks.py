"""Backup and check without an operator: what the units run, when, and whom they tell."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.systemd.conftest import ROOT, make
from tests.systemd.machine import Machine
from tests.systemd.unit import eventually

RECIPIENTS = ("age1first", "age1second")
WITNESS = """#!/bin/sh
# Stands for wactl: writes down how it was called, and behaves as told.
printf '%s\\n' "$@" >{log}
echo spoken
[ "$1" != backup-auth ] || touch /var/backups/waD/archive
{then}
"""


class Installed:
    """The units below a prefix, with a wactl that writes down its arguments."""

    def __init__(self, directory: Path) -> None:
        make("install-files", f"PREFIX={directory}", f"SYSCONFDIR={directory / 'etc'}")
        self.units = directory / "lib/systemd/system"
        self.log = directory / "log"
        program = directory / "bin/wactl"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" >{self.log}\n")
        program.chmod(0o755)

    def setting(self, unit: str, name: str) -> str:
        """One setting, continued lines joined as systemd does."""
        text = (self.units / unit).read_text().replace("\\\n", " ")
        (found,) = re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)
        return str(found)

    def run(
        self, unit: str, instance: str, unescaped: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run what the unit runs, as systemd would read it."""
        words = shlex.split(self.setting(unit, "ExecStart"))
        command = [word.replace("%i", instance).replace("%I", unescaped).replace("$$", "$") for word in words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    def called(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return Installed(tmp_path / "usr")


NAMES = pytest.mark.parametrize(
    ("instance", "unescaped", "arguments"),
    [
        ("all", "all", ["--all"]),
        ("alerts", "alerts", ["alerts"]),
        ("my-shop", "my/shop", ["my-shop"]),
        (r"my\x2dshop", "my-shop", ["my-shop"]),
    ],
)
"""systemd takes a dash of an instance for an escaped slash; most people do not know."""


@NAMES
def test_what_a_backup_runs(
    installed: Installed, instance: str, unescaped: str, arguments: list[str]
) -> None:
    settings = {"RECIPIENT": " ".join(RECIPIENTS), "DIRECTORY": "/a directory", "KEEP": "2d"}
    done = installed.run("waD-backup@.service", instance, unescaped, **settings)
    assert (done.returncode, done.stderr) == (0, "")
    recipients = [word for name in RECIPIENTS for word in ("--recipient", name)]
    assert installed.called() == [
        "backup-auth", *arguments, *recipients, "-o", "/a directory", "--keep", "2d",
    ]  # fmt: skip


@NAMES
def test_what_a_check_runs(installed: Installed, instance: str, unescaped: str, arguments: list[str]) -> None:
    done = installed.run("waD-verify@.service", instance, unescaped)
    assert (done.returncode, done.stderr) == (0, "")
    assert installed.called() == ["verify-auth", "--level", "3", "--quiet", *arguments]


@pytest.mark.parametrize("environment", [{}, {"RECIPIENT": ""}])
def test_without_a_recipient_there_is_no_backup(installed: Installed, environment: dict[str, str]) -> None:
    done = installed.run("waD-backup@.service", "all", "all", **environment)
    assert done.returncode != 0
    assert "RECIPIENT" in done.stderr
    assert "/etc/waD/backup.conf" in done.stderr
    assert not installed.log.exists()


def test_recipients_are_words_and_not_patterns(installed: Installed, tmp_path: Path) -> None:
    installed.run("waD-backup@.service", "all", "all", RECIPIENT=f"{tmp_path}/*", DIRECTORY="d", KEEP="k")
    assert f"{tmp_path}/*" in installed.called()


def test_defaults_stand_in_the_unit_and_the_example(installed: Installed) -> None:
    defaults = dict(
        word.split("=") for word in installed.setting("waD-backup@.service", "Environment").split()
    )
    assert defaults == {"DIRECTORY": "/var/backups/waD", "KEEP": "7d4w6m"}
    example = (ROOT / "systemd/backup.conf.example").read_text()
    assert all(f"#{name}={value}\n" in example for name, value in defaults.items())
    assert re.search(r'^RECIPIENT="age1\.\.\."$', example, re.MULTILINE)


def test_when_they_run(installed: Installed) -> None:
    for unit, calendar in (("waD-backup@.timer", "daily"), ("waD-verify@.timer", "hourly")):
        assert installed.setting(unit, "OnCalendar") == calendar
        assert installed.setting(unit, "Persistent") == "true"
        assert installed.setting(unit, "RandomizedDelaySec") in ("1h", "10min")


# In a real systemd

BACKUP = "waD-backup@all.service"


def pretend(machine: Machine, then: str) -> None:
    """Put a program in the place of wactl."""
    machine.path("/usr/bin/wactl").unlink()
    machine.write("/usr/bin/wactl", WITNESS.format(log="/var/lib/waD/called", then=then), 0o755)


def set_up(machine: Machine) -> None:
    machine.write("/etc/waD/backup.conf", f'RECIPIENT="{" ".join(RECIPIENTS)}"\n')
    machine.write(
        "/etc/systemd/system/alarm@.service", "[Service]\nType=oneshot\nExecStart=/bin/touch /run/%i\n"
    )
    for task in ("backup", "verify"):
        machine.write(
            f"/etc/systemd/system/waD-{task}@.service.d/alarm.conf", "[Unit]\nOnFailure=alarm@%p.service\n"
        )
    machine.run("systemctl", "daemon-reload")


def test_a_backup_is_made_in_silence(machine: Machine) -> None:
    set_up(machine)
    pretend(machine, "exit 0")
    machine.run("systemctl", "start", BACKUP)
    assert machine.path("/var/lib/waD/called").read_text().splitlines() == [
        "backup-auth", "--all", "--recipient", "age1first", "--recipient", "age1second",
        "-o", "/var/backups/waD", "--keep", "7d4w6m",
    ]  # fmt: skip
    assert machine.run("stat", "--format=%U %a", "/var/backups/waD/archive") == "waD 600\n"
    assert machine.journal("--unit", BACKUP) == ""
    assert not machine.path("/run/waD-backup").exists()


@pytest.mark.parametrize(("task", "status"), [("backup", 1), ("verify", 6)])
def test_a_failure_is_told(machine: Machine, task: str, status: int) -> None:
    set_up(machine)
    pretend(machine, f"echo the reason >&2; exit {status}")
    unit = f"waD-{task}@all.service"
    assert machine.status("systemctl", "start", unit)[0] != 0
    assert machine.properties(unit, "ExecMainStatus", "Result") == {
        "ExecMainStatus": str(status),
        "Result": "exit-code",
    }
    assert "the reason" in machine.journal("--unit", unit, "--priority", "warning")
    assert eventually(machine.path(f"/run/waD-{task}").exists, bool)


def test_they_reach_the_daemon_and_nothing_else(machine: Machine) -> None:
    set_up(machine)
    tries = (
        "/usr/lib/waD/bin/python -Ic 'import socket; s = socket.socket(socket.AF_UNIX); "
        's.connect("/run/waD/control.sock")\' || exit 10; '
        "touch /etc/waD/x /usr/x /var/backups/x 2>/dev/null && exit 11; "
        "/usr/lib/waD/bin/python -Ic 'import socket; socket.socket(socket.AF_INET)' 2>/dev/null && exit 12; exit 0"
    )
    pretend(machine, tries)
    machine.run("systemctl", "start", "waD.socket")
    for task in ("backup", "verify"):
        machine.run("systemctl", "start", f"waD-{task}@all.service")


def test_timers_can_be_enabled(machine: Machine) -> None:
    for task in ("backup", "verify"):
        timer = f"waD-{task}@all.timer"
        machine.run("systemctl", "enable", "--now", timer)
        assert machine.path(f"/etc/systemd/system/timers.target.wants/{timer}").is_symlink()
        shown = machine.properties(timer, "ActiveState", "Unit")
        assert shown == {"ActiveState": "active", "Unit": f"waD-{task}@all.service"}
