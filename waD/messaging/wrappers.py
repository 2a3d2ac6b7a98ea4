"""Fields of a Message that hold another Message and say something about it (chapter 04 §9.2)."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from waD.proto.e2e_pb2 import Message

MAX_WRAPPERS: Final = 5
"""Wrappers that are opened; deeper content stays closed (chapter 04 §6.4)."""
WRAPPERS: Final = frozenset(
    field.name
    for field in Message.DESCRIPTOR.fields
    if field.message_type is not None and field.message_type is Message.FutureProofMessage.DESCRIPTOR
)
"""Names of all wrappers."""
EDITED: Final = "editedMessage"
"""The one wrapper that counts as a content of its own where a stanza is classified."""


class Unwrapped(Struct, frozen=True):
    """A content without its wrappers, and what those were: names of fields, outermost first."""

    message: Message
    wrappers: tuple[str, ...]


def unwrap(message: Message, *, but: str | None = None) -> Unwrapped:
    """Open wrappers, at most `MAX_WRAPPERS` of them.

    Args:
        message: anything.
        but: a wrapper that stays closed.
    """
    names: list[str] = []
    while len(names) < MAX_WRAPPERS:
        found = _wrapped(message)
        if found is None or found[0] == but:
            break
        names.append(found[0])
        message = found[1]
    return Unwrapped(message, tuple(names))


def _wrapped(message: Message) -> tuple[str, Message] | None:
    for field, value in message.ListFields():
        if field.name in WRAPPERS and value.HasField("message"):
            return field.name, value.message
    return None
