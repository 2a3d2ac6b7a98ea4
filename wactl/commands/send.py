"""`wactl send`."""

from __future__ import annotations

import secrets
import sys

import click
import msgspec

from wactl.base import App, command, session_argument
from wactl.client import Client, Gone
from wactl.failure import Failure, usage
from wactl.recipients import RECIPIENT
from wactl.render import is_terminal
from waD.control import types as t

_MARGIN_S = 10.0
"""By how much the daemon may be late with saying that the time is up."""


@command(
    "send",
    example="wactl send alerts +15550000002 'disk full on web1'\n"
    "df -h | wactl send alerts +15550000002 - --wait delivered --timeout 30",
)
@session_argument()
@click.argument("to", type=RECIPIENT)
@click.argument("text", metavar="[TEXT|-]", required=False)
@click.option(
    "--wait", type=click.Choice(["sent", "delivered", "read"]), help="Wait until it has come so far."
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, t.MAX_WAIT, min_open=True),
    default=t.DEFAULT_WAIT,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait (exit 5); the message is sent all the same.",
)
@click.option("--idempotency-key", metavar="KEY", help="Two calls with the same KEY send one message.")
@click.option("--quote", metavar="ID", help="Reply to a message of the same chat.")
@click.option(
    "--mention",
    multiple=True,
    type=RECIPIENT,
    metavar="NUMBER",
    help="A number named in the text as @NUMBER.",
)
def send(
    app: App,
    name: str,
    to: str,
    text: str | None,
    *,
    wait: t.Milestone | None,
    timeout: float,
    idempotency_key: str | None,
    quote: str | None,
    mention: tuple[str, ...],
) -> None:
    """Send a text to a phone number or an address, and print the message's id.

    Without TEXT, or with "-", the text is read from standard input; one line end at its end is left away. The message
    is in the daemon's outbox when the id is printed, and is sent as soon as the session is open.
    """
    request = t.SendRequest(
        session=name,
        to=to,
        text=_text(app, text),
        idempotency_key=idempotency_key or f"wactl-{secrets.token_hex(16)}",
        quote=quote,
        mentions=list(mention),
    )
    with app.client() as client:
        sent = _post(client, request)
        if not app.as_json:
            app.out.line(sent.message_id)
            if sent.duplicate:
                app.out.note(f"this key was used before: the message is {sent.state}")
        if wait is None:
            if app.as_json:
                app.out.document(sent)
            return
        _follow(app, client, sent, wait, timeout)


def _follow(app: App, client: Client, sent: t.SendResult, wanted: t.Milestone, timeout: float) -> None:
    """Wait, and say how far it came also if that fails or is interrupted: a script that misses the id sends twice."""
    state: str = sent.state
    try:
        state = _wait(client, sent, wanted, timeout)
        app.out.note(state)
    except Failure as failure:
        state = failure.data.get("state", state)
        raise
    finally:
        if app.as_json:
            app.out.document({**msgspec.to_builtins(sent), "state": state})


def _post(client: Client, request: t.SendRequest) -> t.SendResult:
    try:
        return client.ask("message.send", t.SendResult, request)
    except Gone as gone:
        raise _unknown(gone, request) from None
    except Failure as failure:
        if failure.symbol == "timeout":
            raise _unknown(failure, request) from None
        raise


def _unknown(failure: Failure, request: t.SendRequest) -> Failure:
    """Nobody knows whether the message was taken; the key makes it safe to ask again."""
    return Failure(
        failure.symbol,
        f"{failure.message}. To send it for certain and once, repeat the command with "
        f"--idempotency-key {request.idempotency_key}",
        failure.exit,
        code=failure.code,
        data={**failure.data, "idempotencyKey": request.idempotency_key},
    )


def _wait(client: Client, sent: t.SendResult, wanted: t.Milestone, timeout: float) -> t.MessageState:
    params = t.WaitParams(session=sent.session, message_id=sent.message_id, state=wanted, timeout=timeout)
    try:
        return client.ask("message.wait", t.WaitResult, params, timeout=timeout + _MARGIN_S).state
    except Failure as failure:
        failure.data.setdefault("messageId", sent.message_id)
        if isinstance(failure, Gone):
            failure.message += f"; message {sent.message_id} is in its outbox: do not send it again"
        raise


def _text(app: App, text: str | None) -> str:
    if text is None or text == "-":
        text = _standard_input(app)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise usage("the text is not valid UTF-8; nothing was sent") from None
    if not text.strip():
        raise usage("the text is empty; nothing was sent")
    return text


def _standard_input(app: App) -> str:
    if sys.stdin is None:
        raise usage("there is no standard input to read the text from; nothing was sent")
    if is_terminal(sys.stdin):
        app.out.note("reading the text from the terminal; end it with Ctrl-D on a line of its own")
    data = sys.stdin.buffer.read(t.MAX_LINE + 1)
    if len(data) > t.MAX_LINE:
        raise usage(f"the text is longer than {t.MAX_LINE} bytes; nothing was sent")
    try:
        return data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise usage(
            f"standard input is not valid UTF-8 (byte {error.start}); nothing was sent", byte=error.start
        ) from None
