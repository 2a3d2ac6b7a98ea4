"""`wactl messages`."""

from __future__ import annotations

import click
import msgspec

from wactl.base import App, command, session_argument
from wactl.client import Client
from wactl.eventtext import shortened
from wactl.recipients import RECIPIENT
from wactl.text import address, clean, moment
from waD.control import types as t

MAX_LIMIT = 100_000


@command(
    "messages",
    example="wactl messages alerts --chat +15550000002 --limit 20\n"
    "wactl messages alerts --json | jq -r '.messages[] | select(.fromMe | not) | .body'",
)
@session_argument()
@click.option("--chat", type=RECIPIENT, metavar="NUMBER", help="Only those of this chat.")
@click.option(
    "--limit",
    type=click.IntRange(1, MAX_LIMIT),
    default=t.DEFAULT_PAGE,
    show_default=True,
    metavar="N",
    help="The latest N.",
)
@click.option(
    "--before", type=click.IntRange(0, t.MAX_CURSOR), metavar="SEQ", help="Only those before this one."
)
def messages(app: App, name: str, *, chat: str | None, limit: int, before: int | None) -> None:
    """Show a session's history, the latest message last.

    With --json one document, the latest message first; its "next" is the --before of the page that follows, null on the
    last.
    """
    with app.client() as client:
        found = _fetch(client, t.ListParams(session=name, chat=chat, before=before), limit)
    if app.as_json:
        return app.out.document(found)
    for message in reversed(found.messages):
        app.out.line(_line(message))
    if not found.messages:
        app.out.note("no messages")
    elif found.next is not None:
        app.out.note(f"there are older ones: --before {found.next}")
    return None


def _fetch(client: Client, params: t.ListParams, limit: int) -> t.MessageList:
    """As many pages as it takes."""
    rows: list[t.MessageView] = []
    while True:
        asked = msgspec.structs.replace(params, limit=min(t.MAX_PAGE, limit - len(rows)))
        page = client.ask("message.list", t.MessageList, asked)
        rows += page.messages
        if page.next is None or not page.messages or len(rows) >= limit:
            return msgspec.structs.replace(page, messages=rows)
        params = msgspec.structs.replace(params, before=page.next)


def _line(message: t.MessageView) -> str:
    chat = address(message.chat)
    if message.from_me:
        who = f"→ {chat}"
    else:
        who = f"← {chat}" if message.sender == message.chat else f"← {chat} {address(message.sender)}"
    marks = [mark for mark, at in (("edited", message.edited_at), ("revoked", message.revoked_at)) if at]
    about = clean(" ".join([message.status, *marks]))
    text = f"[{clean(message.kind)}]" if message.body is None else shortened(message.body, limit=2000)
    return f"{moment(message.time)}  {who}  {clean(message.message_id)} ({about})  {text}"
