"""Presence and typing notices (chapter 07 §8)."""

from __future__ import annotations

from typing import Final

from waD.sandbox.accounts import Account, Device
from waD.sandbox.links import Link
from waD.sandbox.world import World
from waD.wire.jid import JID
from waD.wire.node import Node, Value

MAX_SUBJECTS: Final = 5000
STATES: Final = frozenset({"composing", "paused"})


class PresenceService:
    """Who is there, who wants to know, and who is typing."""

    def __init__(self, world: World) -> None:
        self._world = world

    def presence(self, device: Device, node: Node) -> None:
        """Take a `<presence>` of a client; nothing is answered."""
        kind = node.text("type")
        if kind in ("subscribe", "unsubscribe"):
            self._subscribe(device, node.jid("to"), wanted=kind == "subscribe")
            return
        name = node.text("name")
        if name and name != device.account.record.name:
            device.account.record.name = name
            self._world.save_account(device.account)
        if kind in ("available", "unavailable"):
            self.set_available(device, available=kind == "available")

    def set_available(self, device: Device, *, available: bool) -> None:
        """Change a device's state; watchers hear when the account's state changes."""
        before = device.account.available
        device.available = available
        if device.account.available != before:
            if before:
                device.account.last_seen_s = self._world.now_s
            self._publish(device.account)

    def link_gone(self, device: Device, link: Link) -> None:
        """The device's link ended: it is not available, and its subscriptions wait a little for the next."""
        device.remembered_subjects = dict(link.subjects)
        device.remembered_until_ms = self._world.now_ms + int(self._world.settings.presence_memory_s * 1000)
        for number in link.subjects:
            self._world.watchers.get(number, set()).discard(link)
        link.subjects.clear()
        self.set_available(device, available=False)

    def link_active(self, device: Device, link: Link) -> None:
        """A link went active: subscriptions of the previous one go on, with one update each."""
        if self._world.now_ms < device.remembered_until_ms:
            for jid in device.remembered_subjects.values():
                self._watch(link, jid)
        device.remembered_subjects = {}

    def chatstate(self, device: Device, node: Node) -> None:
        """Forward a typing notice to all devices of the other side; it dies young."""
        to = node.jid("to")
        children = [child for child in node.children() if child.tag in STATES]
        account = self._world.directory.find(to)
        if to is None or account is None or len(children) != 1 or account is device.account:
            return
        sender = device.account.jid(lid=to.is_lid)
        ttl_ms = int(self._world.settings.chat_state_ttl_s * 1000)
        for other in account.devices.values():
            stanza = Node("chatstate", {"from": sender}, children)
            self._world.push(other, stanza, ttl_ms=ttl_ms, needs_ack=False)

    def _subscribe(self, device: Device, to: JID | None, *, wanted: bool) -> None:
        link = device.link
        account = self._world.directory.find(to)
        if link is None or account is None or to is None:
            return
        if not wanted:
            link.subjects.pop(account.number, None)
            self._world.watchers.get(account.number, set()).discard(link)
            return
        if len(link.subjects) < MAX_SUBJECTS:
            self._watch(link, to.bare)

    def _watch(self, link: Link, jid: JID) -> None:
        account = self._world.directory.find(jid)
        if account is None:
            return
        link.subjects[account.number] = jid
        self._world.watchers.setdefault(account.number, set()).add(link)
        self._tell(link, account)

    def _publish(self, account: Account) -> None:
        for link in self._world.watchers.get(account.number, ()):
            self._tell(link, account)

    def _tell(self, link: Link, account: Account) -> None:
        jid = link.subjects.get(account.number)
        if jid is None or link.device is None or not _visible(account, link.device.account):
            return
        attrs: dict[str, Value] = {"from": jid}
        if not account.available:
            attrs["type"] = "unavailable"
            if account.record.privacy.get("last", "all") == "none":
                attrs["last"] = "deny"
            elif account.last_seen_s:
                attrs["last"] = str(account.last_seen_s)
        link.presence[account.number] = Node("presence", attrs)
        link.wake()


def _visible(subject: Account, watcher: Account) -> bool:
    return (
        watcher.lid not in subject.record.blocked
        and subject.record.privacy.get("online", "all") != "none"
        and not (subject.flags["restricted"] and watcher.number not in subject.record.contacts)
    )
