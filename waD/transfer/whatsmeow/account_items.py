"""What belongs to no device: app state, LID map, privacy tokens, secrets of messages (chapter 08 §4.4, §5.4)."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

from google.protobuf.message import DecodeError

from waD.e2ee.syncd.lthash import EMPTY, HASH_LENGTH, MAC_LENGTH, lt_hash
from waD.link.credentials import Credentials
from waD.messaging import kinds
from waD.messaging.message_secrets import LONG_LIFE_MS
from waD.messaging.values import encode_text
from waD.proto import e2e_pb2
from waD.store.canonical import canonical
from waD.store.model import SECRET_LENGTH, SecretRow
from waD.transfer.sources.message_secrets import bare, is_message_id, under_lid
from waD.transfer.sources.rows import Row
from waD.transfer.state import MESSAGE_SECRET, Report
from waD.transfer.whatsmeow.rows import DeviceRows
from waD.wire.errors import JIDError
from waD.wire.jid import JID, LID

Items: TypeAlias = dict[tuple[str, str], bytes]

COLLECTIONS: Final = frozenset(
    {"critical_block", "critical_unblock_low", "regular_high", "regular", "regular_low"}
)
KEY_LENGTH: Final = 32
MAX_KEY_ID: Final = 64
MAX_TOKEN: Final = 1024
MAX_INT64: Final = 2**63 - 1
_USER: Final = re.compile(r"[0-9]{1,32}", re.ASCII)


def import_app_state_keys(rows: DeviceRows, items: Items, report: Report) -> bytes | None:
    """Take the keys of the app state.

    Returns:
        The id of the newest one, which is the one in use.
    """
    taken: list[tuple[int, bytes]] = []
    for key_id, data, timestamp, fingerprint in rows.app_state_keys:
        name = key_id.hex() if isinstance(key_id, bytes) else ""
        if not 0 < len(name) <= 2 * MAX_KEY_ID or not _is_bytes(data, KEY_LENGTH) or not _is_time(timestamp):
            report.warn("item_unreadable", f"{kinds.APP_STATE_KEY}/{name[:32]}", "id, key or time is wrong")
            continue
        print_ = _fingerprint(fingerprint)
        if print_ is None and fingerprint:
            report.warn("item_unreadable", f"{kinds.APP_STATE_KEY}/{name}", "the fingerprint is wrong")
            continue
        document = {"data": _b64(data), "fingerprint": print_, "ts": timestamp}
        items[kinds.APP_STATE_KEY, name] = canonical(document)
        taken.append((_int(timestamp), bytes.fromhex(name)))
    return max(taken)[1] if taken else None


def import_app_state_versions(rows: DeviceRows, items: Items, report: Report) -> None:
    """Take where the collections stand; one that does not fit its own hash starts again (§5.4 item 9)."""
    macs = latest_macs(rows.app_state_macs)
    for name, version, digest in rows.app_state_versions:
        text = name if isinstance(name, str) else ""
        item = f"{kinds.APP_STATE_VERSION}/{text[:80]}"
        if text not in COLLECTIONS:
            report.warn("unknown_item", item, "no collection of the app state")
        elif not _is_time(version) or not _is_bytes(digest, HASH_LENGTH):
            report.warn("item_unreadable", item, "version or hash is wrong; the collection is fetched anew")
        else:
            found = macs.get(text, {})
            if lt_hash(found.values()) != digest:
                report.warn("app_state_hash_mismatch", item, "the collection is fetched anew")
                version, digest, found = 0, EMPTY, {}
            document = {
                "version": version,
                "hash": _b64(digest),
                "macs": {_b64(index): _b64(value) for index, value in found.items()},
            }
            items[kinds.APP_STATE_VERSION, text] = canonical(document)


def latest_macs(rows: Iterable[Row]) -> dict[str, dict[bytes, bytes]]:
    """Value MACs by collection and index MAC: the one of the greatest version; rows of a wrong form do not count."""
    found: dict[str, dict[bytes, tuple[int, bytes]]] = {}
    for name, version, index, value in rows:
        if not (isinstance(name, str) and isinstance(version, int)):
            continue
        if isinstance(index, bytes) and isinstance(value, bytes) and len(index) == len(value) == MAC_LENGTH:
            of_collection = found.setdefault(name, {})
            if index not in of_collection or of_collection[index][0] < version:
                of_collection[index] = (version, value)
    return {name: {index: value for index, (_, value) in macs.items()} for name, macs in found.items()}


def import_lid_map(rows: DeviceRows, creds: Credentials, report: Report) -> dict[str, str]:
    """LID users by PN users, one to one; the own pair comes from the device and wins (§5.4 item 10)."""
    lid_of: dict[str, str] = {}
    if creds.me_pn is not None and creds.me_lid is not None:
        lid_of[creds.me_pn.user] = creds.me_lid.user
    pn_of = {lid: pn for pn, lid in lid_of.items()}
    for lid, pn in rows.lid_map:
        if not (
            isinstance(lid, str) and isinstance(pn, str) and _USER.fullmatch(lid) and _USER.fullmatch(pn)
        ):
            report.warn("item_unreadable", kinds.LID_OF_PN, "a pair that is not two numbers")
        elif lid_of.get(pn, lid) != lid or pn_of.get(lid, pn) != pn:
            report.warn("lid_map_conflict", f"{kinds.LID_OF_PN}/{pn}", "another pair has one of its halves")
        else:
            lid_of[pn], pn_of[lid] = lid, pn
    return lid_of


def lid_map_items(lid_of: Mapping[str, str]) -> Items:
    """Both directions of the map, as stored."""
    items: Items = {(kinds.LID_OF_PN, pn): encode_text(lid) for pn, lid in lid_of.items()}
    return items | {(kinds.PN_OF_LID, lid): encode_text(pn) for pn, lid in lid_of.items()}


def import_tokens(rows: DeviceRows, lid_of: Mapping[str, str], items: Items, report: Report) -> None:
    """Take privacy tokens, filed under the LID where it is known; of two for one person the newer one."""
    newest: dict[str, int] = {}
    for address, token, timestamp, sent in rows.tokens:
        name = f"{kinds.TRUSTED_CONTACT}/{str(address)[:80]}"
        try:
            person = JID.parse(address if isinstance(address, str) else "").account
        except JIDError:
            report.warn("unknown_item", name, "not the address of a person")
            continue
        if not isinstance(token, bytes) or not 0 < len(token) <= MAX_TOKEN or not _is_time(timestamp):
            report.warn("item_unreadable", name, "token or time is wrong")
            continue
        if person.is_pn and person.user in lid_of:
            person = JID(lid_of[person.user], LID)
        if _int(timestamp) < newest.get(str(person), 0):
            continue
        newest[str(person)] = _int(timestamp)
        document = {"token": _b64(token), "ts": timestamp, "sent": sent if _is_time(sent) else None}
        items[kinds.TRUSTED_CONTACT, str(person)] = canonical(document)


def import_secrets(
    rows: DeviceRows, lid_of: Mapping[str, str], report: Report, now_ms: int
) -> tuple[SecretRow, ...]:
    """Take secrets of messages, filed under LIDs where they are known.

    The format has neither a time nor the kind of message: they are kept as long as any, from now on.
    """
    if rows.older_secrets:
        report.warn(
            "not_taken",
            MESSAGE_SECRET,
            f"{rows.older_secrets} rows: older than the {len(rows.secrets)} that are taken, the most of one session",
        )
    found: dict[tuple[str, str, str], SecretRow] = {}
    for chat, sender, name, secret in rows.secrets:
        item = f"{MESSAGE_SECRET}/{name[:80] if isinstance(name, str) else '?'}"
        place = bare(chat), bare(sender)
        if place[0] is None or place[1] is None:
            report.warn("unknown_item", item, "chat or author is no address")
        elif not is_message_id(name) or not isinstance(secret, bytes) or len(secret) != SECRET_LENGTH:
            report.warn("item_unreadable", item, "message id or secret is wrong")
        else:
            row = SecretRow(
                chat=under_lid(place[0], lid_of),
                sender=under_lid(place[1], lid_of),
                message_id=name,
                wire_sender=str(place[1]),
                secret=secret,
                message_ts=now_ms,
                expires_at=now_ms + LONG_LIFE_MS,
            )
            found.setdefault((row.chat, row.sender, row.message_id), row)  # the newest come first
    return tuple(found.values())


def _fingerprint(data: object) -> dict[str, object] | None:
    """A fingerprint as JSON; None when there is none or it cannot be read."""
    if not isinstance(data, bytes) or not data:
        return None
    try:
        parsed = e2e_pb2.Message.AppStateSyncKeyFingerprint.FromString(data)
    except DecodeError:
        return None
    return {
        "rawId": parsed.rawId,
        "currentIndex": parsed.currentIndex,
        "deviceIndexes": list(parsed.deviceIndexes),
    }


def _is_bytes(value: object, length: int) -> bool:
    return isinstance(value, bytes) and len(value) == length


def _is_time(value: object) -> bool:
    """A time or a version: never negative, at most 63 bits."""
    return isinstance(value, int) and 0 <= value <= MAX_INT64


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0


def _b64(value: object) -> str:
    return base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else ""
