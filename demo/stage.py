"""What the demonstration plays on: directories, processes, and a printed line before each command's output."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

BIN: Final = Path(sys.executable).parent
WAIT_S: Final = 60.0
POLL_S: Final = 0.1

_TOML: Final = """\
# What points this daemon at the sandbox instead of WhatsApp; nothing else differs from the defaults.
[network]
url = "{url}"
root_key = "{root_key}"
"""


class DemoError(Exception):
    """Something did not go as it should; the message says what."""


def say(text: str) -> None:
    """A line of our own."""
    print(f"\n# {text}", flush=True)


def show(command: list[str], note: str = "") -> None:
    """The command line as a person would type it."""
    print(f"$ {shlex.join(command)}{note}", flush=True)


def until(what: str, found: Callable[[], Any]) -> Any:
    """Ask again and again until there is an answer."""
    deadline = time.monotonic() + WAIT_S
    while not (answer := found()):
        if time.monotonic() > deadline:
            raise DemoError(f"waited {WAIT_S:g} s in vain for {what}")
        time.sleep(POLL_S)
    return answer


class Stage:
    """A temporary home with a sandbox and a daemon.

    Args:
        home: an empty directory.

    Attributes:
        sandbox: what the sandbox said of itself.
        daemon: the running daemon.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.config = home / "waD.toml"
        self.sandbox: dict[str, Any] = {}
        self.daemon: subprocess.Popen[bytes] | None = None
        self._others: list[subprocess.Popen[Any]] = []
        (home / "run").mkdir(mode=0o700)
        keep = {name: value for name, value in os.environ.items() if not name.startswith(("WAD_", "XDG_"))}
        self.environment = {
            **keep,
            "PATH": f"{BIN}:{os.environ.get('PATH', '')}",
            "XDG_RUNTIME_DIR": str(home / "run"),
            "XDG_STATE_HOME": str(home / "state"),
            "XDG_CONFIG_HOME": str(home / "config"),
        }

    # Processes.

    def start_sandbox(self) -> None:
        """A WhatsApp server with phones, on any free port of this machine."""
        command = ["wactl", "sandbox", "run", "--port", "0", "--json"]
        show(command, " &")
        process = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, text=True)
        self._others.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise DemoError("the sandbox did not start")
        self.sandbox = json.loads(line)
        self.environment["WAD_SANDBOX_URL"] = self.sandbox["adminUrl"]
        print(f"sandbox {self.sandbox['url']}, Noise root key {self.sandbox['rootKey']}")
        self.config.write_text(_TOML.format(url=self.sandbox["url"], root_key=self.sandbox["rootKey"]))

    def start_daemon(self) -> None:
        """The daemon; returns when it answers."""
        command = ["waD", "--config", str(self.config)]
        show(command, " &")
        log = (self.home / "waD.log").open("ab")
        self.daemon = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        log.close()
        until("the daemon", lambda: self._alive() and self.quiet("wactl", "ping").returncode == 0)

    def _alive(self) -> bool:
        assert self.daemon is not None
        if self.daemon.poll() is not None:
            raise DemoError(f"the daemon ended: {(self.home / 'waD.log').read_text()[-2000:]}")
        return True

    def kill_daemon(self) -> None:
        """As hard as the kernel allows."""
        assert self.daemon is not None
        show(["kill", "-KILL", str(self.daemon.pid)])
        self.daemon.kill()
        self.daemon.wait()
        self.daemon = None

    def stop(self) -> None:
        """End everything."""
        processes = [*self._others, *([self.daemon] if self.daemon else [])]
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            try:
                process.wait(WAIT_S)
            except subprocess.TimeoutExpired:
                process.kill()

    # Commands.

    def quiet(self, *command: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """A command nobody sees."""
        return subprocess.run(
            command, env=self.environment, input=text, capture_output=True, text=True, check=False
        )

    def json(self, *command: str) -> Any:
        """What a command prints as JSON, unseen: for our own checks."""
        done = self.quiet(*command, "--json")
        if done.returncode:
            raise DemoError(f"{shlex.join(command)} ended with {done.returncode}: {done.stderr}")
        lines = [json.loads(line) for line in done.stdout.splitlines() if line]
        return lines[0] if len(lines) == 1 else lines

    def run(self, *command: str, status: int = 0) -> None:
        """A command with its output on the stage."""
        show(list(command))
        done = subprocess.run(command, env=self.environment, check=False)
        if done.returncode != status:
            raise DemoError(f"{shlex.join(command)} ended with {done.returncode} instead of {status}")

    @contextmanager
    def beside(self, *command: str) -> Iterator[None]:
        """A command that goes on while the block does something; it has to end well by itself."""
        show(list(command))
        process = subprocess.Popen(command, env=self.environment)
        try:
            yield
            if process.wait(WAIT_S):
                raise DemoError(f"{shlex.join(command)} ended with {process.returncode}")
        finally:
            process.kill()
            process.wait()
