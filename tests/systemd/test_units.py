"""The units by the measures of systemd's own tools, without running them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.systemd.conftest import ROOT, make

MOST_EXPOSURE = 1.5
TASKS = ("waD-backup@.service", "waD-verify@.service")
TIMERS = ("waD-backup@.timer", "waD-verify@.timer")
UNITS = ("waD.service", "waD.socket", "waD-wait@.service", *TASKS, *TIMERS)


def tool(*command: str, check: bool = True) -> str:
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no {command[0]} on this machine")
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    assert done.returncode == 0 or not check, done.stdout
    return done.stdout


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The installed units, below a prefix where the programs they name exist."""
    make("install-files", f"PREFIX={tmp_path}", f"SYSCONFDIR={tmp_path / 'etc'}")
    for name in ("waD", "wactl"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    return tmp_path / "lib/systemd/system"


@pytest.mark.parametrize("name", UNITS)
def test_systemd_finds_no_fault(units: Path, name: str) -> None:
    path = units / name.replace("@.", "@alerts.")
    if not path.exists():
        path.symlink_to(name)
    said = tool("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(path))
    assert [line for line in said.splitlines() if "waD" in line or "wactl" in line] == []


def test_verification_would_see_a_fault(units: Path) -> None:
    unit = units / "waD.service"
    unit.write_text(unit.read_text().replace("ProtectClock=", "ProtectClocks="))
    assert "ProtectClocks" in tool("systemd-analyze", "verify", "--man=no", str(unit), check=False)


@pytest.mark.parametrize("name", ["waD.service", *TASKS])
def test_exposure_is_low(units: Path, name: str) -> None:
    said = tool("systemd-analyze", "security", "--offline=yes", "--no-pager", str(units / name))
    found = re.search(r"exposure level for waD\S*\.service: ([0-9.]+)", said)
    assert found, said
    assert float(found[1]) <= MOST_EXPOSURE


def test_users_stay_recognisable(units: Path) -> None:
    """In a user namespace the kernel would show every client but root and waD as nobody."""
    lines = (units / "waD.service").read_text().splitlines()
    assert not any(line.startswith("PrivateUsers=") for line in lines)


def test_the_accounts_and_directories_are_well_formed(units: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    lib = units.parent.parent
    tool("systemd-sysusers", f"--root={root}", str(lib / "sysusers.d/waD.conf"))
    assert re.search(r"^waD:.*:/var/lib/waD:.*nologin$", (root / "etc/passwd").read_text(), re.MULTILINE)
    assert "waD:" in (root / "etc/group").read_text()


def test_the_wait_unit_waits_less_than_systemd_does(units: Path) -> None:
    text = (units / "waD-wait@.service").read_text()
    asked = re.search(r"ready --wait --timeout (\d+) %I", text)
    given = re.search(r"^TimeoutStartSec=(\d+)$", text, re.MULTILINE)
    assert asked
    assert given
    assert int(asked[1]) < int(given[1])


def test_the_manual_is_clean() -> None:
    said = tool("groff", "-man", "-ww", "-Tutf8", "-z", str(ROOT / "man/waD.8"))
    assert said == ""


def test_the_manual_names_every_option_and_unit() -> None:
    page = (ROOT / "man/waD.8").read_text().replace("\\-", "-")
    for word in (
        "--config",
        "--check-config",
        "--version",
        "--help",
        "waD.service",
        "waD.socket",
        "waD-wait@NAME",
    ):
        assert word in page
