"""Items as earlier versions of this program stored them, in today's form.

Until schema version 1 an item was whatever its kind wrote: msgpack, protobuf, raw keys and raw text. Today every
item is a canonical JSON document (chapter 08 §1.4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from google.protobuf.message import DecodeError

from waD.e2ee.curve import KEY_LENGTH
from waD.e2ee.errors import SignalError
from waD.e2ee.groups import SenderKeyRecord
from waD.e2ee.record import SessionRecord
from waD.link.prekeys import OneTimePreKey, PreKeyRecordError
from waD.messaging import kinds
from waD.messaging.device_lists import DeviceRecord
from waD.messaging.values import encode_app_state_key, encode_identity, encode_text
from waD.proto.e2e_pb2 import Message
from waD.store.canonical import canonical, canonicalise

BYTES: Final = "$bytes"
"""Name under which bytes are kept that nobody can read: nothing is thrown away."""

_Reader = Callable[[str, bytes], bytes | None]
_decode_devices: Final = msgspec.msgpack.Decoder(DeviceRecord).decode


def upgrade_item(kind: str, key: str, value: bytes) -> bytes:
    """Turn an item of an earlier version into today's document; today's documents stay as they are.

    Args:
        kind: of `waD.messaging.kinds`, or any other.
        key: of the item.
        value: as it is stored.

    Returns:
        Canonical JSON. What is neither a known earlier form nor JSON becomes `{"$bytes": <base64>}`: whoever needs
        the item will call it damaged, as before.
    """
    reader = _READERS.get(kind)
    try:
        upgraded = None if reader is None else reader(key, value)
    except (SignalError, PreKeyRecordError, DecodeError, ValueError):  # msgspec's errors are ValueErrors
        upgraded = None
    return _document(value) if upgraded is None else upgraded


def _document(value: bytes) -> bytes:
    try:
        return canonicalise(value)
    except (ValueError, OverflowError, RecursionError):
        return canonical({BYTES: value})


def _session(_: str, value: bytes) -> bytes:
    return SessionRecord.parse(value).serialize()


def _sender_key(_: str, value: bytes) -> bytes:
    return SenderKeyRecord.parse(value).serialize()


def _prekey(key: str, value: bytes) -> bytes:
    return OneTimePreKey.parse(int(key), value).serialize()


def _identity(_: str, value: bytes) -> bytes | None:
    return encode_identity(value) if len(value) == KEY_LENGTH else None


def _text(_: str, value: bytes) -> bytes | None:
    """Raw text was an address or a number; neither begins like a JSON string or object."""
    return None if value.startswith((b'"', b"{")) else encode_text(value.decode())


def _devices(_: str, value: bytes) -> bytes | None:
    return None if value.startswith(b"{") else _decode_devices(value).serialize()


def _app_state_key(_: str, value: bytes) -> bytes | None:
    """A protobuf never begins with a brace: that would be the end of a group."""
    if value.startswith(b"{"):
        return None
    return encode_app_state_key(Message.AppStateSyncKeyData.FromString(value))


_READERS: Final[Mapping[str, _Reader]] = {
    kinds.SESSION: _session,
    kinds.SENDER_KEY: _sender_key,
    kinds.PREKEY: _prekey,
    kinds.IDENTITY: _identity,
    kinds.LID_OF_PN: _text,
    kinds.PN_OF_LID: _text,
    kinds.NUMBER_ALIAS: _text,
    kinds.IDENTITY_CHANGE: _text,
    kinds.DEVICES: _devices,
    kinds.APP_STATE_KEY: _app_state_key,
}
