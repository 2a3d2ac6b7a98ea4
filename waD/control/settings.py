"""What can be set about the control socket. The configuration builds these; nothing here reads a file."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that keep one client from being everybody's trouble.

    Attributes:
        connections: open at once, all users together; administrators are let in beyond it.
        connections_per_uid: open at once by one user.
        requests: running at once on one connection; further ones wait unread in the socket.
        subscriptions: open at once on one connection.
        write_timeout: seconds in which a client must take at least some of what is sent to it.
        first_request: seconds a caller without a role has to say what it wants and be refused.
        drain: seconds that commands in progress have to finish when the daemon stops.
    """

    connections: int = 128
    connections_per_uid: int = 32
    requests: int = 32
    subscriptions: int = 16
    write_timeout: float = 60.0
    first_request: float = 5.0
    drain: float = 5.0


@dataclass(frozen=True, slots=True)
class Roles:
    """Who may do what, as written in the settings: a user's name or number, or `@` and a group's.

    Root and the daemon's own user are administrators without being named. Of several roles the highest counts.
    """

    admin: tuple[str, ...] = ()
    operator: tuple[str, ...] = ()
    observer: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """All of it."""

    roles: Roles = field(default_factory=Roles)
    limits: Limits = field(default_factory=Limits)
