"""From a Message to the stanza for every device: one encryption each, records advanced in the unit (chapter 04 §1.2).

Nothing here asks the network. What is missing is named, and whoever sends gets it first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from waD.e2ee import padding
from waD.e2ee import session as signal
from waD.e2ee.errors import SignalError
from waD.e2ee.session import Encrypted
from waD.messaging.classify import Classified, classify
from waD.messaging.content import device_sent
from waD.messaging.context import Context
from waD.messaging.devices import Devices
from waD.messaging.sessions import Sessions
from waD.proto.e2e_pb2 import Message
from waD.store.errors import StoreDamaged
from waD.store.unit import Unit
from waD.wire.jid import JID
from waD.wire.node import Node, Value


class Missing(Exception):  # noqa: N818 - names what has to be fetched
    """A message cannot be encrypted yet.

    Attributes:
        lists: accounts whose devices are not known.
        sessions: devices without a session.
        stranger: no device of the recipient has a session: nobody here ever wrote to this person.
    """

    def __init__(
        self, lists: Sequence[JID] = (), sessions: Sequence[JID] = (), *, stranger: bool = False
    ) -> None:
        super().__init__(f"{len(lists)} device lists and {len(sessions)} sessions are missing")
        self.lists = tuple(lists)
        self.sessions = tuple(sessions)
        self.stranger = stranger


class NoDevices(Exception):  # noqa: N818 - names the case
    """No device of the recipient can get the message."""


@dataclass(frozen=True, slots=True)
class Targets:
    """Devices that get a direct message, all in the namespace of `chat`.

    Attributes:
        chat: bare address on the wire.
        devices: of the recipient.
        own: other devices of the own account; in the chat with oneself the only ones.
    """

    chat: JID
    devices: tuple[JID, ...]
    own: tuple[JID, ...]


class Encryptor:
    """Encrypts for the devices of one session's peers.

    Args:
        context: whose.
        devices: device lists.
        sessions: pairwise sessions.
    """

    def __init__(self, context: Context, devices: Devices, sessions: Sessions) -> None:
        self._context = context
        self._devices = devices
        self._sessions = sessions

    async def targets(self, chat: JID, unit: Unit) -> Targets:
        """Find the devices for a message to a person.

        Raises:
            Missing: device lists or sessions have to be fetched first.
            NoDevices: the recipient has none that can be reached.
        """
        myself = self._context.account.is_own(chat)
        own_form = self._own_like(chat)
        theirs = [] if myself else await self._devices.targets(chat, unit)
        own = await self._devices.targets(own_form, unit)
        if theirs is None or own is None:
            lists = [user for user, found in ((chat, theirs), (own_form, own)) if found is None]
            raise Missing(lists, stranger=theirs is None and not await self._met(chat, unit))
        ready, missing = await self._sessions.split(theirs, unit)
        own_ready, own_missing = await self._sessions.split(own, unit)
        if missing or own_missing:
            raise Missing(sessions=(*missing, *own_missing), stranger=bool(missing) and not ready)
        if not (own_ready if myself else ready):
            raise NoDevices("no device of the recipient can be reached")
        return Targets(chat, tuple(ready), tuple(own_ready))

    def _own_like(self, chat: JID) -> JID:
        account = self._context.account
        own = account.own_lid if chat.is_lid else account.own_pn
        if own is None:
            raise StoreDamaged("the own address in the namespace of a chat is not known")
        return own

    async def _met(self, chat: JID, unit: Unit) -> bool:
        return await self._sessions.usable(chat, unit)

    async def message(self, unit: Unit, message_id: str, message: Message, targets: Targets) -> Node:
        """Encrypt a message for all its devices and build the stanza.

        Raises:
            SignalError: a record is damaged or at its end; the unit's changes so far are to be discarded.
        """
        said = classify(message)
        nodes = await self._fan_out(unit, targets.devices, message, said)
        nodes += await self._fan_out(unit, targets.own, device_sent(message, targets.chat), said)
        attrs: dict[str, Value] = {"id": message_id, "to": targets.chat, "type": said.type}
        if said.edit is not None:
            attrs["edit"] = said.edit
        if targets.chat.is_lid:
            pn = await self._context.addresses.pn_of(targets.chat, unit)
            if pn is not None:
                attrs["peer_recipient_pn"] = pn
        content = [Node("participants", {}, nodes)]
        encs = [child for node in nodes for child in node.children("enc")]
        return Node("message", attrs, [*content, *self.device_identity(encs)])

    async def _fan_out(
        self, unit: Unit, devices: Sequence[JID], message: Message, said: Classified
    ) -> list[Node]:
        if not devices:
            return []
        padded = self.padded(message)
        return [
            Node("to", {"jid": device}, [enc_node(await self.encrypt(unit, device, padded), said)])
            for device in devices
        ]

    def padded(self, message: Message) -> bytes:
        """The plaintext of an `<enc>`."""
        return padding.pad(message.SerializeToString(), self._context.random(1)[0])

    async def encrypt(self, unit: Unit, device: JID, padded: bytes) -> Encrypted:
        """Encrypt for one device; its advanced record goes into the unit.

        Raises:
            SignalError: there is no session that may send, or its chain is at its end.
        """
        context = self._context
        address = await context.addresses.signal_address(device, unit)
        record = await context.records.session(address, unit)
        if record is None:
            raise SignalError("no_session", "no session with this device")
        done = signal.encrypt(record, context.account.creds.local_identity(), padded, context.now_ms())
        context.records.put_session(unit, address, done.record)
        return done

    def device_identity(self, encs: Sequence[Node]) -> list[Node]:
        """Our own `<device-identity>`, which has to come with every `pkmsg` (chapter 03 §5.2)."""
        account = self._context.account.creds.account
        if account is None or all(enc.attrs["type"] != "pkmsg" for enc in encs):
            return []
        return [Node("device-identity", {}, account)]


def enc_node(done: Encrypted, said: Classified, count: int | None = None) -> Node:
    """One `<enc>`; `count` is the number of the retry it answers."""
    attrs: dict[str, Value] = {"v": "2", "type": done.kind}
    if count is not None:
        attrs["count"] = str(count)
    if said.mediatype is not None:
        attrs["mediatype"] = said.mediatype
    if said.hide:
        attrs["decrypt-fail"] = "hide"
    return Node("enc", attrs, done.data)
