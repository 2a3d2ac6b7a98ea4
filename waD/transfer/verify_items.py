"""Checks of what is no Signal state: app state, LID map, device lists, tokens (chapter 08 §5.4 items 9 and 10)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from waD.e2ee.address import AddressError, SignalAddress
from waD.messaging import kinds
from waD.messaging.appstate.stored import Damaged, Head, decode_part, is_collection, part_place
from waD.messaging.values import ValueDamaged, decode_text
from waD.transfer.collections import sound_heads, sums_up
from waD.transfer.state import AuthState, Report
from waD.wire.errors import JIDError
from waD.wire.jid import JID

T = TypeVar("T")
U = TypeVar("U")

MAX_MEMBERS: Final = 100_000

_KEY_ID: Final = re.compile(r"(?:[0-9a-f]{2}){1,64}", re.ASCII)
_USER: Final = re.compile(r"[0-9A-Za-z+-]{1,64}", re.ASCII)

_Key = Annotated[bytes, Meta(min_length=32, max_length=32)]
_Natural = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_UInt32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]


class _Fingerprint(Struct):
    rawId: _UInt32  # noqa: N815 - the name in the document
    currentIndex: _UInt32  # noqa: N815
    deviceIndexes: list[_UInt32]  # noqa: N815


class _AppStateKey(Struct):
    data: _Key
    fingerprint: _Fingerprint | None
    ts: _Natural


class _Token(Struct):
    token: Annotated[bytes, Meta(max_length=1024)]
    ts: _Natural
    sent: _Natural | None


_MemoryList = Annotated[list[str], Meta(max_length=MAX_MEMBERS)]


class _Damaged(ValueError):  # noqa: N818 - what is the case
    """An item has not the form of its kind."""


def check(state: AuthState, report: Report, *, deep: bool) -> None:
    """Report on the items by kind; `deep` sums up the app state as well."""
    for (kind, key), document in state.items.items():
        checker = _CHECKS.get(kind)
        item = f"{kind}/{key[:160]}"
        try:
            if checker is not None:
                checker(key, document)
            elif kind not in _OF_SIGNAL:
                _read(document, object)
        except (_Damaged, AddressError, JIDError, ValueDamaged) as error:
            report.error("item_unreadable", item, str(error))
    _check_collections(state, report, deep=deep)
    _check_lid_map(state, report)


def _read(document: bytes, kind: type[T] | Any) -> T:
    try:
        return msgspec.json.decode(document, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        # Types and places only; a text that is no JSON is not repeated.
        told = isinstance(error, msgspec.ValidationError)
        raise _Damaged(str(error) if told else "not a JSON document") from None


def _named(pattern: re.Pattern[str], key: str) -> None:
    if pattern.fullmatch(key) is None:
        raise _Damaged("its key is none of this kind")


def _app_state_key(key: str, document: bytes) -> None:
    _named(_KEY_ID, key)
    _read(document, _AppStateKey)


def _app_state_version(key: str, document: bytes) -> None:
    if not is_collection(key):
        raise _Damaged("its key is none of this kind")
    _undamaged(Head.parse, document)


def _app_state_entries(key: str, document: bytes) -> None:
    _undamaged(part_place, key)
    _undamaged(decode_part, document)


def _undamaged(parse: Callable[[U], T], stored: U) -> T:
    try:
        return parse(stored)
    except Damaged as error:
        raise _Damaged(str(error)) from None


def _memory(key: str, document: bytes) -> None:
    JID.parse(key)
    devices: list[str] = _read(document, _MemoryList)
    for device in devices:
        JID.parse(device)
    if devices != sorted(set(devices)):
        raise _Damaged("devices out of order, or twice")


def _token(key: str, document: bytes) -> None:
    JID.parse(key)
    _read(document, _Token)


def _device_list(key: str, document: bytes) -> None:
    JID.parse(key)
    _read(document, dict)


def _user_text(key: str, document: bytes) -> None:
    _named(_USER, key)
    _named(_USER, decode_text(document))


def _change(key: str, document: bytes) -> None:
    SignalAddress.parse(key)
    decode_text(document)


_CHECKS: Final[dict[str, Callable[[str, bytes], None]]] = {
    kinds.APP_STATE_ENTRIES: _app_state_entries,
    kinds.APP_STATE_KEY: _app_state_key,
    kinds.APP_STATE_VERSION: _app_state_version,
    kinds.DEVICES: _device_list,
    kinds.IDENTITY_CHANGE: _change,
    kinds.LID_OF_PN: _user_text,
    kinds.NUMBER_ALIAS: _user_text,
    kinds.PN_OF_LID: _user_text,
    kinds.SENDER_KEY_MEMORY: _memory,
    kinds.TRUSTED_CONTACT: _token,
}
"""Kinds that are read here; any other must be JSON."""
_OF_SIGNAL: Final = frozenset({kinds.IDENTITY, kinds.PREKEY, kinds.SENDER_KEY, kinds.SESSION})
"""Kinds that are read where they are judged."""


def _check_collections(state: AuthState, report: Report, *, deep: bool) -> None:
    """Where collections stand; `deep`, that each has the hash that its entries sum up to (§5.4 item 9)."""
    for name, head in sound_heads(state.items).items():
        item = f"{kinds.APP_STATE_VERSION}/{name}"
        if head.disabled:
            report.warn("app_state_disabled", item, f"its syncing ended: {head.disabled}")
        if head.mismatch:
            report.warn("app_state_mac_mismatch", item, "its hash is not the one that other devices have")
        if head.blocked:
            report.warn("app_state_blocked", item, f"{len(head.blocked)} keys are missing")
        if deep and not sums_up(state.items, name, head):
            report.warn(
                "app_state_hash_mismatch",
                item,
                "its entries do not have its hash: the collection is fetched anew",
            )


def _check_lid_map(state: AuthState, report: Report) -> None:
    """One to one in both directions, and the own pair in it (§5.4 item 10)."""
    lids, pns = _texts(state, kinds.LID_OF_PN), _texts(state, kinds.PN_OF_LID)
    for kind, there, back in ((kinds.LID_OF_PN, lids, pns), (kinds.PN_OF_LID, pns, lids)):
        for user, other in there.items():
            if back.get(other) != user:
                report.warn(
                    "lid_map_conflict",
                    f"{kind}/{user}",
                    "the other direction says something else, or nothing",
                )
    pn, lid = state.creds.me_pn, state.creds.me_lid
    if pn is not None and lid is None and pn.user not in lids:
        report.warn("own_pair_missing", f"{kinds.LID_OF_PN}/{pn.user}", "the own LID is not known")
    elif pn is not None and lid is not None and lids.get(pn.user, lid.user) != lid.user:
        report.warn("own_pair_conflict", f"{kinds.LID_OF_PN}/{pn.user}", "it is not the own LID")


def _texts(state: AuthState, kind: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, document in state.of(kind).items():
        try:
            found[key] = decode_text(document)
        except ValueDamaged:
            continue  # told already
    return found
