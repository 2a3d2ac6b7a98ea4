"""Asking the own devices for keys of the app state (chapter 05 §4.13)."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from waD.link.errors import MalformedReply, RequestError, RequestTimeout
from waD.link.stanzas import Requester
from waD.messaging.appstate.keys import AppStateKeys, key_request
from waD.messaging.context import Context
from waD.messaging.devices import Devices
from waD.messaging.peer_out import Peer
from waD.store.unit import Unit
from waD.wire.jid import JID

_log = logging.getLogger(__name__)


class KeyRequests:
    """Asks all other devices of the own account for keys that are missing.

    Args:
        context: whose.
        devices: its device lists.
        keys: knows what was asked already.
        peer: writes to own devices.
    """

    def __init__(self, context: Context, devices: Devices, keys: AppStateKeys, peer: Peer) -> None:
        self._context = context
        self._devices = devices
        self._keys = keys
        self._peer = peer

    async def send(self, missing: Iterable[str], connection: Requester) -> None:
        """Ask for keys by their hexadecimal ids, each at most once a day; a device that cannot be asked is left out.

        Raises:
            Disconnected: the connection ended.
            StoreError: what was asked could not be noted.
        """
        now = self._context.now_ms()
        names = await self._keys.due(missing, now)
        if not names:
            return
        _log.info("%d keys of the app state are missing; the own devices are asked", len(names))
        message = key_request(names)
        for device in await self._asked():

            async def note(unit: Unit, _: str, device: JID = device) -> None:
                await self._keys.note(unit, names, device, now)

            try:
                await self._peer.tell(message, device, connection, note)
            except (RequestError, RequestTimeout, MalformedReply) as refusal:
                _log.warning("a device could not be asked for keys of the app state: %s", refusal)

    async def _asked(self) -> list[JID]:
        own = self._context.account.own
        return await self._devices.targets(own) or [own]
