"""`wactl check`."""

from __future__ import annotations

from typing import Final

import click

from wactl.base import App, command, session_argument
from wactl.client import Client, candidates
from wactl.failure import Failure
from wactl.judging import (
    CRITICAL,
    OK,
    UNKNOWN,
    WARNING,
    Report,
    all_sessions,
    one_session,
)
from wactl.probe import Probe
from waD.control import types as t

ANSWER_S: Final = 10.0

EXITS: Final = {
    OK: "OK",
    WARNING: "WARNING: it will mend itself or waits for somebody, such as a session that reconnects",
    CRITICAL: "CRITICAL: it will not mend itself, such as a session that has to be paired anew",
    UNKNOWN: "UNKNOWN: the daemon cannot be reached or asked, or wrong usage",
}
_CRITICAL_ERRORS: Final = frozenset({"no_such_session", "storage_unavailable", "damaged", "internal_error"})


@command(
    "check",
    example="wactl check\nwactl check alerts --timeout 5",
    cls=Probe,
    exits=EXITS,
    misused=UNKNOWN,
)
@session_argument(required=False)
@click.option(
    "--timeout",
    type=click.FloatRange(0, t.MAX_WAIT, min_open=True),
    default=ANSWER_S,
    show_default=True,
    metavar="SECONDS",
    help="How long an answer may take.",
)
def check(app: App, name: str | None, *, timeout: float) -> int:
    """Report on all sessions, or on one, as a plugin for Nagios and its kin.

    Prints one line with performance data behind a "|". The exit status is the answer: 0 OK, 1 WARNING, 2 CRITICAL, 3
    UNKNOWN. The role observer is enough. A session that is down or held because the operator wants it so is OK, unless
    it is asked for by name: then it is a WARNING.
    """
    report = _report(app, name, timeout)
    if app.as_json:
        app.out.document(report.document())
    else:
        app.out.line(report.line())
    return report.level


def _report(app: App, name: str | None, timeout: float) -> Report:
    try:
        with Client.connect(candidates(app.socket), timeout=timeout) as client:
            if name is not None:
                params = t.SessionParams(name=name)
                return one_session(client.ask("session.status", t.SessionView, params, timeout=timeout))
            listed = client.ask("session.list", t.SessionList, timeout=timeout)
            return all_sessions(listed.sessions, client.ask("daemon.info", t.DaemonInfo, timeout=timeout))
    except Failure as failure:
        level = CRITICAL if failure.symbol in _CRITICAL_ERRORS else UNKNOWN
        return Report(level, [failure.message], {})
