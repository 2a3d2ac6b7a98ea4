"""`wactl remove`."""

from __future__ import annotations

import click

from wactl.base import App, command, session_argument
from wactl.client import COMMAND_S
from wactl.text import clean
from waD.control import types as t


@command("remove", example="wactl remove alerts --yes")
@session_argument()
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(app: App, name: str, *, yes: bool) -> None:
    """Take a session down and retire it.

    Its history stays, and a session made by that name later is its continuation. Asks on a terminal, needs --yes
    without one.
    """
    app.confirm(f"Retire the session {clean(name)}?", yes=yes)
    with app.client() as client:
        answer = client.call("session.remove", t.SessionParams(name=name), timeout=COMMAND_S)
        if app.as_json:
            return app.out.document(answer)
        done = client.decode(answer, t.RemoveResult)
    app.out.line(f"{clean(done.name)}  removed")
    if done.backup:
        app.out.note(f"backup of the credentials: {clean(done.backup)}")
    return None
