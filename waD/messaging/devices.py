"""Device lists that the server says have changed (chapter 04 §2.4), over the stored ones."""

from __future__ import annotations

import logging
from typing import Final

from waD.link import acks
from waD.link.devices import device_jids
from waD.link.usync import MAX_DEVICE_ID, DevicesAnswer, ListedDevice
from waD.messaging import kinds
from waD.messaging.device_lists import DeviceLists, DeviceRecord
from waD.messaging.phash import contact_hash, device_hash
from waD.messaging.reaction import FetchDevices, Reaction
from waD.store.unit import Unit
from waD.wire.jid import JID
from waD.wire.node import Node

_OPERATIONS: Final = ("remove", "add", "update")
"""In the order in which they win when a stanza has several."""

_log = logging.getLogger(__name__)


class Devices(DeviceLists):
    """The device lists of one session, kept up to date by notifications."""

    async def apply_notification(self, stanza: Node, unit: Unit) -> Reaction:
        """Handle `<notification type="devices">` and `type="account_sync"` with `<devices>`; always acked.

        What cannot be applied drops the list instead: it is asked for before the next message.
        """
        reaction = Reaction()
        reaction.add(acks.ack(stanza, self._context.account.device_pn))
        user = stanza.jid("from")
        if user is None or not user.is_user:
            return reaction
        if stanza.attrs.get("type") == "account_sync":
            await self._account_sync(user, stanza, unit)
        else:
            await self._changed(user, stanza, unit, reaction)
        if self._context.account.is_own(user) and await self.record(user, unit) is None:
            reaction.work.append(FetchDevices((user.account,)))
        return reaction

    async def _changed(self, user: JID, stanza: Node, unit: Unit, reaction: Reaction) -> None:
        found = [node for tag in _OPERATIONS if (node := stanza.child(tag)) is not None]
        if not found:
            return
        lid = stanza.jid("lid")
        if lid is not None and user.is_pn and lid.is_lid:
            learned = await self._context.addresses.learn(unit, user.account, lid.account, "observed")
            if not learned:
                reaction.work.append(FetchDevices((user.account,)))
        match found[0].tag:
            case "remove":
                await self._remove(user, found[0], unit)
            case "add":
                await self._add(user, found[0], unit)
            case _:
                await self._update(found[0], unit)

    async def _add(self, user: JID, node: Node, unit: Unit) -> None:
        record = await self.record(user, unit)
        if record is None:
            return
        index = node.child("key-index-list")
        added = _named(user, node)
        if index is None or not index.data or not added:
            await self.invalidate(unit, user)
            return
        kept = [item for item in record.devices if item.id not in {new.id for new in added}]
        answer = DevicesAnswer(
            devices=(*kept, *added),
            hash=_told_hash(user, node),
            key_index_list=index.data,
            ts=index.int("ts"),
        )
        after = await self.apply(unit, user, answer)
        if after is not record and (after is None or not _agrees(user, node, after)):
            await self.invalidate(unit, user)

    async def _remove(self, user: JID, node: Node, unit: Unit) -> None:
        record = await self.record(user, unit)
        index = node.child("key-index-list")
        ts = None if index is None else index.int("ts")
        if record is None or not ts or ts < record.ts:
            return
        gone = {item.id for item in _named(user, node, indexed=False)} - {0}
        left = [item for item in record.devices if item.id not in gone]
        await self.put_devices(unit, user, record, left)
        after = await self.record(user, unit)
        if after is None or not _agrees(user, node, after):
            await self.invalidate(unit, user)

    async def _update(self, node: Node, unit: Unit) -> None:
        """A contact named by a hash changed: every list that may be meant goes."""
        wanted = node.text("hash")
        for key in await self._context.state.item_keys(kinds.DEVICES, "", unit):
            user = JID.parse(key)
            forms = await self._context.addresses.spellings(user, unit)
            if wanted in {contact_hash(form.user) for form in forms}:
                await self.invalidate(unit, user)

    async def _account_sync(self, user: JID, stanza: Node, unit: Unit) -> None:
        """The own list as the server has it. It is not signed: it takes devices away, and adds none."""
        node = stanza.child("devices")
        if node is None or not self._context.account.is_own(user):
            return
        record = await self.record(user, unit)
        if record is None:
            return
        listed = {item.id: item for item in _named(user, node, indexed=False)}
        known = {item.id: item for item in record.devices}
        left = [item for item in record.devices if item.id == 0 or item.id in listed]
        await self.put_devices(unit, user, record, left)
        if not listed.keys() <= known.keys() or _told_hash(user, node) != _hash_of(user, left):
            await self.invalidate(unit, user)


def _named(user: JID, node: Node, *, indexed: bool = True) -> tuple[ListedDevice, ...]:
    """Devices that a node lists, as far as they are the account's; with `indexed`, those with a key index only."""
    found: dict[int, ListedDevice] = {}
    for child in node.children("device"):
        jid, lid, index = child.jid("jid"), child.jid("lid"), child.int("key-index")
        if jid is None or jid.account != user.account or jid.device > MAX_DEVICE_ID:
            _log.warning("a device notification names devices of somebody else; they are ignored")
            continue
        if (lid is not None and lid.device != jid.device) or (indexed and index is None):
            continue
        found[jid.device] = ListedDevice(jid.device, index, jid.is_hosted)
    return tuple(found.values())


def _told_hash(user: JID, node: Node) -> str | None:
    """The hash the server gives for the list in the namespace of `user`."""
    if node.tag == "devices":
        return node.text("dhash")
    return node.text("device_lid_hash" if user.is_lid else "device_hash")


def _agrees(user: JID, node: Node, record: DeviceRecord) -> bool:
    """Whether our list is the server's, as far as it gives a hash to compare."""
    told = _told_hash(user, node)
    return told is None or told == _hash_of(user, record.devices)


def _hash_of(user: JID, devices: tuple[ListedDevice, ...] | list[ListedDevice]) -> str:
    return device_hash(device_jids(user.account, devices))
