"""`wactl ready`."""

from __future__ import annotations

import time
from typing import Final, NamedTuple

import click

from wactl.base import App, command, session_argument
from wactl.client import Client, candidates
from wactl.failure import Failure
from wactl.probe import Probe
from wactl.sessions import next_step
from wactl.text import clean
from waD.control import types as t

ACCEPTING: Final = 0
REJECTING: Final = 1
NO_ANSWER: Final = 2
NOT_ATTEMPTED: Final = 3
WORDS: Final = ("accepting", "rejecting", "no_answer", "not_attempted")

EXITS: Final = {
    ACCEPTING: "accepting: the daemon answers, and the session NAME is open and ready",
    REJECTING: "rejecting: the daemon answers, but is stopping, or the session is not there, not open or not ready",
    NO_ANSWER: "no answer: nobody listens, or not in time",
    NOT_ATTEMPTED: "not attempted: wrong usage, or a socket that cannot be or may not be used",
}

ANSWER_S: Final = 5.0
"""How long one answer may take."""

SHORTEST_S: Final = 1.0
"""The same when the time is nearly up, so that the last answer is the state and not haste."""

FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 0.5


class Answer(NamedTuple):
    """What was found out.

    Attributes:
        exit: the exit status.
        message: one sentence.
        state: of the session, if it was asked for.
    """

    exit: int
    message: str
    state: str | None = None


@command(
    "ready",
    example="wactl ready alerts && wactl send alerts +15550000002 'still here'\n"
    "wactl ready --wait --timeout 120 alerts",
    cls=Probe,
    exits=EXITS,
    misused=NOT_ATTEMPTED,
)
@session_argument(required=False)
@click.option("--wait", is_flag=True, help="Wait until it is accepting, or the time is up.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, t.MAX_WAIT, min_open=True),
    metavar="SECONDS",
    help=f"How long: {t.DEFAULT_WAIT:g} with --wait, else {ANSWER_S:g} for the answer.",
)
def ready(app: App, name: str | None, *, wait: bool, timeout: float | None) -> int:
    """Tell whether the daemon answers, or whether a session is open and ready to send.

    The exit status is the answer, as that of pg_isready(1): 0 accepting, 1 rejecting, 2 no answer, 3 not attempted.
    With --wait and when the time is up, it is that of the state then.
    """
    ask, patience = (_wait, t.DEFAULT_WAIT) if wait else (_probe, ANSWER_S)
    answer = ask(app, name, timeout or patience)
    _tell(app, name, answer)
    return answer.exit


def _wait(app: App, name: str | None, timeout: float) -> Answer:
    end = time.monotonic() + timeout
    pause = FIRST_PAUSE_S
    while True:
        left = end - time.monotonic()
        answer = _probe(app, name, max(SHORTEST_S, min(ANSWER_S, left)))
        left = end - time.monotonic()
        if answer.exit in (ACCEPTING, NOT_ATTEMPTED) or left <= 0:
            return answer
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, LONGEST_PAUSE_S)


def _probe(app: App, name: str | None, patience: float) -> Answer:
    try:
        with Client.connect(candidates(app.socket), timeout=patience) as client:
            if name is None:
                pong = client.ask("daemon.ping", t.Pong, timeout=patience)
                return Answer(ACCEPTING, f"waD {pong.version} (pid {pong.pid}) answers")
            params = t.SessionParams(name=name)
            return _judged(client.ask("session.status", t.SessionView, params, timeout=patience))
    except Failure as failure:
        return Answer(_exit_of(failure), failure.message)


def _judged(view: t.SessionView) -> Answer:
    if view.state == "open":
        return Answer(
            *((ACCEPTING, "open") if view.ready else (REJECTING, "open, still starting")), view.state
        )
    step = next_step(view)
    return Answer(REJECTING, view.state + (f"; next: {step}" if step else ""), view.state)


def _exit_of(failure: Failure) -> int:
    """Errors that the daemon itself has said have a number; it was there then."""
    if failure.symbol in ("usage", "bad_params") or (
        failure.symbol == "not_permitted" and failure.code is None
    ):
        return NOT_ATTEMPTED
    return NO_ANSWER if failure.code is None else REJECTING


def _tell(app: App, name: str | None, answer: Answer) -> None:
    word = WORDS[answer.exit]
    if app.as_json:
        app.out.document(
            {
                "status": word,
                "exit": answer.exit,
                "session": name,
                "state": answer.state,
                "message": answer.message,
            }
        )
    else:
        app.out.line(clean(f"{name or 'waD'} - {word.replace('_', ' ')}: {answer.message}"))
