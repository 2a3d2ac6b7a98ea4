"""The native protocol of systemd-journald: one datagram per line, with fields."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, TypeAlias

Outcome: TypeAlias = Literal["sent", "busy", "absent"]

SOCKET: Final = Path("/run/systemd/journal/socket")
IDENTIFIER: Final = "waD"
MAX_FIELD: Final = 16_384
"""Bytes of one field; a line then fits into a datagram of the default size."""

PRIORITIES: Final[Mapping[str, int]] = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""Syslog severities of the levels."""

_OWN_FIELDS: Final = {
    "session": "SESSION",
    "connection_id": "CONNECTION_ID",
    "code": "CODE",
    "event": "EVENT",
}
_NOT_IN_NAMES: Final = re.compile("[^A-Z0-9_]")
MAX_NAME: Final = 64


def field_name(name: str) -> str:
    """The journal's field for a name of ours: the four that people search by, others with a prefix."""
    return _OWN_FIELDS.get(name) or ("WAD_" + _NOT_IN_NAMES.sub("_", name.upper()))[:MAX_NAME]


def encode(fields: Mapping[str, str]) -> bytes:
    """Serialise fields; values with line ends go with their length."""
    parts: list[bytes] = []
    for name, value in fields.items():
        data = value.encode(errors="backslashreplace")[:MAX_FIELD]
        if b"\n" in data:
            parts.append(name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n")
        else:
            parts.append(name.encode() + b"=" + data + b"\n")
    return b"".join(parts)


class JournalSocket:
    """A datagram socket to the journal that never blocks: a journal that hangs must not hold up the daemon."""

    __slots__ = ("_path", "_socket")

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)

    def send(self, fields: Mapping[str, str]) -> Outcome:
        """Send one line: `sent`, `busy` when the journal does not keep up, `absent` when it cannot take it."""
        try:
            self._socket.sendto(encode(fields), str(self._path))
        except BlockingIOError:
            return "busy"
        except OSError:
            return "absent"
        return "sent"

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def connected(environ: Mapping[str, str], device: int, inode: int) -> bool:
    """Whether the file with this device and inode is the journal's, as `$JOURNAL_STREAM` tells a service."""
    return environ.get("JOURNAL_STREAM") == f"{device}:{inode}"
