"""`wactl tail-events`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import click

from wactl.base import App, command, session_argument
from wactl.eventtext import event_line
from wactl.failure import Failure, from_daemon
from waD.control import types as t

FIRST_DELAY_S: Final = 0.1
MAX_DELAY_S: Final = 5.0
PASSING: Final = frozenset({"unreachable", "shutting_down", "storage_unavailable"})
"""Failures after which a daemon may be back."""


@command(
    "tail-events",
    example="wactl tail-events alerts --type message:new\n"
    "wactl tail-events --since 4711 --json | jq -c 'select(.type == \"message:new\") | .data.body'",
)
@session_argument(required=False)
@click.option(
    "--since",
    type=click.IntRange(0, t.MAX_CURSOR),
    metavar="CURSOR",
    help="Begin behind this cursor; 0 is the start of the log. Else with what happens from now on.",
)
@click.option("--follow/--no-follow", default=True, help="Wait for more at the end of the log (the default).")
@click.option("--type", "types", multiple=True, metavar="TYPE", help="Only this type; may be repeated.")
@click.option(
    "--no-reconnect", is_flag=True, help="End with 3 when the daemon goes, instead of waiting for it."
)
def tail_events(
    app: App,
    name: str | None,
    *,
    since: int | None,
    follow: bool,
    types: tuple[str, ...],
    no_reconnect: bool,
) -> None:
    """Follow the event log of all sessions, or of one.

    No event is lost or shown twice when the daemon is restarted: it goes on behind the last cursor. With --no-follow
    and without --since, the whole log.
    """
    if not follow and since is None:
        since = 0
    params = t.SubscribeParams(since=since, types=list(types), session=name, follow=follow)
    Tail(app, params, reconnect=follow and not no_reconnect).run()


class Tail:
    """Follows the log across restarts of the daemon.

    Args:
        app: the invocation.
        params: what to subscribe to first.
        reconnect: wait for a daemon that has gone.
        sleep: how to wait, in seconds.
    """

    def __init__(
        self,
        app: App,
        params: t.SubscribeParams,
        *,
        reconnect: bool,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._app = app
        self._params = params
        self._cursor = params.since
        self._reconnect = reconnect
        self._sleep = sleep
        self._delay = FIRST_DELAY_S
        self._subscribed = False

    def run(self) -> None:
        """Until the log is read; with `follow`, until it fails or is interrupted."""
        while True:
            try:
                self._once()
            except Failure as failure:
                if not (self._reconnect and self._subscribed and failure.symbol in PASSING):
                    raise
                self._wait(failure)
            else:
                return

    def _wait(self, failure: Failure) -> None:
        if self._delay == FIRST_DELAY_S:
            self._app.out.note(f"{failure.message}; waiting for it to come back")
        self._sleep(self._delay)
        self._delay = min(self._delay * 2, MAX_DELAY_S)

    def _once(self) -> None:
        """One connection, until its subscription is complete; raises Failure."""
        with self._app.client() as client:
            params = t.SubscribeParams(
                since=self._cursor,
                types=self._params.types,
                session=self._params.session,
                follow=self._params.follow,
            )
            started = client.ask("events.subscribe", t.Subscription, params)
            if self._cursor is None:
                self._cursor = started.last
            self._subscribed = True
            self._delay = FIRST_DELAY_S
            while (notice := client.notice()) is not None:
                if notice.method == "event":
                    self._show(client.decode(notice.params, t.EventNotice).event)
                elif notice.method == "events.end":
                    return self._end(client.decode(notice.params, t.EndNotice))
        return None

    def _show(self, event: t.EventView) -> None:
        if self._app.as_json:
            self._app.out.document(event)
        else:
            self._app.out.line(event_line(event))
        self._cursor = event.cursor

    def _end(self, end: t.EndNotice) -> None:
        self._cursor = max(end.cursor, self._cursor or 0)
        if end.reason == "complete":
            return
        if end.error is not None:
            raise from_daemon(end.error)
        kind = t.ERRORS["shutting_down"]
        raise Failure("shutting_down", "the daemon is stopping", kind.exit, code=kind.code)
