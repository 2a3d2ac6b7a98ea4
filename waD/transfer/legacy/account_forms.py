"""LID map, device lists, app state, sender-key memory and privacy tokens as Baileys 7 keeps them (chapter 08 §2.4)."""

from __future__ import annotations

import base64
import re
from typing import Any, Final

from waD.e2ee.interop.common import (
    ValueRefusedError,
    decode_bytes,
    encode_base64,
    read_int,
    read_list,
    read_object,
)
from waD.messaging import kinds
from waD.messaging.device_lists import DeviceRecord
from waD.messaging.values import decode_text, encode_text
from waD.store.canonical import canonical
from waD.transfer.baileys import names
from waD.transfer.legacy.form import Form, Other, buffer, fields, parsed
from waD.wire.jid import JID

MAX_NUMBER: Final = 2**63 - 1
_USER: Final = re.compile(r"[0-9]{1,32}", re.ASCII)
_HEX: Final = re.compile(r"(?:[0-9a-f]{2}){1,64}", re.ASCII)
_COLLECTION: Final = re.compile(r"[a-z_]{1,64}", re.ASCII)


def _user(text: str) -> str:
    if not _USER.fullmatch(text):
        raise ValueRefusedError("not the user part of an address")
    return text


def _reverse_id(lid: str) -> str:
    return _user(lid) + names.REVERSE


def _forward_key(text: str) -> str | None:
    return None if text.endswith(names.REVERSE) else _user(text)


def _reverse_key(text: str) -> str | None:
    return _user(text.removesuffix(names.REVERSE)) if text.endswith(names.REVERSE) else None


def _write_text(document: bytes) -> bytes:
    return encode_text(_user(decode_text(document)))


def _read_text(value: bytes, _: Other) -> bytes:
    return _write_text(value)


def _device_list_id(key: str) -> str:
    return _user(JID.parse(key).user)


def _write_device_list(document: bytes) -> bytes:
    return canonical([str(device.id) for device in DeviceRecord.parse(document).devices])


def _read_device_list(_value: bytes, _other: Other) -> bytes:
    """Device numbers alone prove nothing: the list is fetched anew."""
    raise ValueRefusedError("a device list without its signature")


def _app_state_key_id(key: str) -> str:
    if not _HEX.fullmatch(key):
        raise ValueRefusedError("not the id of a key of the app state")
    return encode_base64(bytes.fromhex(key))


def _app_state_key_key(text: str) -> str:
    key_id = base64.b64decode(text, validate=True)
    if encode_base64(key_id) != text:
        raise ValueRefusedError("an id in another spelling")
    return key_id.hex()


def _write_app_state_key(document: bytes) -> bytes:
    found = fields(document, "data", "fingerprint", "ts")
    value = {"keyData": found["data"], "timestamp": str(_number(found["ts"]))}
    if found["fingerprint"] is not None:
        value["fingerprint"] = found["fingerprint"]
    return canonical(value)


def _read_app_state_key(value: bytes, _: Other) -> bytes:
    found = read_object(parsed(value), "the key")
    shown = found.get("fingerprint")
    return canonical(
        {
            "data": decode_bytes(found.get("keyData"), "the key data"),
            "fingerprint": None if shown is None else _fingerprint(read_object(shown, "the fingerprint")),
            "ts": _number(found.get("timestamp")),
        }
    )


def _fingerprint(shown: dict[str, Any]) -> dict[str, object]:
    """Protobuf leaves out what is zero."""
    return {
        "rawId": read_int(shown.get("rawId") or 0, "the raw id"),
        "currentIndex": read_int(shown.get("currentIndex") or 0, "the index"),
        "deviceIndexes": [
            read_int(index, "an index") for index in read_list(shown.get("deviceIndexes"), "the indexes")
        ],
    }


def _collection(text: str) -> str:
    if not _COLLECTION.fullmatch(text):
        raise ValueRefusedError("not the name of a collection")
    return text


def _write_app_state_version(document: bytes) -> bytes:
    found = fields(document, "version", "hash", "macs")
    macs = read_object(found["macs"], "the MACs")
    return canonical(
        {
            "version": _number(found["version"]),
            "hash": {"type": "Buffer", "data": found["hash"]},
            "indexValueMap": {
                index: {"valueMac": {"type": "Buffer", "data": mac}} for index, mac in macs.items()
            },
        }
    )


def _read_app_state_version(value: bytes, _: Other) -> bytes:
    found = read_object(parsed(value), "the state")
    entries = read_object(found.get("indexValueMap") or {}, "the entries")
    macs = {
        encode_base64(decode_bytes(index, "an index MAC") or b""): decode_bytes(
            read_object(entry, "an entry").get("valueMac"), "a value MAC"
        )
        for index, entry in entries.items()
    }
    digest = decode_bytes(found.get("hash"), "the hash")
    return canonical({"version": _number(found.get("version")), "hash": digest, "macs": macs})


def _jid(text: object) -> str:
    if not isinstance(text, str) or str(JID.parse(text)) != text:
        raise ValueRefusedError("not an address")
    return text


def _write_memory(document: bytes) -> bytes:
    return canonical({_jid(device): True for device in read_list(parsed(document), "the devices")})


def _read_memory(value: bytes, _: Other) -> bytes:
    found = read_object(parsed(value), "the devices")
    return canonical(sorted(_jid(device) for device, has in found.items() if has is True))


def _token_key(text: str) -> str | None:
    return None if text == names.TOKEN_INDEX else _jid(text)


def _write_token(document: bytes) -> bytes:
    found = fields(document, "token", "ts", "sent")
    value: dict[str, Any] = {
        "token": {"type": "Buffer", "data": found["token"]},
        "timestamp": str(_number(found["ts"])),
    }
    if found["sent"] is not None:
        value["senderTimestamp"] = _number(found["sent"])
    return canonical(value)


def _read_token(value: bytes, _: Other) -> bytes:
    found = read_object(parsed(value), "the token")
    sent = found.get("senderTimestamp")
    token = decode_bytes(found.get("token"), "the token") or b""
    if not token:
        raise ValueRefusedError("a placeholder")
    return canonical(
        {
            "token": buffer(token)["data"],
            "ts": _number(found.get("timestamp")),
            "sent": None if sent is None else _number(sent),
        }
    )


def _number(value: object) -> int:
    """A number, also as digits in a text; nothing is 0."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    return read_int(0 if value is None else value, "a number", most=MAX_NUMBER)


ACCOUNT_FORMS: Final = (
    Form(kinds.LID_OF_PN, names.LID_MAPPING, _user, _forward_key, _write_text, _read_text),
    Form(kinds.PN_OF_LID, names.LID_MAPPING, _reverse_id, _reverse_key, _write_text, _read_text),
    Form(
        kinds.DEVICES,
        names.DEVICE_LIST,
        _device_list_id,
        lambda _: None,
        _write_device_list,
        _read_device_list,
        loses=lambda _: True,
    ),
    Form(
        kinds.APP_STATE_KEY,
        names.APP_STATE_KEY,
        _app_state_key_id,
        _app_state_key_key,
        _write_app_state_key,
        _read_app_state_key,
    ),
    Form(
        kinds.APP_STATE_VERSION,
        names.APP_STATE_VERSION,
        _collection,
        _collection,
        _write_app_state_version,
        _read_app_state_version,
    ),
    Form(kinds.SENDER_KEY_MEMORY, names.SENDER_KEY_MEMORY, _jid, _jid, _write_memory, _read_memory),
    Form(kinds.TRUSTED_CONTACT, names.TC_TOKEN, _jid, _token_key, _write_token, _read_token),
)
