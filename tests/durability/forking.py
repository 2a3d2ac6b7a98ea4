"""Daemons forked from a process that has imported everything already, for tests that start them by the thousand.

Each one is a process of its own and is killed as such; what is saved is the half second of imports.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any

import trio

from tests.e2e.daemon import Daemon, Running
from waD.sandbox import Sandbox


class Forked:
    """A forked daemon, with what the tests use of `trio.Process`."""

    def __init__(self, template: Template, pid: int) -> None:
        self.pid = pid
        self._template = template
        self._end = os.pidfd_open(pid)
        self._status: int | None = None

    def poll(self) -> int | None:
        """None while it runs; once `wait` has returned, its exit status, before that -1."""
        if self._status is not None:
            return self._status
        return -1 if select.select([self._end], [], [], 0)[0] else None

    def send_signal(self, sig: signal.Signals) -> None:
        """To a process that has ended: nothing, as with `trio.Process`."""
        if self._status is None:
            signal.pidfd_send_signal(self._end, sig)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        """Its exit status, or the negative number of the signal that ended it."""
        if self._status is None:
            await trio.lowlevel.wait_readable(self._end)
            self._status = await self._template.status(self.pid)
            os.close(self._end)
        return self._status


class Template:
    """The process that forks; `running_template` starts one."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._lock = trio.Lock()

    async def fork(self, arguments: list[str], environment: Mapping[str, str], log: str) -> Forked:
        """A daemon that writes its output to the end of a file."""
        order = {"fork": {"arguments": arguments, "environment": dict(environment), "log": log}}
        return Forked(self, await self._ask(order))

    async def status(self, pid: int) -> int:
        """Of a daemon that has ended."""
        return await self._ask({"status": pid})

    async def _ask(self, order: dict[str, Any]) -> int:
        """Not to be cut off between question and answer: the next one would get this one's answer."""
        with trio.CancelScope(shield=True):
            async with self._lock:
                await self._stream.send_all(json.dumps(order).encode() + b"\n")
                answer = b""
                while not answer.endswith(b"\n"):
                    more = await self._stream.receive_some()
                    assert more, "the forking process has ended"
                    answer += more
        return int(answer)


@asynccontextmanager
async def running_template() -> AsyncIterator[Template]:
    """A forking process for the life of the block; its daemons end with it."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "tests.durability.forkserver", str(theirs.fileno())]
    with theirs:
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),)
        )
    async with trio.SocketStream(trio.socket.from_stdlib_socket(ours)) as stream:
        yield Template(stream)
    with trio.CancelScope(shield=True):
        await process.wait()


class ForkedDaemon(Daemon):
    """A daemon whose processes are forked."""

    def __init__(self, directory: Path, sandbox: Sandbox, template: Template, *, more: str = "") -> None:
        super().__init__(directory, sandbox, more=more)
        self._template = template

    async def launch(self, environment: Mapping[str, str], log: IO[bytes]) -> Running:
        """See `Daemon.launch`."""
        return await self._template.fork(["--config", str(self.config)], environment, log.name)
