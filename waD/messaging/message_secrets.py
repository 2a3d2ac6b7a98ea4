"""The secret that comes with a message, for votes, answers and edits about it (chapter 04 §10.3).

It is kept in a place of its own and taken out of the stored protobuf: the history is readable, the secret is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from waD.messaging.incoming_content import FORWARDED, Description
from waD.messaging.wrappers import unwrap
from waD.proto.e2e_pb2 import Message, MessageContextInfo
from waD.store.model import SECRET_LENGTH, SecretRow
from waD.store.unit import Unit
from waD.wire.jid import JID

DAY_MS: Final = 86_400_000
LIFE_MS: Final = 30 * DAY_MS
LONG_LIFE_MS: Final = 90 * DAY_MS
"""Votes on a poll and answers to an event come for longer than edits of a text."""
LONG_LIVED: Final = frozenset({"poll", "event"})
"""Kinds of messages."""


def split(message: Message, raw: bytes) -> tuple[bytes, bytes | None]:
    """Take the secret out of a message.

    Args:
        message: any; it has none afterwards.
        raw: its serialised form.

    Returns:
        The serialised form without it, and the secret; None when there is none of 32 bytes.
    """
    secret: bytes | None = None
    found = [*_contexts(message)]
    if not found:
        return raw, None
    for context in found:
        if secret is None and len(context.messageSecret) == SECRET_LENGTH:
            secret = context.messageSecret
        context.ClearField("messageSecret")
    return message.SerializeToString(), secret


def _contexts(message: Message) -> Iterator[MessageContextInfo]:
    """Those that hold a secret: around the wrappers, and inside of them."""
    inner = message if message.HasField("conversation") else unwrap(message).message
    for one in (message,) if inner is message else (message, inner):
        if one.HasField("messageContextInfo") and one.messageContextInfo.HasField("messageSecret"):
            yield one.messageContextInfo


def belongs(description: Description) -> bool:
    """Whether a secret is the message's own: that in a forwarded one is the original's."""
    return FORWARDED not in description.content


def keep(
    unit: Unit,
    key: tuple[str, str, str],
    secret: bytes,
    *,
    author: JID,
    kind: str,
    ts: int,
    now_ms: int,
) -> None:
    """Keep a secret beside its message for as long as its kind needs; not one that is past that.

    Args:
        unit: takes it.
        key: chat, sender and id of the message, as filed.
        secret: 32 bytes.
        author: bare, as the stanza spells it.
        kind: of the message.
        ts: time of the message, Unix milliseconds.
        now_ms: time as the server sees it; no message is from later.
    """
    chat, sender, message_id = key
    ts = min(ts, now_ms)
    expires = ts + life_ms(kind)
    if expires > now_ms:
        row = SecretRow(
            chat=chat,
            sender=sender,
            message_id=message_id,
            wire_sender=str(author),
            secret=secret,
            message_ts=ts,
            expires_at=expires,
        )
        unit.keep_secret(row)


def life_ms(kind: str) -> int:
    """How long the secret of a kind of message is kept."""
    return LONG_LIFE_MS if kind in LONG_LIVED else LIFE_MS
