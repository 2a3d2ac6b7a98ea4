"""Telling others that their messages were read (chapter 04 §6.7)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from waD.messaging.content import ContentError, is_text
from waD.messaging.context import Context
from waD.messaging.delivery import ReadGroup, ReadKey, aggregate_reads
from waD.messaging.recipients import canonical
from waD.messaging.statuses import READ
from waD.store.model import MessageRow
from waD.wire.errors import JIDError
from waD.wire.jid import JID
from waD.wire.node import Node, Value


async def mark_read(context: Context, chat: JID, ids: Sequence[str]) -> list[Node]:
    """Mark received messages of one chat as read, durably, and build the receipts to send.

    Args:
        context: whose.
        chat: any address of the chat.
        ids: of messages; our own among them are left out, twice the same counts once.

    Returns:
        The receipts, one for each author and form of address, as far as their ids fit into one.

    Raises:
        ContentError: `unknown_message`, naming the ids that the chat does not have; nothing was changed.
        StoreError: nothing was changed.
    """
    async with context.state.lock:
        unit = context.state.unit()
        rows = await _received(context, chat, ids)
        for row in rows:
            if row.status < READ:
                unit.update_message(row.chat, row.sender, row.message_id, status=READ)
        await context.state.commit(unit)
    return receipts(context, rows)


async def _received(context: Context, chat: JID, ids: Sequence[str]) -> list[MessageRow]:
    person = await canonical(context, chat)
    spellings = {str(form) for form in await context.addresses.spellings(person)} | {str(chat.bare)}
    found: list[MessageRow] = []
    unknown: list[str] = []
    for message_id in dict.fromkeys(ids):
        rows = await context.state.find_message(message_id) if is_text(message_id) else []
        here = [row for row in rows if row.chat in spellings]
        found += [row for row in here if not row.from_me]
        if not here:
            unknown.append(message_id)
    if unknown:
        raise ContentError("unknown_message", f"this chat has no message {', '.join(map(repr, unknown[:8]))}")
    return found


def receipts(context: Context, rows: Iterable[MessageRow]) -> list[Node]:
    """Read receipts for messages of others, grouped by chat and author, in the order of the first of each."""
    return [_receipt(context, group) for group in aggregate_reads(_key(row) for row in rows)]


def _key(row: MessageRow) -> ReadKey:
    """Chat and author as the stanza spelt them; in a direct chat the author is the chat."""
    chat = _spelt(row.wire_chat, row.chat)
    if chat.is_group or chat.is_broadcast:
        return ReadKey(chat, row.message_id, _spelt(row.wire_sender, row.sender))
    return ReadKey(chat, row.message_id)


def _spelt(wire: str | None, otherwise: str) -> JID:
    try:
        return JID.parse(wire or otherwise).bare
    except JIDError:
        return JID.parse(otherwise).bare


def _receipt(context: Context, group: ReadGroup) -> Node:
    told = context.settings.send_read_receipts or group.participant is not None
    attrs: dict[str, Value] = {
        "id": group.ids[0],
        "to": group.chat,
        "type": "read" if told and not group.chat.is_newsletter else "read-self",
        "t": str(context.now_ms() // 1000),
    }
    if group.participant is not None:
        attrs["participant"] = group.participant
    if group.chat.is_status:
        attrs["context"] = "status"
    more = [Node("item", {"id": message_id}) for message_id in group.ids[1:]]
    return Node("receipt", attrs, [Node("list", {}, more)] if more else None)
