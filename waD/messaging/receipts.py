"""Receipts that others send for what we wrote, and own devices for what they read (chapter 04 §6.9)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from msgspec import Struct

from waD.events import model as events
from waD.link import acks
from waD.messaging.context import Context
from waD.messaging.delivery import MAX_RECEIPT_IDS
from waD.messaging.reaction import FetchDevices, Reaction
from waD.messaging.rows import Rows
from waD.messaging.stanza import is_own, is_usable_id, other_form
from waD.messaging.statuses import DELIVERED, PLAYED, READ, SENT
from waD.store.model import MessageRow
from waD.store.unit import Unit
from waD.wire.jid import JID, LEGACY
from waD.wire.node import Node

RetryHandler: TypeAlias = Callable[[Node, Unit], Awaitable[Reaction]]
"""Takes retry receipts and answers them whole."""

MAX_USERS: Final = 1024
"""Participants read from one receipt that the server collected."""


_STATUS: Final[dict[str | None, int]] = {
    None: DELIVERED,
    "sender": SENT,
    "read": READ,
    "read-self": READ,
    "played": PLAYED,
    "played-self": PLAYED,
}

_log = logging.getLogger(__name__)


class Reached(Struct, frozen=True):
    """How far one reader's device says messages came.

    Attributes:
        author: device or account that sent the receipt.
        status: a number of `STATUS_NUMBERS`.
    """

    author: JID
    status: int


class Receipt(Struct, frozen=True):
    """A receipt that says something about messages.

    Attributes:
        chat: bare, hosted servers folded in.
        ids: the messages, at most `MAX_RECEIPT_IDS`.
        reached: who got how far; several only when the server collected them.
        own: sent by an own device: it is about what that device sent or read.
        alt: the author's address in the other namespace.
    """

    chat: JID
    ids: tuple[str, ...]
    reached: tuple[Reached, ...]
    own: bool
    alt: JID | None = None


def status_of(kind: str | None) -> int | None:
    """The status that a type of receipt stands for; None when it changes none."""
    return _STATUS.get(kind)


def parse(node: Node, own_pn: JID | None, own_lid: JID | None) -> Receipt | None:
    """Read a receipt; None when it says nothing about the status of a message, or is malformed.

    Args:
        node: any node.
        own_pn: own address by phone number.
        own_lid: own address by LID.
    """
    source = node.jid("from")
    ids = _ids(node)
    if source is None or not source.user or source.server == LEGACY or not ids:
        return None
    collective = source.is_group or source.is_broadcast
    if not collective and not (source.is_user or source.is_bot):
        return None
    author = node.jid("participant") if collective else source
    reached = _reached(node, author)
    own = author is not None and is_own(author, own_pn, own_lid)
    chat = source if collective else _direct_chat(node, source, own)
    if chat is None or not reached:
        return None
    return Receipt(chat.account, ids, reached, own, _alternate(node, author))


def _direct_chat(node: Node, source: JID, own: bool) -> JID | None:
    """An own device says which chat it means; without that there is nothing to apply."""
    if not own:
        return source
    recipient = node.jid("recipient")
    return recipient if recipient is not None and recipient.user else None


def _alternate(node: Node, author: JID | None) -> JID | None:
    if author is None or not author.is_user:
        return None
    if author.is_lid:
        return other_form(author, node.jid("participant_pn") or node.jid("sender_pn"))
    return other_form(author, node.jid("sender_lid") or node.jid("participant_lid"))


def _ids(node: Node) -> tuple[str, ...]:
    """The id of the stanza and those of its list; a collected receipt names the message elsewhere."""
    collected = node.child("participants")
    if collected is not None:
        found = [collected.text("message_id") or collected.text("key") or node.text("id", "")]
    else:
        listed = node.child("list")
        found = [node.text("id", "")]
        if listed is not None:
            found += [item.text("id", "") for item in listed.children("item")[:MAX_RECEIPT_IDS]]
    return tuple(dict.fromkeys(filter(is_usable_id, found)))[:MAX_RECEIPT_IDS]


def _reached(node: Node, author: JID | None) -> tuple[Reached, ...]:
    collected = node.child("participants")
    if collected is None:
        status = status_of(node.text("type"))
        if status is None or author is None:
            return ()
        failed = node.child("error") is not None and status == DELIVERED
        return (Reached(author, SENT if failed else status),)
    found: list[Reached] = []
    for user in collected.children("user")[:MAX_USERS]:
        jid, status = user.jid("jid"), status_of(user.text("type") or node.text("type"))
        if jid is not None and jid.is_user and status is not None:
            found.append(Reached(jid, status))
    return tuple(found)


class Receipts:
    """Handles the `<receipt>` stanzas of one session.

    Args:
        context: whose.
        asked: takes the receipts of devices that could not read a message of ours.
    """

    def __init__(self, context: Context, asked: RetryHandler) -> None:
        self._context = context
        self._account = context.account
        self._asked = asked
        self._rows = Rows(context)

    async def receipt(self, stanza: Node, unit: Unit) -> Reaction:
        """Handle one receipt; it is acked whatever it says.

        Raises:
            StoreError: the state could not be read; nothing is answered then.
        """
        if stanza.attrs.get("type") == "retry" and stanza.child("retry") is not None:
            return await self._asked(stanza, unit)
        reaction = Reaction()
        reaction.add(acks.ack(stanza))
        parsed = parse(stanza, self._account.device_pn, self._account.device_lid)
        if parsed is not None:
            await self._learn(unit, parsed, reaction)
            for message_id in parsed.ids:
                await self._apply(unit, parsed, message_id)
        return reaction

    async def _learn(self, unit: Unit, receipt: Receipt, reaction: Reaction) -> None:
        author, alt = receipt.reached[0].author, receipt.alt
        if alt is None or receipt.own or self._account.is_own(alt):
            return
        number, lid = (alt, author) if author.is_lid else (author, alt)
        if not await self._context.addresses.learn(unit, number.account, lid.account, "observed"):
            reaction.work.append(FetchDevices((number.account,)))

    async def _apply(self, unit: Unit, receipt: Receipt, message_id: str) -> None:
        found = await self._rows.in_chat(unit, receipt.chat, message_id)
        for row in found:
            if row.from_me:
                await self._own_message(unit, receipt, row)
            elif receipt.own:
                self._read_elsewhere(unit, receipt, row)

    async def _own_message(self, unit: Unit, receipt: Receipt, row: MessageRow) -> None:
        """Raise the status; in groups it tells how far the message came with anybody, the event with whom."""
        grouped = receipt.chat.is_group or receipt.chat.is_broadcast
        status = row.status
        told: set[tuple[str, int]] = set()
        for one in receipt.reached:
            reached = min(one.status, SENT) if receipt.own else one.status
            participant = str(await self._context.addresses.canonical(one.author, unit)) if grouped else None
            raised = reached > status
            if raised:
                unit.raise_status(row.chat, row.message_id, reached)
                await self._settle_outbox(unit, row, status)
                status = reached
            if raised or (participant is not None and reached >= DELIVERED):
                if participant is not None and (participant, reached) in told:
                    continue
                told.add((participant or "", reached))
                unit.event(*events.message_status(row.chat, row.message_id, reached, participant=participant))

    async def _settle_outbox(self, unit: Unit, row: MessageRow, before: int) -> None:
        """A receipt that overtakes the server's ack implies it (§5.4)."""
        if before >= SENT:
            return
        waiting = await self._context.state.outbox_by_message_id(row.message_id)
        if waiting is not None and waiting.state == "sending":
            unit.update_outbox(row.message_id, state="sent", sent_at=self._context.now_ms())

    def _read_elsewhere(self, unit: Unit, receipt: Receipt, row: MessageRow) -> None:
        """Another own device showed a message of somebody else's."""
        status = receipt.reached[0].status
        if status < READ or row.status >= status:
            return
        self._rows.change(unit, row, status=status)
        data = {"sender": row.sender, "fromMe": False}
        unit.event(*events.message_status(row.chat, row.message_id, status, **data))
