"""Messages: sending, waiting, the history."""

from __future__ import annotations

from typing import Any

from waD.control.types.base import (
    AddressParam,
    Answer,
    CursorParam,
    IdsParam,
    KeyParam,
    MentionsParam,
    MessageIdParam,
    NameParam,
    PageParam,
    Params,
    WaitParam,
)
from waD.control.types.words import DEFAULT_PAGE, DEFAULT_WAIT, MessageState, Milestone


class SendRequest(Params, frozen=True, kw_only=True):
    """Parameters of `message.send`.

    Attributes:
        to: phone number or address.
        idempotency_key: a second call with the same key returns the first one's message.
        quote: id of the message to quote, of the same chat.
        mentions: numbers or addresses named in the text as `@number`.
    """

    session: NameParam
    to: AddressParam
    text: str
    idempotency_key: KeyParam | None = None
    quote: MessageIdParam | None = None
    mentions: MentionsParam = []

    def __repr__(self) -> str:
        return f"SendRequest(session={self.session!r}, characters={len(self.text)})"


class SendResult(Answer, frozen=True, kw_only=True):
    """Answer of `message.send`: the message is durable in the outbox.

    Attributes:
        seq: its place in the outbox.
        duplicate: the idempotency key was seen before; this is the first message's row, whatever its state.
    """

    session: str
    message_id: str
    chat: str
    state: MessageState
    seq: int
    duplicate: bool = False


class WaitParams(Params, frozen=True, kw_only=True):
    """Parameters of `message.wait`; `timeout` in seconds, at most a day."""

    session: NameParam
    message_id: MessageIdParam
    state: Milestone = "sent"
    timeout: WaitParam = DEFAULT_WAIT


class WaitResult(Answer, frozen=True, kw_only=True):
    """Answer of `message.wait`: the state reached, at or beyond the one waited for."""

    session: str
    message_id: str
    state: MessageState


class ListParams(Params, frozen=True, kw_only=True):
    """Parameters of `message.list`; `before` is a `seq`, for paging."""

    session: NameParam
    chat: AddressParam | None = None
    before: CursorParam | None = None
    limit: PageParam = DEFAULT_PAGE


class MessageView(Answer, frozen=True, kw_only=True):
    """One message of the history.

    Attributes:
        seq: position in the history; `before` of `message.list` takes it.
        time: when the author sent it.
        status: for own messages a message state; for others `received`, `read` or `undecryptable`.
        content: what the kind adds to the text, such as a quoted id or a file's size.
    """

    seq: int
    chat: str
    sender: str
    message_id: str
    from_me: bool
    time: int
    kind: str
    status: str
    body: str | None = None
    content: dict[str, Any] | None = None
    edited_at: int | None = None
    revoked_at: int | None = None

    def __repr__(self) -> str:
        return f"MessageView(seq={self.seq}, kind={self.kind!r}, status={self.status!r})"


class MessageList(Answer, frozen=True, kw_only=True):
    """Answer of `message.list`, newest first; `next` is the `before` of the next page, null on the last."""

    session: str
    messages: list[MessageView]
    next: int | None = None


class ReadParams(Params, frozen=True, kw_only=True):
    """Parameters of `message.read`: the chat, and the ids of messages received in it."""

    session: NameParam
    chat: AddressParam
    ids: IdsParam


class ReadResult(Answer, frozen=True, kw_only=True):
    """Answer of `message.read`: how many messages are marked now that were not before."""

    session: str
    marked: int
