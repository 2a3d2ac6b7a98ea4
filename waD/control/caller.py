"""Who asked for what is done now, as the kernel vouches for it: for records that outlive the log."""

from __future__ import annotations

import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

import trio

LOOKUP_S: Final = 2.0
"""For a user's name, which a directory service may have to be asked for; without it the number must do."""
NOBODY: Final = "waD"
"""Stands for what nobody has asked for."""

_uid: ContextVar[int | None] = ContextVar("uid of the caller", default=None)


@contextmanager
def called_by(uid: int) -> Iterator[None]:
    """What is done in the block, by this task, was asked for by that user."""
    token = _uid.set(uid)
    try:
        yield
    finally:
        _uid.reset(token)


async def caller() -> str:
    """The user whose request this task serves: `alice (uid 1000)`, or `uid 1000` where the name is not known."""
    uid = _uid.get()
    if uid is None:
        return NOBODY
    name = None
    with trio.move_on_after(LOOKUP_S):
        name = await trio.to_thread.run_sync(_name_of, uid, abandon_on_cancel=True)
    return f"uid {uid}" if name is None else f"{name} (uid {uid})"


def _name_of(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OSError):
        return None
