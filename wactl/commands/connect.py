"""`wactl connect`."""

from __future__ import annotations

import click
import msgspec

from wactl.base import App, command, session_argument
from wactl.client import COMMAND_S, Client
from wactl.following import Follower, Step
from wactl.render import state
from wactl.sessions import show_state
from wactl.showing import CodeBoard
from wactl.text import address
from waD.control import types as t

DEFAULT_TIMEOUT_S = 300.0


@command("connect", example="wactl connect alerts\nwactl connect alerts --no-wait --json")
@session_argument()
@click.option(
    "--timeout",
    type=click.FloatRange(0, t.MAX_WAIT, min_open=True),
    default=DEFAULT_TIMEOUT_S,
    show_default=True,
    metavar="SECONDS",
    help="Stop waiting after this long (exit 5); the session goes on trying.",
)
@click.option("--no-wait", is_flag=True, help="Return as soon as the daemon has taken the order.")
@click.option("--no-qr", is_flag=True, help="Draw no QR codes; see wactl qr.")
@click.option("--invert", is_flag=True, help="Without colour: draw for a light background.")
def connect(app: App, name: str, *, timeout: float, no_wait: bool, no_qr: bool, invert: bool) -> None:
    """Bring a session up, and make it if there is none of this name.

    A session that is not paired yet shows QR codes: scan one in WhatsApp on the phone, under Linked devices. Ends when
    the session is open, or in a state that it does not leave by itself, with what to do next.

    With --json, one document for each step, with "event" being "state", "qr" or "open".
    """
    with app.client() as client:
        params = t.SessionParams(name=name)
        if no_wait:
            return _ordered(app, client.call("session.connect", params, timeout=COMMAND_S), client)
        since = client.ask("daemon.info", t.DaemonInfo).last_cursor
        view = client.ask("session.connect", t.SessionView, params, timeout=COMMAND_S)
        follower = Follower(client, name, since, timeout, codes=not no_qr)
        board = CodeBoard(app.out, invert=invert)
        for step in follower.steps(view):
            if app.as_json:
                _document(app, step)
            else:
                _show(app, board, step)
    return None


def _ordered(app: App, answer: bytes, client: Client) -> None:
    if app.as_json:
        app.out.document(answer)
        return
    show_state(app.out, client.decode(answer, t.SessionView))


def _document(app: App, step: Step) -> None:
    if isinstance(step, t.SessionView):
        app.out.document({"event": "open", "session": step})
    elif isinstance(step, t.QrView):
        app.out.document({"event": "qr", **msgspec.to_builtins(step)})
    else:
        app.out.document({"event": "state", "state": step})


def _show(app: App, board: CodeBoard, step: Step) -> None:
    if isinstance(step, t.QrView):
        board.show(step)
        return
    board.leave()
    if isinstance(step, t.SessionView):
        app.out.note(f"{step.name} is {address(step.me_pn or step.me)}")
    else:
        app.out.line(state(step))
        if step == "pairing":
            app.out.note("scan the code in WhatsApp on the phone: Settings, Linked devices, Link a device")
