"""App-state keys: what is derived from one, how ids are made, and which one uploads use (chapter 05 §4.5)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from waD.e2ee.kdf import hkdf

KEY_LENGTH: Final = 32
KEY_ID_LENGTH: Final = 6
_INFO: Final = b"WhatsApp Mutation Keys"
_ID: Final = struct.Struct(">HI")


@dataclass(frozen=True, slots=True)
class MutationKeys:
    """The five 32-byte keys behind one app-state key."""

    index: bytes = field(repr=False)
    value_encryption: bytes = field(repr=False)
    value_mac: bytes = field(repr=False)
    snapshot_mac: bytes = field(repr=False)
    patch_mac: bytes = field(repr=False)

    @classmethod
    def expand(cls, key_data: bytes) -> MutationKeys:
        """Derive them from the 32 bytes of a key; ValueError for another length."""
        if len(key_data) != KEY_LENGTH:
            raise ValueError(f"an app-state key has {KEY_LENGTH} bytes, not {len(key_data)}")
        derived = hkdf(key_data, None, _INFO, 5 * KEY_LENGTH)
        parts = (derived[start : start + KEY_LENGTH] for start in range(0, len(derived), KEY_LENGTH))
        return cls(*parts)


def key_id(device: int, epoch: int) -> bytes:
    """The 6 bytes that name a key: the device that made it (u16), and its epoch (u32)."""
    return _ID.pack(device, epoch)


def device_of(name: bytes) -> int | None:
    """The device that made a key; None for an id that is not made of device and epoch."""
    return _ID.unpack(name)[0] if len(name) == KEY_ID_LENGTH else None


def epoch_of(name: bytes) -> int | None:
    """The epoch of a key; None for an id that is not made of device and epoch."""
    return _ID.unpack(name)[1] if len(name) == KEY_ID_LENGTH else None


def active_key_id(names: Iterable[bytes], expired_epoch: int | None = None) -> bytes | None:
    """The key that uploads use: highest epoch, then lowest device (chapter 05 §4.5).

    Keys up to `expired_epoch` (chapter 05 §4.14) are out, and so are ids of another length. None: no key will do.
    """
    floor = -1 if expired_epoch is None else expired_epoch
    usable = [name for name in names if len(name) == KEY_ID_LENGTH and _ID.unpack(name)[1] > floor]
    return max(usable, key=_rank, default=None)


def _rank(name: bytes) -> tuple[int, int]:
    device, epoch = _ID.unpack(name)
    return epoch, -device
