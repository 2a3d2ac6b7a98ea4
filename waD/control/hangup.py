"""Telling a client that is gone from one that has only said its last word.

`echo … | socat` closes its sending half and waits for the answer: that is an end of input, not a hang-up. The
kernel tells the two apart by EPOLLHUP, which only comes when both directions are closed, and which needs no
reading, so that it is seen also while requests wait unread in the socket.
"""

from __future__ import annotations

import select

import trio


async def wait_hangup(sock: trio.socket.SocketType) -> None:
    """Return when the other end of a Unix socket is closed altogether."""
    with select.epoll() as poll:
        poll.register(sock.fileno(), 0)  # a hang-up is reported unasked
        await trio.lowlevel.wait_readable(poll.fileno())
