"""Keys of the app state: what devices of the own account share, and what is asked of them (chapter 05 §4.13)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final

import msgspec
from msgspec import Struct, structs

from waD.e2ee.syncd.keys import KEY_ID_LENGTH, KEY_LENGTH, MutationKeys, active_key_id
from waD.messaging import kinds
from waD.messaging.account import Account
from waD.messaging.values import encode_app_state_key
from waD.proto.e2e_pb2 import Message
from waD.store.state import SessionState
from waD.store.unit import Unit
from waD.wire.jid import JID

MAX_KEYS: Final = 1024
"""Keys taken from one share, and asked for in one message."""
ASK_AGAIN_MS: Final = 24 * 3600 * 1000
"""A key is asked for at most once in this time."""
EXPIRY_KEY: Final = "epoch"

_log = logging.getLogger(__name__)


class KeyAsked(Struct, frozen=True, kw_only=True):
    """Who was asked for a key that is missing.

    Attributes:
        at: when last, Unix milliseconds.
        devices: numbers of the own devices that were asked then.
        refused: those that do not have it either.
    """

    at: int
    devices: list[int] = []
    refused: list[int] = []

    def serialize(self) -> bytes:
        """The stored form."""
        return _encode(self)


class _Stored(Struct):
    data: bytes


class _Expiry(Struct):
    epoch: int = 0


_encode: Final = msgspec.json.Encoder(order="sorted").encode
_decode_key: Final = msgspec.json.Decoder(_Stored).decode
_decode_asked: Final = msgspec.json.Decoder(KeyAsked).decode
_decode_expiry: Final = msgspec.json.Decoder(_Expiry).decode


class AppStateKeys:
    """The app-state keys of one session.

    Args:
        state: the session's state.
        account: its credentials, which name the key in use.
    """

    def __init__(self, state: SessionState, account: Account) -> None:
        self._state = state
        self._account = account

    async def all(self) -> dict[bytes, MutationKeys]:
        """What was derived from every key, by key id; damaged ones count as missing, and are asked for again.

        Raises:
            StoreError: they could not be read.
        """
        found: dict[bytes, MutationKeys] = {}
        for name, document in (await self._state.all_items(kinds.APP_STATE_KEY)).items():
            data = _data(document)
            with suppress(ValueError):
                found[bytes.fromhex(name)] = MutationKeys.expand(data)
        return found

    async def any(self) -> bool:
        """Whether there is a key at all; raises StoreError."""
        return bool(await self._state.item_keys(kinds.APP_STATE_KEY, ""))

    async def take(self, unit: Unit, share: Message.AppStateSyncKeyShare, sender: JID) -> bool:
        """Keep what a device of the own account shares; the caller knows that it is one.

        Returns:
            Whether collections that wait for a key may go on, or need not wait any more.

        Raises:
            StoreError: the state could not be read.
        """
        news = False
        for key in share.keys[:MAX_KEYS]:
            name, data = key.keyId.keyId, key.keyData.keyData
            if len(name) != KEY_ID_LENGTH:
                _log.warning(
                    "a shared key of the app state has an id of %d bytes; it was left out", len(name)
                )
            elif not data:
                news |= await self._refused(unit, name.hex(), sender)
            elif len(data) != KEY_LENGTH:
                _log.warning("the shared key %s of the app state has %d bytes", name.hex(), len(data))
            else:
                news |= await self._keep(unit, name.hex(), key.keyData)
        if news:
            await self.choose(unit)
        return news

    async def _keep(self, unit: Unit, name: str, key: Message.AppStateSyncKeyData) -> bool:
        known = await self._state.item(kinds.APP_STATE_KEY, name, unit)
        held = b"" if known is None else _data(known)
        if len(held) == KEY_LENGTH:
            if held != key.keyData:
                _log.warning(
                    "the key %s of the app state was shared again and differs; the old one stays", name
                )
            return False
        unit.put(kinds.APP_STATE_KEY, name, encode_app_state_key(key))
        if await self._state.item(kinds.APP_STATE_REQUEST, name, unit) is not None:
            unit.delete(kinds.APP_STATE_REQUEST, name)
        return True

    async def _refused(self, unit: Unit, name: str, sender: JID) -> bool:
        """A device says that it does not have a key; that counts when it was asked for it."""
        asked = await self._asked(name, unit)
        if asked is None or sender.device not in asked.devices or sender.device in asked.refused:
            return False
        refused = structs.replace(asked, refused=[*asked.refused, sender.device])
        unit.put(kinds.APP_STATE_REQUEST, name, refused)
        return True

    async def expire(self, unit: Unit, epoch: int) -> None:
        """Keys up to an epoch are not used for uploads any more (chapter 05 §4.14); raises StoreError."""
        if epoch > (await self._expired(unit) or -1):
            unit.put(kinds.APP_STATE_EXPIRY, EXPIRY_KEY, _encode(_Expiry(epoch)))
            await self.choose(unit)

    async def choose(self, unit: Unit) -> None:
        """Note in the credentials which key uploads use; raises StoreError."""
        names = [_bytes(name) for name in await self._state.item_keys(kinds.APP_STATE_KEY, "", unit)]
        active = active_key_id(names, await self._expired(unit))
        if active is not None and active != self._account.changed_in(unit).app_state_key_id:
            self._account.change_in(unit, lambda creds: creds.change(app_state_key_id=active))

    async def _expired(self, unit: Unit) -> int | None:
        document = await self._state.item(kinds.APP_STATE_EXPIRY, EXPIRY_KEY, unit)
        try:
            return None if document is None else _decode_expiry(document).epoch
        except msgspec.DecodeError:
            return None

    # Missing keys.

    async def due(self, names: Iterable[str], now_ms: int) -> list[str]:
        """Those missing keys that may be asked for now; raises StoreError."""
        found: list[str] = []
        for name in sorted(set(names))[:MAX_KEYS]:
            asked = await self._asked(name)
            if asked is None or not 0 <= now_ms - asked.at < ASK_AGAIN_MS:
                found.append(name)
        return found

    async def note(self, unit: Unit, names: Sequence[str], device: JID, now_ms: int) -> None:
        """Note as part of a unit that a device is asked for keys; raises StoreError."""
        for name in names:
            asked = await self._asked(name, unit)
            same = asked is not None and asked.at == now_ms
            devices = [*asked.devices, device.device] if asked is not None and same else [device.device]
            unit.put(kinds.APP_STATE_REQUEST, name, KeyAsked(at=now_ms, devices=devices))

    async def hopeless(self, names: Iterable[str]) -> bool:
        """Whether one of these keys is one that every device that was asked does not have; raises StoreError."""
        for name in names:
            asked = await self._asked(name)
            if asked is not None and asked.devices and set(asked.devices) <= set(asked.refused):
                return True
        return False

    async def _asked(self, name: str, unit: Unit | None = None) -> KeyAsked | None:
        try:
            return await self._state.record(kinds.APP_STATE_REQUEST, name, _decode_asked, unit)
        except msgspec.DecodeError:
            return None


def key_request(names: Iterable[str]) -> Message:
    """The peer message that asks for keys by their hexadecimal ids."""
    message = Message()
    message.protocolMessage.type = Message.ProtocolMessage.APP_STATE_SYNC_KEY_REQUEST
    for name in names:
        message.protocolMessage.appStateSyncKeyRequest.keyIds.add().keyId = bytes.fromhex(name)
    return message


def _data(document: bytes) -> bytes:
    try:
        return _decode_key(document).data
    except msgspec.DecodeError:
        return b""


def _bytes(name: str) -> bytes:
    try:
        return bytes.fromhex(name)
    except ValueError:
        return b""
