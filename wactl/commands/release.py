"""`wactl release`."""

from __future__ import annotations

from wactl.base import App, command, session_argument
from wactl.client import COMMAND_S
from wactl.sessions import show_state
from waD.control import types as t


@command("release", example="wactl release alerts && wactl ready alerts --wait")
@session_argument()
def release(app: App, name: str) -> None:
    """End a hold: the session connects again if it is wanted up, else it stays down."""
    with app.client() as client:
        answer = client.call("session.release", t.SessionParams(name=name), timeout=COMMAND_S)
        if app.as_json:
            app.out.document(answer)
        else:
            show_state(app.out, client.decode(answer, t.SessionView))
