"""What belongs to the account: LID map, app state, sender-key memory, privacy tokens (chapter 08 §2.4, §2.9)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, TypeAlias

from waD.e2ee.interop.common import (
    ValueRefusedError,
    decode_bytes,
    encode_base64,
    read_bytes,
    read_int,
    read_list,
    read_object,
    unnest,
)
from waD.e2ee.limits import MAX_UINT32
from waD.e2ee.syncd.lthash import EMPTY, HASH_LENGTH, MAC_LENGTH, lt_hash
from waD.link.credentials import Credentials
from waD.messaging import kinds
from waD.messaging.values import encode_text
from waD.store.canonical import canonical
from waD.transfer.baileys import names
from waD.transfer.baileys.source import BaileysItems
from waD.transfer.state import Report
from waD.wire.errors import JIDError
from waD.wire.jid import JID, LID

Items: TypeAlias = dict[tuple[str, str], bytes]

APP_STATE_KEY_LENGTH: Final = 32
MAX_KEY_ID: Final = 64
MAX_TOKEN: Final = 1024
MAX_TIME: Final = 2**63 - 1
_USER: Final = re.compile(r"[0-9]{1,32}", re.ASCII)


def import_lid_map(source: BaileysItems, creds: Credentials, report: Report) -> dict[str, str]:
    """LID users by phone-number users, one to one; of two that contradict the one written last, and the own always.

    Entries `<lid>_reverse` only fill gaps.
    """
    forward: list[tuple[int, str, str]] = []
    backward: list[tuple[int, str, str]] = []
    for (kind, text), value in source.items.items():
        if kind != names.LID_MAPPING:
            continue
        other = str(value) if isinstance(value, int) else value
        if not isinstance(other, str) or not _USER.fullmatch(other):
            report.warn("item_unreadable", f"{kind}/{text}", "not the user part of an address")
            continue
        time = source.times.get((kind, text), 0)
        if text.endswith(names.REVERSE):
            backward.append((time, other, text.removesuffix(names.REVERSE)))
        else:
            forward.append((time, text, other))
    pairs = _LidMap(report)
    for _, pn, lid in sorted(forward):
        pairs.put(pn, lid)
    for _, pn, lid in sorted(backward):
        pairs.fill(pn, lid)
    if creds.me_pn is not None and creds.me_lid is not None:
        pairs.put(creds.me_pn.user, creds.me_lid.user)
    return pairs.lid_of


class _LidMap:
    """A map that is one to one at every moment."""

    def __init__(self, report: Report) -> None:
        self.lid_of: dict[str, str] = {}
        self._pn_of: dict[str, str] = {}
        self._report = report

    def put(self, pn: str, lid: str) -> None:
        """Take a pair; what contradicts it goes."""
        if self._contradicted(pn, lid):
            self._report.warn(
                "lid_map_conflict", f"{names.LID_MAPPING}/{pn}", "two entries; the newer one was taken"
            )
            self._pn_of.pop(self.lid_of.pop(pn, ""), None)
            self.lid_of.pop(self._pn_of.pop(lid, ""), None)
        self.lid_of[pn], self._pn_of[lid] = lid, pn

    def fill(self, pn: str, lid: str) -> None:
        """Take a pair, unless it contradicts another."""
        if self._contradicted(pn, lid):
            item = f"{names.LID_MAPPING}/{lid}{names.REVERSE}"
            self._report.warn(
                "lid_map_conflict", item, "the other direction says something else, and was believed"
            )
        else:
            self.lid_of[pn], self._pn_of[lid] = lid, pn

    def _contradicted(self, pn: str, lid: str) -> bool:
        return self.lid_of.get(pn, lid) != lid or self._pn_of.get(lid, pn) != pn


def lid_map_items(lid_of: Mapping[str, str]) -> Items:
    """Both directions of the map, as stored."""
    items: Items = {(kinds.LID_OF_PN, pn): encode_text(lid) for pn, lid in lid_of.items()}
    return items | {(kinds.PN_OF_LID, lid): encode_text(pn) for pn, lid in lid_of.items()}


def import_app_state(source: BaileysItems, report: Report) -> Items:
    """The keys of the app state, and where its collections stand."""
    items: Items = {}
    for text, value in _of(source, names.APP_STATE_KEY):
        try:
            key_id, document = _app_state_key(text, value)
            items[kinds.APP_STATE_KEY, key_id] = document
        except ValueRefusedError as error:
            report.warn("item_unreadable", f"{names.APP_STATE_KEY}/{text}", str(error))
    for text, value in _of(source, names.APP_STATE_VERSION):
        item = f"{names.APP_STATE_VERSION}/{text}"
        try:
            items[kinds.APP_STATE_VERSION, text] = _app_state_version(item, value, report)
        except ValueRefusedError as error:
            report.warn("item_unreadable", item, f"{error}; the collection is fetched anew")
    return items


def old_app_state_keys(creds: object, source: BaileysItems) -> BaileysItems:
    """Before 5.0 the keys of the app state were a field of the credentials; they are items like all others here."""
    inside = unnest(creds.get("appStateSyncKeys")) if isinstance(creds, dict) else None
    if not isinstance(inside, list):
        return source
    found: dict[tuple[str, str], object] = {}
    for entry in inside:
        try:
            fields = read_object(unnest(entry), "key")
            key_id = decode_bytes(read_object(fields.get("keyId"), "keyId").get("keyId"), "keyId") or b""
            found[names.APP_STATE_KEY, encode_base64(key_id)] = fields.get("keyData")
        except ValueRefusedError:
            continue
    return replace(source, items=found | dict(source.items))


def import_memory(source: BaileysItems, report: Report) -> Items:
    """Which devices have our sender keys."""
    items: Items = {}
    for text, value in _of(source, names.SENDER_KEY_MEMORY):
        if not isinstance(value, dict):
            report.warn("item_unreadable", f"{names.SENDER_KEY_MEMORY}/{text}", "not an object of devices")
            continue
        devices = {
            device for name, has in value.items() if has is True and (device := _device(name)) is not None
        }
        items[kinds.SENDER_KEY_MEMORY, text] = canonical(sorted(devices))
    return items


def import_tokens(source: BaileysItems, lid_of: Mapping[str, str], report: Report) -> Items:
    """Privacy tokens under the LID where it is known; of two for one person the newer; placeholders are left out."""
    newest: dict[str, tuple[int, bytes]] = {}
    for text, value in _of(source, names.TC_TOKEN):
        if text == names.TOKEN_INDEX:
            continue
        try:
            token, received, sent = _token(value)
        except ValueRefusedError as error:
            report.warn("item_unreadable", f"{names.TC_TOKEN}/{text}", str(error))
            continue
        person = JID.parse(text).account
        if person.is_pn and person.user in lid_of:
            person = JID(lid_of[person.user], LID)
        if token and received >= newest.get(str(person), (0, b""))[0]:
            document = canonical({"token": encode_base64(token), "ts": received, "sent": sent})
            newest[str(person)] = (received, document)
    return {(kinds.TRUSTED_CONTACT, person): document for person, (_, document) in newest.items()}


def _of(source: BaileysItems, kind: str) -> Iterator[tuple[str, Any]]:
    return ((text, value) for (found, text), value in source.items.items() if found == kind)


def _app_state_key(text: str, value: object) -> tuple[str, bytes]:
    key_id = decode_bytes(text, "the key id")
    if not key_id or len(key_id) > MAX_KEY_ID:
        raise ValueRefusedError("an impossible key id")
    fields = read_object(value, "the key")
    document = {
        "data": encode_base64(read_bytes(fields.get("keyData"), APP_STATE_KEY_LENGTH, "the key data")),
        "fingerprint": _fingerprint(unnest(fields.get("fingerprint"))),
        "ts": _time(fields.get("timestamp")) or 0,
    }
    return key_id.hex(), canonical(document)


def _fingerprint(value: object) -> dict[str, object] | None:
    if value is None:
        return None
    fields = read_object(value, "the fingerprint")
    indexes = read_list(fields.get("deviceIndexes"), "the device indexes")
    return {
        "rawId": _small(fields.get("rawId") or 0),
        "currentIndex": _small(fields.get("currentIndex") or 0),
        "deviceIndexes": [_small(index) for index in indexes],
    }


def _small(value: object) -> int:
    return read_int(value, "a number of the fingerprint", most=MAX_UINT32)


def _app_state_version(item: str, value: object, report: Report) -> bytes:
    """Version, hash and MACs; a collection that does not fit its own hash starts again (§5.4 item 9)."""
    fields = read_object(value, "the state")
    version = read_int(fields.get("version") or 0, "the version", most=MAX_TIME)
    digest = decode_bytes(fields.get("hash"), "the hash") or EMPTY
    if len(digest) != HASH_LENGTH:
        raise ValueRefusedError(f"the hash does not have {HASH_LENGTH} bytes")
    macs: dict[bytes, bytes] = {}
    for index, entry in read_object(unnest(fields.get("indexValueMap") or {}), "the entries").items():
        found = read_object(unnest(entry), "an entry")
        macs[read_bytes(index, MAC_LENGTH, "an index MAC")] = read_bytes(
            found.get("valueMac"), MAC_LENGTH, "a value MAC"
        )
    if lt_hash(macs.values()) != digest:
        report.warn("app_state_hash_mismatch", item, "its entries do not have its hash: it is fetched anew")
        version, digest, macs = 0, EMPTY, {}
    return canonical(
        {
            "version": version,
            "hash": encode_base64(digest),
            "macs": {encode_base64(index): encode_base64(mac) for index, mac in macs.items()},
        }
    )


def _token(value: object) -> tuple[bytes, int, int | None]:
    fields = read_object(value, "the token")
    token = decode_bytes(fields.get("token"), "the token") or b""
    if len(token) > MAX_TOKEN:
        raise ValueRefusedError(f"a token of {len(token)} bytes")
    return token, _time(fields.get("timestamp")) or 0, _time(fields.get("senderTimestamp"))


def _time(value: object) -> int | None:
    """A time as number, as text, or as the two halves of a 64-bit number."""
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(MAX_TIME)):
        value = int(value)
    if isinstance(value, dict):
        low = read_int(value.get("low"), "a time", least=-(2**31))
        value = read_int(value.get("high"), "a time", most=2**31 - 1) << 32 | (low & MAX_UINT32)
    return read_int(value, "a time", most=MAX_TIME)


def _device(name: object) -> str | None:
    try:
        jid = JID.parse(name if isinstance(name, str) else "")
    except JIDError:
        return None
    return str(jid) if jid.is_user else None
