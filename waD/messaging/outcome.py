"""How a message of ours ended, or that it got as far as the server: the row, the history and the event together."""

from __future__ import annotations

from typing import Final

from waD.events import model
from waD.messaging.context import Context
from waD.messaging.statuses import ERROR, SENT
from waD.store.model import MessageRow, OutboxRow, OutboxStatus
from waD.store.unit import ChangeOutbox, RaiseStatus, Unit

REFUSED: Final = "refused"
"""Why a message ended that WhatsApp did not take."""


async def own_message(context: Context, message_id: str, unit: Unit | None = None) -> MessageRow | None:
    """The history row of a message of ours, as it was last committed."""
    found = await context.state.find_message(message_id, unit=unit)
    return next((row for row in found if row.from_me), None)


async def fail(
    context: Context,
    unit: Unit,
    row: OutboxRow,
    reason: str,
    code: int | None = None,
    *,
    state: OutboxStatus = "failed",
) -> None:
    """End a row without success, as part of a unit.

    Args:
        context: whose.
        unit: what to add to.
        row: of the outbox.
        reason: stable word, in the event's `error`.
        code: WhatsApp's number; when there is one it stands in the row's `last_error` instead of the word.
        state: the state it ends in.
    """
    unit.update_outbox(row.message_id, state=state, last_error=reason if code is None else str(code))
    message = await own_message(context, row.message_id, unit)
    if message is not None and message.status < SENT:
        unit.update_message(message.chat, message.sender, message.message_id, status=ERROR)
    unit.event(*model.message_status(row.chat, row.message_id, state, error=reason, code=code))


async def sent(context: Context, unit: Unit, row: OutboxRow, server_ms: int) -> None:
    """The server has a message, as part of a unit; told only when nothing better is known of it.

    Args:
        context: whose.
        unit: what to add to.
        row: of the outbox.
        server_ms: the server's time of the message, Unix milliseconds.
    """
    unit.update_outbox(row.message_id, state="sent", sent_at=server_ms, last_error=None)
    message = await own_message(context, row.message_id, unit)
    if message is None:
        return
    unit.update_message(message.chat, message.sender, message.message_id, ts=server_ms)
    if max(message.status, _raised_to(unit, row.message_id)) < SENT:
        unit.raise_status(message.chat, message.message_id, SENT)
        unit.event(*model.message_status(message.chat, message.message_id, SENT))


def settled_in(unit: Unit, message_id: str) -> bool:
    """Whether a unit under construction has changed an outbox row already."""
    return any(isinstance(step, ChangeOutbox) and step.message_id == message_id for step in unit.steps)


def _raised_to(unit: Unit, message_id: str) -> int:
    found = (
        step.status for step in unit.steps if isinstance(step, RaiseStatus) and step.message_id == message_id
    )
    return max(found, default=0)
