"""The states, roles and limits of the control protocol."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

PROTOCOL_VERSION: Final = 1
"""Grows when a method or field changes its meaning; additions leave it alone."""

MAX_LINE: Final = 1 << 20
"""Bytes of one request line without its newline: a text of 65 536 characters fits, fully escaped."""

MAX_PAGE: Final = 500
"""Rows of one answer of `message.list` and `events.list`."""

MAX_IDS: Final = 256
"""Message ids of one `message.read` (chapter 04 §6.7)."""

MAX_CURSOR: Final = (1 << 53) - 1
"""Cursors and `seq` stay integers in every JSON reader, also in those that know only floating point."""

MAX_MENTIONS: Final = 1024
MAX_TYPES: Final = 64
MAX_NAME: Final = 64
MAX_IDEMPOTENCY_KEY: Final = 128
MAX_MESSAGE_ID: Final = 255
MAX_ADDRESS: Final = 128
MAX_WAIT: Final = 86_400.0
DEFAULT_WAIT: Final = 60.0
DEFAULT_PAGE: Final = 50

Role: TypeAlias = Literal["observer", "operator", "admin"]
ROLE_RANK: Final[dict[Role, int]] = {"observer": 1, "operator": 2, "admin": 3}

State: TypeAlias = Literal[
    "new", "stopped", "connecting", "pairing", "open", "backoff", "needs_pairing", "failed"
]
MessageState: TypeAlias = Literal[
    "queued", "sending", "sent", "delivered", "read", "played", "held", "failed", "expired", "cancelled"
]
Milestone: TypeAlias = Literal["sent", "delivered", "read", "played"]
"""The states that can be waited for."""

PROGRESS: Final[tuple[MessageState, ...]] = ("queued", "sending", "sent", "delivered", "read", "played")
"""Chapter 04 §5.4: a message moves to the right only."""

DEAD_ENDS: Final[frozenset[MessageState]] = frozenset({"failed", "expired", "cancelled"})

NEXT_STEP: Final[dict[State, str]] = {
    "new": "wactl connect {name}",
    "stopped": "wactl connect {name}",
    "connecting": "wait, or wactl tail-events {name}",
    "pairing": "wactl qr {name}",
    "open": "",
    "backoff": "wait: it reconnects by itself; wactl connect {name} tries at once",
    "needs_pairing": "wactl connect {name} and scan the QR code",
    "failed": "see the last disconnect reason, then wactl connect {name}",
}
"""What an operator does next in each state, if the session itself has nothing more precise to say."""


def reached(state: str, wanted: str) -> bool:
    """Tell whether a message in `state` has got at least as far as `wanted`."""
    return state in PROGRESS and wanted in PROGRESS and PROGRESS.index(state) >= PROGRESS.index(wanted)
