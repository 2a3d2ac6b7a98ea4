"""What all answers and all requests have in common."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from waD.control.types.words import (
    MAX_ADDRESS,
    MAX_CURSOR,
    MAX_IDEMPOTENCY_KEY,
    MAX_IDS,
    MAX_MENTIONS,
    MAX_MESSAGE_ID,
    MAX_NAME,
    MAX_PAGE,
    MAX_TYPES,
    MAX_WAIT,
)


class Answer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An answer: readers ignore fields they do not know."""


class Params(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """The parameters of a method: a misspelt one is an error."""


NameParam: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
MessageIdParam: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_MESSAGE_ID)]
AddressParam: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ADDRESS)]
CursorParam: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MAX_CURSOR)]
PageParam: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)]
KeyParam: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_IDEMPOTENCY_KEY)]
WaitParam: TypeAlias = Annotated[float, msgspec.Meta(gt=0, le=MAX_WAIT)]
TypesParam: TypeAlias = Annotated[list[NameParam], msgspec.Meta(max_length=MAX_TYPES)]
IdsParam: TypeAlias = Annotated[list[MessageIdParam], msgspec.Meta(min_length=1, max_length=MAX_IDS)]
MentionsParam: TypeAlias = Annotated[list[AddressParam], msgspec.Meta(max_length=MAX_MENTIONS)]


class NoParams(Params, frozen=True, kw_only=True):
    """For methods without parameters."""


class Done(Answer, frozen=True, kw_only=True):
    """Answer of a method that has nothing more to tell."""

    done: bool = True
