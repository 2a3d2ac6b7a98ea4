"""Curve25519 keys, X25519 agreement and XEdDSA signatures (chapter 03 §1).

Every private scalar passes through constant-time C only; Python integers never see a secret.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import xeddsa

KEY_LENGTH: Final = 32
SIGNATURE_LENGTH: Final = 64
NONCE_LENGTH: Final = 64
KEY_TYPE: Final = 0x05
"""First byte of a serialised public key; the protocol knows no other type."""
SERIALIZED_KEY_LENGTH: Final = 33

_KEY_TYPE_BYTE: Final = bytes((KEY_TYPE,))
_CONVERTED_KEYS_KEPT: Final = 4096
_SIGN_BITS_KEPT: Final = 1024


class CurveError(Exception):
    """A key has the wrong form, or an agreement with it has no secret result."""


@dataclass(frozen=True, slots=True, repr=False)
class KeyPair:
    """A Curve25519 key pair; `private` is clamped, both halves are 32 bytes."""

    private: bytes
    public: bytes

    @classmethod
    def generate(cls, random: Callable[[int], bytes]) -> KeyPair:
        """Draw a fresh pair; `random(n)` returns n unpredictable bytes."""
        return cls.from_private(random(KEY_LENGTH))

    @classmethod
    def from_private(cls, private: bytes) -> KeyPair:
        """Clamp 32 private bytes and derive the public half; raises CurveError on another length."""
        clamped = clamp(private)
        return cls(clamped, xeddsa.priv_to_curve25519_pub(clamped))

    def __repr__(self) -> str:
        return f"KeyPair({fingerprint(self.public)})"


def clamp(private: bytes) -> bytes:
    """Return 32 private bytes in the form X25519 uses; raises CurveError on another length."""
    if len(private) != KEY_LENGTH:
        raise CurveError(f"a private key has {KEY_LENGTH} bytes, not {len(private)}")
    scalar = bytearray(private)
    scalar[0] &= 0xF8
    scalar[31] = (scalar[31] & 0x7F) | 0x40
    return bytes(scalar)


def agree(private: bytes, public: bytes) -> bytes:
    """Return the 32-byte X25519 secret; raises CurveError on bad lengths and low-order public keys."""
    try:
        return xeddsa.x25519(private, public)
    except (ValueError, xeddsa.XEdDSAException):
        raise CurveError(f"no agreement with public key {fingerprint(public)}") from None


def sign(private: bytes, message: bytes, random: Callable[[int], bytes]) -> bytes:
    """Return a 64-byte XEdDSA signature that carries the natural sign bit (chapter 03 §1.3).

    `private` may be unclamped; `random(64)` gives the nonce. Raises CurveError on a bad key length.
    """
    scalar = clamp(private)
    signature = bytearray(xeddsa.ed25519_priv_sign(scalar, message, random(NONCE_LENGTH)))
    signature[63] |= _sign_bit(scalar)
    return bytes(signature)


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Say whether `signature` over `message` was made by the owner of the 32-byte key `public`.

    False, never an exception, for wrong lengths, s >= q, and keys of low order.
    """
    if len(signature) != SIGNATURE_LENGTH or len(public) != KEY_LENGTH:
        return False
    last = signature[63]
    bit = last & 0x80
    plain = signature[:63] + bytes((last ^ bit,)) if bit else signature
    return xeddsa.ed25519_verify(plain, _edwards(public, bit != 0), message)


def serialize_key(public: bytes) -> bytes:
    """Return the 33-byte form of a 32-byte public key."""
    return _KEY_TYPE_BYTE + public


def parse_key(data: bytes) -> bytes:
    """Return the 32-byte key in its 33-byte form; raises CurveError on any other length or type."""
    if len(data) != SERIALIZED_KEY_LENGTH or data[0] != KEY_TYPE:
        raise CurveError(f"a serialised public key has {SERIALIZED_KEY_LENGTH} bytes and type {KEY_TYPE}")
    return data[1:]


def fingerprint(public: bytes) -> str:
    """Name a public key in logs: the first 4 bytes of its SHA-256 in hex."""
    return hashlib.sha256(public).hexdigest()[:8]


@lru_cache(maxsize=_CONVERTED_KEYS_KEPT)
def _edwards(public: bytes, sign_bit: bool) -> bytes:
    return xeddsa.curve25519_pub_to_ed25519_pub(public, sign_bit)


_sign_bits: dict[bytes, int] = {}


def _sign_bit(scalar: bytes) -> int:
    """Bit 7 of the last byte of the Edwards public key; remembered by digest so that no cache holds a key."""
    name = hashlib.sha256(scalar).digest()
    bit = _sign_bits.get(name)
    if bit is None:
        bit = xeddsa.priv_to_ed25519_pub(scalar)[31] & 0x80
        if len(_sign_bits) >= _SIGN_BITS_KEPT:
            _sign_bits.clear()
        _sign_bits[name] = bit
    return bit
