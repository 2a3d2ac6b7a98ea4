"""`wactl list`."""

from __future__ import annotations

from wactl.base import App, command
from wactl.sessions import overview
from waD.control import types as t


@command("list", example="wactl list\nwactl list --json | jq -r '.sessions[] | \"\\(.name) \\(.state)\"'")
def list_sessions(app: App) -> None:
    """List the sessions by name: state, own number, last connection, what to do next."""
    with app.client() as client:
        answer = client.call("session.list")
        if app.as_json:
            app.out.document(answer)
        else:
            overview(app.out, client.decode(answer, t.SessionList).sessions)
