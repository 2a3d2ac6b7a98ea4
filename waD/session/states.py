"""The states of a session and the ways between them, as data (docs/session-states.md is made from it)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, get_args

from waD.store.model import SessionStatus

STATES: Final[tuple[SessionStatus, ...]] = get_args(SessionStatus)

MEANINGS: Final[Mapping[SessionStatus, str]] = {
    "new": "made, and never connected",
    "stopped": "not wanted, held, or the process that ran it has ended",
    "connecting": "a connection is being made, up to the server's answer to `active`; never longer than 4 min",
    "pairing": "a connection without credentials that shows QR codes",
    "open": "logged in and active; stable after 30 s",
    "backoff": "waiting for the next attempt",
    "needs_pairing": "unpaired, and no connection before the operator asks for codes",
    "failed": "paired, and no connection before the operator acts; only `probe` tries on at long intervals",
}

TRANSITIONS: Final[Mapping[tuple[SessionStatus, SessionStatus], str]] = {
    ("new", "connecting"): "connect",
    ("new", "stopped"): "disconnect, hold",
    ("new", "failed"): "the state cannot be read or written",
    ("stopped", "connecting"): "connect, release, start of the daemon",
    ("stopped", "failed"): "the state cannot be read or written",
    ("connecting", "open"): "`active` answered",
    ("connecting", "pairing"): "handshake complete without credentials; `repair`",
    ("connecting", "backoff"): "`backoff`, `slow`, `wait`",
    ("connecting", "needs_pairing"): "`close`",
    ("connecting", "failed"): "`hold`, or no attempts left",
    ("connecting", "stopped"): "`stop`",
    ("pairing", "connecting"): "paired, or another round of codes",
    ("pairing", "backoff"): "`backoff`, `slow`, `wait`",
    ("pairing", "needs_pairing"): "`close`",
    ("pairing", "failed"): "`hold`, or no attempts left",
    ("pairing", "stopped"): "`stop`",
    ("open", "connecting"): "`restart`",
    ("open", "pairing"): "`repair`",
    ("open", "backoff"): "`backoff`, `slow`, `wait`",
    ("open", "failed"): "`hold`, or no attempts left",
    ("open", "stopped"): "`stop`",
    ("backoff", "connecting"): "the delay is over, or connect",
    ("backoff", "stopped"): "disconnect, hold, logout",
    ("backoff", "failed"): "the state cannot be written",
    ("needs_pairing", "connecting"): "connect",
    ("needs_pairing", "stopped"): "disconnect, hold",
    ("needs_pairing", "failed"): "the state cannot be written",
    ("failed", "connecting"): "connect, or a probe",
    ("failed", "stopped"): "disconnect, hold, logout",
}
"""(from, to): what leads there. Staying in a state is no transition and always allowed."""

LIVE: Final[frozenset[SessionStatus]] = frozenset({"connecting", "pairing", "open"})
"""States in which there is a connection, or one is being made."""


class IllegalTransition(RuntimeError):  # noqa: N818 - names what happened
    """A fault of this program: the table has no such way. Nothing was changed."""


def check(source: SessionStatus, target: SessionStatus) -> None:
    """Refuse what the table does not have.

    Raises:
        IllegalTransition: naming both states.
    """
    if source != target and (source, target) not in TRANSITIONS:
        raise IllegalTransition(f"a session cannot go from {source} to {target}")
