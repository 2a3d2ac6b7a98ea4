"""`wactl info`."""

from __future__ import annotations

from wactl.base import App, command
from wactl.text import ago, clean
from waD.control import types as t


@command("info", example="wactl info\nwactl info --json | jq .states")
def info(app: App) -> None:
    """Show what the daemon runs: its version, settings, store, and sessions by state."""
    with app.client() as client:
        answer = client.call("daemon.info")
        if app.as_json:
            return app.out.document(answer)
        facts = client.decode(answer, t.DaemonInfo)
    app.out.line(f"waD {clean(facts.version)}")
    states = ", ".join(f"{count} {clean(state)}" for state, count in facts.states.items() if count)
    app.out.fields(
        [
            ("process", f"{facts.pid}, since {ago(facts.started_at)}"),
            ("protocol", str(facts.protocol)),
            ("socket", clean(facts.socket)),
            ("settings", clean(facts.config or "none, all at their defaults")),
            ("store", clean(facts.store)),
            ("store waits", _stuck(facts)),
            ("sessions", f"{facts.sessions}{f' ({states})' if states else ''}"),
            ("last cursor", str(facts.last_cursor)),
            ("runs on", clean(f"{facts.python} {facts.platform}".strip())),
        ]
    )
    return None


def _stuck(facts: t.DaemonInfo) -> str:
    """That the store does not go on, if so."""
    seconds = facts.store_stuck_seconds
    return f"a transaction has been running for {seconds} s" if seconds else ""
