"""Stored forms of the small items: JSON documents like everything in the auth state (chapter 08 §1.4, §6.2)."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from waD.e2ee.curve import CurveError, parse_key, serialize_key
from waD.proto.e2e_pb2 import Message

MAX_TEXT: Final = 1024

_Text = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]
_encode: Final = msgspec.json.Encoder(order="sorted").encode
_decode: Final = msgspec.json.Decoder(_Text).decode


class ValueDamaged(ValueError):  # noqa: N818 - what is the case
    """A stored item is not what this program writes; the message does not repeat it."""


def encode_text(text: str) -> bytes:
    """A short text, such as the user part of an address, as a JSON string."""
    return _encode(text)


def decode_text(document: bytes) -> str:
    """The text of a JSON string; raises ValueDamaged."""
    try:
        return _decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ValueDamaged("not a JSON string of a sensible length") from None


def encode_identity(key: bytes) -> bytes:
    """A 32-byte identity key: a JSON string, base64 of the 33 bytes with the type in front."""
    return b'"' + base64.b64encode(serialize_key(key)) + b'"'


def decode_identity(document: bytes) -> bytes:
    """The 32-byte key; raises ValueDamaged."""
    try:
        return parse_key(base64.b64decode(decode_text(document), validate=True))
    except (binascii.Error, ValueError, CurveError):
        raise ValueDamaged("not an identity key") from None


def encode_app_state_key(key: Message.AppStateSyncKeyData) -> bytes:
    """A key of the app state: its data, the fingerprint if it came with one, the time in ms."""
    shown = key.fingerprint if key.HasField("fingerprint") else None
    fingerprint = None
    if shown is not None:
        fingerprint = {
            "currentIndex": shown.currentIndex,
            "deviceIndexes": list(shown.deviceIndexes),
            "rawId": shown.rawId,
        }
    return _encode({"data": key.keyData, "fingerprint": fingerprint, "ts": max(key.timestamp, 0)})
