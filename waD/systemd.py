"""Telling systemd how the daemon is: sd_notify(3) over its datagram socket, and nothing where there is none."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

MICROSECONDS: Final = 1_000_000
MAX_STATUS: Final = 200
"""Characters of a status line."""

_log = logging.getLogger(__name__)


class Notifier:
    """Sends states to the service manager. Every method returns at once and never fails.

    Args:
        address: of the datagram socket, `@` first for an abstract one; None when nobody listens.
        watchdog_s: how often the manager wants to hear that all is well, None when it does not.
    """

    def __init__(self, address: str | None = None, watchdog_s: float | None = None) -> None:
        self._socket: socket.socket | None = None
        self.watchdog_s = watchdog_s
        if address:
            self._connect("\0" + address[1:] if address.startswith("@") else address)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ, pid: int | None = None) -> Notifier:
        """The notifier that the environment asks for; a watchdog meant for another process is not ours."""
        ours = str(os.getpid() if pid is None else pid)
        usec = environ.get("WATCHDOG_USEC", "")
        wanted = usec.isdecimal() and int(usec) > 0 and environ.get("WATCHDOG_PID", ours) == ours
        return cls(environ.get("NOTIFY_SOCKET"), int(usec) / MICROSECONDS if wanted else None)

    def _connect(self, address: str) -> None:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            made.connect(address)
        except OSError as error:
            made.close()
            _log.warning("the service manager's socket cannot be used: %s", error.strerror or error)
            return
        self._socket = made

    def ready(self, status: str = "") -> None:
        """Start-up, or a reload, is complete."""
        self._send("READY=1", _status(status))

    def reloading(self) -> None:
        """A reload began; `ready` ends it. The time goes with it, or systemd waits in vain."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str = "") -> None:
        """A stop began."""
        self._send("STOPPING=1", _status(status))

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(_status(text))

    def alive(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def extend(self, seconds: float) -> None:
        """A start or stop takes longer: no time-out before this many seconds from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * MICROSECONDS)}")

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *lines: str) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.send("\n".join(line for line in lines if line).encode())


def _status(text: str) -> str:
    line = " ".join(text.split())
    return f"STATUS={line[:MAX_STATUS]}" if line else ""
