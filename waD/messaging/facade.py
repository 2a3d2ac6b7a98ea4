"""All messaging of one session behind one door: stanzas in, reactions out."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

from waD.link import acks
from waD.messaging.ahead import read_ahead
from waD.messaging.appstate.asking import KeyRequests
from waD.messaging.appstate.keys import AppStateKeys
from waD.messaging.appstate.syncing import AppState
from waD.messaging.context import Context
from waD.messaging.devices import Devices
from waD.messaging.housekeeping import forget_old, forget_stale_prekeys
from waD.messaging.inbound import Inbound
from waD.messaging.notifications import Notifications
from waD.messaging.outbound import Outbound
from waD.messaging.reaction import Reaction
from waD.messaging.receipts import Receipts
from waD.messaging.retries import Retries
from waD.store.unit import Unit
from waD.wire.node import Node

_log = logging.getLogger(__name__)

Handler: TypeAlias = Callable[[Node, Unit], Awaitable[Reaction]]

FEWEST_AHEAD: Final = 4
"""Stanzas for which it is worth to read ahead; handling fewer asks for less than the guess."""
_SILENT: Final = frozenset({"presence", "chatstate", "iq", "success", "ib"})
"""Stanzas that nobody answers (chapter 01 §7.4)."""


class Messaging:
    """Handles the stanzas of one session, across its connections.

    Attributes:
        context: what all parts share.
        devices: device lists.
        outbound: the outbox.
        retries: answers to devices that could not read a message of ours.
        app_state: the collections of the app state.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.devices = Devices(context)
        self.outbound = Outbound(context, self.devices)
        self.retries = Retries(context, self.devices, self.outbound)
        keys = AppStateKeys(context.state, context.account)
        requests = KeyRequests(context, self.devices, keys, self.outbound.peer)
        self.app_state = AppState(context, keys, requests)
        inbound = Inbound(context, self.devices)
        receipts = Receipts(context, self.retries.asked)
        notifications = Notifications(context, self.devices)
        self._handlers: dict[str, Handler] = {
            "message": inbound.message,
            "receipt": receipts.receipt,
            "notification": notifications.notification,
            "ack": self._ack,
            "call": self._answer_only,
            "status": inbound.message,
        }

    async def read_ahead(self, batch: Sequence[Node], unit: Unit) -> None:
        """Read with few queries what `handle` will ask for; the caller holds the state's lock until the commit.

        Raises:
            StoreError: the state could not be read.
        """
        if len(batch) >= FEWEST_AHEAD:
            await read_ahead(self.context, batch, unit)

    async def handle(self, stanza: Node, unit: Unit) -> Reaction:
        """Handle one stanza as part of a unit; whoever commits the unit sends the answers afterwards.

        Raises:
            StoreError: the state could not be read; the stanza stays unanswered and comes again.
        """
        handler = self._handlers.get(stanza.tag)
        if handler is not None:
            return await handler(stanza, unit)
        reaction = Reaction()
        if stanza.tag not in _SILENT:
            _log.info("a stanza with the unknown tag %.32r was refused", stanza.tag)
            reaction.add(acks.nack_unrecognised(stanza))
        return reaction

    async def tidy(self) -> None:
        """Forget notes and stale prekeys that are past their time; a login is a good moment.

        Raises:
            StoreError: nothing was forgotten.
        """
        state = self.context.state
        async with state.lock:
            unit = state.unit()
            await forget_old(self.context, unit)
            await forget_stale_prekeys(self.context, unit)
            await state.commit(unit)

    async def _ack(self, stanza: Node, unit: Unit) -> Reaction:
        if stanza.attrs.get("class") == "message":
            return await self.outbound.acked(stanza, unit)
        return Reaction()

    async def _answer_only(self, stanza: Node, unit: Unit) -> Reaction:  # noqa: ARG002 - a handler like the others
        reaction = Reaction()
        reaction.add(acks.ack(stanza, self.context.account.device_pn))
        return reaction
