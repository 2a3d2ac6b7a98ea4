"""Prekey bundles of other devices: asking for them and checking them (chapter 04 §3, chapter 03 §7.2).

One bad device never spoils the answer for the others: every device asked for gets a result of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from waD.e2ee import adv
from waD.e2ee.curve import KEY_LENGTH, KEY_TYPE, SIGNATURE_LENGTH
from waD.e2ee.errors import SignalError
from waD.e2ee.x3dh import PreKeyBundle, check_bundle
from waD.link.errors import RequestError
from waD.link.stanzas import Requester, error_of, iq, need_child, raise_for_error
from waD.wire.jid import JID
from waD.wire.node import Node

BATCH_SIZE: Final = 50
"""Devices asked for with one iq."""
NOT_ACCEPTABLE: Final = 406

BundleError: TypeAlias = Literal[
    "refused", "no_answer", "malformed", "bad_signature", "adv_missing", "adv_invalid", "account_key"
]
"""Why there is no bundle: the server refused (`code` says how), left the device out, wrote nonsense; the signed prekey
is not signed by the identity; a companion lacks its `<device-identity>` though the account's key is known, has one
that does not verify, or has one by an account key that is not the account's."""


@dataclass(frozen=True, slots=True)
class DeviceBundle:
    """What is known about one device after asking.

    Attributes:
        jid: the device, as asked for.
        bundle: a checked bundle, or None with `error`.
        error: why there is none.
        code: WhatsApp's number with `refused`, such as 406: that device does not exist.
        device_identity: the companion's blob as received, empty when there was none.
        verified: the identity is bound to the account: a phone, or a companion whose two signatures hold. A session
            from an unverified bundle stays marked until the bundle of device 0 is known.
        account_key: 32-byte identity of device 0 the companion was checked with.
        account_changed: this key is not the one that was stored: the account was registered anew.
        adv: the companion's statement when it was verified.
    """

    jid: JID
    bundle: PreKeyBundle | None = None
    error: BundleError | None = None
    code: int | None = None
    device_identity: bytes = b""
    verified: bool = False
    account_key: bytes | None = None
    account_changed: bool = False
    adv: adv.AdvResult | None = None


def request_node(jids: Iterable[JID], reason: str | None = None) -> Node:
    """Build the iq; `reason` is None, `identity` or `retry`."""
    attrs = {} if reason is None else {"reason": reason}
    return iq("get", "encrypt", Node("key", {}, [Node("user", {"jid": jid, **attrs}) for jid in jids]))


def parse_answer(reply: Node, asked: Sequence[JID]) -> list[DeviceBundle]:
    """Read an answer without checking signatures; one result for each device asked for, in that order.

    Devices nobody asked for, and second entries for one device, are ignored.

    Raises:
        RequestError: the whole request was refused.
        MalformedReply: there is no list.
    """
    listed = need_child(raise_for_error(reply, "prekey request"), "list", "the prekey request")
    found: dict[JID, DeviceBundle] = {}
    wanted = frozenset(asked)
    for user in listed.children("user"):
        jid = user.jid("jid")
        if jid in wanted and jid not in found:
            found[jid] = _parse_user(jid, user)
    return [found.get(jid) or DeviceBundle(jid, error="no_answer") for jid in asked]


def _parse_user(jid: JID, user: Node) -> DeviceBundle:
    failure = user.child("error")
    if failure is not None:
        return DeviceBundle(jid, error="refused", code=error_of(failure, "prekeys").code)
    bundle = parse_bundle(user)
    if bundle is None:
        return DeviceBundle(jid, error="malformed")
    blob = user.child("device-identity")
    return DeviceBundle(jid, bundle, device_identity=b"" if blob is None else blob.data)


def parse_bundle(user: Node) -> PreKeyBundle | None:
    """Read registration, identity and keys below a node of an answer; None when malformed.

    Lengths are checked, signatures are not.
    """
    kind = user.child("type")
    if kind is not None and kind.data != bytes((KEY_TYPE,)):
        return None
    return _parse_keys(_bytes(user, "registration", 4), user)


def parse_retry_keys(receipt: Node) -> PreKeyBundle | None:
    """Read the bundle of a retry receipt: its `<registration>` and what `<keys>` holds (chapter 03 §7.4).

    Here the key type must be told. The blob of a companion is `<device-identity>` below `<keys>`.

    Returns:
        The bundle, lengths checked and signatures not; None without `<keys>` or when they are malformed.
    """
    keys = receipt.child("keys")
    if keys is None or _bytes(keys, "type", 1) != bytes((KEY_TYPE,)):
        return None
    return _parse_keys(_bytes(receipt, "registration", 4), keys)


def _parse_keys(registration: bytes | None, user: Node) -> PreKeyBundle | None:
    identity = _bytes(user, "identity", KEY_LENGTH)
    signed = user.child("skey")
    if registration is None or identity is None or signed is None:
        return None
    signed_id, signed_value = _bytes(signed, "id", 3), _bytes(signed, "value", KEY_LENGTH)
    signature = _bytes(signed, "signature", SIGNATURE_LENGTH)
    if signed_id is None or signed_value is None or signature is None:
        return None
    prekey_id = prekey = None
    one_time = user.child("key")
    if one_time is not None:
        prekey_id, prekey = _bytes(one_time, "id", 3), _bytes(one_time, "value", KEY_LENGTH)
        if prekey_id is None or prekey is None or not any(prekey_id):
            return None
    return PreKeyBundle(
        int.from_bytes(registration, "big"),
        identity,
        int.from_bytes(signed_id, "big"),
        signed_value,
        signature,
        None if prekey_id is None else int.from_bytes(prekey_id, "big"),
        prekey,
    )


