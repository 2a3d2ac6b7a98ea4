"""What `make install` lays down, what it leaves alone, and what it refuses."""

from __future__ import annotations

import os
import runpy
import stat
import subprocess
from pathlib import Path

import pytest

from tests.systemd.conftest import ROOT, check, make

launcher = runpy.run_path(str(ROOT / "systemd/launcher.py"))["launcher"]

MODES = {
    "etc/waD": 0o750,
    "etc/waD/conf.d": 0o750,
    "etc/waD/waD.toml": 0o640,
    "usr/lib/systemd/system/waD.service": 0o644,
    "usr/lib/systemd/system/waD.socket": 0o644,
    "usr/lib/systemd/system/waD-wait@.service": 0o644,
    "usr/lib/systemd/system/waD-backup@.service": 0o644,
    "usr/lib/systemd/system/waD-backup@.timer": 0o644,
    "usr/lib/systemd/system/waD-verify@.service": 0o644,
    "usr/lib/systemd/system/waD-verify@.timer": 0o644,
    "usr/lib/sysusers.d/waD.conf": 0o644,
    "usr/lib/tmpfiles.d/waD.conf": 0o644,
    "usr/share/man/man5/waD.toml.5": 0o644,
    "usr/share/man/man7/waD-control.7": 0o644,
    "usr/share/man/man8/waD.8": 0o644,
    "usr/share/doc/waD/backup.conf.example": 0o644,
    "usr/share/doc/waD/backup.md": 0o644,
    "usr/share/doc/waD/credentials.conf.example": 0o644,
    "usr/share/doc/waD/postgres.md": 0o644,
    "usr/share/doc/waD/waD.toml.example": 0o644,
}
PROGRAMS = {"usr/lib/waD/bin/waD": 0o755, "usr/lib/waD/bin/wactl": 0o755}


def files(target: Path, *more: str) -> Path:
    make("install-files", f"DESTDIR={target}", "PREFIX=/usr", *more)
    return target


def modes(target: Path, names: dict[str, int]) -> dict[str, int]:
    return {name: stat.S_IMODE((target / name).lstat().st_mode) for name in names}


def service(target: Path) -> list[str]:
    return (target / "usr/lib/systemd/system/waD.service").read_text().splitlines()


def test_everything_is_where_distributions_expect_it(layer: Path) -> None:
    assert modes(layer, MODES) == MODES
    assert modes(layer, PROGRAMS) == PROGRAMS
    for name in ("waD", "wactl"):
        link = layer / "usr/bin" / name
        assert link.is_symlink()
        assert link.resolve() == layer / "usr/lib/waD/bin" / name
    pages = {page.name for page in (ROOT / "man").glob("*.[1-8]")}
    assert pages == {page.name for page in (layer / "usr/share/man").rglob("*.[1-8]")}


def test_nothing_installed_can_be_changed_by_others(layer: Path) -> None:
    writable = [path for path in layer.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o022]
    assert writable == []


def test_nothing_installed_knows_the_staging_directory(layer: Path) -> None:
    stage = os.fsencode(layer)
    packages = layer / "usr/lib/waD/lib"
    own = [
        path
        for path in layer.rglob("*")
        if path.is_file() and not path.is_symlink() and packages not in path.parents
    ]
    own += [path for path in packages.rglob("waD/**/*") if path.is_file()]
    told = [path for path in own if path.name != "pyvenv.cfg" and stage in path.read_bytes()]
    assert own
    assert told == []


