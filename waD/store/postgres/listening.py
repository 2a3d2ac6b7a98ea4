"""Hearing of events that other daemons append, when they are committed: LISTEN, on a connection of its own.

Nothing relies on it. A notification says only that it is worth a look, and whoever looks does so from time to time
anyway. Where a server has no LISTEN, or a pooler keeps notifications to itself, nothing else is missing.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import psycopg

from waD.store.errors import StoreError
from waD.store.postgres.link import Closing, Link
from waD.store.postgres.place import Place

CHANNEL: Final = "wad_events"
NOTIFY: Final = f"SELECT pg_notify('{CHANNEL}', (SELECT max(id) FROM wa_events)::text)"
"""Part of a transaction that appended events, which keeps others from doing so until it ends."""
CAN_NOTIFY: Final = "SELECT EXISTS (SELECT 1 FROM pg_proc WHERE proname = 'pg_notify')"
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 60.0
_NO_LISTEN: Final = frozenset({"0A000", "42501", "42601", "42704", "42883"})
"""What servers answer that do not have it: not supported, no right, syntax, unknown object or function."""

_log = logging.getLogger(__name__)


class Listener:
    """Keeps one connection that listens, in a thread of its own.

    Args:
        place: names the server in the log.
        connect: makes the connection.
        closing: ends it.
        own: process id of the backend that writes for us, whose notifications are no news.

    Attributes:
        alive: whether the server would tell us now.
    """

    def __init__(
        self, place: Place, connect: Callable[[], Link], closing: Closing, own: Callable[[], int | None]
    ) -> None:
        self._place = place
        self._connect = connect
        self._closing = closing
        self._own = own
        self._heard: Callable[[], None] | None = None
        self._woken, self._wake = socket.socketpair()
        self._thread: threading.Thread | None = None
        self.alive = False

    def start(self, heard: Callable[[], None]) -> None:
        """Listen from now on.

        Args:
            heard: called in the thread when others have appended something, or may have: after each connection.
        """
        self._heard = heard
        if self._thread is None and not self._closing.begun:
            self._thread = threading.Thread(target=self._run, name="wad-listener", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread; the closing has begun. It may be busy with a connection, which nobody waits for."""
        self._wake.close()
        if self._thread is None:
            self._woken.close()

    def _run(self) -> None:
        pause = FIRST_PAUSE_S
        while not self._closing.begun:
            was_alive = False
            try:
                self._listen()
            except psycopg.Error as error:
                was_alive = self.alive
                if error.sqlstate in _NO_LISTEN:
                    _log.info("%s has no LISTEN: events of other daemons are looked for", self._place)
                    break
                _log.debug("the connection to %s that listens was lost", self._place)
            except (StoreError, OSError) as error:
                _log.debug("no connection that listens: %s", error)
            finally:
                self.alive = False
            pause = FIRST_PAUSE_S if was_alive else min(2 * pause, LONGEST_PAUSE_S)
            self._closing.sleep(pause)
        self._woken.close()

    def _listen(self) -> None:
        link = self._connect()
        try:
            link.execute(f"LISTEN {CHANNEL}".encode())
            self.alive = True
            self._tell()  # of what was appended while nobody listened
            with selectors.DefaultSelector() as selector:
                for source in (link.fileno(), self._woken):
                    selector.register(source, selectors.EVENT_READ)
                while not self._closing.begun:
                    if self._news(link):
                        self._tell()
                    selector.select()
        finally:
            with suppress(psycopg.Error):
                link.close()

    def _news(self, link: Link) -> bool:
        """Whether one of the notifications that have come is of somebody else. What is in them does not matter."""
        link.pgconn.consume_input()
        news = False
        while (notification := link.pgconn.notifies()) is not None:
            news = news or notification.be_pid != self._own()
        return news

    def _tell(self) -> None:
        if self._heard is not None and not self._closing.begun:
            self._heard()
