"""What the operator may do with the messages of one session that have not ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from waD.control.api import ControlError, MessageIds
from waD.control.types import MAX_IDS, DecideResult, OutboxList, OutboxState, OutboxView
from waD.messaging import shelf
from waD.messaging.context import Context
from waD.session.supervisor import Supervisor
from waD.store.model import OutboxRow
from waD.store.store import Store

_Decision: TypeAlias = Callable[[Context, Sequence[str] | None], Awaitable[list[str]]]


class SessionOutbox:
    """The outbox of one session.

    Args:
        store: where it is.
        supervisor: of the session, which owns it.
    """

    def __init__(self, store: Store, supervisor: Supervisor) -> None:
        self._store = store
        self._supervisor = supervisor
        self._name = supervisor.vitals.name

    async def page(self, states: Sequence[OutboxState], limit: int) -> OutboxList:
        """The oldest messages in these states; see `waD.control.api.Sessions.outbox`."""
        state = self._supervisor.state
        rows = await state.outbox(states, limit)
        total = await self._store.outbox_count(state.session_id, states)
        return OutboxList(session=self._name, messages=[_view(row) for row in rows], total=total)

    async def release(self, ids: MessageIds | None) -> DecideResult:
        """Let held messages leave; see `waD.control.api.Sessions.release_held`."""
        done = await self._decide(shelf.release, ids)
        self._supervisor.messaging.outbound.wake()
        return done

    async def cancel(self, ids: MessageIds | None) -> DecideResult:
        """End messages that have not left; see `waD.control.api.Sessions.cancel_unsent`."""
        return await self._decide(shelf.cancel, ids)

    async def _decide(self, decision: _Decision, ids: MessageIds | None) -> DecideResult:
        try:
            decided = await decision(self._supervisor.messaging.context, ids)
        except shelf.NoDecision as refused:
            raise self._refusal(refused) from None
        return DecideResult(session=self._name, count=len(decided), message_ids=decided[:MAX_IDS])

    def _refusal(self, refused: shelf.NoDecision) -> ControlError:
        name, message_id = self._name, refused.message_id
        data = {"name": name, "messageId": message_id}
        look = f"wactl outbox list {name} shows those that wait; nothing was changed"
        if refused.state is None:
            text = f"the outbox of session {name!r} has no message {message_id!r}; {look}"
            return ControlError("no_such_session", text, data)
        text = f"message {message_id!r} of session {name!r} is {refused.state}; {look}"
        return ControlError("wrong_state", text, data | {"state": refused.state})


def _view(row: OutboxRow) -> OutboxView:
    text = row.payload.get("text")
    return OutboxView(
        seq=row.seq,
        message_id=row.message_id,
        chat=row.chat,
        state=row.state,
        created_at=row.created_at,
        body=text if isinstance(text, str) else None,
        attempts=row.attempts,
        not_before=row.not_before,
        expires_at=row.expires_at,
        written_at=row.written_at,
        sent_at=row.sent_at,
        last_error=row.last_error,
        idempotency_key=row.client_ref,
    )
