"""A room sees only rooms on lower floors; this keeps the arrows of docs/architecture.md true."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

FLOORS: dict[str, tuple[str, ...]] = {
    "waD.crashpoints": (),
    "waD.proto": ("waD.proto",),
    "waD.e2ee": ("waD.e2ee", "waD.proto"),
    # Noise needs the curve and the key derivation, and a second copy of either would be a second truth.
    "waD.wire": ("waD.wire", "waD.proto", "waD.e2ee.curve", "waD.e2ee.kdf"),
    "waD.store": ("waD.store",),
    "waD.events": ("waD.events", "waD.store"),
    "waD.link": ("waD.link", "waD.wire", "waD.proto", "waD.e2ee", "waD.store"),
    "waD.messaging": (
        "waD.messaging", "waD.link", "waD.wire", "waD.e2ee", "waD.proto", "waD.store", "waD.events",
    ),
    "waD.control": ("waD.control",),
    "waD.config": ("waD.config",),
    "waD.logs": ("waD.logs",),
    "waD.systemd": ("waD.systemd",),
    "waD.session": (
        "waD.session", "waD.messaging", "waD.link", "waD.wire", "waD.e2ee", "waD.proto", "waD.store",
        "waD.events", "waD.control", "waD.config", "waD.transfer",
    ),
    "waD.transfer": (
        "waD.transfer", "waD.messaging", "waD.link", "waD.wire", "waD.e2ee", "waD.proto", "waD.store", "waD.events",
    ),
    "waD.sandbox": ("waD.sandbox", "waD.wire", "waD.e2ee", "waD.proto"),
    "waD.daemon": (
        "waD.session", "waD.messaging", "waD.link", "waD.wire", "waD.store", "waD.events", "waD.control",
        "waD.config", "waD.logs", "waD.systemd", "waD.transfer",
    ),
    "waD.__main__": ("waD.daemon",),
    "waD.offline": (
        "waD.daemon", "waD.session", "waD.store", "waD.events", "waD.control", "waD.config",
    ),
    "waD.migrate": ("waD.session", "waD.store", "waD.config", "waD.transfer"),
    # Which files a directory keeps is one truth for those who make backups and those who judge their names.
    "wactl": ("wactl", "waD.control.types", "waD.control.paths", "waD.transfer.retention"),
}  # fmt: skip

VERSION = "waD.__version__"
"""Stands above all rooms, and belongs to each."""
SANS_IO = ("waD.wire", "waD.e2ee")
IO_MODULES = {"trio", "trio_websocket", "socket", "ssl", "select", "threading", "time", "random", "secrets"}
HEAVY = {"trio", "cryptography", "google.protobuf", "structlog"}


def _module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _within(name: str, room: str) -> bool:
    return name == room or name.startswith(room + ".")


def _room(module: str) -> str | None:
    return next((room for room in FLOORS if _within(module, room)), None)


def imports(source: str) -> Iterator[tuple[int, str]]:
    """Every module or name imported anywhere in a source, with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def violations(module: str, source: str) -> list[str]:
    """What a module imports from a floor it may not see."""
    room = _room(module)
    if room is None:
        return [f"{module}: its room is in no floor of the table"]
    found: list[str] = []
    for line, name in imports(source):
        top = name.partition(".")[0]
        if top in ("waD", "wactl"):
            allowed = name == VERSION or any(_within(name, floor) for floor in FLOORS[room])
            if not allowed and not (room != "wactl" and _within(name, "waD.crashpoints")):
                found.append(f"{module}:{line}: {room} may not import {name}")
        elif room in SANS_IO and top in IO_MODULES:
            found.append(f"{module}:{line}: {room} does no input or output, but imports {name}")
    return found


def _modules() -> list[Path]:
    paths = [path for package in ("waD", "wactl") for path in sorted((ROOT / package).rglob("*.py"))]
    return [path for path in paths if not path.name.endswith("_pb2.py") and _module_name(path) != "waD"]


@pytest.mark.parametrize("path", _modules(), ids=_module_name)
def test_no_module_sees_a_higher_floor(path: Path) -> None:
    assert violations(_module_name(path), path.read_text()) == []


@pytest.mark.parametrize(
    ("module", "source", "complaints"),
    [
        ("waD.wire.noise", "from waD.e2ee.curve import agree", 0),
        ("waD.wire.noise", "from waD.e2ee.session import encrypt", 1),
        ("waD.wire.noise", "def late():\n    import trio", 1),
        ("waD.sandbox.core", "from waD.link import connection", 1),
        ("waD.store.model", "from waD import wire", 1),
        ("wactl.main", "from waD.control.types import Request", 0),
        ("wactl.main", "from waD.control.paths import default_socket", 0),
        ("wactl.main", "import waD.control.server", 1),
        ("waD.attic.box", "", 1),
    ],
)
def test_the_check_sees_what_it_should(module: str, source: str, complaints: int) -> None:
    assert len(violations(module, source)) == complaints


def test_the_command_line_stays_light() -> None:
    main = ROOT / "wactl" / "main.py"
    source = "import wactl.main" if main.exists() else "import wactl"
    code = f"{source}; import sys; print(sorted(set(sys.modules) & {HEAVY!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
