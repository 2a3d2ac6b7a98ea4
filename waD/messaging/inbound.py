"""Incoming messages: from a stanza to history, events and the answer it gets (chapter 04 §6.4)."""

from __future__ import annotations

import hashlib
import logging
from typing import Final

from msgspec import structs

from waD.link import acks
from waD.messaging import message_secrets
from waD.messaging.addresses import MappingSource
from waD.messaging.asking import Asking
from waD.messaging.changing import Changing
from waD.messaging.context import Context
from waD.messaging.decrypting import Decrypting, Failure, Outcome, Part
from waD.messaging.delivery import delivery_receipt
from waD.messaging.device_lists import DeviceLists
from waD.messaging.incoming_content import Description, describe
from waD.messaging.message_keys import parse_jid
from waD.messaging.newsletters import Newsletters
from waD.messaging.protocol import Protocol
from waD.messaging.reaction import FetchDevices, Reaction
from waD.messaging.recording import Place, Recorder
from waD.messaging.rows import Rows
from waD.messaging.stanza import Incoming, Rejection, parse
from waD.messaging.wrappers import unwrap
from waD.proto.e2e_pb2 import Message
from waD.store.model import UNDECRYPTABLE
from waD.store.unit import Journal, Unit
from waD.wire.jid import JID
from waD.wire.node import Node

STATUS_LIFE_MS: Final = 24 * 3600 * 1000
"""A status post that is older is not asked for again."""

_log = logging.getLogger(__name__)


