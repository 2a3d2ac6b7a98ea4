"""Rows of the store as the answers of the control protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from waD.control.types import DisconnectView, EventView, MessageState, MessageView, SessionView, UndoResult
from waD.session.record import public_detail
from waD.session.supervisor import Supervisor
from waD.session.table import ROWS
from waD.session.undo import Undone
from waD.session.vitals import MS
from waD.store.model import (
    STATUS_NUMBERS,
    UNDECRYPTABLE,
    DisconnectRecord,
    EventRow,
    MessageRow,
    OutboxRow,
    SessionRow,
)
from waD.wire.errors import JIDError
from waD.wire.jid import JID

SENT: Final = STATUS_NUMBERS["sent"]
_READ: Final = STATUS_NUMBERS["read"]
_STATES: Final[Mapping[int, MessageState]] = {
    0: "failed",
    1: "queued",
    2: "sent",
    3: "delivered",
    4: "read",
    5: "played",
}
"""Numbers of own stored messages as message states (chapter 04 §5.4)."""


def session_view(
    row: SessionRow, supervisor: Supervisor | None, *, queued: int = 0, held: int = 0
) -> SessionView:
    """A session as it is now: what the store says, and what only its supervisor knows."""
    vitals = None if supervisor is None else supervisor.vitals
    link = None if supervisor is None else supervisor.link
    login = None if vitals is None else vitals.login
    record = row.last_disconnect if vitals is None else vitals.record
    return SessionView(
        name=row.name,
        connection_id=row.id,
        state=row.current_status if vitals is None else vitals.status,
        desired=row.desired_state,
        held=row.held,
        paired=row.me_pn is not None if supervisor is None else supervisor.paired,
        ready=vitals is not None and vitals.ready,
        healthy=None if vitals is None else vitals.healthy,
        me=_bare(row.me_lid) or _bare(row.me_pn),
        me_pn=row.me_pn,
        me_lid=row.me_lid,
        push_name=row.push_name,
        business_name=row.business_name,
        platform=row.platform,
        last_connected_at=row.last_connected_at,
        last_message_at=row.last_message_at,
        reconnect_count=row.reconnect_count,
        reconnect_attempt=row.reconnect_attempt,
        next_attempt_at=None if vitals is None else vitals.next_attempt_ms,
        last_disconnect=None if record is None else disconnect_view(record),
        queued=queued,
        held_messages=held,
        hint="" if vitals is None else vitals.hint,
        run_by=row.lease_holder if supervisor is None else None,
        healthy_since=None if vitals is None else vitals.healthy_since_ms,
        ping_ms=None if link is None or link.latency_s is None else round(link.latency_s * MS),
        unacked=0 if link is None else link.unacked,
        unanswered=0 if login is None else login.unanswered,
        clock_offset_ms=None if vitals is None else vitals.clock_offset_ms,
        messages_received=row.messages_received,
        messages_sent=row.messages_sent,
        decrypt_failures=row.decrypt_failures,
        retry_requests=row.retry_requests,
    )


def _bare(text: str | None) -> str | None:
    try:
        return None if text is None else str(JID.parse(text).account)
    except JIDError:
        return None


def disconnect_view(record: DisconnectRecord) -> DisconnectView:
    """A disconnect record without what is kept for the operator of the store only."""
    detail = public_detail(record)
    row = ROWS.get(record.cause)
    message = str(detail.pop("message", "" if row is None else row.meaning))
    return DisconnectView(
        cause=record.cause, at=record.at_ms, code=record.code, message=message, detail=detail
    )


def message_state(row: MessageRow | None, outbox: OutboxRow | None) -> MessageState:
    """How far an own message came, from its place in the history and in the outbox."""
    if row is not None and row.status >= SENT:
        return _STATES.get(row.status, "played")
    if outbox is not None:
        return outbox.state
    return "queued" if row is None else _STATES.get(row.status, "queued")


def message_view(row: MessageRow, outbox: OutboxRow | None = None) -> MessageView:
    """A message of the history; `outbox` is its row there, if it is an own one that was not sent yet."""
    return MessageView(
        seq=row.seq,
        chat=row.chat,
        sender=row.sender,
        message_id=row.message_id,
        from_me=row.from_me,
        time=row.ts,
        kind=row.kind,
        status=message_state(row, outbox) if row.from_me else _received(row),
        body=row.body,
        content=row.content,
        edited_at=row.edited_at,
        revoked_at=row.revoked_at,
    )


def _received(row: MessageRow) -> str:
    if row.kind == UNDECRYPTABLE:
        return UNDECRYPTABLE
    return "read" if row.status >= _READ else "received"


def event_view(row: EventRow) -> EventView:
    """An entry of the event log."""
    return EventView(
        cursor=row.cursor,
        time=row.time,
        type=row.type,
        connection_id=row.connection_id,
        session=row.session,
        data=row.data,
    )


def sealed_as(version: int) -> str:
    """Where sealed credentials are, for people."""
    return f"sealed in the store as version {version}"


def undo_result(session: SessionView, done: Undone) -> UndoResult:
    """What an undo did."""
    return UndoResult(
        session=session,
        restored=sealed_as(done.seal.version),
        sealed_at=done.seal.sealed_at,
        backup=sealed_as(done.restored.sealed),
        receive_only=done.revival.receive_only,
        sender_keys=done.revival.sender_keys,
        stale_prekeys=done.revival.stale_prekeys,
        held=done.restored.held,
    )
