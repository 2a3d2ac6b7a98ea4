"""`wactl outbox list`, `wactl outbox release` and `wactl outbox cancel`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

import click

from wactl.base import SOCKET_META, App, LazyGroup, command, session_argument
from wactl.client import COMMAND_S
from wactl.eventtext import shortened
from wactl.failure import usage
from wactl.text import address, clean, moment
from waD.control import types as t

_F = TypeVar("_F", bound=Callable[..., Any])

STATES: Final[tuple[t.OutboxState, ...]] = get_args(t.OutboxState)
_MODULE: Final = "wactl.commands.outbox"

outbox = LazyGroup(
    "outbox",
    table={
        "list": (f"{_MODULE}:list_outbox", "Show own messages that have not left, or not ended."),
        "release": (f"{_MODULE}:release", "Let messages leave that are held."),
        "cancel": (f"{_MODULE}:cancel", "End messages that have not left."),
    },
    help="Decide about messages that were on their way when credentials were replaced.",
    example="wactl outbox list alerts --state held\nwactl outbox release alerts --all",
)


@command(
    "list",
    example="wactl outbox list alerts --state held\n"
    "wactl outbox list alerts --json | jq -r '.messages[] | select(.state == \"held\").messageId'",
)
@session_argument()
@click.option(
    "--state",
    "states",
    type=click.Choice(STATES),
    multiple=True,
    help=f"Only those in this state; may be given more than once. Without it: {', '.join(t.UNFINISHED)}.",
)
@click.option("--ended", is_flag=True, help="Also those that were sent, failed, expired or were cancelled.")
@click.option(
    "--limit",
    type=click.IntRange(1, t.MAX_PAGE),
    default=t.DEFAULT_PAGE,
    show_default=True,
    metavar="N",
    help="The oldest N.",
)
def list_outbox(app: App, name: str, *, states: tuple[t.OutboxState, ...], ended: bool, limit: int) -> None:
    """Show a session's own messages that have not left or not arrived at WhatsApp, the oldest first.

    ENCRYPTED is when a message was last encrypted to be sent: a held one with a time there may have reached its
    recipient before it was held.
    """
    if states and ended:
        raise usage("--state and --ended exclude each other")
    wanted = list(STATES if ended else states or t.UNFINISHED)
    with app.client() as client:
        answer = client.call("outbox.list", t.OutboxParams(session=name, states=wanted, limit=limit))
        if app.as_json:
            return app.out.document(answer)
        found = client.decode(answer, t.OutboxList)
    if not found.messages:
        app.out.note("no such messages")
        return None
    heads = ("MESSAGE", "STATE", "TO", "SUBMITTED", "ENCRYPTED", "TEXT")
    app.out.table(heads, [_cells(message) for message in found.messages])
    if found.total > len(found.messages):
        app.out.note(f"there are {found.total}; --limit shows more")
    return None


def _cells(message: t.OutboxView) -> Sequence[str]:
    state = message.state + (f" ({message.last_error})" if message.last_error else "")
    return (
        message.message_id,
        state,
        address(message.chat),
        moment(message.created_at),
        moment(message.written_at),
        shortened(message.body or ""),
    )


def _complete_held(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Ids of held messages of the session that was named before, for a shell."""
    from wactl.completing import held_messages

    chosen = context.meta.get(SOCKET_META) or os.environ.get("WAD_SOCKET")
    name = context.params.get("name")
    return held_messages(Path(chosen) if chosen else None, name, incomplete) if name else []


def _which(function: _F) -> _F:
    """The arguments that say about which messages something is decided."""
    ids = click.argument(
        "ids", nargs=-1, required=False, metavar="[MESSAGE_ID]...", shell_complete=_complete_held
    )
    everything = click.option("--all", "everything", is_flag=True, help="Every message that is held.")
    return session_argument()(ids(everything(function)))


@command(
    "release",
    example="wactl outbox release alerts 3EB0A1B2C3D4E5F60718A9\nwactl outbox release alerts --all",
)
@_which
def release(app: App, name: str, ids: tuple[str, ...], *, everything: bool) -> None:
    """Let messages leave that are held, as soon as the session is open.

    Messages are held when credentials were cleared, put back or restored while they were on their way. They are
    encrypted anew and keep their id and place; one that had been sent before may arrive twice.
    """
    _show(app, "released", _decide(app, "outbox.release", name, ids, everything=everything))


@command(
    "cancel",
    example="wactl outbox cancel alerts 3EB0A1B2C3D4E5F60718A9\nwactl outbox cancel alerts --all --yes",
)
@_which
@click.option("--yes", is_flag=True, help="Do not ask.")
def cancel(app: App, name: str, ids: tuple[str, ...], *, everything: bool, yes: bool) -> None:
    """End messages that are held, for good; by id also messages that wait in the queue.

    They stay in the history as cancelled. Asks on a terminal, needs --yes without one.
    """
    _check(ids, everything=everything)
    what = "every held message" if everything else f"{len(ids)} message{'s' * (len(ids) != 1)}"
    app.confirm(f"Cancel {what} of {clean(name)}?", yes=yes)
    _show(app, "cancelled", _decide(app, "outbox.cancel", name, ids, everything=everything))


def _check(ids: tuple[str, ...], *, everything: bool) -> None:
    if bool(ids) == everything:
        raise usage("name messages by their ids, or say --all for every held one")


def _decide(app: App, method: str, name: str, ids: tuple[str, ...], *, everything: bool) -> t.DecideResult:
    """Ask in as many requests as it takes; ids of one request are decided about together."""
    _check(ids, everything=everything)
    lots: list[list[str] | None] = [
        list(ids[start : start + t.MAX_IDS]) for start in range(0, len(ids), t.MAX_IDS)
    ] or [None]
    count, decided, session = 0, list[str](), name
    with app.client() as client:
        for lot in lots:
            params = t.DecideParams(session=name, ids=lot, all=everything)
            done = client.ask(method, t.DecideResult, params, timeout=COMMAND_S)
            count, session = count + done.count, done.session
            decided += done.message_ids
    return t.DecideResult(session=session, count=count, message_ids=decided)


def _show(app: App, verb: str, done: t.DecideResult) -> None:
    if app.as_json:
        app.out.document(done)
    else:
        app.out.line(f"{done.count} {verb}")
