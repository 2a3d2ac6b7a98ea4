"""What a method of the control protocol is: a row of a table, and the call that its handler gets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec

from waD.control.api import Daemon, Sessions
from waD.control.subscriptions import Subscriptions
from waD.control.types import Role

Kind: TypeAlias = Literal["query", "wait", "command"]


@dataclass(frozen=True, slots=True)
class Call:
    """One request, and what its method may use.

    Attributes:
        after_answer: run once the answer is on its way.
    """

    sessions: Sessions
    daemon: Daemon
    role: Role
    subscriptions: Subscriptions
    version: str
    after_answer: list[Callable[[], object]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Method:
    """One row of the table.

    Attributes:
        needs: the lowest role that may call it.
        in_order: the next request of the connection is not read before this one is done, so that what a
            script sends in a row arrives in a row.
    """

    name: str
    kind: Kind
    needs: Role
    params: type[msgspec.Struct]
    result: type[msgspec.Struct]
    handler: Callable[[Call, Any], Awaitable[msgspec.Struct]]
    in_order: bool = False


P = TypeVar("P", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)


def row(
    name: str,
    kind: Kind,
    needs: Role,
    params: type[P],
    result: type[R],
    handler: Callable[[Call, P], Awaitable[R]],
    *,
    in_order: bool = False,
) -> Method:
    """Make a row whose handler is known to fit its types."""
    return Method(name, kind, needs, params, result, handler, in_order)
