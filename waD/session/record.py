"""The durable record of a disconnect, what of it may be shown, and whom it alerts (chapter 02 §8.1)."""

from __future__ import annotations

from typing import Any, Final

from waD.config import Alerts
from waD.link.causes import Cause
from waD.session.alerts import Alert
from waD.session.policy import MAX_WAIT_S, Decision
from waD.session.table import ROWS
from waD.store.model import DisconnectRecord
from waD.wire.node import Node

MAX_TEXT: Final = 4096
"""Characters of one text of the server that are kept (chapter 02 §13)."""
MAX_ATTRS: Final = 32
MAX_CHILDREN: Final = 16
PROTECTED_ATTRS: Final = frozenset({"appeal_token"})
"""Attributes that are kept, because the server gives them once, but never shown."""

PROTECTED: Final = "protected"
ACCOUNT: Final = "account"
COUNTERS: Final = "counters"
NEXT_ATTEMPT: Final = "nextAttemptAt"
_PRIVATE: Final = frozenset({PROTECTED, COUNTERS})


def make_record(
    cause: Cause,
    decision: Decision,
    *,
    hint: str,
    at_ms: int,
    next_ms: int | None,
    account: str | None = None,
) -> DisconnectRecord:
    """Put together what is known about an end.

    Args:
        cause: why.
        decision: what follows.
        hint: what the operator does next.
        at_ms: Unix milliseconds.
        next_ms: when the next connection is made, Unix milliseconds; None: not by itself.
        account: whose the session was before its credentials were cleared; not shown.
    """
    detail: dict[str, Any] = {
        "message": cause.message,
        "ageS": cause.age_s,
        "wasOpen": cause.was_open,
        "reached": cause.reached,
        "action": decision.action,
        "hint": hint,
        NEXT_ATTEMPT: next_ms,
        COUNTERS: decision.counters.durable(),
    }
    protected = {} if account is None else {ACCOUNT: account}
    if cause.stanza is not None:
        detail["stanza"], hidden = _outline(cause.stanza)
        protected |= hidden
    detail[PROTECTED] = protected
    kept = {name: value for name, value in detail.items() if value is not None and value != {}}
    return DisconnectRecord(cause=cause.id, code=code_of(cause), at_ms=at_ms, detail=kept)


def code_of(cause: Cause) -> int | None:
    """The number of a cause: its own, else its row's."""
    if cause.code is not None:
        return cause.code
    row = ROWS.get(cause.id)
    return None if row is None else row.code


def alerts_of(cause: Cause, decision: Decision, name: str, settings: Alerts) -> list[Alert]:
    """The alerts that the end of a connection of session `name` raises."""
    hint = decision.hint.format(name=name) or None
    found: list[Alert] = []
    if decision.alert is not None:
        text = "all attempts to connect failed: " if decision.gave_up else ""
        more = {"cause": cause.id, "code": code_of(cause), "hint": hint, "state": decision.state}
        found.append(Alert(decision.alert, name, text + cause.message, more))
    if decision.too_often:
        text = f"more than {settings.reconnects} reconnects within {settings.reconnect_window_s:g} s"
        found.append(Alert("warning", name, text, {"cause": cause.id, "hint": hint}))
    return found


def account_of(record: DisconnectRecord | None) -> str | None:
    """Whose the session was before its credentials were cleared, if they were."""
    protected = None if record is None else record.detail.get(PROTECTED)
    account = protected.get(ACCOUNT) if isinstance(protected, dict) else None
    return account if isinstance(account, str) else None


def time_left_s(record: DisconnectRecord | None, now_ms: int) -> float | None:
    """Seconds to the attempt that the last process had planned; None if it had planned none."""
    planned = None if record is None else record.detail.get(NEXT_ATTEMPT)
    if not isinstance(planned, int):
        return None
    return max(0.0, min((planned - now_ms) / 1000, MAX_WAIT_S))


def public_detail(record: DisconnectRecord) -> dict[str, Any]:
    """The part of the detail that any observer may see."""
    return {name: value for name, value in record.detail.items() if name not in _PRIVATE}


def _outline(node: Node) -> tuple[dict[str, Any], dict[str, str]]:
    """A stanza without its content, and the attributes that are not shown."""
    attrs, hidden = _attrs(node)
    outline: dict[str, Any] = {"tag": node.tag[:MAX_TEXT], "attrs": attrs}
    children = [{"tag": c.tag[:MAX_TEXT], "attrs": _attrs(c)[0]} for c in node.children()[:MAX_CHILDREN]]
    if children:
        outline["children"] = children
    return outline, hidden


def _attrs(node: Node) -> tuple[dict[str, str], dict[str, str]]:
    shown: dict[str, str] = {}
    hidden: dict[str, str] = {}
    for name in list(node.attrs)[:MAX_ATTRS]:
        text = _printable(node.text(name, ""))
        (hidden if name in PROTECTED_ATTRS else shown)[name[:MAX_TEXT]] = text
    return shown, hidden


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text[:MAX_TEXT])
