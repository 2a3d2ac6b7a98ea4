"""Everything that one session sends, behind one door."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import trio

from waD.crashpoints import crashpoint
from waD.link.stanzas import Requester
from waD.messaging.acking import Acks
from waD.messaging.content import ContentError
from waD.messaging.context import Context
from waD.messaging.device_lists import is_device
from waD.messaging.devices import Devices
from waD.messaging.encrypting import Encryptor
from waD.messaging.peer_out import Peer
from waD.messaging.preparing import Preparer
from waD.messaging.pump import Pump
from waD.messaging.reaction import AskPhone, Reaction
from waD.messaging.reading import mark_read
from waD.messaging.recipients import parse_person
from waD.messaging.sessions import Sessions
from waD.messaging.submitting import Enqueued, Submitter, TextRequest
from waD.store.unit import Unit
from waD.wire.errors import JIDError
from waD.wire.jid import JID
from waD.wire.node import Node

__all__ = ["ContentError", "Enqueued", "Outbound", "TextRequest"]


class Outbound:
    """The outbox of one session and what else it says.

    Args:
        context: whose.
        devices: device lists.

    Attributes:
        sessions: pairwise sessions.
        encryptor: encrypts; whoever uses it holds `turn` until what was encrypted is sent.
        turn: see `Pump`.
        peer: writes to own devices.
    """

    def __init__(self, context: Context, devices: Devices) -> None:
        self._context = context
        self.sessions = Sessions(context, devices)
        self.encryptor = Encryptor(context, devices, self.sessions)
        preparer = Preparer(context, devices, self.sessions, self.encryptor)
        self._pump = Pump(context, preparer, self.encryptor)
        self.turn = self._pump.turn
        self._submitter = Submitter(context)
        self._acks = Acks(context, devices)
        self.peer = Peer(context, self.sessions, self.encryptor, self.turn)

    async def enqueue(self, request: TextRequest) -> Enqueued:
        """Put a text into the outbox, durably; it leaves when a connection is open.

        Raises:
            ContentError: the request cannot be carried out; nothing was changed.
            StoreError: nothing was changed.
        """
        enqueued = await self._submitter.enqueue(request)
        self._pump.wake()
        return enqueued

    async def run(self, connection: Requester, offline_done: trio.Event) -> NoReturn:
        """Send the outbox over a connection until cancelled.

        Raises:
            Disconnected: the connection ended.
            StoreError: something could not be made durable; nothing of it was sent.
        """
        await self._pump.run(connection, offline_done)

    def wake(self) -> None:
        """Rows were changed from outside: look at the outbox."""
        self._pump.wake()

    def settings_changed(self) -> None:
        """The context has other settings: go by them from now on."""
        self._pump.settings_changed()

    async def acked(self, stanza: Node, unit: Unit) -> Reaction:
        """Handle the server's ack of a message of ours as part of a unit."""
        reaction, row = await self._acks.apply(stanza, unit)
        name = stanza.text("id")
        if name is not None:
            self._pump.settled(name)
        if row is not None:
            crashpoint("send.before_ack_commit")
        return reaction

    async def mark_read(self, chat: str, ids: Sequence[str]) -> list[Node]:
        """Mark received messages of a chat as read, durably; the caller sends the receipts.

        Raises:
            ContentError: `bad_recipient`, or `unknown_message` naming the ids; nothing was changed.
            StoreError: nothing was changed.
        """
        return await mark_read(self._context, _chat(chat), ids)

    async def renew_session(self, device: JID, connection: Requester) -> None:
        """Build a new session with a device whose identity changed (chapter 03 §7.3).

        Raises:
            RequestError, RequestTimeout, MalformedReply, Disconnected: the next message will try again.
            StoreError: nothing was changed.
        """
        if is_device(device):
            await self.sessions.ensure([device], connection, reason="identity", renew=True)

    async def ask_phone(self, work: AskPhone, connection: Requester) -> None:
        """Ask the own phone for a message, if it is still undecryptable.

        Raises:
            RequestError, RequestTimeout, MalformedReply, Disconnected: the question did not leave.
            StoreError: nothing was sent.
        """
        await self.peer.ask(work, connection)


def _chat(text: str) -> JID:
    """A chat as people name it: a number, or any address."""
    if "@" in text:
        try:
            jid = JID.parse(text)
        except JIDError as refusal:
            raise ContentError("bad_recipient", str(refusal)) from None
        if not jid.is_user:
            return jid.bare
    return parse_person(text)
