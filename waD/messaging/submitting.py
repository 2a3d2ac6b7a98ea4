"""Taking a message into the outbox, and building its content from there (architecture §5, chapter 04 §5.4)."""

from __future__ import annotations

import base64
from typing import Any, Final

from msgspec import Struct

from waD.messaging import message_secrets
from waD.messaging.content import (
    ID_RANDOM_LENGTH,
    SECRET_LENGTH,
    ContentError,
    Quote,
    check_text,
    is_text,
    message_id,
    parse,
    quotable,
    text_message,
)
from waD.messaging.context import Context
from waD.messaging.recipients import NoWireAddress, canonical, in_namespace, parse_person, wire_address
from waD.proto.e2e_pb2 import Message
from waD.store.model import MessageRow, OutboxRow
from waD.store.unit import Unit
from waD.wire.jid import JID

MAX_CLIENT_REF: Final = 128
MAX_MENTIONS: Final = 1024
KIND_TEXT: Final = "text"
BY_NUMBER: Final = "byNumber"
"""Key of a payload: the server refused the LID, so the phone number is written to."""


class TextRequest(Struct, frozen=True, kw_only=True):
    """A text to send.

    Attributes:
        to: phone number or address of a person.
        text: what to say.
        client_ref: idempotency key, at most `MAX_CLIENT_REF` characters; a second request with it changes nothing.
        quote_id: id of a message of the same chat to quote.
        mentions: numbers or addresses of people that the text names as `@user`.
        not_before: Unix milliseconds before which it does not leave; 0 for at once.
        expires_at: Unix milliseconds after which it does not leave any more.
    """

    to: str
    text: str
    client_ref: str | None = None
    quote_id: str | None = None
    mentions: tuple[str, ...] = ()
    not_before: int = 0
    expires_at: int | None = None

    def __repr__(self) -> str:
        return f"TextRequest({len(self.text)} characters)"


class Enqueued(Struct, frozen=True):
    """The row of a message; `duplicate`: it was there before."""

    row: OutboxRow
    duplicate: bool


class Submitter:
    """Puts messages into one session's outbox; needs no connection.

    Args:
        context: whose.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    async def enqueue(self, request: TextRequest) -> Enqueued:
        """Commit a message to the outbox and the history, or find the one with the same `client_ref`.

        Raises:
            ContentError: the request cannot be carried out; nothing was changed.
            StoreError: nothing was changed.
        """
        reference = request.client_ref
        if reference is not None and not (0 < len(reference) <= MAX_CLIENT_REF and is_text(reference)):
            raise ContentError(
                "bad_reference", f"an idempotency key is a text of 1 to {MAX_CLIENT_REF} characters"
            )
        if not self._context.account.paired:
            raise ContentError("not_paired", "the session is not linked to an account: scan its code first")
        check_text(request.text, self._context.settings.max_text)
        async with self._context.state.lock:
            if reference is not None:
                known = await self._context.state.outbox_by_ref(reference)
                if known is not None:
                    return Enqueued(known, duplicate=True)
            unit = self._context.state.unit()
            row = await self._add(unit, request)
            await self._context.state.commit(unit)
        return Enqueued(row, duplicate=False)

    async def _add(self, unit: Unit, request: TextRequest) -> OutboxRow:
        context, now = self._context, self._context.now_ms()
        chat = await canonical(context, parse_person(request.to), unit)
        own = context.account.own
        name = message_id(now // 1000, own.user, context.random(ID_RANDOM_LENGTH))
        payload = await self._payload(request, chat)
        row = OutboxRow(
            client_ref=request.client_ref or name,
            chat=str(chat),
            message_id=name,
            payload=payload,
            not_before=request.not_before,
            expires_at=request.expires_at,
            created_at=context.now_ms.local_ms(),
        )
        unit.enqueue(row)
        unit.add_message(await self._history(unit, row, chat, own, now))
        return row

    async def _history(self, unit: Unit, row: OutboxRow, chat: JID, own: JID, now: int) -> MessageRow:
        try:
            wire = await wire_address(self._context, chat, unit)
        except NoWireAddress:
            wire = chat
        message = await build(self._context, row.payload, wire, unit)
        content: dict[str, Any] = {}
        if "quote" in row.payload:
            content["quoted"] = row.payload["quote"]["id"]
        if "mentions" in row.payload:
            content["mentions"] = row.payload["mentions"]
        return MessageRow(
            chat=row.chat,
            sender=str(own),
            message_id=row.message_id,
            from_me=True,
            ts=now,
            kind=KIND_TEXT,
            body=row.payload["text"],
            content=content or None,
            raw=message_secrets.split(message, message.SerializeToString())[0],
            wire_chat=str(wire),
        )

    async def _payload(self, request: TextRequest, chat: JID) -> dict[str, Any]:
        secret = base64.b64encode(self._context.random(SECRET_LENGTH)).decode()
        payload: dict[str, Any] = {"to": request.to, "text": request.text, "secret": secret}
        if request.quote_id is not None:
            payload["quote"] = await self._quote(request.quote_id, chat)
        if len(request.mentions) > MAX_MENTIONS:
            raise ContentError(
                "bad_mention", f"{len(request.mentions)} mentions; {MAX_MENTIONS} is the most in one message"
            )
        if request.mentions:
            people = [parse_person(text, "bad_mention") for text in request.mentions]
            payload["mentions"] = [str(person) for person in dict.fromkeys(people)]
        return payload

    async def _quote(self, quoted_id: str, chat: JID) -> dict[str, str]:
        """Find a message to quote in the history of a chat, under any spelling of the person."""
        spellings = {str(form) for form in await self._context.addresses.spellings(chat)}
        rows = await self._context.state.find_message(quoted_id) if is_text(quoted_id) else []
        found = [row for row in rows if row.chat in spellings]
        if not found:
            raise ContentError("unknown_quote", f"there is no message {quoted_id!r} in this chat to quote")
        row = found[0]
        content = None if row.raw is None or row.revoked_at is not None else quotable(row.raw)
        if content is None and row.body and row.revoked_at is None:
            content = Message(conversation=row.body)
        if content is None:
            raise ContentError(
                "unknown_quote", f"message {quoted_id!r} cannot be quoted: its content is not known"
            )
        raw = base64.b64encode(content.SerializeToString()).decode()
        return {"id": row.message_id, "author": row.sender, "raw": raw}


async def build(context: Context, payload: dict[str, Any], wire: JID, unit: Unit | None = None) -> Message:
    """The Message of an outbox row; addresses inside it are in the namespace of the chat.

    Args:
        context: whose.
        payload: of the row.
        wire: bare address of the chat on the wire.
        unit: changes under construction.

    Raises:
        KeyError, ValueError: the payload is not one of ours.
    """
    quote = None
    if "quote" in payload:
        stored = payload["quote"]
        author = await in_namespace(context, JID.parse(stored["author"]), wire, unit)
        quote = Quote(stored["id"], author, parse(base64.b64decode(stored["raw"])) or Message())
    mentions = [
        await in_namespace(context, JID.parse(text), wire, unit) for text in payload.get("mentions", ())
    ]
    secret = base64.b64decode(payload["secret"])
    return text_message(payload["text"], secret, quote=quote, mentions=mentions)
