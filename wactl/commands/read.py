"""`wactl read`."""

from __future__ import annotations

import click

from wactl.base import App, command, session_argument
from wactl.recipients import RECIPIENT
from waD.control import types as t


@command("read", example="wactl read alerts +15550000002 A5F0C9E2B7D41680")
@session_argument()
@click.argument("chat", type=RECIPIENT)
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
def read(app: App, name: str, chat: str, ids: tuple[str, ...]) -> None:
    """Mark received messages of a chat as read, here and for their senders."""
    marked, session = 0, name
    with app.client() as client:
        for start in range(0, len(ids), t.MAX_IDS):
            params = t.ReadParams(session=name, chat=chat, ids=list(ids[start : start + t.MAX_IDS]))
            done = client.ask("message.read", t.ReadResult, params)
            marked, session = marked + done.marked, done.session
    if app.as_json:
        app.out.document(t.ReadResult(session=session, marked=marked))
    else:
        app.out.line(f"{marked} marked as read")
