"""What becomes of bugs: a reference for the caller, the place in the code for the log, the content for nobody."""

from __future__ import annotations

import logging
import secrets
import traceback
from typing import Final

from waD.control.api import ControlError

_log = logging.getLogger(__name__)
_FRAMES: Final = 12


def refusal(error: Exception, subject: str) -> ControlError:
    """Turn whatever a method raised into what its caller is told.

    A ControlError is passed on, also from inside a nursery's group. Anything else is a bug: it is logged with a
    reference, by type and place only, because its text might hold somebody's message.
    """
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, ControlError):
        return error
    reference = report(error, subject)
    return ControlError(
        "internal_error",
        f"a fault of the daemon in {subject}; look for reference {reference} in its log",
        {"reference": reference},
    )


def report(error: BaseException, subject: str) -> str:
    """Log a bug and return its reference."""
    reference = secrets.token_hex(4)
    _log.error("fault %s in %s: %s", reference, subject, describe(error))
    return reference


def describe(error: BaseException) -> str:
    """Name an exception's type and the innermost places it came through, without its text."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    places = " < ".join(f"{frame.name} ({frame.filename}:{frame.lineno})" for frame in reversed(frames))
    text = f"{type(error).__qualname__} at {places}" if places else type(error).__qualname__
    if isinstance(error, BaseExceptionGroup):
        return f"{text} [{'; '.join(describe(inner) for inner in error.exceptions)}]"
    if error.__cause__ is not None:
        return f"{text} from {describe(error.__cause__)}"
    return text
