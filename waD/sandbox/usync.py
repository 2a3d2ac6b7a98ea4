"""Answers to usync queries (chapter 06 §1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from waD.sandbox.accounts import Account, phash
from waD.sandbox.errors import IqError
from waD.sandbox.world import World
from waD.wire.jid import JID, LEGACY, PN
from waD.wire.node import Node, Value

MAX_USERS: Final = 10_000
MODES: Final = frozenset({"query", "full", "delta"})
ECHOED: Final = ("sid", "index", "last", "mode", "context")

KeyIndexList = Callable[[Account], bytes]
"""Makes the signed statement of valid devices; the phone's business."""


class Usync:
    """The directory as clients may ask it."""

    def __init__(self, world: World, key_index_list: KeyIndexList) -> None:
        self._world = world
        self._key_index_list = key_index_list

    def answer(self, asker: Account, iq: Node) -> list[Node]:
        """Return the content of the result; raises IqError for a malformed query."""
        usync = iq.child("usync")
        query = usync.child("query") if usync else None
        users = usync.child("list") if usync else None
        if usync is None or query is None or users is None or usync.text("mode", "query") not in MODES:
            raise IqError(400, "bad-request", "a usync needs query, list and a known mode")
        asked = users.children("user")
        if len(asked) > MAX_USERS:
            raise IqError(429, "rate-overlimit", "too many users in one query", backoff_s=60)
        protocols = query.children()
        answered = [self._user(asker, user, protocols) for user in asked]
        attrs: dict[str, Value] = {name: usync.attrs[name] for name in ECHOED if name in usync.attrs}
        return [
            Node(
                "usync",
                attrs,
                [
                    Node("result", content=[Node(protocol.tag) for protocol in protocols]),
                    Node("list", content=[node for node in answered if node is not None]),
                ],
            )
        ]

    def _user(self, asker: Account, user: Node, protocols: list[Node]) -> Node | None:
        contact = user.child("contact")
        jid = user.jid("jid") or user.jid("pn_jid")
        by_lid = any(p.tag == "contact" and p.text("addressing_mode") == "lid" for p in protocols)
        if jid is None and contact is not None:
            jid = _phone_jid(contact)
        account = self._world.directory.find(jid)
        if account is not None and _unchanged(account, user, jid):
            return None
        results: list[Node] = []
        for protocol in protocols:
            results += self._protocol(asker, protocol.tag, account, contact, jid)
        attrs: dict[str, Value] = {}
        if jid is not None:
            attrs["jid"] = jid.bare
            if account is not None and (by_lid or jid.is_lid):
                attrs["jid"], attrs["pn_jid"] = account.lid_jid, account.pn_jid
        return Node("user", attrs, results)

    def _protocol(
        self, asker: Account, tag: str, account: Account | None, contact: Node | None, jid: JID | None
    ) -> list[Node]:
        if tag == "contact":
            return [_contact(account, contact, jid)]
        if account is None:
            return []
        if tag == "devices":
            return [self._devices(account, lid=jid is not None and jid.is_lid)]
        if tag == "lid":
            return [Node("lid", {"val": account.lid_jid})]
        if tag == "status":
            return [_status(asker, account)]
        if tag == "disappearing_mode":
            return [Node("disappearing_mode", {"duration": str(account.record.disappearing_s), "t": "0"})]
        if tag in ("business", "text_status"):
            return [Node(tag)]
        return []

    def _devices(self, account: Account, *, lid: bool) -> Node:
        listed = []
        for device in account.devices.values():
            attrs: dict[str, Value] = {"id": str(device.id)}
            if not device.is_phone:
                attrs["key-index"] = str(device.record.key_index)
            listed.append(Node("device", attrs))
        digest = phash(device.jid(lid=lid) for device in account.devices.values())
        content = [Node("device-list", {"hash": digest}, listed)]
        if account.companions:
            content.append(
                Node(
                    "key-index-list",
                    {"ts": str(account.record.list_time_s)},
                    self._key_index_list(account),
                )
            )
        return Node("devices", content=content)


def _unchanged(account: Account, user: Node, jid: JID | None) -> bool:
    """Whether the asker knows the device list already: then the user is left out (chapter 04 §2.1)."""
    hint = user.child("devices")
    known = hint.text("device_hash") if hint else None
    if known is None or jid is None:
        return False
    return known == phash(device.jid(lid=jid.is_lid) for device in account.devices.values())


def _phone_jid(contact: Node) -> JID | None:
    text = contact.data.decode(errors="replace").strip()
    number = text.removesuffix(f"@{LEGACY}").removesuffix(f"@{PN}").lstrip("+")
    return JID(number, PN) if number.isascii() and number.isdecimal() else None


def _contact(account: Account | None, contact: Node | None, jid: JID | None) -> Node:
    kind = "in" if account is not None else "out" if jid is not None else "invalid"
    return Node("contact", {"type": kind}, contact.data or None if contact is not None else None)


def _status(asker: Account, account: Account) -> Node:
    hidden = account.record.privacy.get("status") == "none" and asker is not account
    if hidden:
        return Node("status", {"code": "401", "t": "0"})
    return Node("status", {"t": str(account.record.about_time_s)}, account.record.about.encode())
