"""Frames in the byte stream (chapter 01 §2).

A websocket message is a chunk of a stream, not a unit: a frame may span messages, and a message may hold many
frames.
"""

from __future__ import annotations

from typing import Final

from waD.wire.errors import FrameError

INTRO: Final = b"WA\x06\x03"
"""Protocol version 6, token dictionary version 3: what a client sends first."""

LENGTH_SIZE: Final = 3
MAX_FRAME: Final = 0xFFFFFF
"""Longest body of a frame."""
MAX_PLAINTEXT: Final = MAX_FRAME - 16
"""Longest node that fits into a frame together with its authentication tag."""
MAX_HANDSHAKE_FRAME: Final = 65_536
"""Longest handshake message that either side accepts."""
MAX_PREAMBLE: Final = 65_535
"""Longest routing information that a server accepts."""
MAX_ROUTING_INFO: Final = 4096
"""Longest routing information that a client keeps."""

_EDGE: Final = b"ED\x00\x01"


def frame(body: bytes) -> bytes:
    """Put the length before a body.

    Raises:
        FrameError: the body is longer than `MAX_FRAME`.
    """
    if len(body) > MAX_FRAME:
        raise FrameError("too_long", f"a frame of {len(body)} bytes; {MAX_FRAME} is the most")
    return len(body).to_bytes(LENGTH_SIZE, "big") + body


def edge_preamble(routing_info: bytes) -> bytes:
    """What goes before the intro when the server gave us routing information (chapter 01 §2.2).

    Raises:
        FrameError: the routing information is longer than a client may keep.
    """
    if len(routing_info) > MAX_ROUTING_INFO:
        raise FrameError("too_long", f"routing information of {len(routing_info)} bytes")
    return _EDGE + len(routing_info).to_bytes(LENGTH_SIZE, "big") + routing_info


class FrameReader:
    """Puts frames together from chunks; holds at most one partial frame and what came in the last chunk.

    Args:
        maximum: longest body to accept, in bytes; may be changed when the handshake is over.
    """

    __slots__ = ("_buffer", "maximum")

    def __init__(self, maximum: int = MAX_FRAME) -> None:
        self.maximum = maximum
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes held of a frame that is not complete yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Take a chunk of any size; returns the bodies it completed, in order.

        Raises:
            FrameError: a frame announces more than `maximum` bytes. The stream has no use after that.
        """
        buffer = self._buffer
        buffer += data
        bodies: list[bytes] = []
        start = 0
        while len(buffer) - start >= LENGTH_SIZE:
            body = start + LENGTH_SIZE
            length = int.from_bytes(buffer[start:body], "big")
            if length > self.maximum:
                raise FrameError("too_long", f"a frame of {length} bytes; {self.maximum} is the most here")
            if len(buffer) - body < length:
                break
            start = body + length
            bodies.append(bytes(buffer[body:start]))
        if start:
            del buffer[:start]
        return bodies


class IntroReader:
    """Reads what a client sends before its first frame: an optional routing preamble, then the intro."""

    __slots__ = ("_buffer", "routing_info")

    def __init__(self) -> None:
        self.routing_info: bytes | None = None
        self._buffer = bytearray()

    def feed(self, data: bytes) -> bytes | None:
        """Take a chunk; returns what follows the intro once it is there, and None before.

        The preamble's content is in `routing_info` afterwards; who does not route ignores it (chapter 01
        §2.2). There is nothing to feed after the intro.

        Raises:
            FrameError: these are not the first bytes of a client.
        """
        buffer = self._buffer
        buffer += data
        preamble = self.routing_info is None and buffer[: len(_EDGE)] == _EDGE[: len(buffer)]
        if preamble and not self._take_preamble():
            return None
        if bytes(buffer[: len(INTRO)]) != INTRO[: len(buffer)]:
            raise FrameError("bad_intro", "the first bytes are not those of a client of dictionary version 3")
        return bytes(buffer[len(INTRO) :]) if len(buffer) >= len(INTRO) else None

    def _take_preamble(self) -> bool:
        head = len(_EDGE) + LENGTH_SIZE
        if len(self._buffer) < head:
            return False
        length = int.from_bytes(self._buffer[len(_EDGE) : head], "big")
        if length > MAX_PREAMBLE:
            raise FrameError("too_long", f"routing information of {length} bytes")
        if len(self._buffer) < head + length:
            return False
        self.routing_info = bytes(self._buffer[head : head + length])
        del self._buffer[: head + length]
        return True
