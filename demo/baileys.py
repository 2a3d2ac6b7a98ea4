"""A third account, linked by Baileys from npm: a client that nobody here wrote."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

from demo.stage import Stage, until
from tests.interop import npm
from tests.interop.baileys_client import DRIVER


class Baileys:
    """A Node process with one Baileys client.

    Raises:
        npm.Unavailable: there is no Node, or npm cannot fetch Baileys.
    """

    def __init__(self, stage: Stage) -> None:
        modules = npm.install_baileys()
        self._stage = stage
        self._events: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            [npm.find_node().node, str(DRIVER), str(modules)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "NO_COLOR": "1"},
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._events.append(json.loads(line))

    def _tell(self, **command: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def wait(self, kind: str, **fields: Any) -> dict[str, Any]:
        """The first event of a kind with these fields."""

        def found() -> dict[str, Any] | None:
            return next(
                (
                    event
                    for event in list(self._events)
                    if event["event"] == kind and all(event.get(k) == v for k, v in fields.items())
                ),
                None,
            )

        event: dict[str, Any] = until(f"{kind} of Baileys", found)
        return event

    def link(self, directory: Path, number: str) -> None:
        """Link it to the account of a number."""
        sandbox = self._stage.sandbox
        self._tell(do="connect", url=sandbox["url"], authDir=str(directory), rootKey=sandbox["rootKey"])
        code = self.wait("qr")["qr"]
        self._stage.quiet("wactl", "sandbox", "scan", number, "-", text=code)
        self.wait("open")
        self.wait("offline")

    def send(self, to: str, text: str) -> None:
        """Send a text."""
        self._tell(do="send", to=to, text=text)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
