"""`wactl logout`."""

from __future__ import annotations

import click

from wactl.base import App, command, session_argument
from wactl.client import COMMAND_S
from wactl.sessions import show_state
from wactl.text import clean
from waD.control import types as t


@command("logout", example="wactl logout alerts\nwactl logout alerts --yes --json")
@session_argument()
@click.option("--yes", is_flag=True, help="Do not ask.")
def logout(app: App, name: str, *, yes: bool) -> None:
    """Unlink a session from its WhatsApp account.

    Its credentials are sealed in a backup and cleared; messages and events stay. To use it again a QR code has to be
    scanned. Asks on a terminal, needs --yes without one.
    """
    app.confirm(f"Unlink {clean(name)} from its account?", yes=yes)
    with app.client() as client:
        answer = client.call("session.logout", t.SessionParams(name=name), timeout=COMMAND_S)
        if app.as_json:
            return app.out.document(answer)
        done = client.decode(answer, t.LogoutResult)
    show_state(app.out, done.session)
    if done.backup:
        app.out.note(f"backup of the credentials: {clean(done.backup)}")
    if not done.unlinked:
        app.out.note(
            "WhatsApp has not confirmed it: remove the device on the phone too, under Linked devices"
        )
    return None
