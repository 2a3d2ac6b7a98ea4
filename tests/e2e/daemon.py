"""A waD process under test, and what its control socket says.

Policy: loopback and Unix sockets only, any free port, conditions instead of sleeping, an end to every wait.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import trio

from tests.control.client import Client, Refused
from waD.sandbox import Sandbox

ALICE = "15550000001"
BOB = "15550000002"
CAROL = "15550000003"
START_S = 30.0
WAIT_S = 25.0
"""Shorter than the control client's patience, so that a failure shows the log."""

_TOML = """
[network]
url = "{url}"
root_key = "{root_key}"
{network}

[outbox]
rate = 0
new_conversation_interval = 0

[reconnect]
base = 50
jitter = 50
{more}
"""


class DaemonError(AssertionError):
    """The daemon did not do what the test needs; the message ends with its log."""


class Running(Protocol):
    """What the tests need of a process; `trio.Process` is one."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def send_signal(self, sig: signal.Signals) -> None: ...

    def kill(self) -> None: ...

    async def wait(self) -> int: ...


class Daemon:
    """One state directory and the daemon processes that use it, one after the other.

    Attributes:
        process: the running process, or None.
    """

    def __init__(self, directory: Path, sandbox: Sandbox, *, more: str = "", network: str = "") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.socket = directory / "run" / "waD" / "control.sock"
        self.log = directory / "log"
        self.config = directory / "waD.toml"
        if sandbox.ca_file is not None:
            network += f'\nca_file = "{sandbox.ca_file}"'
        self.config.write_text(
            _TOML.format(url=sandbox.url, root_key=sandbox.root_key.hex(), network=network, more=more)
        )
        self.process: Running | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Variables for the daemon and for `wactl`."""
        keep = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "WAD_"))}
        (self.directory / "run").mkdir(mode=0o700, exist_ok=True)
        return {
            **keep,
            "XDG_RUNTIME_DIR": str(self.directory / "run"),
            "XDG_STATE_HOME": str(self.directory / "state"),
            "XDG_CONFIG_HOME": str(self.directory / "config"),
            "NO_COLOR": "1",
        }

    async def start(self, *, crash_at: str | None = None, wait: bool = True) -> None:
        """Start a process; by default wait until it answers."""
        assert self.process is None
        environment = self.environment | ({"WAD_CRASH_AT": crash_at} if crash_at else {})
        with self.log.open("ab") as log:
            self.process = await self.launch(environment, log)
        if wait:
            await self.answers()

    async def launch(self, environment: Mapping[str, str], log: IO[bytes]) -> Running:
        """Start the process; a test that starts thousands may have a faster way."""
        return await trio.lowlevel.open_process(
            [sys.executable, "-m", "waD", "--config", str(self.config)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
        )

    async def answers(self) -> None:
        """Wait until the daemon answers a ping."""
        with trio.move_on_after(START_S):
            while self.process is not None and self.process.poll() is None:
                try:
                    await self.call("daemon.ping")
                except (OSError, EOFError):
                    await trio.sleep(0.02)
                else:
                    return
        raise self.failure("the daemon does not answer")

    async def stop(self) -> int:
        """Stop in the orderly way; returns the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return await self.ended()

    async def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        await self.ended()

    async def ended(self) -> int:
        """Wait for the end of the process; returns its exit status."""
        assert self.process is not None
        with trio.move_on_after(WAIT_S):
            status = await self.process.wait()
            self.process = None
            return status
        raise self.failure("the daemon does not end")

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A connection to the control socket."""
        stream = await trio.open_unix_socket(str(self.socket))
        async with stream:
            yield Client(stream)

    async def call(self, method: str, /, **params: Any) -> Any:
        """Call one method on a connection of its own; raises Refused."""
        async with self.client() as client:
            return await client.call(method, **params)

    async def status(self, name: str = "alerts") -> dict[str, Any]:
        """The session's view."""
        view: dict[str, Any] = await self.call("session.status", name=name)
        return view

    async def until(self, state: str, name: str = "alerts", **flags: Any) -> dict[str, Any]:
        """Wait until the session is in a state, with these flags."""

        def there(view: dict[str, Any]) -> bool:
            return view["state"] == state and all(view.get(key) == value for key, value in flags.items())

        view: dict[str, Any] = {}
        with trio.move_on_after(WAIT_S):
            async with self.client() as events:
                await events.call("events.subscribe", session=name)
                while not there(view := await self.status(name)):
                    await events.notice()
                return view
        raise self.failure(f"{name} does not become {state} {flags}; it is {view}")

    async def pair(self, sandbox: Sandbox, number: str = ALICE, name: str = "alerts") -> dict[str, Any]:
        """Create a session and link it to a phone's account."""
        await self.call("session.connect", name=name)
        await self.until("pairing", name)
        code: dict[str, Any] | None = None
        with trio.move_on_after(WAIT_S):
            while code is None:
                code = (await self.call("session.qr", name=name))["code"]
                await trio.sleep(0.01)
        if code is None:
            raise self.failure("no code to scan")
        await sandbox.phone(number).scan(code["qr"])
        return await self.until("open", name, ready=True)

    async def events(self, *types: str, since: int = 0) -> list[dict[str, Any]]:
        """All events of these types in the log."""
        found: list[dict[str, Any]] = []
        async with self.client() as client:
            while True:
                page = await client.call("events.list", since=since, types=list(types), limit=500)
                found += page["events"]
                if len(page["events"]) < 500:
                    return found
                since = page["events"][-1]["cursor"]

    async def event(
        self, kind: str, *, since: int = 0, timeout_s: float = WAIT_S, **data: Any
    ) -> dict[str, Any]:
        """Wait for an event of a type with these fields in its data."""
        with trio.move_on_after(timeout_s):
            async with self.client() as client:
                await client.call("events.subscribe", since=since, types=[kind])
                while True:
                    event: dict[str, Any] = (await client.notice())["params"]["event"]
                    if all(event["data"].get(key) == value for key, value in data.items()):
                        return event
        raise self.failure(f"no {kind} event with {data}")

    async def send(self, to: str, text: str, name: str = "alerts", **more: Any) -> str:
        """Put a message into the outbox; returns its id."""
        sent = await self.call("message.send", session=name, to=to, text=text, **more)
        return str(sent["messageId"])

    async def wait(self, message_id: str, state: str = "delivered", name: str = "alerts") -> str:
        """Wait until a message has come as far."""
        found = await self.call(
            "message.wait", session=name, messageId=message_id, state=state, timeout=WAIT_S
        )
        return str(found["state"])

    def failure(self, message: str) -> DaemonError:
        """An error with the end of the log."""
        log = self.log.read_text(errors="replace")[-6000:] if self.log.exists() else ""
        return DaemonError(f"{message}\n{log}")


@asynccontextmanager
async def running(
    directory: Path, sandbox: Sandbox, *, more: str = "", network: str = ""
) -> AsyncIterator[Daemon]:
    """A started daemon for the life of the block."""
    daemon = Daemon(directory, sandbox, more=more, network=network)
    await daemon.start()
    try:
        yield daemon
    finally:
        if daemon.process is not None:
            with trio.CancelScope(shield=True):
                daemon.process.kill()
                await daemon.process.wait()


__all__ = ["ALICE", "BOB", "CAROL", "Daemon", "Refused", "running"]
