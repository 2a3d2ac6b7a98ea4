"""The control protocol from the client's side: a blocking Unix socket, one JSON document per line.

Answers and notifications may come in any order; a notification that arrives while an answer is awaited is kept for
`notice`. An error with id null is the answer to whatever is awaited, and what the daemon said before it hung up is
read even if the request could not be written any more.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import msgspec

from wactl.failure import Failure, from_daemon, timed_out, unreachable, usage
from waD.control import types as t
from waD.control.paths import SYSTEM_SOCKET, NoSocketPath, default_socket

ANSWER_S: Final = 30.0
"""How long a question may take before the daemon counts as stuck."""

COMMAND_S: Final = 120.0
"""The same for commands that first finish something, such as a logout at WhatsApp."""

CONNECT_S: Final = 10.0
MAX_ANSWER: Final = 64 << 20
_CHUNK: Final = 1 << 16

_T = TypeVar("_T")


class Envelope(msgspec.Struct, frozen=True):
    """A line of the daemon: an answer if `method` is None, else a notification."""

    id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: t.ErrorBody | None = None
    method: str | None = None
    params: msgspec.Raw = msgspec.Raw(b"null")


_ENVELOPE: Final = msgspec.json.Decoder(Envelope)


class Gone(Failure):
    """The daemon hung up while something was awaited of it."""


def candidates(chosen: Path | None, environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Return the sockets to try, in order: the chosen one alone, else the user's, then the system's."""
    if chosen is not None:
        return [chosen]
    try:
        own = default_socket(environ).path
    except NoSocketPath:
        return [SYSTEM_SOCKET]
    return [own] if own == SYSTEM_SOCKET else [own, SYSTEM_SOCKET]


