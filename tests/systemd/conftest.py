"""An installation to look at, and a private systemd that runs it."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from tests.systemd.machine import Impossible, Machine, booted
from tests.systemd.wheels import closure, repack

ROOT = Path(__file__).resolve().parent.parent.parent
MAKE_S = 240.0
check = runpy.run_path(str(ROOT / "systemd/check_interpreter.py"))


def make(*arguments: str, status: int = 0, variables: Mapping[str, str] = MappingProxyType({})) -> str:
    """Run make without what an outer make or a user's pip settings would add; returns what it says."""
    unwanted = ("MAKE", "MFLAGS", "PIP_", "DESTDIR", "PREFIX", "PYTHON")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    done = subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env=environment | {"PIP_CONFIG_FILE": os.devnull, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=MAKE_S,
        text=True,
    )
    assert done.returncode == status, done.stdout
    return done.stdout


def service_python() -> str | None:
    """An interpreter that the service could run with, and for which this environment's packages are made."""
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for candidate in (
        sys.executable,
        shutil.which(name, path="/usr/bin"),
        shutil.which(name, path="/usr/local/bin"),
    ):
        if candidate is None:
            continue
        asks = "import sys, ensurepip; print(sys._base_executable)"
        done = subprocess.run([candidate, "-c", asks], capture_output=True, text=True, timeout=60)
        base = done.stdout.strip()
        if done.returncode == 0 and check["complaint"](os.path.realpath(base), sys.version_info[:2]) is None:
            return base
    return None


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with all that an installation takes from an index otherwise."""
    directory = tmp_path_factory.mktemp("wheels")
    needed = closure("wactl", "hatchling")
    del needed["wactl"]
    for installed in needed.values():
        repack(installed, directory)
    return directory


@pytest.fixture(scope="session")
def python() -> str:
    """An interpreter for `make install PYTHON=`."""
    if (found := service_python()) is None:
        version = ".".join(map(str, sys.version_info[:2]))
        pytest.skip(f"no Python {version} with venv outside of home directories")
    return found


@pytest.fixture(scope="session")
def layer(tmp_path_factory: pytest.TempPathFactory, wheels: Path, python: str) -> Path:
    """The result of `make install DESTDIR=... PREFIX=/usr`, made without a network."""
    target = tmp_path_factory.mktemp("installed")
    index = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    make("install", f"DESTDIR={target}", "PREFIX=/usr", f"PYTHON={python}", variables=index)
    return target


@pytest.fixture
def machine(layer: Path) -> Iterator[Machine]:
    """A private systemd with waD installed and its user made, nothing started."""
    try:
        with booted(layer) as made:
            made.run("systemd-sysusers", "waD.conf")
            made.run("systemd-tmpfiles", "--create", "waD.conf")
            yield made
    except Impossible as why:
        pytest.skip(f"no private systemd: {why}")
