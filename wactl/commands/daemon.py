"""`wactl daemon reload` and `wactl daemon stop`."""

from __future__ import annotations

from wactl.base import App, LazyGroup, command
from wactl.client import COMMAND_S
from wactl.text import clean
from waD.control import types as t

daemon = LazyGroup(
    "daemon",
    table={
        "reload": ("wactl.commands.daemon:reload", "Read the settings again."),
        "stop": ("wactl.commands.daemon:stop", "Stop the daemon in order."),
    },
    help="Reload or stop the daemon.",
    example="wactl daemon reload",
)


@command("reload", example="wactl daemon reload")
def reload(app: App) -> None:
    """Read the settings again; with a fault in them nothing changes, and all faults are told."""
    with app.client() as client:
        answer = client.call("daemon.reload", timeout=COMMAND_S)
        if app.as_json:
            return app.out.document(answer)
        done = client.decode(answer, t.ReloadResult)
    app.out.line(f"in force: {clean(', '.join(done.applied)) or 'nothing has changed'}")
    if done.restart_needed:
        app.out.line(f"after a restart: {clean(', '.join(done.restart_needed))}")
    return None


@command("stop", example="wactl daemon stop")
def stop(app: App) -> None:
    """Stop the daemon in order; the service manager may start it again."""
    with app.client() as client:
        answer = client.call("daemon.stop", timeout=COMMAND_S)
        if app.as_json:
            app.out.document(answer)
        else:
            app.out.line("stopping")
