"""Notifications of the server, as far as messages depend on them (chapter 06 §8); every one is acked."""

from __future__ import annotations

import logging

from waD.e2ee.syncd.patches import COLLECTIONS
from waD.link import acks
from waD.messaging import kinds
from waD.messaging.appstate.stored import Damaged, Head
from waD.messaging.context import Context
from waD.messaging.devices import Devices
from waD.messaging.identities import Identities
from waD.messaging.reaction import CheckDigest, FetchDevices, Reaction, SyncAppState, TopUpPreKeys
from waD.messaging.stanza import clean_name, other_form
from waD.store.unit import Unit
from waD.wire.jid import SERVER
from waD.wire.node import Node

_log = logging.getLogger(__name__)


class Notifications:
    """Handles the `<notification>` stanzas of one session.

    Args:
        context: whose.
        devices: keeps its device lists.
    """

    def __init__(self, context: Context, devices: Devices) -> None:
        self._context = context
        self._account = context.account
        self._devices = devices
        self._identities = Identities(context, devices)

    async def notification(self, stanza: Node, unit: Unit) -> Reaction:
        """Handle one notification; unknown ones are acked and left alone.

        Raises:
            StoreError: the state could not be read; nothing is answered then.
        """
        kind = stanza.attrs.get("type")
        if kind == "devices" or (kind == "account_sync" and stanza.child("devices") is not None):
            return await self._devices.apply_notification(stanza, unit)
        reaction = Reaction()
        if kind == "encrypt":
            await self._encrypt(unit, stanza, reaction)
        elif kind == "account_sync":
            self._own_name(unit, stanza)
        elif kind == "server_sync":
            await self._server_sync(unit, stanza, reaction)
        else:
            _log.debug("a notification of type %.32r needs nothing", kind)
        reaction.add(acks.ack(stanza))
        return reaction

    async def _encrypt(self, unit: Unit, stanza: Node, reaction: Reaction) -> None:
        """What the server says about keys: ours are few, ours are to be checked, somebody's changed."""
        if stanza.child("count") is not None:
            reaction.work.append(TopUpPreKeys())
        elif stanza.child("digest") is not None:
            reaction.work.append(CheckDigest())
        elif stanza.child("identity") is not None:
            await self._identity(unit, stanza, reaction)

    async def _identity(self, unit: Unit, stanza: Node, reaction: Reaction) -> None:
        user = stanza.jid("from")
        if user is None or not user.is_user or self._account.is_own(user):
            return
        other = other_form(user, stanza.jid("lid"))
        if other is not None and user.is_pn and not self._account.is_own(other):
            learned = await self._context.addresses.learn(unit, user.account, other.account, "observed")
            if not learned:
                reaction.work.append(FetchDevices((user.account,)))
        reaction.work += await self._identities.told(unit, user, stanza.int("t"))

    def _own_name(self, unit: Unit, stanza: Node) -> None:
        """The own push name, changed on the phone."""
        sender = stanza.jid("from")
        name = clean_name(stanza.text("pushname", ""))
        if name and sender is not None and self._account.is_own(sender):
            self._account.change_in(unit, lambda creds: creds.change(push_name=name))

    async def _server_sync(self, unit: Unit, stanza: Node, reaction: Reaction) -> None:
        """Collections of the app state have changed (chapter 05 §4.12)."""
        if stanza.jid("from") != SERVER:
            return
        named = {node.text("name", ""): node.int("version") for node in stanza.children("collection")}
        newer = [
            name for name in COLLECTIONS if name in named and await self._is_newer(unit, name, named[name])
        ]
        if newer:
            reaction.work.append(SyncAppState(tuple(newer)))

    async def _is_newer(self, unit: Unit, name: str, version: int | None) -> bool:
        if version is None:
            return True
        try:
            head = await self._context.state.record(kinds.APP_STATE_VERSION, name, Head.parse, unit)
        except Damaged:
            return True
        return head is None or head.version < version