def test_the_installed_programs_work_before_they_are_moved_into_place(layer: Path) -> None:
    python = layer / "usr/lib/waD/bin/python"
    asked = [str(python), "-I", "-m", "waD", "--version"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("waD, version ")
    compiled = list((layer / "usr/lib/waD/lib").rglob("waD/__pycache__/daemon.*.pyc"))
    assert len(compiled) == 1, "the service cannot write byte code itself"
    assert b"/usr/lib/waD/lib/" in compiled[0].read_bytes()


def test_the_environment_holds_no_installer(layer: Path) -> None:
    (site,) = (layer / "usr/lib/waD/lib").glob("python3*/site-packages")
    assert not (site / "pip").exists()
    assert (site / "trio").is_dir()
    assert not (site / "pytest").exists()


def test_settings_are_never_overwritten(tmp_path: Path) -> None:
    target = files(tmp_path / "stage")
    toml = target / "etc/waD/waD.toml"
    assert toml.read_text() == (ROOT / "etc/waD.toml").read_text()
    toml.write_text("[outbox]\nrate = 5\n")
    toml.chmod(0o600)
    files(target)
    assert toml.read_text() == "[outbox]\nrate = 5\n"
    assert stat.S_IMODE(toml.stat().st_mode) == 0o600


def test_uninstall_leaves_what_is_the_operators(tmp_path: Path) -> None:
    target = files(tmp_path / "stage")
    (target / "usr/lib/waD/bin").mkdir(parents=True)
    (target / "usr/bin").mkdir()
    (target / "usr/bin/waD").symlink_to("../lib/waD/bin/waD")
    (target / "usr/bin/other").touch()
    make("uninstall", f"DESTDIR={target}", "PREFIX=/usr")
    left = {str(path.relative_to(target)) for path in target.rglob("*") if not path.is_dir()}
    assert left == {"etc/waD/waD.toml", "usr/bin/other"}


def test_another_prefix(tmp_path: Path) -> None:
    make("install-files", f"DESTDIR={tmp_path}")
    unit = tmp_path / "usr/local/lib/systemd/system/waD.service"
    assert "ExecStart=/usr/local/bin/waD" in unit.read_text().splitlines()
    assert (tmp_path / "etc/waD/waD.toml").is_file()


def test_units_name_what_was_installed(tmp_path: Path) -> None:
    make("install-files", f"DESTDIR={tmp_path}", "PREFIX=/opt/waD")
    for task in ("backup", "verify"):
        text = (tmp_path / f"opt/waD/lib/systemd/system/waD-{task}@.service").read_text()
        assert f"exec /opt/waD/bin/wactl {task}-auth " in text
        (page,) = [line for line in text.splitlines() if line.startswith("Documentation=file:")]
        assert (tmp_path / page.partition("file:/")[2]).is_file()


@pytest.mark.parametrize("version", ["252", "249", ""])
def test_before_253_a_reload_is_a_signal(tmp_path: Path, version: str) -> None:
    lines = service(files(tmp_path, f"SYSTEMD_VERSION={version}"))
    assert "Type=notify" in lines
    assert "ExecReload=/bin/kill -HUP $MAINPID" in lines
    assert not any("@" in line for line in lines if not line.startswith("SystemCallFilter"))


@pytest.mark.parametrize("version", ["253", "257"])
def test_from_253_on_systemd_waits_for_a_reload(tmp_path: Path, version: str) -> None:
    lines = service(files(tmp_path, f"SYSTEMD_VERSION={version}"))
    assert "Type=notify-reload" in lines
    assert not any(line.startswith(("ExecReload", "@")) for line in lines)


def test_completions_go_where_shells_look(tmp_path: Path) -> None:
    places = {
        "wactl.bash": "usr/share/bash-completion/completions/wactl",
        "wactl.zsh": "usr/share/zsh/site-functions/_wactl",
        "wactl.fish": "usr/share/fish/vendor_completions.d/wactl.fish",
    }
    target = files(tmp_path)
    there = {name for name in places if (ROOT / "completion" / name).is_file()}
    assert {name for name, place in places.items() if (target / place).is_file()} == there


def test_a_failed_installation_leaves_the_old_one(tmp_path: Path, python: str) -> None:
    old = tmp_path / "usr/lib/waD/bin/waD"
    old.parent.mkdir(parents=True)
    old.write_text("the old one")
    nothing = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    where = (f"DESTDIR={tmp_path}", "PREFIX=/usr", f"PYTHON={python}")
    assert "hatchling" in make("install-python", *where, status=2, variables=nothing)
    assert old.read_text() == "the old one"


@pytest.mark.parametrize("path", ["/root/.local/bin/python3", "/home/me/bin/python3"])
def test_an_interpreter_that_the_service_cannot_see_is_refused(path: str) -> None:
    complaint = check["complaint"](path, (3, 12))
    assert path in complaint
    assert "PYTHON=" in complaint


def test_an_old_interpreter_is_refused() -> None:
    assert "3.11" in check["complaint"]("/usr/bin/python3.9", (3, 9))
    assert check["complaint"]("/usr/bin/python3.11", (3, 11)) is None


def test_a_launcher_is_isolated_and_refuses_what_a_kernel_would_cut() -> None:
    assert launcher("/usr/lib/waD/bin/python", "wactl").startswith("#!/usr/lib/waD/bin/python -I\n")
    for path in ("/opt/" + "x" * 130 + "/python", "/opt/my programs/python"):
        with pytest.raises(ValueError, match="PREFIX"):
            launcher(path, "waD")
