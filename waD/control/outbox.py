"""What waits to be written to one client: few lines, in order, each whole."""

from __future__ import annotations

from typing import Final

import trio

CAPACITY: Final = 16
"""Lines that wait. A client that reads slowly slows down whoever writes to it, and nobody else."""

_BATCH: Final = 65_536


class Unread(Exception):  # noqa: N818 - names what is the case
    """The client took nothing for too long."""


class Outbox:
    """Lines go in from any task, cancellable at any time; one task writes them."""

    def __init__(self, sock: trio.socket.SocketType, timeout_s: float) -> None:
        self._sock = sock
        self._timeout_s = timeout_s
        self._send, self._receive = trio.open_memory_channel[bytes](CAPACITY)
        self._written = trio.Event()

    async def put(self, line: bytes) -> None:
        """Queue a line; it is queued whole or, if this is cancelled, not at all."""
        await self._send.send(line)

    async def write(self) -> None:
        """Write until `finish` is called.

        Raises:
            Unread: the client took nothing for the time-out.
            OSError: it is gone.
        """
        async for line in self._receive:
            await self._write_all(self._gather(line))
        self._written.set()

    async def finish(self) -> None:
        """Take no more lines and wait until all are written."""
        self._send.close()
        await self._written.wait()

    def _gather(self, line: bytes) -> bytes:
        """Join what else is waiting, so that a burst costs few system calls."""
        lines = [line]
        size = len(line)
        while size < _BATCH:
            try:
                lines.append(self._receive.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel):
                break
            size += len(lines[-1])
        return b"".join(lines)

    async def _write_all(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            with trio.move_on_after(self._timeout_s) as scope:
                rest = rest[await self._sock.send(rest) :]
            if scope.cancelled_caught:
                raise Unread
