"""Frames after the handshake: AES-256-GCM under two keys and two counters (chapter 01 §3.6)."""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from waD.wire.errors import NoiseError
from waD.wire.frames import MAX_PLAINTEXT
from waD.wire.symmetric import TAG_SIZE, nonce

MAX_COUNTER: Final = 0xFFFFFFFF
"""The first counter that is refused: beyond it a nonce would come again."""


class Transport:
    """One side of an established channel.

    A counter value is spent by the attempt: after a failed or partial write, or a frame that is not
    authentic, the connection must be closed. The order of `encrypt` calls must be the order on the wire.

    Args:
        send_key: 32 bytes.
        receive_key: 32 bytes.
    """

    __slots__ = ("_opener", "_received", "_sealer", "_sent")

    def __init__(self, send_key: bytes, receive_key: bytes) -> None:
        self._sealer = AESGCM(send_key)
        self._opener = AESGCM(receive_key)
        self._sent = 0
        self._received = 0

    def __repr__(self) -> str:
        return f"Transport(sent={self._sent}, received={self._received})"

    def encrypt(self, plaintext: bytes) -> bytes:
        """Make the body of the next frame.

        Raises:
            NoiseError: the counter is used up, or the plaintext is too long for a frame.
        """
        counter = self._sent
        if counter >= MAX_COUNTER:
            raise NoiseError("counter", "all counters of this connection are used up: reconnect")
        if len(plaintext) > MAX_PLAINTEXT:
            raise NoiseError("too_long", f"{len(plaintext)} bytes do not fit into one frame")
        self._sent = counter + 1
        return self._sealer.encrypt(nonce(counter), plaintext, None)

    def decrypt(self, body: bytes) -> bytes:
        """Open the body of the next frame.

        Raises:
            NoiseError: the frame is not authentic or not the next one, or the counter is used up.
        """
        counter = self._received
        if counter >= MAX_COUNTER:
            raise NoiseError("counter", "all counters of this connection are used up: reconnect")
        self._received = counter + 1
        if len(body) < TAG_SIZE:
            raise NoiseError("bad_tag", f"frame {counter} is shorter than its authentication tag")
        try:
            return self._opener.decrypt(nonce(counter), body, None)
        except InvalidTag:
            raise NoiseError("bad_tag", f"frame {counter} is not authentic") from None
