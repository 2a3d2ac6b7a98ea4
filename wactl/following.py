"""A session on its way to `open`: its states and QR codes as they come, and how the way ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final, TypeAlias

import msgspec

from wactl.client import Client
from wactl.failure import Failure, from_daemon, timed_out
from wactl.sessions import disconnect_reason, next_step
from wactl.text import clean
from waD.control import types as t

TYPES: Final = ["connection:status", "connection:qr"]
ENDED: Final = frozenset({"stopped", "needs_pairing", "failed"})
"""States that a session leaves by itself rarely or never."""

UNPAIRED_CAUSES: Final = frozenset({"", "qr_exhausted", "logout"})
"""Reasons for `needs_pairing` that are nobody's refusal."""

CODE_S: Final = 2.0
"""How long to ask for a code that was announced; it is announced a moment before it can be had."""

_STEP_S: Final = 0.02

Step: TypeAlias = t.SessionView | t.QrView | str
"""A new state by its name, a new code, or, at the end, the session."""


class Follower:
    """Follows one session over one connection.

    Args:
        client: to the daemon.
        name: of the session.
        since: cursor to follow from.
        timeout: seconds until it gives up, None for never.
        codes: fetch the codes, too.
    """

    def __init__(
        self, client: Client, name: str, since: int | None, timeout: float | None, *, codes: bool = True
    ) -> None:
        self._client = client
        self._name = name
        self._timeout = timeout
        self._end = None if timeout is None else time.monotonic() + timeout
        self._codes = codes
        self._state = ""
        self._code: t.QrView | None = None
        params = t.SubscribeParams(since=since, types=TYPES, session=name)
        client.ask("events.subscribe", t.Subscription, params)

    def steps(self, view: t.SessionView) -> Iterator[Step]:
        """Yield states and codes as they come and the open session last.

        Args:
            view: how the session was just before.

        Raises:
            Failure: it ended in another state (1, 4), or the time is up (5).
        """
        yield from self._entered(view.state)
        while self._state != "open":
            notice = self._client.notice(self._left())
            if notice is None:
                raise self._late()
            if notice.method == "events.end":
                raise self._ended(self._client.decode(notice.params, t.EndNotice))
            if notice.method == "event":
                yield from self._event(self._client.decode(notice.params, t.EventNotice).event)
        yield self._status()

    def _event(self, event: t.EventView) -> Iterator[Step]:
        if event.type == "connection:qr":
            yield from self._fetch(event)
        elif event.type == "connection:status":
            state = str(event.data.get("status", ""))
            if state != self._state:
                yield from self._entered(state)
            if state in ENDED:
                self._check_ended()

    def _entered(self, state: str) -> Iterator[Step]:
        self._state = state
        yield clean(state)
        if state == "pairing":
            yield from self._fetch(None)

    def _fetch(self, event: t.EventView | None) -> Iterator[Step]:
        """The code now shown; after an event, the one that it announces or a later one."""
        if not self._codes:
            return
        expires = event.data.get("expiresAt", 0) if event is not None else 0
        end = time.monotonic() + CODE_S
        while True:
            code = self._client.ask("session.qr", t.QrResult, t.SessionParams(name=self._name)).code
            if event is None or (code is not None and code.expires_at >= expires):
                break
            if time.monotonic() > end:
                return  # it was scanned or replaced meanwhile; what follows says which
            time.sleep(_STEP_S)
        if code is not None and (self._code is None or code.qr != self._code.qr):
            self._code = code
            yield code

    def _check_ended(self) -> None:
        """Raise if the session is still at an end; it may have gone on since the event."""
        view = self._status()
        if view.state in ENDED:
            raise terminal(view)

    def _status(self) -> t.SessionView:
        return self._client.ask("session.status", t.SessionView, t.SessionParams(name=self._name))

    def _left(self) -> float | None:
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def _late(self) -> Failure:
        view = self._status()
        step = next_step(view)
        return timed_out(
            f"{self._name} is not open after {self._timeout:g} s, it is {view.state}; it goes on trying"
            + (f". Next: {step}" if step else ""),
            session=msgspec.to_builtins(view),
        )

    def _ended(self, end: t.EndNotice) -> Failure:
        if end.error is not None:
            return from_daemon(end.error)
        kind = t.ERRORS["shutting_down"]
        return Failure("shutting_down", "the daemon is stopping", kind.exit, code=kind.code)


def terminal(view: t.SessionView) -> Failure:
    """What it means that a session has come to an end, with what to do next."""
    reason = view.last_disconnect
    cause = reason.cause if reason is not None else ""
    refused = view.state == "failed" or (view.state == "needs_pairing" and cause not in UNPAIRED_CAUSES)
    symbol: t.Symbol = "refused" if refused else "wrong_state"
    why = f" ({disconnect_reason(reason)})" if reason is not None else ""
    step = next_step(view)
    return Failure(
        symbol,
        f"{view.name} is {view.state}{why}" + (f". Next: {step}" if step else ""),
        t.ERRORS[symbol].exit,
        data={"state": view.state, "session": msgspec.to_builtins(view)},
    )
