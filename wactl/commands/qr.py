"""`wactl qr`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from wactl.base import App, command, session_argument
from wactl.failure import Failure, usage
from wactl.following import ENDED, Follower, terminal
from wactl.qrcode import picture, write_private
from wactl.showing import CodeBoard
from waD.control import types as t

_FILE = click.Path(dir_okay=False, path_type=Path)


@command("qr", example="wactl qr alerts\nwactl qr alerts --once --png /tmp/alerts.png")
@session_argument()
@click.option(
    "--png", type=_FILE, metavar="FILE", help="Write the code to a PNG file, again for each new code."
)
@click.option("--svg", type=_FILE, metavar="FILE", help="The same as SVG.")
@click.option("--raw", is_flag=True, help="Print the text of the code, one line each.")
@click.option("--once", is_flag=True, help="Show one code and end.")
@click.option("--invert", is_flag=True, help="Without colour: draw for a light background.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, t.MAX_WAIT, min_open=True),
    metavar="SECONDS",
    help="Stop after this long (exit 5).",
)
def qr(
    app: App,
    name: str,
    *,
    png: Path | None,
    svg: Path | None,
    raw: bool,
    once: bool,
    invert: bool,
    timeout: float | None,
) -> None:
    """Show the QR codes of a session that is being paired, each in its turn.

    Ends when the session is paired, or with what to do next when the last code has expired. A code is a secret for as
    long as it is good: files are readable by you alone.
    """
    if raw and (png or svg):
        raise usage("--raw does not go with --png or --svg")
    show = _shower(app, png=png, svg=svg, raw=raw, invert=invert)
    with app.client() as client:
        params = t.SessionParams(name=name)
        since = client.ask("daemon.info", t.DaemonInfo).last_cursor
        view = client.ask("session.qr", t.QrResult, params).session
        _refuse_without_codes(view)
        for step in Follower(client, name, since, timeout).steps(view):
            if isinstance(step, t.QrView):
                show(step)
                if once:
                    return
        app.out.note(f"{view.name} is paired")


def _refuse_without_codes(view: t.SessionView) -> None:
    if view.state in ENDED or view.state == "new":
        raise terminal(view)
    if view.paired:
        kind = t.ERRORS["wrong_state"]
        message = f"{view.name} is paired and {view.state}: there is no code to scan"
        raise Failure("wrong_state", message, kind.exit, code=kind.code, data={"state": view.state})


def _shower(
    app: App, *, png: Path | None, svg: Path | None, raw: bool, invert: bool
) -> Callable[[t.QrView], None]:
    board = CodeBoard(app.out, invert=invert)

    def show(code: t.QrView) -> None:
        for path, kind in ((png, "png"), (svg, "svg")):
            if path is not None:
                write_private(path, picture(code.qr, kind))
                app.out.note(f"wrote code {code.number} of {code.of} to {path}")
        if app.as_json:
            app.out.document(code)
        elif raw:
            app.out.line(code.qr)
        elif png is None and svg is None:
            board.show(code)

    return show
