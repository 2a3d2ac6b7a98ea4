"""What can be asked about the messages of one session, as the control protocol asks it."""

from __future__ import annotations

import logging

from waD.control.api import ControlError, MessageIds, bad_param
from waD.control.types import (
    DEAD_ENDS,
    MessageList,
    MessageState,
    Milestone,
    ReadResult,
    SendRequest,
    SendResult,
    Symbol,
    WaitResult,
    reached,
)
from waD.events import model as events
from waD.events.log import EventLog
from waD.link.errors import Disconnected
from waD.messaging.content import ContentError
from waD.messaging.outbound import TextRequest
from waD.session.refusals import not_paired
from waD.session.supervisor import Supervisor
from waD.session.views import SENT, message_state, message_view
from waD.store.model import MessageRow, OutboxRow
from waD.store.store import Store
from waD.wire.errors import JIDError
from waD.wire.jid import JID

_log = logging.getLogger(__name__)

_INVALID_TEXT = frozenset({"empty_text", "text_too_long", "not_text"})
_PARAM_OF = {
    "unknown_quote": "quote",
    "bad_recipient": "to",
    "bad_mention": "mentions",
    "unknown_message": "ids",
    "bad_reference": "idempotencyKey",
}


def refusal(error: ContentError, session: str, state: str) -> ControlError:
    """A refusal of the message room as one of the control protocol."""
    code = str(error.code)
    if code == "not_paired":
        return not_paired(session, state)
    symbol: Symbol = "invalid_text" if code in _INVALID_TEXT else "bad_params"
    data = {"reason": code}
    if symbol == "bad_params":
        data["param"] = _PARAM_OF.get(code, "to")
    return ControlError(symbol, str(error), data)


def parse_chat(text: str) -> JID:
    """An address, or the digits of a phone number.

    Raises:
        ControlError: `bad_params`.
    """
    try:
        return JID.parse(text if "@" in text else f"{text}@s.whatsapp.net")
    except JIDError:
        raise bad_param("chat", "neither a phone number nor an address") from None


class SessionMessages:
    """The messages of one session.

    Args:
        store: where they are.
        log: to wait for changes.
        supervisor: of the session.
    """

    def __init__(self, store: Store, log: EventLog, supervisor: Supervisor) -> None:
        self._store = store
        self._log = log
        self._supervisor = supervisor
        self._name = supervisor.vitals.name
        self._id = supervisor.state.session_id

    def _require_paired(self) -> None:
        if not self._supervisor.paired:
            raise not_paired(self._name, self._supervisor.vitals.status)

    def _refusal(self, error: ContentError) -> ControlError:
        return refusal(error, self._name, self._supervisor.vitals.status)

    async def send(self, request: SendRequest, expires_at: int | None) -> SendResult:
        """Put a text into the outbox; see `waD.control.api.Sessions.send`."""
        self._require_paired()
        wanted = TextRequest(
            to=request.to,
            text=request.text,
            client_ref=request.idempotency_key,
            quote_id=request.quote,
            mentions=tuple(request.mentions),
            expires_at=expires_at,
        )
        try:
            done = await self._supervisor.messaging.outbound.enqueue(wanted)
        except ContentError as error:
            raise self._refusal(error) from None
        # The place in the outbox is known once the row is in it.
        row = await self._store.outbox_row(self._id, message_id=done.row.message_id) or done.row
        state = message_state(await self._own(row.message_id), row)
        return SendResult(
            session=self._name,
            message_id=row.message_id,
            chat=row.chat,
            state=state,
            seq=row.seq,
            duplicate=done.duplicate,
        )

    async def wait(self, message_id: str, state: Milestone) -> WaitResult:
        """Wait for a state of an own message; see `waD.control.api.Sessions.wait`."""
        async with self._log.subscribe(types=(events.MESSAGE_STATUS,), session_id=self._id) as changes:
            now = await self._judge(message_id, state)
            while now is None:
                event = await anext(changes)
                if event.data.get("messageId") == message_id:
                    now = await self._judge(message_id, state)
        return WaitResult(session=self._name, message_id=message_id, state=now)

    async def _judge(self, message_id: str, wanted: Milestone) -> MessageState | None:
        outbox = await self._store.outbox_row(self._id, message_id=message_id)
        row = await self._own(message_id)
        if outbox is None and row is None:
            raise ControlError(
                "no_such_session",
                f"session {self._name!r} has no message of its own with the id {message_id!r}",
                {"name": self._name, "messageId": message_id},
            )
        state = message_state(row, outbox)
        if state in DEAD_ENDS:
            raise self._dead_end(message_id, state, outbox)
        return state if reached(state, wanted) else None

    def _dead_end(self, message_id: str, state: MessageState, outbox: OutboxRow | None) -> ControlError:
        why = None if outbox is None else outbox.last_error
        data: dict[str, object] = {"messageId": message_id, "state": state}
        if why is not None and why.isdecimal():
            data["code"] = int(why)
        text = f"message {message_id} of session {self._name!r} {_ENDED[state]}"
        return ControlError("refused", f"{text}: {why}" if why else text, data)

    async def _own(self, message_id: str) -> MessageRow | None:
        found = await self._store.message(self._id, message_id)
        return next((row for row in found if row.from_me), None)

    async def page(self, chat: str | None, before: int | None, limit: int) -> MessageList:
        """A page of the history; see `waD.control.api.Sessions.messages`."""
        chats = None if chat is None else await self.spellings(parse_chat(chat))
        rows = await self._store.messages(self._id, chats, before, limit)
        views = [message_view(row, await self._outbox_of(row)) for row in rows]
        following = rows[-1].seq if len(rows) == limit else None
        return MessageList(session=self._name, messages=views, next=following)

    async def _outbox_of(self, row: MessageRow) -> OutboxRow | None:
        if not row.from_me or row.status >= SENT:
            return None
        return await self._store.outbox_row(self._id, message_id=row.message_id)

    async def spellings(self, chat: JID) -> list[str]:
        """All addresses under which messages of a chat may be stored."""
        addresses = self._supervisor.messaging.context.addresses
        return [str(jid) for jid in await addresses.spellings(chat)]

    async def mark_read(self, chat: str, ids: MessageIds) -> ReadResult:
        """Mark received messages as read and say so; see `waD.control.api.Sessions.mark_read`."""
        self._require_paired()
        link = self._supervisor.link
        if link is None:
            state = self._supervisor.vitals.status
            raise ControlError(
                "wrong_state",
                f"session {self._name!r} is not open, so nobody can be told; try again when it is",
                {"state": state, "name": self._name},
            )
        wanted = list(dict.fromkeys(ids))
        unread = await self._unread(parse_chat(chat), wanted)
        try:
            nodes = await self._supervisor.messaging.outbound.mark_read(chat, wanted)
        except ContentError as error:
            raise self._refusal(error) from None
        try:
            for node in nodes:
                await link.send(node)
        except Disconnected:
            _log.info("session %s: the connection ended before all read receipts were sent", self._name)
        return ReadResult(session=self._name, marked=unread)

    async def _unread(self, chat: JID, ids: MessageIds) -> int:
        chats = set(await self.spellings(chat))
        rows = [row for one in ids for row in await self._store.message(self._id, one)]
        return sum(1 for row in rows if row.chat in chats and message_view(row).status == "received")


_ENDED = {"failed": "failed", "expired": "expired before it could be sent", "cancelled": "was cancelled"}
