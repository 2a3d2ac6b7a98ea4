"""What `[reconnect.on]` may name: the rows of the disconnect table and the actions (chapter 02 §8.1, §8.2).

Names only. What happens on each cause by default is the session's policy, which has exactly these rows.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

Action: TypeAlias = Literal["restart", "backoff", "slow", "wait", "repair", "hold", "stop"]
ACTIONS: Final[tuple[Action, ...]] = get_args(Action)

TRANSPORT: Final = (
    "dns", "refused", "dial_timeout", "tls", "http", "noise_timeout", "noise_fail", "eof", "eof_fresh",
    "dead_socket", "login_timeout", "deaf", "frame", "counter",
)  # fmt: skip
STREAM: Final = (
    "stream_end", "restart", "force_logout", "unlinked", "unlinked_other", "replaced", "stream_503",
    "stream_429", "stream_500", "stream_cat", "stream_ack", "stream_xml", "stream_other",
)  # fmt: skip
FAILURE: Final = (
    "f400", "f401", "f402", "f403", "f405", "f406", "f409", "f411", "f413", "f414", "f415", "f416", "f418",
    "f429", "f500", "f501", "f503", "f5xx", "f_other",
)  # fmt: skip
PAIRING: Final = ("qr_exhausted", "pair_hmac", "pair_sig", "pair_refused", "pair_socket_lost")
LOCAL: Final = ("crash", "unknown")

FIXED_CAUSES: Final = ("stop", "logout", "lease_lost", "auth_write", "auth_corrupt")
"""Rows that nobody may change: orders of the operator, and faults after which going on would lose keys."""

OVERRIDABLE_CAUSES: Final = (*TRANSPORT, *STREAM, *FAILURE, *PAIRING, *LOCAL)
"""Rows that `[reconnect.on]` may give another action."""

CAUSE_IDS: Final = (*OVERRIDABLE_CAUSES, *FIXED_CAUSES)
"""Every row of the disconnect table."""

NEVER_REPAIR: Final = frozenset({
    *TRANSPORT, *PAIRING, *LOCAL, "stream_end", "restart", "stream_503", "stream_429", "stream_ack",
    "stream_xml", "f429", "f501", "f503", "f5xx",
})  # fmt: skip
"""Causes that say nothing about the credentials: `repair`, which clears them, is refused for these."""

TABLE_ITSELF: Final = "default"
"""Accepted beside the actions: the row stays as it is, also where an earlier file changed it."""

RECOVER_ONCE: Final = "recover-once"
"""Accepted for `replaced` only: the name of what its row does (chapter 02 §8.3)."""


def allowed(cause: str) -> tuple[str, ...]:
    """The words that `[reconnect.on]` accepts for one cause; KeyError-free for the rows of `OVERRIDABLE_CAUSES`."""
    actions = tuple(action for action in ACTIONS if action != "repair" or cause not in NEVER_REPAIR)
    extra = (RECOVER_ONCE, TABLE_ITSELF) if cause == "replaced" else (TABLE_ITSELF,)
    return (*actions, *extra)
