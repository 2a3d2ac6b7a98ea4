"""Errors of the wire room: bytes, nodes and addresses that the protocol does not allow."""

from __future__ import annotations


class WireError(Exception):
    """Base of everything this room raises about bytes, nodes and addresses.

    Attributes:
        code: short stable symbol of what is wrong, fit for logs and counters. Neither it nor the message
            holds content or key material.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class JIDError(WireError):
    """A text is not an address (chapter 01 §6.2)."""


class CodecError(WireError):
    """Bytes are not a binary node, or a node has no binary form (chapter 01 §5)."""


class FrameError(WireError):
    """The byte stream is not a sequence of frames (chapter 01 §2)."""


class NoiseError(WireError):
    """The handshake failed or a transport frame is not authentic (chapter 01 §3)."""


class CertificateError(NoiseError):
    """The server did not prove that it is the server (chapter 01 §3.4)."""
