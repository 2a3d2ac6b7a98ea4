"""Exceptions that ended a connection, as causes of the disconnect table."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import trio

from waD.link.causes import Cause, Rank, cause
from waD.link.credentials import CredentialsError
from waD.link.errors import Disconnected
from waD.store.errors import KekUnavailable, LeaseLost, StoreDamaged, StoreError

_log = logging.getLogger(__name__)


def cause_of(error: Exception, session: str) -> Cause:
    """The one cause that an exception, or a group of them, stands for (chapter 02 §8.1).

    A fault of this program is `crash`; its traceback goes to the log, its text into no record, because nobody knows
    what is in it.
    """
    return min((_single(single, session) for single in _singles(error)), key=lambda found: found.rank)


def _singles(error: Exception) -> Iterator[Exception]:
    if isinstance(error, ExceptionGroup):
        for inner in error.exceptions:
            yield from _singles(inner)
    else:
        yield error


def _single(error: Exception, session: str) -> Cause:
    match error:
        case Disconnected():
            return error.cause
        case LeaseLost():
            return cause("lease_lost", str(error))
        case StoreDamaged() | KekUnavailable() | CredentialsError():
            return Cause("auth_corrupt", None, str(error), rank=Rank.STORAGE)
        case StoreError():
            return cause("auth_write", str(error))
        case _:
            _log.critical("session %s: a fault of this program ended its connection", session, exc_info=error)
            return cause("crash", f"a fault of this program ({type(error).__name__}); see the log")


def without_cancellation(
    group: BaseExceptionGroup[BaseException],
) -> tuple[Exception | None, BaseExceptionGroup[BaseException] | None]:
    """Split a group into what went wrong, and the cancellation that was on its way too.

    Raises:
        BaseException: something that no session may swallow, such as KeyboardInterrupt.
    """
    cancelled, rest = group.split(trio.Cancelled)
    if rest is not None and not isinstance(rest, Exception):
        raise group
    return rest, cancelled
