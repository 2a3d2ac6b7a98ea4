"""`wactl messages [show]` and `wactl messages purge`."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import click
import msgspec

from wactl.base import App, DefaultGroup, command, session_argument
from wactl.client import COMMAND_S, Client
from wactl.eventtext import shortened
from wactl.failure import usage
from wactl.recipients import RECIPIENT
from wactl.text import address, clean, moment
from waD.control import types as t

MAX_LIMIT = 100_000


_MODULE: Final = "wactl.commands.messages"

messages = DefaultGroup(
    "messages",
    default="show",
    table={
        "show": (f"{_MODULE}:show", "Show the history; the word may be left out."),
        "purge": (f"{_MODULE}:purge", "Delete messages for good."),
    },
    help="Show a session's history, or delete from it.\n\nWithout a command it is shown: wactl messages NAME.",
    example="wactl messages alerts --chat +15550000002 --limit 20\n"
    "wactl messages purge alerts --before 2025-01-01",
)


@command(
    "show",
    example="wactl messages show alerts --chat +15550000002 --limit 20\n"
    "wactl messages show alerts --json | jq -r '.messages[] | select(.fromMe | not) | .body'",
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
def show(app: App, name: str, *, chat: str | None, limit: int, before: int | None) -> None:
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


@command(
    "purge",
    example="wactl messages purge alerts --before 2025-01-01\n"
    "wactl messages purge alerts --chat +15550000002 --yes",
)
@session_argument()
@click.option("--chat", type=RECIPIENT, metavar="NUMBER", help="Only those of this chat.")
@click.option(
    "--before",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    metavar="DATE",
    help="Only those older than this, such as 2025-01-01 or 2025-01-01T12:00:00, in local time.",
)
@click.option("--dry-run", is_flag=True, help="Only count them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(
    app: App, name: str, *, chat: str | None, before: datetime | None, dry_run: bool, yes: bool
) -> None:
    """Delete messages of a session's history for good; nothing else ever does.

    At least one of --before and --chat says which. Counts them first, then asks on a terminal, needs --yes without one.
    That it was done, and how many there were, stays in the log and among the events.
    """
    if chat is None and before is None:
        raise usage("say which messages: --before DATE, --chat NUMBER, or both; nothing was done")
    order = t.PurgeParams(
        session=name,
        chat=chat,
        before=None if before is None else max(0, round(before.timestamp() * 1000)),
        dry_run=True,
    )
    with app.client() as client:
        found = client.ask("message.purge", t.PurgeResult, order, timeout=COMMAND_S)
        if found.found and not dry_run:
            app.confirm(f"Delete {found.found} messages of {clean(found.session)} for good?", yes=yes)
            order = msgspec.structs.replace(order, dry_run=False)
            found = client.ask("message.purge", t.PurgeResult, order, timeout=COMMAND_S)
    if app.as_json:
        return app.out.document(found)
    app.out.line(f"{found.found} found" if dry_run else f"{found.deleted} deleted")
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
