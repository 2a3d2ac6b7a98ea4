"""The outbox: own messages that have not ended, and what the operator decides about them."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from waD.control.types.base import Answer, IdsParam, NameParam, PageParam, Params
from waD.control.types.words import DEFAULT_PAGE

OutboxState: TypeAlias = Literal["queued", "held", "sending", "sent", "failed", "expired", "cancelled"]
UNFINISHED: Final[tuple[OutboxState, ...]] = ("queued", "held", "sending")
"""What may still leave."""

StatesParam: TypeAlias = Annotated[list[OutboxState], msgspec.Meta(max_length=7)]


class OutboxView(Answer, frozen=True, kw_only=True):
    """One message of the outbox.

    Attributes:
        seq: its place; messages leave in this order.
        created_at: when it was submitted.
        body: its text.
        attempts: how often it was encrypted to be sent. A held one that was may have reached its recipient.
        not_before: it does not leave earlier; 0 for at once.
        expires_at: after this it is not sent any more.
        written_at: when it was last encrypted to be sent.
        sent_at: WhatsApp's time of the message, once it has it.
        last_error: why it waits or ended: WhatsApp's number or a word.
        idempotency_key: as submitted, else the message id.
    """

    seq: int
    message_id: str
    chat: str
    state: OutboxState
    created_at: int
    body: str | None = None
    attempts: int = 0
    not_before: int = 0
    expires_at: int | None = None
    written_at: int | None = None
    sent_at: int | None = None
    last_error: str | None = None
    idempotency_key: str | None = None

    def __repr__(self) -> str:
        return f"OutboxView(seq={self.seq}, message_id={self.message_id!r}, state={self.state!r})"


class OutboxParams(Params, frozen=True, kw_only=True):
    """Parameters of `outbox.list`: those in one of these states, without any those that may still leave; the oldest."""

    session: NameParam
    states: StatesParam = []
    limit: PageParam = DEFAULT_PAGE


class OutboxList(Answer, frozen=True, kw_only=True):
    """Answer of `outbox.list`; `total` counts also those beyond the limit."""

    session: str
    messages: list[OutboxView]
    total: int


class DecideParams(Params, frozen=True, kw_only=True):
    """Parameters of `outbox.release` and `outbox.cancel`: messages by id, or with `all` every held one."""

    session: NameParam
    ids: IdsParam | None = None
    all: bool = False


class DecideResult(Answer, frozen=True, kw_only=True):
    """Answer of `outbox.release` and `outbox.cancel`: how many messages, and the ids of the first `MAX_IDS`."""

    session: str
    count: int
    message_ids: list[str] = []
