"""Who is at the other end of the socket, and what role that gives."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

from waD.control.settings import Roles
from waD.control.types import ROLE_RANK, Role

_UCRED: Final = struct.Struct("3i")
_GID: Final = struct.Struct("I")
_SO_PEERGROUPS: Final = 59
"""Linux 4.13; the socket module has no name for it."""
_GROUPS_BYTES: Final = 1024
"""The most the socket module reads: 256 groups."""
_ROOT: Final = 0


@dataclass(frozen=True, slots=True)
class Peer:
    """A client process as the kernel vouches for it, from the moment it connected."""

    pid: int
    uid: int
    groups: frozenset[int]


def peer_of(sock: socket.socket | trio.socket.SocketType) -> Peer:
    """Return the process that connected this Unix socket.

    Supplementary groups count. Of a process with more than 256 only the primary one is seen.

    Raises:
        OSError: the kernel does not say.
    """
    pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError:
        raw = b""
    return Peer(pid, uid, frozenset({gid, *(group for (group,) in _GID.iter_unpack(raw))}))


class UnknownAccount(ValueError):  # noqa: N818 - names what is the case
    """The settings give a role to somebody this machine does not know."""


@dataclass(frozen=True, slots=True)
class RoleTable:
    """Roles by number, ready for use.

    Attributes:
        owner: the daemon's own user.
    """

    owner: int
    users: dict[int, Role]
    groups: dict[int, Role]

    @classmethod
    def resolve(cls, roles: Roles, owner: int | None = None) -> RoleTable:
        """Look up the names once.

        Raises:
            UnknownAccount: a name is not on this machine; the message names it and the setting.
        """
        users: dict[int, Role] = {}
        groups: dict[int, Role] = {}
        for role in sorted(ROLE_RANK, key=ROLE_RANK.__getitem__):
            for entry in getattr(roles, role):
                number, is_group = _look_up(entry, role)
                (groups if is_group else users)[number] = role
        return cls(os.geteuid() if owner is None else owner, users, groups)

    def role_of(self, peer: Peer) -> Role | None:
        """Return the highest role of a peer, None when it has none."""
        if peer.uid in (_ROOT, self.owner):
            return "admin"
        found = [self.groups[gid] for gid in peer.groups if gid in self.groups]
        if peer.uid in self.users:
            found.append(self.users[peer.uid])
        return max(found, key=ROLE_RANK.__getitem__, default=None)


def _look_up(entry: str, role: Role) -> tuple[int, bool]:
    if entry.startswith("@"):
        return _number(entry[1:], "group", role, lambda name: grp.getgrnam(name).gr_gid), True
    return _number(entry, "user", role, lambda name: pwd.getpwnam(name).pw_uid), False


def _number(name: str, kind: str, role: Role, find: Callable[[str], int]) -> int:
    if name.isascii() and name.isdigit():
        return int(name)
    try:
        return find(name)
    except (KeyError, ValueError):
        raise UnknownAccount(
            f"[control.roles] {role}: there is no {kind} {name!r} on this machine; create it, correct the name, "
            f"or remove it from the list"
        ) from None
