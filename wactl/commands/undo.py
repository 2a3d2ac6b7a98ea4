"""`wactl undo`."""

from __future__ import annotations

from collections.abc import Iterator

import click

from wactl.base import App, command, session_argument
from wactl.client import COMMAND_S
from wactl.sessions import show_state
from wactl.text import ago, clean
from waD.control import types as t


@command("undo", example="wactl undo alerts\nwactl undo alerts --yes && wactl connect alerts")
@session_argument()
@click.option("--yes", is_flag=True, help="Do not ask.")
def undo(app: App, name: str, *, yes: bool) -> None:
    """Put back the credentials that were cleared last: by a logout, or because WhatsApp did not take them any more.

    Works for reconnect.undo_days of waD.toml(5), on a session that is not paired, and leaves it down. What is in place
    now is sealed first. Each conversation makes a new key exchange before it sends, and messages that were on their
    way out are held. A device that was removed on the phone cannot be brought back: WhatsApp refuses it at the next
    connection. Sealed copies that were made for other reasons are put back with "wactl restore-auth NAME --seal".

    Asks on a terminal, needs --yes without one.
    """
    app.confirm(f"Put back the credentials of {clean(name)} that were cleared last?", yes=yes)
    with app.client() as client:
        answer = client.call("session.undo", t.SessionParams(name=name), timeout=COMMAND_S)
        if app.as_json:
            return app.out.document(answer)
        done = client.decode(answer, t.UndoResult)
    app.out.note(f"restored: {clean(done.restored)}, sealed {ago(done.sealed_at)}")
    app.out.note(f"backup of what was in place: {clean(done.backup)}")
    for line in _consequences(done):
        app.out.note(line)
    show_state(app.out, done.session)
    return None


def _consequences(done: t.UndoResult) -> Iterator[str]:
    if done.receive_only:
        yield f"conversations that make a new key exchange before they send: {done.receive_only}"
    if done.sender_keys:
        yield f"group keys that are made anew with the next message: {done.sender_keys}"
    if done.held:
        yield f"messages on their way out that are held: {done.held}; wactl outbox list {clean(done.session.name)}"
