"""Where the control socket is, for the daemon and the command line alike. Imports the standard library only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

SOCKET_NAME: Final = "control.sock"
SYSTEM_SOCKET: Final = Path("/run/waD/control.sock")
"""Where the system unit puts it: what a client tries that has no other word."""


class SocketPlace(NamedTuple):
    """A socket's path, and the mode of its directory should that have to be made."""

    path: Path
    directory_mode: int


class NoSocketPath(LookupError):  # noqa: N818 - names what is the case
    """The environment says nothing about where the socket belongs."""


def default_socket(environ: Mapping[str, str] = os.environ) -> SocketPlace:
    """Return where the socket is unless the settings say otherwise.

    `$RUNTIME_DIRECTORY/control.sock` under systemd (of several directories the first), else
    `$XDG_RUNTIME_DIR/waD/control.sock`.

    Raises:
        NoSocketPath: neither variable holds an absolute path.
    """
    runtime = environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if runtime.startswith("/"):
        return SocketPlace(Path(runtime) / SOCKET_NAME, 0o750)
    user = environ.get("XDG_RUNTIME_DIR", "")
    if user.startswith("/"):
        return SocketPlace(Path(user) / "waD" / SOCKET_NAME, 0o700)
    raise NoSocketPath(
        "neither RUNTIME_DIRECTORY nor XDG_RUNTIME_DIR is set, so there is no default place for the control "
        "socket; name one with --socket or in the settings, [control] path"
    )
