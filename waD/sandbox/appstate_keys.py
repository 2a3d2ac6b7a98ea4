"""The app-state keys that a phone makes, and how it hands them out (chapter 05 §4.5, §4.13, §4.14)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from waD.e2ee.syncd.keys import epoch_of, key_id
from waD.proto.e2e_pb2 import Message
from waD.sandbox.accounts import PHONE, Account

APP_KEY_ID: Final = key_id(PHONE, 1)
"""Of a phone's first key."""
MAX_ASKED: Final = 1024


class AppKey(msgspec.Struct):
    """One key: `data` has 32 bytes, `device_indexes` are those of the devices that have been given it."""

    id: bytes
    data: bytes
    created_ms: int
    device_indexes: list[int]

    def __repr__(self) -> str:
        return f"AppKey({self.id.hex()})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("id", self.id.hex())]


def following_id(keys: Sequence[AppKey]) -> bytes:
    """The id of the next key that a phone makes: one epoch after all others."""
    return key_id(PHONE, 1 + max((epoch_of(key.id) or 0 for key in keys), default=0))


def key_share(account: Account, keys: Sequence[AppKey], asked: Sequence[bytes] | None = None) -> Message:
    """All keys, or an answer about asked ids: unknown ones without data (chapter 05 §4.13)."""
    message = Message()
    message.protocolMessage.type = Message.ProtocolMessage.APP_STATE_SYNC_KEY_SHARE
    known = {key.id: key for key in keys}
    for name in list(known) if asked is None else asked[:MAX_ASKED]:
        entry = message.protocolMessage.appStateSyncKeyShare.keys.add()
        entry.keyId.keyId = name
        if (key := known.get(name)) is None:
            continue
        entry.keyData.keyData = key.data
        entry.keyData.timestamp = key.created_ms
        fingerprint = entry.keyData.fingerprint
        fingerprint.rawId, fingerprint.currentIndex = account.record.raw_id, account.record.current_index
        fingerprint.deviceIndexes.extend(account.valid_indexes)
    return message


def key_request(names: Sequence[bytes]) -> Message:
    """Ask for keys by their ids."""
    message = Message()
    message.protocolMessage.type = Message.ProtocolMessage.APP_STATE_SYNC_KEY_REQUEST
    for name in names:
        message.protocolMessage.appStateSyncKeyRequest.keyIds.add(keyId=name)
    return message