class Inbound:
    """Handles the `<message>` stanzas of one session.

    Args:
        context: whose.
        devices: the session's device lists; views of its own when there are none to share.
    """

    def __init__(self, context: Context, devices: DeviceLists | None = None) -> None:
        self._context = context
        self._account = context.account
        rows = Rows(context)
        self._recorder = Recorder(context, rows)
        self._asking = Asking(context)
        self._decrypting = Decrypting(context, devices or DeviceLists(context))
        changing = Changing(context, rows, self._recorder)
        self._protocol = Protocol(context, self._recorder, changing, self._asking)
        self._newsletters = Newsletters(context, rows, self._recorder)

    async def message(self, stanza: Node, unit: Unit) -> Reaction:
        """Handle one stanza as part of a unit.

        Returns:
            The answer of chapter 04 §6.8, in every case exactly one; a retry receipt comes with its ack.

        Raises:
            StoreError: the state could not be read; nothing is answered then.
        """
        parsed = parse(stanza, self._account.device_pn, self._account.device_lid)
        if isinstance(parsed, Rejection):
            _log.info("a message stanza was refused: %s", parsed.reason)
            return self._nack(stanza, parsed.code)
        if parsed.kind == "newsletter":
            await self._newsletters.take(unit, parsed)
            return self._ack(stanza)
        reaction = Reaction()
        await self._learn(unit, parsed, reaction)
        place = await self._recorder.place(unit, parsed)
        if parsed.unavailable is not None and not parsed.encs:
            reaction.merge(await self._unavailable(unit, parsed, place))
        else:
            reaction.merge(await self._encrypted(unit, parsed, place))
        return reaction

    async def _learn(self, unit: Unit, incoming: Incoming, reaction: Reaction) -> None:
        """Take over what the stanza says about addresses, before anything is decrypted (chapter 03 §4.1)."""
        if incoming.sender_alt is not None and not incoming.from_me:
            await self._learn_pair(unit, incoming.sender, incoming.sender_alt, reaction, directed=False)
        if incoming.chat_alt is not None and incoming.from_me:
            await self._learn_pair(unit, incoming.chat, incoming.chat_alt, reaction, directed=True)

    async def _learn_pair(
        self, unit: Unit, one: JID, other: JID, reaction: Reaction, *, directed: bool
    ) -> None:
        number, lid = (other.account, one.account) if one.is_lid else (one.account, other.account)
        if await self._context.addresses.lid_of(number, unit) == lid:
            return
        if self._account.is_own(number) or self._account.is_own(lid):
            return  # the own mapping comes from the login
        source: MappingSource = "directed" if directed else "observed"
        if not await self._context.addresses.learn(unit, number, lid, source):
            reaction.work.append(FetchDevices((number,)))

    async def _unavailable(self, unit: Unit, incoming: Incoming, place: Place) -> Reaction:
        """The phone kept the content to itself (§6.6)."""
        assert incoming.unavailable is not None
        why = {"reason": "unavailable", "type": incoming.unavailable.type}
        known = await self._recorder.known(unit, place)
        await self._recorder.placeholder(unit, incoming, place, why)
        reaction = Reaction()
        if known is None and not incoming.unavailable.final and not incoming.hide:
            reaction = await self._asking.phone_at_once(unit, incoming, place)
        self._confirm(incoming, reaction)
        return reaction

    async def _encrypted(self, unit: Unit, incoming: Incoming, place: Place) -> Reaction:
        outcome = await self._decrypting.decrypt(incoming, unit)
        reaction = Reaction(work=outcome.work)
        if outcome.failure is not None and not outcome.parts:
            reaction.merge(await self._unreadable(unit, incoming, place, outcome.failure))
        elif outcome.parts or not outcome.duplicates:
            self._journal(unit, place, outcome)
            if outcome.parts:
                await self._take(unit, incoming, place, outcome.parts, reaction)
            self._confirm(incoming, reaction)
        else:
            await self._duplicate(unit, incoming, place, reaction)
        return reaction

    def _journal(self, unit: Unit, place: Place, outcome: Outcome) -> None:
        for enc in outcome.read:
            unit.journal(
                str(place.chat), str(place.sender), place.message_id, hashlib.sha256(enc.data).digest()
            )

    async def _duplicate(self, unit: Unit, incoming: Incoming, place: Place, reaction: Reaction) -> None:
        """It was read before: the same receipt again if we know of it, never an event (chapter 03 §8.4)."""
        key = (str(place.chat), str(place.sender), place.message_id)
        here = any(
            isinstance(step, Journal) and (step.chat, step.sender, step.message_id) == key
            for step in unit.steps
        )
        if here or await self._context.state.journal_seen(*key):
            self._confirm(incoming, reaction)
            return
        _log.debug("a message that was read before, but is not in the journal, came again")
        reaction.add(acks.ack(incoming.node, self._account.device_pn))

    async def _unreadable(self, unit: Unit, incoming: Incoming, place: Place, failure: Failure) -> Reaction:
        """The table of §6.4."""
        if incoming.kind == "status" and incoming.time_ms < self._context.now_ms() - STATUS_LIFE_MS:
            return self._ack(incoming.node)
        _log.debug("a message could not be read: %s", failure.reason)
        known = await self._recorder.known(unit, place)
        if known is not None and known.kind != UNDECRYPTABLE:
            return self._confirmed(incoming)  # a repetition of what is there: nothing is missing
        await self._recorder.placeholder(unit, incoming, place, {"reason": failure.reason})
        if failure.action == "nack":
            return self._nack(incoming.node, failure.number)
        if _is_bot_elsewhere(incoming) or self._account.is_this_device(incoming.sender):
            return self._ack(incoming.node)
        return await self._asking.again(unit, incoming, place, failure.number)

    async def _take(
        self, unit: Unit, incoming: Incoming, place: Place, parts: list[Part], reaction: Reaction
    ) -> None:
        """Several ciphertexts are one message (§6.4, step 7)."""
        part = parts[0] if len(parts) == 1 else _merged(parts)
        own_copy = self._own_content(incoming, part)
        if own_copy is None:
            return
        place = await self._meant(unit, incoming, place, part.message)
        message, raw = own_copy.message, own_copy.raw
        opened = message if message.HasField("conversation") else unwrap(message).message
        description: Description | None
        if opened.HasField("protocolMessage"):
            description = await self._protocol.handle(unit, incoming, place, opened.protocolMessage, reaction)
        else:
            description = describe(message) if not incoming.peer else None
        if description is not None:
            raw, secret = message_secrets.split(message, raw)
            await self._record(unit, incoming, place, description, raw, secret)

    def _own_content(self, incoming: Incoming, part: Part) -> Part | None:
        """Open the copy of an own message; None for what may not be sent in this form (§6.5)."""
        if part.message.HasField("deviceSentMessage"):
            return self._opened_copy(incoming, part.message)
        bare = incoming.own and not incoming.peer and not incoming.shares_keys
        if bare and not unwrap(part.message).message.HasField("protocolMessage"):
            _log.warning("an own message without its wrapper was dropped")
            return None
        return part

    def _opened_copy(self, incoming: Incoming, message: Message) -> Part | None:
        if not incoming.own:
            _log.warning("a message that claims to be an own one, from somebody else, was dropped")
            return None
        copy = message.deviceSentMessage
        inner = copy.message
        if message.HasField("messageContextInfo") and not inner.HasField("messageContextInfo"):
            inner.messageContextInfo.CopyFrom(message.messageContextInfo)
        inner.ClearField("senderKeyDistributionMessage")
        inner.ClearField("fastRatchetKeySenderKeyDistributionMessage")
        named = parse_jid(copy.destinationJid)
        if named not in (None, incoming.chat, incoming.chat_alt, incoming.source):
            _log.info("an own message names another chat than its stanza; the stanza counts")
        return Part(inner, inner.SerializeToString())

    async def _meant(self, unit: Unit, incoming: Incoming, place: Place, message: Message) -> Place:
        """A copy that a sibling repeats may name its chat inside only; its stanza then says the chat with oneself."""
        named = parse_jid(message.deviceSentMessage.destinationJid)
        to_oneself = incoming.own and self._account.is_own(incoming.chat)
        if named is None or not named.is_user or not to_oneself or self._account.is_own(named):
            return place
        chat = await self._context.addresses.canonical(named.account, unit)
        return structs.replace(place, chat=chat, wire_chat=named.account)

    async def _record(
        self,
        unit: Unit,
        incoming: Incoming,
        place: Place,
        description: Description,
        raw: bytes,
        secret: bytes | None,
    ) -> None:
        for one in await self._places(unit, incoming, place):
            known = await self._recorder.known(unit, one)
            await self._recorder.record(unit, incoming, one, description, raw, known, secret)
            resolved = known is not None and known.kind == UNDECRYPTABLE
            if resolved or incoming.retry_count:
                await self._asking.resolved(unit, one)

    async def _places(self, unit: Unit, incoming: Incoming, place: Place) -> list[Place]:
        """An own message to a list is one message to each of its recipients (§4.6)."""
        if not incoming.recipients:
            return [place]
        addresses = self._context.addresses
        return [
            Place(await addresses.canonical(recipient, unit), place.sender, place.message_id, recipient)
            for recipient in incoming.recipients
        ]

    def _confirm(self, incoming: Incoming, reaction: Reaction) -> None:
        """The receipt; a status gets an ack besides, a bot's word in another chat an ack only (§6.8)."""
        elsewhere = _is_bot_elsewhere(incoming)
        if not elsewhere:
            reaction.add(delivery_receipt(incoming, available=self._context.settings.available))
        if elsewhere or incoming.kind == "status":
            reaction.add(acks.ack(incoming.node, self._account.device_pn))

    def _confirmed(self, incoming: Incoming) -> Reaction:
        reaction = Reaction()
        self._confirm(incoming, reaction)
        return reaction

    def _ack(self, stanza: Node) -> Reaction:
        reaction = Reaction()
        reaction.add(acks.ack(stanza, self._account.device_pn))
        return reaction

    def _nack(self, stanza: Node, code: int) -> Reaction:
        reaction = Reaction()
        reaction.add(acks.ack(stanza, self._account.device_pn, code))
        return reaction


def _is_bot_elsewhere(incoming: Incoming) -> bool:
    """A bot's word in a chat that is not the bot's own."""
    return incoming.kind == "bot" and not incoming.own and incoming.chat != incoming.sender.account


def _merged(parts: list[Part]) -> Part:
    message = Message()
    for part in parts:
        message.MergeFrom(part.message)
    return Part(message, message.SerializeToString())