class Client:
    """One connection to the daemon.

    Attributes:
        path: of the socket.
    """

    def __init__(self, stream: socket.socket, path: Path) -> None:
        self.path = path
        self._stream = stream
        self._buffer = bytearray()
        self._searched = 0
        self._notices: deque[Envelope] = deque()
        self._count = 0
        self._broken = False

    @classmethod
    def connect(cls, paths: Sequence[Path], timeout: float = CONNECT_S) -> Client:
        """Connect to the first socket somebody listens on.

        Raises:
            Failure: nobody listens (3), the socket may not be used (7), or its path is impossible (2).
        """
        for path in paths:
            try:
                return cls(_open(path, timeout), path)
            except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
                continue
        tried = " or ".join(str(path) for path in paths)
        raise unreachable(
            f"no daemon at {tried}; is it running (systemctl status waD)? "
            "Another socket is named with --socket or WAD_SOCKET",
            sockets=[str(path) for path in paths],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pending(self) -> bool:
        """Whether a notice has come in that was not asked for yet."""
        return bool(self._notices)

    def close(self) -> None:
        """Hang up."""
        self._stream.close()

    def ask(
        self, method: str, kind: type[_T], params: msgspec.Struct | None = None, *, timeout: float = ANSWER_S
    ) -> _T:
        """Call a method and decode its answer; raises Failure."""
        return self.decode(self.call(method, params, timeout=timeout), kind)

    def call(self, method: str, params: msgspec.Struct | None = None, *, timeout: float = ANSWER_S) -> bytes:
        """Call a method and return its result as it came, one JSON document.

        Raises:
            Failure: the daemon refused, or did not answer within `timeout` seconds.
            Gone: it hung up without an answer.
        """
        self._count += 1
        number = self._count
        end = time.monotonic() + timeout
        self._send(_request(number, method, params), method, timeout)
        while True:
            envelope = self._read(end)
            if envelope is None:
                raise timed_out(
                    f"the daemon has not answered {method} within {timeout:g} s; whether it still does is unknown"
                )
            if envelope.method is not None:
                self._notices.append(envelope)
            elif envelope.id in (number, None):
                if envelope.error is not None:
                    raise from_daemon(envelope.error)
                return bytes(envelope.result)

    def notice(self, timeout: float | None = None) -> Envelope | None:
        """Return the next notification, None if there is none within `timeout` seconds.

        Raises:
            Failure: the daemon said an error that belongs to no request.
            Gone: it hung up.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while not self._notices:
            envelope = self._read(end)
            if envelope is None:
                return None
            if envelope.method is not None:
                return envelope
            if envelope.error is not None:
                raise from_daemon(envelope.error)
        return self._notices.popleft()

    def decode(self, document: bytes | msgspec.Raw, kind: type[_T]) -> _T:
        """Decode a result or the parameters of a notification; raises Failure."""
        try:
            return msgspec.json.decode(document, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._strange(error) from None

    def _send(self, line: bytes, method: str, timeout: float) -> None:
        self._stream.settimeout(timeout)
        try:
            self._stream.sendall(line)
        except TimeoutError:
            raise timed_out(f"the daemon has not taken {method} within {timeout:g} s") from None
        except (BrokenPipeError, ConnectionResetError):
            self._broken = True  # it may have said why before it hung up

    def _read(self, end: float | None) -> Envelope | None:
        """The next document, None when the time is up."""
        while (newline := self._buffer.find(b"\n", self._searched)) < 0:
            self._searched = len(self._buffer)
            if self._searched > MAX_ANSWER:
                raise self._strange("an answer is too long")
            if not self._receive(end):
                return None
        line = bytes(self._buffer[:newline])
        del self._buffer[: newline + 1]
        self._searched = 0
        try:
            return _ENVELOPE.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._strange(error) from None

    def _receive(self, end: float | None) -> bool:
        """Take what has arrived into the buffer; False when the time is up."""
        left = None if end is None else end - time.monotonic()
        if left is not None and left <= 0:
            return False
        self._stream.settimeout(left)
        try:
            data = self._stream.recv(_CHUNK)
        except TimeoutError:
            return False
        except ConnectionResetError:
            data = b""
        if not data:
            raise self._gone()
        self._buffer += data
        return True

    def _gone(self) -> Gone:
        when = "before the request was taken" if self._broken else "without an answer"
        return Gone(
            "unreachable",
            f"the daemon at {self.path} hung up {when}",
            t.EXIT_UNREACHABLE,
            data={"socket": str(self.path), "taken": None if not self._broken else False},
        )

    def _strange(self, what: object) -> Failure:
        return Failure(
            "protocol",
            f"what answers at {self.path} does not speak this protocol ({what}); "
            "compare wactl --version with the daemon's version",
            t.EXIT_REFUSED,
        )


def _open(path: Path, timeout: float) -> socket.socket:
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        stream.settimeout(timeout)
        stream.connect(str(path))
    except BaseException as error:  # also on Ctrl-C: the socket is closed, and what it was goes on
        stream.close()
        raise _unusable(path, error) from None
    return stream


def _unusable(path: Path, error: BaseException) -> BaseException:
    """What a failed connect means; errors that let another socket be tried stay as they are."""
    if isinstance(error, PermissionError):
        return Failure(
            "not_permitted",
            f"you may not use the socket {path}; ask for membership in its group (ls -l {path})",
            t.EXIT_NOT_PERMITTED,
            data={"socket": str(path)},
        )
    if isinstance(error, TimeoutError):
        return unreachable(f"the daemon at {path} does not take connections", socket=str(path))
    if isinstance(error, FileNotFoundError | ConnectionRefusedError | NotADirectoryError):
        return error
    if isinstance(error, OSError | ValueError):
        if isinstance(error, OSError) and error.errno is not None:
            return unreachable(f"cannot connect to {path}: {error.strerror}", socket=str(path))
        return usage(f"{str(path)!r} cannot be a socket: {error}")
    return error


def _request(number: int, method: str, params: msgspec.Struct | None) -> bytes:
    document: dict[str, Any] = {
        "jsonrpc": "2.0",
        "id": number,
        "method": method,
        "params": {} if params is None else params,
    }
    try:
        line = msgspec.json.encode(document) + b"\n"
    except UnicodeEncodeError:
        raise usage("an argument is not valid UTF-8; nothing was sent") from None
    if len(line) > t.MAX_LINE:
        raise usage(f"the request is too long: {len(line)} bytes, at most {t.MAX_LINE}; nothing was sent")
    return line
