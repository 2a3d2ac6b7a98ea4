"""From a listed device list to the devices to write to (chapter 04 §2.2, chapter 06 §1.4). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from waD.e2ee import adv
from waD.link.errors import RequestError
from waD.link.stanzas import Requester
from waD.link.usync import DevicesAnswer, ListedDevice, Protocol, UserAnswer, UserQuery, query
from waD.wire.jid import HOSTED, HOSTED_LID, JID, LID, PN

HOSTED_DEVICE: Final = 99
DEVICE_PROTOCOLS: Final[tuple[Protocol, ...]] = ("devices", "lid")

ListState: TypeAlias = Literal["verified", "provisional", "missing", "invalid", "outdated"]
"""`verified`: signed by the account's key. `provisional`: the account's key is not known yet, so the signature must be
checked once it is. `missing`, `invalid`: only device 0 counts and the hash is not kept. `outdated`: older than what is
stored, which stays."""


@dataclass(frozen=True, slots=True)
class DeviceList:
    """Devices of one account to write to.

    Attributes:
        devices: kept ones, device 0 included when it is listed.
        state: how far the list can be trusted.
        hash: to send as hint next time; None when it must not be kept.
        ts: seconds, of the signed list; 0 when there is none.
        raw_id: the account's epoch, None without a readable list.
        re_registered: the raw id is not the stored one: drop the account's sessions and device records.
        key_index_list: the blob, to be checked later when `state` is `provisional`.
    """

    devices: tuple[ListedDevice, ...]
    state: ListState
    hash: str | None = None
    ts: int = 0
    raw_id: int | None = None
    re_registered: bool = False
    key_index_list: bytes | None = None


def resolve(
    answer: DevicesAnswer,
    identity_key: bytes | None,
    *,
    stored_ts: int = 0,
    stored_raw_id: int | None = None,
) -> DeviceList:
    """Apply the signed key-index list to what the server listed.

    Args:
        answer: of one user.
        identity_key: 32-byte identity of the account's device 0, or None when not known.
        stored_ts: seconds, of the list stored before.
        stored_raw_id: of the list stored before.
    """
    phone_only = tuple(item for item in answer.devices if item.id == adv.PRIMARY_DEVICE)
    listed = tuple(
        item for item in answer.devices if item.id == adv.PRIMARY_DEVICE or item.key_index is not None
    )
    if answer.key_index_list is None:
        if len(phone_only) < len(answer.devices):
            return DeviceList(phone_only, "missing")
        return DeviceList(phone_only, "verified", answer.hash, answer.ts or 0)
    try:
        signed = adv.verify_key_index_list(answer.key_index_list, identity_key)
    except adv.AdvError:
        return DeviceList(phone_only, "invalid")
    if signed.timestamp < stored_ts:
        return DeviceList((), "outdated", ts=signed.timestamp, raw_id=signed.raw_id)
    return DeviceList(
        devices=tuple(item for item in listed if signed.allows(item.id, item.key_index)),
        state="verified" if signed.verified else "provisional",
        hash=answer.hash,
        ts=signed.timestamp,
        raw_id=signed.raw_id,
        re_registered=stored_raw_id is not None and signed.raw_id != stored_raw_id,
        key_index_list=answer.key_index_list,
    )


def device_jids(
    user: JID, devices: Iterable[ListedDevice], *, own: Sequence[JID | None] = (), without_phone: bool = False
) -> list[JID]:
    """Addresses of a user's devices, each mapped on its own; companions without key index are left out.

    Args:
        user: bare address in the form to write to.
        devices: from an answer or a `DeviceList`.
        own: own device addresses, by number and LID: they are left out.
        without_phone: leave device 0 out.
    """
    found = []
    for device in devices:
        if device.id != adv.PRIMARY_DEVICE and device.key_index is None:
            continue
        if without_phone and device.id == adv.PRIMARY_DEVICE:
            continue
        jid = device_jid(user, device)
        if jid not in own:
            found.append(jid)
    return found


def device_jid(user: JID, device: ListedDevice) -> JID:
    """The address of one device; hosted ones live on a server of their own."""
    account = user.account
    if not (device.hosted or device.id == HOSTED_DEVICE):
        return account.with_device(device.id)
    return JID(account.user, {PN: HOSTED, LID: HOSTED_LID}.get(account.server, account.server), device.id)


@dataclass(frozen=True, slots=True)
class DeviceAnswer:
    """What a device query gave for one account asked for.

    Attributes:
        user: as asked.
        devices: the unverified list; empty when the account has none; None with `unchanged` or `error`.
        lid: the user's LID when the server told it.
        unchanged: a hash hint was sent and the server left the user out: the stored list holds.
        error: the server's refusal for this user.
    """

    user: JID
    devices: DevicesAnswer | None = None
    lid: JID | None = None
    unchanged: bool = False
    error: RequestError | None = None


async def query_devices(requester: Requester, users: Sequence[UserQuery]) -> list[DeviceAnswer]:
    """Ask for the devices and LIDs of accounts before sending to them (chapter 04 §2.1).

    Channels and bots have no device list: do not ask for them.

    Returns:
        One answer for each query, in order; answers nobody asked for are dropped.

    Raises:
        ValueError: a query without address.
        RequestError, RequestTimeout, Disconnected, MalformedReply: nothing is known about any user.
    """
    if any(user.jid is None for user in users):
        raise ValueError("a device query needs addresses")
    answer = await query(requester, DEVICE_PROTOCOLS, users, context="message")
    if "devices" in answer.errors:
        raise answer.errors["devices"]
    return match_devices(users, answer.users)


def match_devices(users: Sequence[UserQuery], answers: Iterable[UserAnswer]) -> list[DeviceAnswer]:
    """Pair each query with its answer, under whichever of the two addresses the server used."""
    by_jid: dict[JID, UserAnswer] = {}
    listed = list(answers)
    named = [(answer.jid, answer) for answer in listed]
    # What an answer is about comes before what it says in passing: no user takes another's place by an alias.
    aliases = [(jid, answer) for answer in listed for jid in (answer.pn_jid, answer.lid)]
    for jid, answer in (*named, *aliases):
        if jid is not None:
            by_jid.setdefault(jid.account, answer)
    return [_device_answer(user, by_jid) for user in users]


def _device_answer(user: UserQuery, by_jid: dict[JID, UserAnswer]) -> DeviceAnswer:
    assert user.jid is not None
    found = by_jid.get(user.jid.account)
    if found is None:
        if user.device_hash is not None:
            return DeviceAnswer(user.jid, unchanged=True)
        return DeviceAnswer(user.jid, DevicesAnswer())
    lid = found.lid or (found.jid if found.jid is not None and found.jid.is_lid else None)
    lid = None if lid is None else lid.account
    if "devices" in found.errors:
        return DeviceAnswer(user.jid, None, lid, error=found.errors["devices"])
    if found.devices is None and user.device_hash is not None:
        return DeviceAnswer(user.jid, None, lid, unchanged=True)
    return DeviceAnswer(user.jid, found.devices or DevicesAnswer(), lid)
