"""`wactl reset`."""

from __future__ import annotations

from wactl.base import App, command, session_argument
from wactl.client import COMMAND_S
from wactl.sessions import show_state
from waD.control import types as t


@command("reset", example="wactl reset alerts && wactl connect alerts")
@session_argument()
def reset(app: App, name: str) -> None:
    """Forget a session's failures.

    That is: how often it has failed, why its last connection ended, and, if it is not paired, whose account it was, so
    that another one may scan the code. Credentials, messages and events stay.
    """
    with app.client() as client:
        answer = client.call("session.reset", t.SessionParams(name=name), timeout=COMMAND_S)
        if app.as_json:
            app.out.document(answer)
        else:
            show_state(app.out, client.decode(answer, t.SessionView))
