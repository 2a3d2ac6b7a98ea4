"""Account settings by iq: privacy, block list, about, props (chapter 06 §6, §11)."""

from __future__ import annotations

import hashlib
from typing import Final

from waD.sandbox.accounts import PRIVACY_DEFAULTS, Account, Device
from waD.sandbox.errors import IqError
from waD.sandbox.world import World
from waD.wire.jid import JID, LID
from waD.wire.node import Node

PRIVACY_VALUES: Final[dict[str, frozenset[str]]] = {
    **{name: frozenset({"all", "contacts", "contact_blacklist", "none"}) for name in ("last", "profile")},
    **{name: frozenset({"all", "contacts", "contact_blacklist", "none"}) for name in ("status", "groupadd")},
    "online": frozenset({"all", "match_last_seen"}),
    "readreceipts": frozenset({"all", "none"}),
    "calladd": frozenset({"all", "known", "contacts"}),
    "messages": frozenset({"all", "contacts"}),
    "defense": frozenset({"off", "on_standard"}),
    "stickers": frozenset({"contacts", "contact_allowlist", "none"}),
}
MAX_ABOUT: Final = 139
TIMERS: Final = frozenset({0, 86_400, 604_800, 7_776_000})
PROPS_REFRESH_S: Final = 86_400
_CSTOKENS: Final = "24941"
_TCTOKENS: Final = "10518"


class SettingsIqs:
    """Answers about one account's settings; changes are echoed to its other devices."""

    def __init__(self, world: World) -> None:
        self._world = world

    def privacy(self, device: Device, iq: Node) -> list[Node]:
        """Read or change privacy settings; accept issued tokens."""
        account = device.account
        privacy = iq.child("privacy")
        if privacy is None:
            if iq.child("tokens") is not None:
                return []
            raise IqError(400, "bad-request", "neither privacy nor tokens")
        if iq.text("type") != "set":
            values = {**PRIVACY_DEFAULTS, **account.record.privacy}
            return [Node("privacy", content=[_category(name, value) for name, value in values.items()])]
        changed = [self._change(category) for category in privacy.children("category")]
        account.record.privacy.update(changed)
        self._world.save_account(account)
        nodes = [_category(name, value) for name, value in changed]
        self.account_sync(device, Node("privacy", content=nodes))
        return [Node("privacy", content=nodes)]

    def blocklist(self, device: Device, iq: Node) -> list[Node]:
        """Read or change the block list; always answered with the whole list."""
        account = device.account
        if iq.text("type") == "set":
            item = iq.child("item")
            jid = item.jid("jid") if item else None
            if (
                item is None
                or jid is None
                or not jid.is_lid
                or item.text("action") not in ("block", "unblock")
            ):
                raise IqError(400, "bad-request", "an item with a LID and an action is needed")
            blocked = [lid for lid in account.record.blocked if lid != jid.user]
            if item.text("action") == "block":
                blocked.append(jid.user)
            account.record.blocked = blocked
            self._world.save_account(account)
            self.account_sync(device, Node("blocklist", {"dhash": _list_hash(account)}))
        items = [Node("item", {"jid": JID(lid, LID)}) for lid in account.record.blocked]
        return [Node("list", {"dhash": _list_hash(account)}, items)]

    def status(self, device: Device, iq: Node) -> list[Node]:
        """Change the about text, or tell who sees status posts."""
        account = device.account
        if iq.child("privacy") is not None:
            raise IqError(404, "item-not-found", "no status privacy was ever set")
        status = iq.child("status")
        text = status.data.decode(errors="replace") if status else None
        if text is None or len(text) > MAX_ABOUT:
            raise IqError(406, "not-acceptable", f"an about text has at most {MAX_ABOUT} characters")
        account.record.about, account.record.about_time_s = text, self._world.now_s
        self._world.save_account(account)
        self.account_sync(device, Node("status"))
        return []

    def disappearing(self, device: Device, iq: Node) -> list[Node]:
        """Change the default timer of new chats."""
        node = iq.child("disappearing_mode")
        duration = node.int("duration") if node else None
        if duration not in TIMERS:
            raise IqError(400, "bad-request", "not one of the timers")
        device.account.record.disappearing_s = duration
        self._world.save_account(device.account)
        return []

    def props(self, device: Device) -> list[Node]:
        """Server properties, as far as a scenario needs them."""
        values = {_TCTOKENS: True, _CSTOKENS: device.account.flags["nct_send_ab"]}
        props = [
            Node("prop", {"config_code": code, "config_value": "true" if value else "false"})
            for code, value in values.items()
        ]
        attrs = {"protocol": "1", "hash": "sandbox", "refresh": str(PROPS_REFRESH_S), "refresh_id": "1"}
        return [Node("props", dict(attrs), props)]

    def account_sync(self, changer: Device, content: Node) -> None:
        """Tell the account's other companions that something changed."""
        account = changer.account
        for device in account.others(changer):
            if not device.is_phone:
                self._world.push(
                    device,
                    Node(
                        "notification",
                        {
                            "from": account.pn_jid,
                            "type": "account_sync",
                            "id": self._world.stanza_id(),
                            "t": str(self._world.now_s),
                        },
                        [content],
                    ),
                )

    def _change(self, category: Node) -> tuple[str, str]:
        name, value = category.text("name") or "", category.text("value") or ""
        if name not in PRIVACY_VALUES:
            raise IqError(404, "item-not-found", "unknown privacy category")
        if value not in PRIVACY_VALUES[name]:
            raise IqError(400, "bad-request", f"{name} cannot be {value[:32]!r}")
        return name, value


def _category(name: str, value: str) -> Node:
    return Node("category", {"name": name, "value": value})


def _list_hash(account: Account) -> str:
    return hashlib.sha256(",".join(sorted(account.record.blocked)).encode()).hexdigest()[:16]
