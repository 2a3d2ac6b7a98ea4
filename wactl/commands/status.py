"""`wactl status`."""

from __future__ import annotations

from wactl.base import App, command, session_argument
from wactl.sessions import describe, overview
from waD.control import types as t


@command("status", example="wactl status alerts\nwactl status --json | jq -r '.sessions[].state'")
@session_argument(required=False)
def status(app: App, name: str | None) -> None:
    """Show how a session is and what to do next; without NAME all sessions, one line each."""
    with app.client() as client:
        if name is None:
            answer = client.call("session.list")
            if not app.as_json:
                return overview(app.out, client.decode(answer, t.SessionList).sessions)
        else:
            answer = client.call("session.status", t.SessionParams(name=name))
            if not app.as_json:
                return describe(app.out, client.decode(answer, t.SessionView))
        return app.out.document(answer)
