"""waD as a service of a private systemd, talked to like the daemon processes of the end-to-end tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import trio

from tests.e2e.daemon import Daemon, DaemonError
from tests.systemd.machine import Machine
from waD.sandbox import Sandbox

T = TypeVar("T")
PATIENCE_S = 60.0
SERVICE = "waD.service"
ASK = f"""
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout({PATIENCE_S})
s.connect("/run/waD/control.sock")
s.sendall(b'{{"jsonrpc":"2.0","id":1,"method":"%s"}}\\n' % sys.argv[1].encode())
print(s.makefile().readline())
"""
"""Calls a method from inside."""


class Unit(Daemon):
    """The installed unit, configured for a sandbox."""

    def __init__(self, directory: Path, machine: Machine, sandbox: Sandbox) -> None:
        super().__init__(directory, sandbox)
        self.machine = machine
        self.socket = machine.path("/run/waD/control.sock")
        self.configure(self.config.read_text())

    def configure(self, text: str) -> None:
        """Replace the settings as an operator would."""
        self.machine.path("/etc/waD/waD.toml").write_text(text)

    async def run(self, *command: str) -> str:
        """Run a command inside, while the sandbox goes on."""
        return await trio.to_thread.run_sync(lambda: self.machine.run(*command))

    async def systemctl(self, *arguments: str) -> str:
        """Call systemctl."""
        return await self.run("systemctl", *arguments)

    async def show(self, *names: str) -> dict[str, str]:
        """Properties of the service."""
        return await trio.to_thread.run_sync(lambda: self.machine.properties(SERVICE, *names))

    async def shows(self, **wanted: str) -> None:
        """Wait until the service has these properties."""
        found = await trio.to_thread.run_sync(
            lambda: eventually(lambda: self.machine.properties(SERVICE, *wanted), lambda now: now == wanted)
        )
        if found != wanted:
            raise self.failure(f"the service does not become {wanted}; it is {found}")

    async def said(self, text: str) -> None:
        """Wait until the journal has a text."""
        found = await trio.to_thread.run_sync(
            lambda: eventually(
                lambda: self.machine.journal("--unit", SERVICE), lambda journal: text in journal
            )
        )
        if text not in found:
            raise self.failure(f"the journal does not say {text!r}")

    def failure(self, message: str) -> DaemonError:
        """An error with the journal."""
        return DaemonError(f"{message}\n{self.machine.journal('--no-hostname')[-6000:]}")


def eventually(look: Callable[[], T], there: Callable[[T], bool]) -> T:
    """Look until it is there, or patience ends; returns what was seen last."""
    deadline = time.monotonic() + PATIENCE_S
    while not there(found := look()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def set_up(machine: Machine, drop_in: str) -> None:
    """Change the service by a drop-in."""
    machine.write("/etc/systemd/system/waD.service.d/test.conf", drop_in)
    machine.run("systemctl", "daemon-reload")


def ask(machine: Machine, user: str, method: str = "daemon.ping") -> tuple[int, str]:
    """Call a method as a user of the machine; returns exit status and answer."""
    as_user = ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups")
    return machine.status(
        *as_user, "/usr/lib/waD/bin/python", "-I", "-c", ASK, method, timeout_s=PATIENCE_S + 5
    )


def kill(machine: Machine, signal: str) -> None:
    """Signal the daemon's process."""
    machine.run("kill", f"-{signal}", machine.properties(SERVICE, "MainPID")["MainPID"])


__all__ = ["PATIENCE_S", "SERVICE", "Unit", "ask", "eventually", "kill", "set_up"]
