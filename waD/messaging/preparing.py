"""Getting what a message to somebody needs from the server: account, device lists, sessions."""

from __future__ import annotations

from typing import Final

import trio

from waD.link.errors import LinkError, MalformedReply, RequestError, RequestTimeout
from waD.link.stanzas import Requester
from waD.messaging.context import Context
from waD.messaging.devices import Devices
from waD.messaging.encrypting import Encryptor, Missing, NoDevices
from waD.messaging.recipients import NotOnWhatsApp, NoWireAddress, known, look_up, wire_address
from waD.messaging.sessions import Sessions
from waD.wire.jid import JID

MAX_ROUNDS: Final = 8
"""How often what is missing is fetched for one message before it counts as a fault of the server."""
MAX_ASKING: Final = 4
"""Conversations that ask the server at a time; the connection allows five requests (chapter 06 §12)."""
OFFLINE_WAIT_S: Final = 10.0
"""How long a new session waits for the end of the backlog, which may bring one."""
REQUEST_TIMEOUT: Final = 408
RATE_LIMIT: Final = 429
SERVER_ERRORS: Final = range(500, 600)


class Hopeless(Exception):  # noqa: N818 - names the case
    """Trying again would not help.

    Attributes:
        reason: stable word for the row and its event.
        code: WhatsApp's number, if it gave one.
    """

    def __init__(self, reason: str, code: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


def passes(error: LinkError) -> bool:
    """Whether what the server refused may work later (chapter 06 §12)."""
    if isinstance(error, RequestError):
        return error.code in (REQUEST_TIMEOUT, RATE_LIMIT) or error.code in SERVER_ERRORS
    return isinstance(error, RequestTimeout | MalformedReply)


class Preparer:
    """Makes it possible to encrypt for a person.

    Args:
        context: whose messages.
        devices: device lists.
        sessions: pairwise sessions.
        encryptor: who says what is missing.
    """

    def __init__(self, context: Context, devices: Devices, sessions: Sessions, encryptor: Encryptor) -> None:
        self._context = context
        self._devices = devices
        self._sessions = sessions
        self._encryptor = encryptor
        self._turns = trio.Semaphore(MAX_ASKING)

    async def prepare(
        self, person: JID, connection: Requester, offline_done: trio.Event, *, by_number: bool = False
    ) -> None:
        """Fetch everything that a message to a person needs; afterwards `Encryptor.targets` succeeds.

        Raises:
            Hopeless: it never will.
            RequestError, RequestTimeout, MalformedReply: not now.
            Disconnected: the connection ended.
            StoreError: what was learned could not be stored.
        """
        if not await known(self._context, person):
            person = await self._look_up(person, connection)
        for _ in range(MAX_ROUNDS):
            wire = await self._wire(person, by_number=by_number)
            try:
                await self._encryptor.targets(wire, self._context.state.unit())
            except NoDevices:
                raise Hopeless("no_devices") from None
            except Missing as missing:
                await self._fetch(wire, missing, connection, offline_done)
            else:
                return
        raise MalformedReply("the server's device lists and prekeys do not fit together")

    async def _wire(self, person: JID, *, by_number: bool) -> JID:
        try:
            return await wire_address(self._context, person, by_number=by_number)
        except NoWireAddress:
            raise Hopeless("no_own_lid") from None

    async def _look_up(self, person: JID, connection: Requester) -> JID:
        try:
            async with self._turns:
                return await look_up(self._context, person, connection)
        except NotOnWhatsApp:
            raise Hopeless("not_on_whatsapp") from None

    async def _fetch(
        self, wire: JID, missing: Missing, connection: Requester, offline_done: trio.Event
    ) -> None:
        if missing.lists:
            async with self._turns:
                refused = await self._devices.refresh(missing.lists, connection)
            for error in refused.values():
                raise error
            if wire in missing.lists and await self._devices.record(wire) is None:
                raise Hopeless("no_devices")
            return
        with trio.move_on_after(OFFLINE_WAIT_S):
            await offline_done.wait()
        async with self._turns:
            await self._sessions.ensure(missing.sessions, connection)
