"""Messages that wait for a decision: held since the credentials were replaced, released or cancelled by the operator.

Chapter 08 §6.7 and §7.5 hold what was on its way; chapter 04 §5.4 names the states. A held message may have reached
WhatsApp before; released, it is encrypted anew and leaves under the same id, by which a recipient tells it is the same.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

from waD.events import model
from waD.messaging.context import Context
from waD.messaging.outcome import fail
from waD.store.model import OutboxRow, OutboxStatus
from waD.store.unit import Unit

BATCH: Final = 200
"""Messages that share one commit; others use the session in between."""
CANCELLED: Final = "cancelled"
HELD: Final[tuple[OutboxStatus, ...]] = ("held",)

_Change: TypeAlias = Callable[[Context, Unit, OutboxRow], Awaitable[None]]


class NoDecision(Exception):  # noqa: N818 - what is the case
    """A message is not in a state to be decided about; nothing was changed.

    Attributes:
        message_id: which.
        state: the state it is in; None when the outbox does not have it.
    """

    def __init__(self, message_id: str, state: OutboxStatus | None) -> None:
        super().__init__(f"message {message_id} is {state or 'not in the outbox'}")
        self.message_id = message_id
        self.state = state


async def release(context: Context, ids: Sequence[str] | None) -> list[str]:
    """Put held messages back into the queue; they are encrypted anew.

    Args:
        context: whose.
        ids: which ones; None: all that are held.

    Returns:
        Those that were released, oldest first or in the order of `ids`.

    Raises:
        NoDecision: one of them is not held; nothing was changed.
        StoreError: those not yet released stay held.
    """
    return await _decide(context, ids, HELD, _release)


async def cancel(context: Context, ids: Sequence[str] | None) -> list[str]:
    """End messages that have not left, for good: held ones, and by id also queued ones.

    Args:
        context: whose.
        ids: which ones; None: all that are held.

    Returns:
        Those that were cancelled, oldest first or in the order of `ids`.

    Raises:
        NoDecision: one of them is neither held nor queued; nothing was changed.
        StoreError: those not yet cancelled stay as they are.
    """
    return await _decide(context, ids, (*HELD, "queued"), _cancel)


async def _release(context: Context, unit: Unit, row: OutboxRow) -> None:  # noqa: ARG001 - as `_cancel`
    unit.update_outbox(row.message_id, state="queued", stanza=None, last_error=None)
    unit.event(*model.message_status(row.chat, row.message_id, "queued"))


async def _cancel(context: Context, unit: Unit, row: OutboxRow) -> None:
    await fail(context, unit, row, CANCELLED, state="cancelled")


async def _decide(
    context: Context, ids: Sequence[str] | None, among: Sequence[OutboxStatus], change: _Change
) -> list[str]:
    if ids is not None:
        return await _change_some(context, lambda: _named(context, ids, among), change)
    decided: list[str] = []
    while done := await _change_some(context, lambda: context.state.outbox(HELD, BATCH), change):
        decided += done
    return decided


async def _change_some(
    context: Context, choose: Callable[[], Awaitable[list[OutboxRow]]], change: _Change
) -> list[str]:
    """Choose and change in one unit."""
    async with context.state.lock:
        unit = context.state.unit()
        rows = await choose()
        await context.state.read_ahead(unit, {}, [row.message_id for row in rows])
        for row in rows:
            await change(context, unit, row)
        await context.state.commit(unit)
    return [row.message_id for row in rows]


async def _named(context: Context, ids: Sequence[str], among: Sequence[OutboxStatus]) -> list[OutboxRow]:
    rows: list[OutboxRow] = []
    for message_id in dict.fromkeys(ids):
        row = await context.state.outbox_by_message_id(message_id)
        if row is None or row.state not in among:
            raise NoDecision(message_id, None if row is None else row.state)
        rows.append(row)
    return rows
