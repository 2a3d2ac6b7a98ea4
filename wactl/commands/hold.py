"""`wactl hold`."""

from __future__ import annotations

from wactl.base import App, command, session_argument
from wactl.client import COMMAND_S
from wactl.sessions import show_state
from waD.control import types as t


@command("hold", example="wactl hold alerts\nwactl release alerts")
@session_argument()
def hold(app: App, name: str) -> None:
    """Take a session down and keep it down, for maintenance.

    Neither a restart of the daemon nor wactl connect brings a held session up; wactl release does, if it was up before.
    Ends when the connection is closed.
    """
    with app.client() as client:
        answer = client.call("session.hold", t.SessionParams(name=name), timeout=COMMAND_S)
        if app.as_json:
            app.out.document(answer)
        else:
            show_state(app.out, client.decode(answer, t.SessionView))