def _bytes(node: Node, tag: str, length: int) -> bytes | None:
    child = node.child(tag)
    return child.data if child is not None and len(child.data) == length else None


def check_all(parsed: Sequence[DeviceBundle], account_keys: Mapping[JID, bytes]) -> list[DeviceBundle]:
    """Verify every signature; phones first, because their identities prove their companions.

    Args:
        parsed: from `parse_answer`.
        account_keys: account address (no device) to the stored 32-byte identity of its device 0.
    """
    fresh: dict[JID, bytes] = {}
    checked: dict[JID, DeviceBundle] = {}
    for device in sorted(parsed, key=lambda item: item.jid.device != adv.PRIMARY_DEVICE):
        account = device.jid.account
        good = _check(device, fresh.get(account), account_keys.get(account))
        checked[device.jid] = good
        if good.bundle is not None and device.jid.device == adv.PRIMARY_DEVICE:
            fresh[account] = good.bundle.identity
    return [checked[device.jid] for device in parsed]


def _check(device: DeviceBundle, fresh_key: bytes | None, stored_key: bytes | None) -> DeviceBundle:
    if device.bundle is None:
        return device
    try:
        check_bundle(device.bundle)
    except SignalError as refusal:
        bad = refusal.code == "invalid_signature"
        return replace(device, bundle=None, error="bad_signature" if bad else "malformed")
    if device.jid.device == adv.PRIMARY_DEVICE:
        changed = stored_key is not None and stored_key != device.bundle.identity
        return replace(device, verified=True, account_key=device.bundle.identity, account_changed=changed)
    return _check_companion(device, device.bundle, fresh_key, stored_key)


def _check_companion(
    device: DeviceBundle, bundle: PreKeyBundle, fresh_key: bytes | None, stored_key: bytes | None
) -> DeviceBundle:
    known = fresh_key or stored_key
    if not device.device_identity:
        if known is not None:
            return replace(device, bundle=None, error="adv_missing")
        return device
    try:
        statement = adv.verify_companion(bundle.identity, device.device_identity, known)
    except adv.AdvError as refusal:
        if refusal.code == "no_account_key":
            return device
        return replace(device, bundle=None, error="adv_invalid")
    if statement.account_changed and fresh_key is not None:
        return replace(device, bundle=None, error="account_key")
    return replace(
        device,
        # A key that only the blob vouches for proves nothing about whose account this is.
        verified=known is not None and not statement.account_changed,
        account_key=statement.account_key,
        account_changed=stored_key is not None and statement.account_key != stored_key,
        adv=statement,
    )


async def fetch_bundles(
    requester: Requester,
    jids: Iterable[JID],
    account_keys: Mapping[JID, bytes] | None = None,
    *,
    reason: str | None = None,
) -> list[DeviceBundle]:
    """Fetch and check the bundles of devices, at most `BATCH_SIZE` with one iq.

    Phones are asked for first. When a companion names another account key than the stored one, the bundle of its
    phone is fetched too and decides: it is then among the results although nobody asked for it.

    Args:
        requester: the connection.
        jids: devices; duplicates are asked for once.
        account_keys: account address (no device) to the stored 32-byte identity of its device 0.
        reason: None, `identity` or `retry`.

    Returns:
        One result for each device.

    Raises:
        RequestError: the server refused (429, 5xx) for now; nothing is known about any device.
        RequestTimeout, Disconnected: no answer.
    """
    keys = dict(account_keys or {})
    ordered = sorted(dict.fromkeys(jids), key=lambda jid: jid.device != adv.PRIMARY_DEVICE)
    parsed = await _fetch(requester, ordered, reason)
    results = check_all(parsed, keys)
    doubtful = dict.fromkeys(
        item.jid.account for item in results if item.account_changed and item.jid.device != adv.PRIMARY_DEVICE
    )
    missing = [jid for jid in doubtful if jid not in ordered]
    if missing:
        parsed = await _fetch(requester, missing, "identity") + parsed
        results = check_all(parsed, keys)
    return [_settle(item, doubtful) for item in results]


def _settle(item: DeviceBundle, doubtful: Collection[JID]) -> DeviceBundle:
    """Refuse a companion whose new account key no phone confirmed, whether or not its phone was asked before."""
    doubted = item.jid.account in doubtful and item.jid.device != adv.PRIMARY_DEVICE
    if doubted and item.bundle is not None and not item.verified:
        return replace(item, bundle=None, error="account_key")
    return item


async def _fetch(requester: Requester, jids: Sequence[JID], reason: str | None) -> list[DeviceBundle]:
    results: list[DeviceBundle] = []
    for start in range(0, len(jids), BATCH_SIZE):
        results += await _fetch_batch(requester, jids[start : start + BATCH_SIZE], reason)
    return results


async def _fetch_batch(requester: Requester, jids: Sequence[JID], reason: str | None) -> list[DeviceBundle]:
    try:
        return parse_answer(await requester.request(request_node(jids, reason)), jids)
    except RequestError as refusal:
        if refusal.code != NOT_ACCEPTABLE:
            raise
    if len(jids) == 1:
        return [DeviceBundle(jids[0], error="refused", code=NOT_ACCEPTABLE)]
    # The refusal of a whole batch names nobody: ask for each device alone, once (chapter 04 §3.3).
    return [item for jid in jids for item in await _fetch_batch(requester, [jid], reason)]
