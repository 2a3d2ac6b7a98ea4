"""Parts of the daemon's program that need no daemon, as processes of their own: here they would weigh too much."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final, NamedTuple

from wactl.failure import Failure, timed_out
from waD.control import types as t

PATIENCE_S: Final = 60.0


class Done(NamedTuple):
    """How a process ended.

    Attributes:
        status: its exit status.
        out: what it wrote to standard output.
        errors: lines of its standard error.
    """

    status: int
    out: str
    errors: list[str]


def command_line(*words: str) -> list[str]:
    """A command line for this interpreter, with this program's modules."""
    return [sys.executable, *_isolation(), *words]


def run(*words: str, timeout: float = PATIENCE_S) -> Done:
    """Run this interpreter with these words to its end.

    Raises:
        Failure: it cannot be started, takes longer than `timeout` seconds, or breaks down.
    """
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter and words of our own
            command_line(*words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise timed_out(f"{' '.join(words)} has not ended within {timeout:g} s") from None
    except OSError as error:
        raise Failure("refused", f"cannot run {sys.executable}: {error.strerror}", t.EXIT_REFUSED) from None
    errors = done.stderr.splitlines()
    if done.returncode < 0 or "Traceback (most recent call last):" in errors:
        why = errors[-1] if errors else f"signal {-done.returncode}"
        raise Failure("refused", f"{' '.join(words)} has broken down: {why}", t.EXIT_REFUSED)
    return Done(done.returncode, done.stdout, errors)


def _isolation() -> list[str]:
    """Keep modules of the working directory out, unless wactl itself was found there."""
    return [] if {"", os.getcwd()} & set(sys.path) else ["-P"]
