"""The symmetric half of Noise: handshake hash, chaining key, cipher key (chapter 01 §3.1)."""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from waD.e2ee.curve import CurveError, agree
from waD.e2ee.kdf import hkdf
from waD.wire.errors import NoiseError

HASH_SIZE: Final = 32
TAG_SIZE: Final = 16


def nonce(counter: int) -> bytes:
    """The 12 bytes of AES-GCM nonce for a counter below 2**32."""
    return counter.to_bytes(12, "big")


class SymmetricState:
    """What both sides of a handshake keep in step: every operation changes it the same way on both.

    Attributes:
        h: hash of everything said so far; public.
        ck: chaining key, 32 secret bytes.
        k: cipher key, 32 secret bytes; never used before the first `mix_dh`.
        n: number of messages encrypted under `k`.
    """

    __slots__ = ("ck", "h", "k", "n")

    def __init__(self, protocol_name: bytes, prologue: bytes) -> None:
        if len(protocol_name) <= HASH_SIZE:
            self.h = protocol_name.ljust(HASH_SIZE, b"\x00")
        else:
            self.h = hashlib.sha256(protocol_name).digest()
        self.ck = self.k = self.h
        self.n = 0
        self.mix_hash(prologue)

    def __repr__(self) -> str:
        return f"SymmetricState(n={self.n})"

    def mix_hash(self, data: bytes) -> None:
        """Add data that both sides have seen."""
        self.h = hashlib.sha256(self.h + data).digest()

    def mix_key(self, secret: bytes) -> None:
        """Add a secret that both sides have computed."""
        self.ck, self.k = _halves(self.ck, secret)
        self.n = 0

    def mix_dh(self, private: bytes, public: bytes) -> None:
        """Add the X25519 agreement of one key of ours with one of theirs.

        Raises:
            NoiseError: their key has the wrong length or low order.
        """
        try:
            self.mix_key(agree(private, public))
        except CurveError:
            raise NoiseError("bad_key", "the peer's handshake key gives no shared secret") from None

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        """Encrypt under the current key, bound to everything said so far."""
        ciphertext = AESGCM(self.k).encrypt(nonce(self.n), plaintext, self.h)
        self.n += 1
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        """Reverse of `encrypt_and_hash`.

        Raises:
            NoiseError: the ciphertext is not authentic; the handshake is over.
        """
        if len(ciphertext) < TAG_SIZE:
            raise NoiseError("bad_tag", "a handshake field is shorter than its authentication tag")
        try:
            plaintext = AESGCM(self.k).decrypt(nonce(self.n), ciphertext, self.h)
        except InvalidTag:
            raise NoiseError("bad_tag", "a handshake field is not authentic") from None
        self.n += 1
        self.mix_hash(ciphertext)
        return plaintext

    def split(self) -> tuple[bytes, bytes]:
        """The two transport keys: client to server, server to client."""
        return _halves(self.ck, b"")


def _halves(ck: bytes, secret: bytes) -> tuple[bytes, bytes]:
    both = hkdf(secret, ck, b"", 2 * HASH_SIZE)
    return both[:HASH_SIZE], both[HASH_SIZE:]
