"""The private systemd itself: that it is private, and that it says why it cannot be."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

from tests.systemd import machine as machine_module
from tests.systemd.machine import CommandError, Impossible, Machine, booted


def mounts() -> list[str]:
    return sorted(Path("/proc/self/mountinfo").read_text().splitlines())


def machines() -> set[int]:
    """Processes that are the first of a private systemd."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if b"waD-test.target" in (entry / "cmdline").read_bytes():
                    found.add(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def test_it_leaves_no_trace(tmp_path: Path) -> None:
    before = (mounts(), socket.gethostname())
    layer = tmp_path / "layer"
    (layer / "etc").mkdir(parents=True)
    (layer / "etc/waD-layer").write_text("from the layer")
    try:
        with booted(layer) as machine:
            assert machine.run("cat", "/etc/waD-layer") == "from the layer"
            assert "systemd" in machine.run("cat", "/proc/1/comm")
            machine.run("hostname", "inside")
            machine.run("touch", "/etc/waD-was-here", f"{tmp_path}/waD-was-here", check=False)
            mine = set(map(int, machine.root.parts[2:3]))
            assert mine <= machines()
    except Impossible as why:
        pytest.skip(f"no private systemd: {why}")
    assert (mounts(), socket.gethostname()) == before
    assert not Path("/etc/waD-was-here").exists()
    assert not Path("/etc/waD-layer").exists()
    assert not (tmp_path / "waD-was-here").exists()
    assert not mine & machines()


def test_it_starts_nothing_of_this_machines(machine: Machine) -> None:
    units = machine.run(
        "systemctl", "list-units", "--type=service", "--state=running", "--plain", "--no-legend"
    )
    assert [line.split()[0] for line in units.splitlines()] == ["systemd-journald.service"]


def test_a_command_that_fails_or_hangs_is_told(machine: Machine) -> None:
    with pytest.raises(CommandError, match="exit status 3"):
        machine.run("sh", "-c", "exit 3")
    with pytest.raises(CommandError, match="not done in"):
        machine.run("sleep", "60", timeout_s=0.2)


def test_why_it_cannot_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(Impossible, match="needs root"), booted(tmp_path):
            pass
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "unshare" else f"/usr/bin/{name}")
    monkeypatch.setattr(machine_module, "INIT", tmp_path / "systemd")
    with pytest.raises(Impossible, match=r"needs unshare, .*/systemd"), booted(tmp_path):
        pass
