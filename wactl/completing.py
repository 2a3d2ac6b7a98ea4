"""Names and ids for shell completion: quickly or not at all."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from wactl.client import Client, candidates
from wactl.failure import Failure
from waD.control import types as t

_T = TypeVar("_T", bound=msgspec.Struct)

PATIENCE_S: Final = 0.2
"""For connecting and the answer together: a person is waiting at the prompt."""


def session_names(socket: Path | None, incomplete: str) -> list[str]:
    """Names of sessions that begin like this; none if the daemon does not say within the patience."""
    listed = _ask(socket, "session.list", t.SessionList, None)
    return [] if listed is None else [v.name for v in listed.sessions if v.name.startswith(incomplete)]


def held_messages(socket: Path | None, name: str, incomplete: str) -> list[str]:
    """Ids of a session's held messages that begin like this; likewise."""
    params = t.OutboxParams(session=name, states=["held"], limit=t.MAX_PAGE)
    listed = _ask(socket, "outbox.list", t.OutboxList, params)
    return (
        []
        if listed is None
        else [m.message_id for m in listed.messages if m.message_id.startswith(incomplete)]
    )


def _ask(socket: Path | None, method: str, answer: type[_T], params: msgspec.Struct | None) -> _T | None:
    end = time.monotonic() + PATIENCE_S
    try:
        with Client.connect(candidates(socket), timeout=PATIENCE_S) as client:
            left = max(0.001, end - time.monotonic())
            return client.ask(method, answer, params, timeout=left)
    except (Failure, OSError):
        return None
