"""Sessions for people."""

from __future__ import annotations

from collections.abc import Sequence

from wactl.render import Renderer, state
from wactl.text import address, ago, clean, moment
from waD.control import types as t


def next_step(view: t.SessionView) -> str:
    """What to do next: the session's own hint, else what its state calls for."""
    if view.run_by is not None:
        return f"run by {clean(view.run_by)}"
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
            ("last backup", ago(view.last_backup_at) if view.last_backup_at else ""),
            ("last verified", ago(view.last_verified_at) if view.last_verified_at else ""),
            ("reconnects", _reconnects(view)),
            ("next attempt", ago(view.next_attempt_at) if view.next_attempt_at else ""),
            ("health", _health(view)),
            ("clock", _clock(view.clock_offset_ms)),
            ("messages", _counters(view)),
            ("queued", str(view.queued) if view.queued else ""),
            ("held", _held(view)),
            ("move", _move(view)),
            ("last disconnect", disconnect_reason(view.last_disconnect)),
            ("connection id", clean(view.connection_id)),
            ("next", next_step(view)),
        ]
    )


def _held(view: t.SessionView) -> str:
    """Messages that wait for the operator."""
    return f"{view.held_messages}; wactl outbox list {clean(view.name)}" if view.held_messages else ""


def _move(view: t.SessionView) -> str:
    """Where it comes from or goes to, while that has not ended."""
    if view.move is None:
        return ""
    way = "from" if view.move.into else "to"
    return clean(f"{way} {view.move.store}, not ended; {view.move.command}, or the same with --abort")


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


def _health(view: t.SessionView) -> str:
    """How the connection answers, empty when there is none."""
    facts = []
    if view.healthy:
        facts.append(
            "answers" if view.healthy_since is None else f"answers since {moment(view.healthy_since)}"
        )
    elif view.healthy is False:
        facts.append("does not answer")
    if view.healthy is not None and view.ping_ms is not None:
        facts.append(f"ping {view.ping_ms} ms")
    facts += [f"{count} {name}" for count, name in _open_ends(view) if count]
    return ", ".join(facts)


def _open_ends(view: t.SessionView) -> tuple[tuple[int, str], ...]:
    return (view.unacked, "unacked"), (view.unanswered, "unanswered")


def _clock(offset_ms: int | None) -> str:
    if offset_ms is None:
        return ""
    how = "behind" if offset_ms > 0 else "ahead of"
    return f"{abs(offset_ms) / 1000:.1f} s {how} WhatsApp's" if offset_ms else "equal to WhatsApp's"


def _counters(view: t.SessionView) -> str:
    counts = (
        (view.messages_received, "received"),
        (view.messages_sent, "sent"),
        (view.decrypt_failures, "failures to decrypt"),
    )
    again = [(view.retry_requests, "asked for again")] if view.retry_requests else []
    told = [*counts, *again]
    return ", ".join(f"{count} {name}" for count, name in told) if any(count for count, _ in told) else ""


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
