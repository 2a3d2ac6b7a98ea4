"""`wactl disconnect`."""

from __future__ import annotations

from wactl.base import App, command, session_argument
from wactl.client import COMMAND_S
from wactl.sessions import show_state
from waD.control import types as t


@command("disconnect", example="wactl disconnect alerts")
@session_argument()
def disconnect(app: App, name: str) -> None:
    """Take a session down; it stays paired, and stays down until wactl connect."""
    with app.client() as client:
        answer = client.call("session.disconnect", t.SessionParams(name=name), timeout=COMMAND_S)
        if app.as_json:
            app.out.document(answer)
        else:
            show_state(app.out, client.decode(answer, t.SessionView))
