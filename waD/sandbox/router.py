"""Messages and receipts: from one device to the queues of others (chapter 07 §7, chapter 04 §1.11)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from waD.sandbox.accounts import Account, Device, phash
from waD.sandbox.world import World
from waD.wire.jid import JID
from waD.wire.node import Node, Value

MAX_ID: Final = 255
MAX_RECEIPT_IDS: Final = 256
MAX_TARGETS: Final = 2000

_ADDRESSED: Final = frozenset({"participants", "enc", "device-identity", "tctoken", "cstoken"})
"""Children that are not copied to the receivers as they are."""
_PASSED_ON: Final = ("edit", "push_priority", "addressing_mode")
_RETRY_TYPES: Final = frozenset({"retry", "enc_rekey_retry"})
_QUIET_RECEIPTS: Final = frozenset({"sender", "peer_msg", "hist_sync"})
_SELF_RECEIPTS: Final = frozenset({"read-self", "played-self"})


class RefusedError(Exception):
    """A message is answered with an error instead of being delivered."""

    def __init__(self, code: int) -> None:
        super().__init__(str(code))
        self.code = code


class Target(msgspec.Struct):
    """One device a message goes to, and its `<enc>` elements."""

    device: Device
    encs: list[Node]


class Plan(msgspec.Struct):
    """Where a message goes. `unknown`: a listed device does not exist; `listed`: with participants."""

    account: Account
    lid: bool
    targets: list[Target]
    unknown: bool
    listed: bool


class Router:
    """Moves messages, receipts and acks between devices."""

    def __init__(self, world: World) -> None:
        self._world = world

    def message(self, sender: Device, node: Node) -> Node | None:
        """Deliver a message; returns the ack for its sender, None when there can be none."""
        message_id, to = node.text("id"), node.jid("to")
        if not message_id or len(message_id) > MAX_ID or to is None:
            self._world.complain(sender, "a message without a usable id or recipient")
            return None
        ack = self._ack("message", node)
        ack.attrs["t"] = str(self._world.now_s)
        fault = self._world.faults.take("ack-error", sender)
        try:
            if fault is not None:
                raise RefusedError(fault.code or 400)
            if to.is_user:
                hash_hint = self._direct(sender, node, message_id, to)
                if hash_hint:
                    ack.attrs["phash"] = hash_hint
            else:
                raise RefusedError(404)
        except RefusedError as refused:
            ack.attrs["error"] = str(refused.code)
        return ack

    def receipt(self, sender: Device, node: Node) -> Node | None:
        """Take and forward a receipt; returns its ack."""
        message_id, to = node.text("id"), node.jid("to")
        if not message_id or to is None:
            self._world.complain(sender, "a receipt without id or to")
            return None
        kind = node.text("type")
        ids = receipt_ids(node)
        if kind not in _RETRY_TYPES and kind != "server-error":
            for one in ids:
                self.consume(sender, "message", one, to, kind)
        if to.is_user:
            self._forward_receipt(sender, node, kind, to)
        return self._ack("receipt", node)

    def client_ack(self, sender: Device, node: Node) -> None:
        """A client acks something that was pushed to it."""
        message_id, tag = node.text("id"), node.text("class")
        if not message_id or not tag:
            self._world.complain(sender, "an ack without id or class")
            return
        item = self.consume(sender, tag, message_id, node.jid("to"), node.text("type"))
        if item is None:
            return
        for name in ("participant", "recipient"):
            if name in item.attrs and node.jid(name) != item.jid(name):
                self._world.complain(sender, f"an ack of {tag} {message_id} without the {name} of the stanza")

    def consume(
        self, device: Device, tag: str, stanza_id: str, to: JID | None, kind: str | None
    ) -> Node | None:
        """Take the item an ack is about out of the queue; returns its stanza."""
        item = device.queue.acked(tag, stanza_id, to, kind)
        if item is None:
            return None
        self._world.remove_item(device, item)
        return item.stanza

    def _direct(self, sender: Device, node: Node, message_id: str, to: JID) -> str | None:
        account = self._world.directory.find(to)
        if account is None:
            return None
        if node.text("category") == "peer":
            self._check_peer(sender, node, account)
        if to.is_lid and self._world.settings.require_lid_migration and account is not sender.account:
            raise RefusedError(400)
        plan = self._plan(sender, node, account, to)
        self._check_content(node)
        self._record_keys(sender, plan, message_id)
        if account is not sender.account and sender.account.lid in account.record.blocked:
            return None
        self._deliver(sender, node, message_id, to, plan)
        if sender.account.add_contact(account):
            self._world.save_account(sender.account)
        if account.add_contact(sender.account):
            self._world.save_account(account)
        return self._hash_hint(sender, plan)

    def _check_peer(self, sender: Device, node: Node, account: Account) -> None:
        if account is not sender.account:
            raise RefusedError(400)
        if node.child("tctoken") or node.child("cstoken"):
            raise RefusedError(479)

    def _check_content(self, node: Node) -> None:
        for enc in all_encs(node):
            if not enc.data or enc.text("v") is None or enc.text("type") is None:
                raise RefusedError(479)

    def _plan(self, sender: Device, node: Node, account: Account, to: JID) -> Plan:
        participants = node.child("participants")
        if participants is None:
            return self._plan_bare(sender, node, account, to)
        targets: list[Target] = []
        seen: set[JID] = set()
        unknown = False
        entries = participants.children("to")
        if not entries or len(entries) > MAX_TARGETS:
            raise RefusedError(400)
        for entry in entries:
            jid = entry.jid("jid")
            encs = entry.children("enc")
            if jid is None or not encs or jid.is_lid != to.is_lid or jid in seen:
                raise RefusedError(400)
            if any("count" in enc.attrs for enc in encs):
                raise RefusedError(479)
            seen.add(jid)
            owner = self._world.directory.find(jid)
            if owner is None or owner not in (account, sender.account):
                raise RefusedError(400)
            device = owner.devices.get(jid.device)
            if device is None:
                unknown = True
            elif device is not sender:
                targets.append(Target(device, encs))
        return Plan(account, to.is_lid, targets, unknown, listed=True)

    def _plan_bare(self, sender: Device, node: Node, account: Account, to: JID) -> Plan:
        encs = node.children("enc")
        if not encs:
            raise RefusedError(400)
        device = account.devices.get(to.device)
        targets = [Target(device, encs)] if device is not None and device is not sender else []
        return Plan(account, to.is_lid, targets, unknown=device is None, listed=False)

    def _record_keys(self, sender: Device, plan: Plan, message_id: str) -> None:
        for target in plan.targets:
            for enc in target.encs:
                self._world.keys.note(
                    sender.key, target.device.key, enc.text("type") or "", enc.data, message_id
                )

    def _deliver(self, sender: Device, node: Node, message_id: str, to: JID, plan: Plan) -> None:
        known = self._world.relayed(sender, message_id)
        done: set[str] = set(known.devices) if known else set()
        reached: list[str] = []
        for target in plan.targets:
            device = target.device
            again = self._world.take_resend(sender, message_id, device)
            resend = not plan.listed and any("count" in enc.attrs for enc in target.encs)
            if device.key in done and not again and not resend:
                continue
            self._world.push(device, self._stanza_for(sender, node, message_id, to, plan, target))
            reached.append(device.key)
        self._world.note_relayed(sender, message_id, reached)

    def _stanza_for(
        self, sender: Device, node: Node, message_id: str, to: JID, plan: Plan, target: Target
    ) -> Node:
        attrs: dict[str, Value] = {
            "from": sender.jid(lid=plan.lid),
            "id": message_id,
            "type": node.text("type") or "text",
            "t": str(self._world.now_s),
        }
        for name in _PASSED_ON:
            if name in node.attrs:
                attrs[name] = node.attrs[name]
        if node.text("category") == "peer":
            attrs["category"] = "peer"
            attrs["sender_pn" if plan.lid else "sender_lid"] = sender.account.jid(lid=not plan.lid)
        elif target.device.account is sender.account:
            self._mark_own_copy(node, to, attrs)
        else:
            attrs["sender_pn" if plan.lid else "sender_lid"] = sender.account.jid(lid=not plan.lid)
            if sender.account.record.name:
                attrs["notify"] = sender.account.record.name
        content = list(target.encs)
        if any(enc.text("type") == "pkmsg" for enc in target.encs):
            content += node.children("device-identity")
        content += [child for child in node.children() if child.tag not in _ADDRESSED]
        return Node("message", attrs, content)

    def _mark_own_copy(self, node: Node, to: JID, attrs: dict[str, Value]) -> None:
        """Name the chat. Never `sender_*`: one client would take that for the chat's other address."""
        chat = node.jid("recipient")
        if chat is None and to.device:
            return  # repeated for one sibling: only the author could have said of which chat it is
        chat = chat or to.bare
        attrs["recipient"] = chat
        other = self._world.directory.find(chat)
        if other is not None:
            name = "peer_recipient_pn" if chat.is_lid else "peer_recipient_lid"
            attrs[name] = other.jid(lid=not chat.is_lid)

    def _hash_hint(self, sender: Device, plan: Plan) -> str | None:
        """The hash of the true device list, when the sender's was another one (chapter 04 §5.3)."""
        if not plan.listed:
            return None
        real = {*plan.account.devices.values(), *sender.account.devices.values()}
        listed = {target.device for target in plan.targets} | {sender}
        if listed == real and not plan.unknown:
            return None
        return phash(device.jid(lid=plan.lid) for device in real)

    def _forward_receipt(self, sender: Device, node: Node, kind: str | None, to: JID) -> None:
        if kind in _QUIET_RECEIPTS:
            return
        if kind in _RETRY_TYPES:
            self._forward_retry(sender, node, to)
            return
        if kind == "server-error":
            self._world.push(sender.account.phone, self._receipt(sender, node, to, kind))
            return
        own = self._world.directory.find(to) is sender.account
        if kind not in _SELF_RECEIPTS and not own:
            self._to_author(sender, node, kind, to)
        if kind in ("read", "played") or kind in _SELF_RECEIPTS:
            self._to_siblings(sender, node, kind, to)

    def _to_author(self, sender: Device, node: Node, kind: str | None, to: JID) -> None:
        account = self._world.directory.find(to)
        if account is None:
            return
        for device in account.devices.values():
            self._world.push(device, self._receipt(sender, node, to, kind))

    def _to_siblings(self, sender: Device, node: Node, kind: str, to: JID) -> None:
        seen_as = kind if kind in _SELF_RECEIPTS else f"{kind}-self"
        for device in sender.account.others(sender):
            stanza = self._receipt(sender, node, to, seen_as)
            stanza.attrs["recipient"] = to.bare
            self._world.push(device, stanza)

    def _forward_retry(self, sender: Device, node: Node, to: JID) -> None:
        account = self._world.directory.find(to)
        message_id = node.text("id") or ""
        if account is None:
            return
        author = self._world.author_of(account, message_id) or account.devices.get(to.device)
        authors: Iterable[Device] = [author] if author else account.devices.values()
        for device in authors:
            if device is sender:
                continue
            stanza = self._receipt(sender, node, to, node.text("type"))
            for name in ("participant", "recipient", "category"):
                if name in node.attrs:
                    stanza.attrs[name] = node.attrs[name]
            self._world.expect_resend(device, message_id, sender)
            self._world.push(device, stanza)

    def _receipt(self, sender: Device, node: Node, to: JID, kind: str | None) -> Node:
        attrs: dict[str, Value] = {
            "from": sender.jid(lid=to.is_lid),
            "id": node.attrs["id"],
            "t": str(self._world.now_s),
        }
        if kind is not None:
            attrs["type"] = kind
        return Node("receipt", attrs, node.children() or None)

    def _ack(self, tag: str, node: Node) -> Node:
        attrs: dict[str, Value] = {"class": tag, "id": node.attrs["id"], "from": node.attrs["to"]}
        to = node.jid("to")
        if to is not None:
            attrs["from"] = to
        for name in ("participant", "type") if tag == "receipt" else ():
            if name in node.attrs:
                attrs[name] = node.attrs[name]
        return Node("ack", attrs)


def receipt_ids(node: Node) -> list[str]:
    """The message ids a receipt is about; more than 256 are cut off."""
    ids = [node.text("id") or ""]
    listed = node.child("list")
    if listed is not None:
        ids += [item.text("id") or "" for item in listed.children("item")]
    return [one for one in ids if one][:MAX_RECEIPT_IDS]


def all_encs(node: Node) -> list[Node]:
    """Every `<enc>` of a message, wherever it stands."""
    participants = node.child("participants")
    entries = participants.children("to") if participants else []
    return node.children("enc") + [enc for entry in entries for enc in entry.children("enc")]
