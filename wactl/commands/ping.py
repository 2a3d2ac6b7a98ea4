"""`wactl ping`."""

from __future__ import annotations

from wactl.base import App, command
from wactl.text import clean
from waD.control import types as t


@command("ping", example="wactl ping && echo up")
def ping(app: App) -> None:
    """Ask whether the daemon is there (exit 3 if not), and what it lets you do."""
    with app.client() as client:
        answer = client.call("daemon.ping")
        if app.as_json:
            return app.out.document(answer)
        pong = client.decode(answer, t.Pong)
    app.out.line(f"waD {clean(pong.version)} (pid {pong.pid}) answers; your role is {pong.role}")
    if pong.protocol > t.PROTOCOL_VERSION:
        app.out.note(f"it speaks protocol {pong.protocol}, this wactl {t.PROTOCOL_VERSION}: upgrade wactl")
    return None
