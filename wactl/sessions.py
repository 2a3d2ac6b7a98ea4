"""Sessions for people."""

from __future__ import annotations

from collections.abc import Sequence

from wactl.render import Renderer, state
from wactl.text import address, ago, clean, moment
from waD.control import types as t


def next_step(view: t.SessionView) -> str:
    """What to do next: the session's own hint, else what its state calls for."""
    if view.held and not view.hint:
        return f"held; wactl release {view.name}"
    return clean(view.hint) or t.NEXT_STEP.get(view.state, "").format(name=view.name)


def overview(out: Renderer, views: Sequence[t.SessionView]) -> None:
    """Write one line per session."""
    if not views:
        out.note("no sessions; make one with: wactl connect NAME")
        return
    rows = [
        (
            view.name,
            view.state,
            address(view.me_pn or view.me),
            moment(view.last_connected_at),
            next_step(view),
        )
        for view in views
    ]
    out.table(("NAME", "STATE", "NUMBER", "LAST CONNECTED", "NEXT"), rows)


def describe(out: Renderer, view: t.SessionView) -> None:
    """Write everything about one session."""
    out.line(f"{clean(view.name)}  {state(view.state)}{_flags(view)}")
    out.fields(
        [
            ("own number", address(view.me_pn) if view.me_pn else ""),
            ("own address", clean(view.me or "")),
            ("name", clean(view.push_name or view.business_name or "")),
            ("platform", clean(view.platform or "")),
            ("last connected", ago(view.last_connected_at)),
            ("last message", ago(view.last_message_at)),
            ("reconnects", _reconnects(view)),
            ("next attempt", ago(view.next_attempt_at) if view.next_attempt_at else ""),
            ("queued", str(view.queued) if view.queued else ""),
            ("last disconnect", disconnect_reason(view.last_disconnect)),
            ("connection id", clean(view.connection_id)),
            ("next", next_step(view)),
        ]
    )


def disconnect_reason(reason: t.DisconnectView | None) -> str:
    """Why the last connection ended, on one line."""
    if reason is None:
        return ""
    number = f" {reason.code}" if reason.code is not None else ""
    text = f": {reason.message}" if reason.message else ""
    return clean(f"{moment(reason.at)} {reason.cause}{number}{text}")


def _reconnects(view: t.SessionView) -> str:
    failed = f", {view.reconnect_attempt} failed in a row" if view.reconnect_attempt else ""
    return f"{view.reconnect_count}{failed}"


def _flags(view: t.SessionView) -> str:
    flags = []
    if view.held:
        flags.append("held")
    if not view.paired:
        flags.append("not paired")
    if view.state == "open" and not view.ready:
        flags.append("starting")
    if view.healthy is False:
        flags.append("does not answer")
    return f" ({', '.join(flags)})" if flags else ""


def show_state(out: Renderer, view: t.SessionView) -> None:
    """Write a session's state, and beside the data what to do next."""
    out.line(f"{clean(view.name)}  {state(view.state)}")
    step = next_step(view)
    if step:
        out.note(f"next: {step}")
