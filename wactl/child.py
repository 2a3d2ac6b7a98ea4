"""Parts of the daemon's program that need no daemon, as processes of their own: here they would weigh too much."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Final, NamedTuple

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


@contextmanager
def reading(*words: str) -> Iterator[tuple[IO[bytes], Callable[[], Done]]]:
    """Run this interpreter with these words, for what it writes to a pipe.

    Gives the pipe, and a function that waits for the end of the process and tells how it ended, to be called when the
    pipe is empty. A process that still runs at the end of the block is killed.

    Raises:
        Failure: it cannot be started.
    """
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(  # noqa: S603 - this interpreter and words of our own
                command_line(*words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
            )
        except OSError as error:
            text = f"cannot run {sys.executable}: {error.strerror}"
            raise Failure("refused", text, t.EXIT_REFUSED) from None

        def done() -> Done:
            status = process.wait()
            errors.seek(0)
            return Done(status, "", errors.read().decode("utf-8", "replace").splitlines())

        with process:
            assert process.stdout is not None
            try:
                yield process.stdout, done
            finally:
                if process.poll() is None:
                    process.kill()


def _isolation() -> list[str]:
    """Keep modules of the working directory out, unless wactl itself was found there."""
    return [] if {"", os.getcwd()} & set(sys.path) else ["-P"]
