"""The socket's place in the file system: making it, taking it over from a dead daemon, adopting systemd's."""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import socket
import stat
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import trio

MAX_PATH: Final = 107
"""Bytes of a Unix socket's path that Linux takes."""

BACKLOG: Final = 128
FIRST_ACTIVATED: Final = 3
"""systemd passes its sockets from this file descriptor on."""


class SocketError(Exception):
    """The control socket cannot be made; the message names it and what to do."""


class SocketInUse(SocketError):  # noqa: N818 - names what is the case
    """A live daemon listens there.

    Attributes:
        pid: its process, None when the kernel does not say.
    """

    def __init__(self, message: str, pid: int | None) -> None:
        super().__init__(message)
        self.pid = pid


class UnixListener(trio.abc.Listener[trio.SocketStream]):
    """A listening Unix socket that takes its file away when it is closed, if the file is still its own."""

    def __init__(self, listener: trio.SocketListener, path: Path | None = None) -> None:
        self._listener = listener
        self._path = path
        self._inode = _inode(path) if path else None

    @property
    def address(self) -> str:
        """Where clients connect."""
        name = self._listener.socket.getsockname()
        return os.fsdecode(name)

    async def accept(self) -> trio.SocketStream:
        """Wait for the next client."""
        return await self._listener.accept()

    async def aclose(self) -> None:
        """Stop listening. A socket of systemd's stays where it is."""
        if self._path and self._inode and _inode(self._path) == self._inode:
            self._path.unlink(missing_ok=True)
        self._path = None
        await self._listener.aclose()


def bind_socket(
    path: Path, *, group: str | None = None, mode: int = 0o660, directory_mode: int = 0o750
) -> UnixListener:
    """Make the control socket and listen on it. Made for the start of the process: it may touch a slow disk.

    A missing directory is made, one level of it. A socket that nobody answers on is replaced. Two daemons that
    start at the same time are kept apart by a lock on `<path>.lock`.

    Args:
        path: where; at most 107 bytes.
        group: name or number of the group that owns the socket, and the directory if that is made here.
        mode: of the socket; it is never more open than this, not even for an instant.
        directory_mode: of the directory, if it is made.

    Raises:
        SocketInUse: a live daemon listens there.
        SocketError: anything else that stands in the way.
    """
    if len(os.fsencode(path)) > MAX_PATH:
        raise SocketError(
            f"the control socket's path {path} has more than {MAX_PATH} bytes; choose a shorter one"
        )
    gid = _group_id(group)
    try:
        _make_directory(path.parent, directory_mode, gid)
        with _only_starter(path):
            _clear(path)
            return UnixListener(_listen(path, gid, mode), path)
    except OSError as error:
        raise SocketError(f"cannot make the control socket {path}: {error.strerror or error}") from error


def adopt_socket(fd: int) -> UnixListener:
    """Take over a listening Unix stream socket that systemd passed in.

    Raises:
        SocketError: the descriptor is something else.
    """
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise SocketError(
            f"descriptor {fd} is not a socket; check ListenStream= of the socket unit"
        ) from error
    listening = sock.type == socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if sock.family != socket.AF_UNIX or not listening:
        sock.detach()
        raise SocketError(f"descriptor {fd} is not a listening Unix stream socket; use ListenStream=/path")
    os.set_inheritable(fd, False)
    sock.setblocking(False)
    return UnixListener(trio.SocketListener(trio.socket.from_stdlib_socket(sock)))


def activated_descriptors(environ: Mapping[str, str] = os.environ, pid: int | None = None) -> range:
    """Return the descriptors that systemd passed to this process, empty if it was not socket-activated."""
    ours = str(os.getpid() if pid is None else pid)
    count = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID") != ours or not (count.isascii() and count.isdigit()):
        return range(0)
    return range(FIRST_ACTIVATED, FIRST_ACTIVATED + int(count))


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _group_id(group: str | None) -> int | None:
    if group is None:
        return None
    if group.isascii() and group.isdigit():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError):
        raise SocketError(
            f"[control] group: there is no group {group!r} on this machine; create it or correct the name"
        ) from None


def _make_directory(directory: Path, mode: int, gid: int | None) -> None:
    try:
        directory.mkdir(mode)
    except FileExistsError:
        return
    except FileNotFoundError:
        raise SocketError(
            f"the directory {directory.parent} does not exist, so {directory} cannot be made; create it, or choose "
            f"another place for the control socket"
        ) from None
    _give(directory, gid)
    directory.chmod(mode)  # the umask may have taken bits away


def _give(path: Path, gid: int | None) -> None:
    """Hand a file to a group, if one is asked for."""
    if gid is None:
        return
    try:
        os.chown(path, -1, gid, follow_symlinks=False)
    except PermissionError:
        raise SocketError(
            f"{path} cannot be given to group {gid}: the daemon's user is not a member of it; add it with "
            f"usermod -aG, or name another group in [control] group"
        ) from None


@contextmanager
def _only_starter(path: Path) -> Iterator[None]:
    """Keep a second daemon away between looking at the old socket and listening on the new one."""
    flags = os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path.with_name(path.name + ".lock"), flags, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SocketInUse(
                f"another daemon is just starting on {path}; see which, and try again", None
            ) from None
        yield
    finally:
        os.close(fd)


def _clear(path: Path) -> None:
    """Remove a dead daemon's socket; raises SocketInUse for a live one's, SocketError for any other file."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise SocketError(f"{path} exists and is not a socket; move it away, or choose another place")
    alive, pid = _answers(path)
    if alive:
        who = f"process {pid}" if pid else "another process"
        raise SocketInUse(
            f"{who} already listens on {path}; stop it first, or give this one its own socket", pid
        )
    path.unlink(missing_ok=True)


def _answers(path: Path) -> tuple[bool, int | None]:
    """Tell whether anybody listens, and which process."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        code = probe.connect_ex(os.fspath(path))
        if code in (errno.ECONNREFUSED, errno.ENOENT):
            return False, None
        if code == errno.EAGAIN:  # somebody listens, and has a long queue
            return True, None
        if code:
            raise OSError(code, os.strerror(code))
        return True, struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[
            0
        ] or None


def _listen(path: Path, gid: int | None, mode: int) -> trio.SocketListener:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(sock.fileno(), 0o600)  # the file inherits it: at no instant is it more open than asked for
        sock.bind(os.fspath(path))
        try:
            _give(path, gid)
            path.chmod(mode)
            sock.listen(BACKLOG)
        except BaseException:
            with suppress(OSError):
                path.unlink()
            raise
        sock.setblocking(False)
        return trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    except BaseException:
        sock.close()
        raise
