"""The store without a daemon: a process beside this one opens it, and answers as a daemon does."""

from __future__ import annotations

import socket
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from wactl.child import command_line
from wactl.client import Client, Gone, candidates
from wactl.failure import Failure
from wactl.text import clean
from waD.control import types as t

OPEN_S: Final = 600.0
"""For opening the store: a database may be migrated first."""
END_S: Final = 60.0
SOCKET_BUFFER: Final = 1 << 20
_MODULE: Final = "waD.offline"
_IN_USE: Final = 3


class StoreClient(Client):
    """A connection to a process that has the store, for as long as it lasts."""

    def __init__(self, stream: socket.socket, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        super().__init__(stream, Path("the store"))
        self._process = process
        self._errors = errors
        self._ready = False

    @classmethod
    def start(cls, config: Path | None = None, *, create: bool = False) -> StoreClient:
        """Open the store of this machine.

        Args:
            config: of the daemon that is not running; None for the default place.
            create: make the database if there is none.

        Raises:
            Failure: it cannot be opened.
        """
        ours, theirs = socket.socketpair()
        words = [f"--fd={theirs.fileno()}", *(["--create"] if create else [])]
        words += [] if config is None else [f"--config={config}"]
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - it is the client's, and closed with it
        try:
            process = subprocess.Popen(  # noqa: S603 - this interpreter and words of our own
                command_line("-m", _MODULE, *words),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=(theirs.fileno(),),
            )
        except OSError as error:
            ours.close()
            raise Failure("refused", f"cannot run {_MODULE}: {error.strerror}", t.EXIT_REFUSED) from None
        finally:
            theirs.close()
        client = cls(ours, process, errors)
        try:
            client.ask("daemon.ping", t.Pong, timeout=OPEN_S)
        except BaseException:
            client.close()
            raise
        client._ready = True
        return client

    def close(self) -> None:
        """Hang up, and wait until the store is closed."""
        self._hang_up()
        self._errors.close()

    def _hang_up(self) -> None:
        super().close()
        with suppress(subprocess.TimeoutExpired):  # it finishes what it was asked for
            self._process.wait(END_S)

    def _gone(self) -> Gone:
        """Say what it has said."""
        self._hang_up()
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").splitlines()
        status = self._process.returncode
        why = clean(lines[-1]) if lines else f"it ended with exit status {status}"
        if self._ready:
            return Gone("unreachable", f"what has the store is gone: {why}", t.EXIT_REFUSED)
        if status == _IN_USE:
            why += "; name the daemon's socket with --socket or WAD_SOCKET"
        exit_status = t.EXIT_UNREACHABLE if status == _IN_USE else t.EXIT_REFUSED
        return Gone(
            "unreachable", f"no daemon is reachable, and the store cannot be used: {why}", exit_status
        )


def daemon_or_store(
    chosen: Path | None, config: Path | None, *, offline: bool, create: bool = False
) -> Client:
    """Connect to the daemon; where none runs, and none was named, to the store.

    Args:
        chosen: the socket that was named.
        config: of the store's daemon; with it no daemon is looked for.
        offline: look for no daemon.
        create: make the database if there is none.

    Raises:
        Failure: neither can be used.
    """
    if not offline and config is None:
        try:
            return Client.connect(candidates(chosen))
        except Failure as failure:
            if failure.exit != t.EXIT_UNREACHABLE or chosen is not None:
                raise
    return StoreClient.start(config, create=create)
