"""Messages to own devices, such as the request for a message that nobody can make readable (chapter 04 §8.1)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import msgspec
import trio

from waD.crashpoints import crashpoint
from waD.e2ee.errors import SignalError
from waD.link.stanzas import Requester
from waD.messaging import kinds
from waD.messaging.classify import classify
from waD.messaging.content import ID_RANDOM_LENGTH, message_id, parse
from waD.messaging.context import Context
from waD.messaging.encrypting import Encryptor, enc_node
from waD.messaging.reaction import AskPhone
from waD.messaging.sessions import Sessions
from waD.proto.e2e_pb2 import Message
from waD.store.model import UNDECRYPTABLE
from waD.store.unit import Unit
from waD.wire.jid import JID
from waD.wire.node import Node, Value

Note: TypeAlias = Callable[[Unit, str], Awaitable[None]]

PEER_CHAT: Final = "peer"
"""Chat under which the plaintext of a peer message is kept for retries."""

_FORCED: Final = frozenset(
    {
        Message.GENERATE_LINK_PREVIEW,
        Message.PLACEHOLDER_MESSAGE_RESEND,
        Message.COMPANION_CANONICAL_USER_NONCE_FETCH,
        Message.HISTORY_SYNC_ON_DEMAND,
    }
)


class PeerRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What the phone was asked for: the canonical key of a message; `at` in Unix milliseconds."""

    chat: str
    sender: str
    message_id: str
    at: int

    def serialize(self) -> bytes:
        """The stored form."""
        return msgspec.json.encode(self, order="sorted")

    @classmethod
    def parse(cls, data: bytes) -> PeerRequest:
        """Read the stored form.

        Raises:
            msgspec.DecodeError: it is none.
        """
        return msgspec.json.decode(data, type=cls)


async def request_of(context: Context, stanza_id: str, unit: Unit | None = None) -> PeerRequest | None:
    """The question that a response of the phone names, if it is one of ours and still open."""
    return await context.state.record(kinds.PEER_REQUEST, stanza_id, PeerRequest.parse, unit)


class Peer:
    """Writes to the own phone, and to companions beside this one.

    Args:
        context: whose.
        sessions: pairwise sessions.
        encryptor: encrypts.
        turn: held from an encryption to its transmission.
    """

    def __init__(self, context: Context, sessions: Sessions, encryptor: Encryptor, turn: trio.Lock) -> None:
        self._context = context
        self._sessions = sessions
        self._encryptor = encryptor
        self._turn = turn

    async def ask(self, work: AskPhone, connection: Requester) -> None:
        """Send a question about a message, unless the message has become readable meanwhile.

        The id of the question is stored with it, as `kinds.PEER_REQUEST`.

        Raises:
            RequestError, RequestTimeout, MalformedReply, Disconnected: the question did not leave.
            StoreError: nothing was sent.
        """
        message = parse(work.payload)
        if message is None or not await self._still_missing(work):
            return

        async def note(unit: Unit, name: str) -> None:
            now = self._context.now_ms()
            asked = PeerRequest(chat=work.chat, sender=work.sender, message_id=work.message_id, at=now)
            unit.put(kinds.PEER_REQUEST, name, asked)

        await self.tell(message, self._context.account.own, connection, note)

    async def tell(self, message: Message, device: JID, connection: Requester, note: Note) -> bool:
        """Send a peer message to a device of the own account.

        Args:
            message: what it gets.
            device: the phone, or a companion.
            connection: logged in.
            note: adds to the unit that makes the message durable; it is given the message's id.

        Returns:
            Whether it was sent; a device without a usable session is hopeless.

        Raises:
            RequestError, RequestTimeout, MalformedReply, Disconnected: it did not leave.
            StoreError: nothing was sent.
        """
        await self._sessions.ensure([device], connection)
        async with self._turn:
            async with self._context.state.lock:
                unit = self._context.state.unit()
                node = await self._stanza(unit, message, device, note)
                if node is None:
                    return False
                crashpoint("send.before_commit")
                await self._context.state.commit(unit)
            crashpoint("send.after_commit")
            await connection.send(node)
        return True

    async def _still_missing(self, work: AskPhone) -> bool:
        found = await self._context.state.find_message(work.message_id)
        spellings = await self._context.addresses.spellings(JID.parse(work.chat))
        chats = {work.chat, *(str(form) for form in spellings)}
        return any(row.chat in chats and row.kind == UNDECRYPTABLE for row in found)

    async def _stanza(self, unit: Unit, message: Message, device: JID, note: Note) -> Node | None:
        context, now = self._context, self._context.now_ms()
        if not await self._sessions.usable(device, unit):
            return None
        try:
            done = await self._encryptor.encrypt(unit, device, self._encryptor.padded(message))
        except SignalError:
            return None
        name = message_id(now // 1000, device.user, context.random(ID_RANDOM_LENGTH))
        await note(unit, name)
        unit.keep_plaintext(PEER_CHAT, name, message.SerializeToString())
        enc = enc_node(done, classify(message))
        return peer_node(name, device, message, enc, self._encryptor.device_identity([enc]))


def peer_node(name: str, to: JID, message: Message, enc: Node, identity: list[Node]) -> Node:
    """The stanza of a peer message: one bare `<enc>`, never `<participants>`."""
    attrs: dict[str, Value] = {"id": name, "to": to, "type": "text", "category": "peer"}
    attrs["push_priority"] = "high"
    if message.protocolMessage.HasField("peerDataOperationRequestMessage"):
        kind = message.protocolMessage.peerDataOperationRequestMessage.peerDataOperationRequestType
        if kind in _FORCED:
            attrs["push_priority"] = "high_force"
        if kind == Message.HISTORY_SYNC_ON_DEMAND:
            attrs["privacy_sensitive"] = "1"
    return Node("message", attrs, [Node("meta", {"appdata": "default"}), enc, *identity])
