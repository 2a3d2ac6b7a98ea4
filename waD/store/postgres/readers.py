"""Connections for reading: as many as read at the same time, up to a limit, made when they are needed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

import psycopg

from waD.store.errors import StorageUnavailable
from waD.store.postgres.database import PostgresDatabase
from waD.store.postgres.faults import RefusedError, Silent, meaning, told
from waD.store.postgres.link import Closing, Link
from waD.store.postgres.place import Place
from waD.store.postgres.transactions import CONFLICT_S, CONFLICTS, Patience

T = TypeVar("T")

BEGIN_VIEW: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


class Readers:
    """A pool.

    Args:
        place: names the server in errors.
        connect: makes a connection.
        closing: ends all waiting.
        wait_s: how long a database that does not answer is waited for.
        most: how many connections there are.
    """

    def __init__(
        self, place: Place, connect: Callable[[], Link], closing: Closing, wait_s: float, most: int
    ) -> None:
        self._place = place
        self._connect = connect
        self._closing = closing
        self._wait_s = wait_s
        self._free = threading.Semaphore(most)
        self._idle: list[Link] = []
        self._guard = threading.Lock()

    def look(self, query: Callable[[PostgresDatabase], T]) -> T:
        """Run queries in one view of the database; they are run again when a connection was lost.

        Raises:
            StorageUnavailable: the database did not answer in time.
        """
        return self._try(lambda link: _in_one_view(link, query))

    def read(self, query: Callable[[PostgresDatabase], T]) -> T:
        """Run a single query."""
        return self._try(lambda link: query(PostgresDatabase(link)))

    def close(self) -> None:
        """Close those that are idle; the others close when they are given back."""
        with self._guard:
            idle, self._idle = self._idle, []
        for link in idle:
            link.close()

    def _try(self, query: Callable[[Link], T]) -> T:
        patience, conflicts = Patience(self._wait_s, self._closing), 0
        while True:
            began = time.monotonic()
            try:
                return self._with_link(query)
            except RefusedError as error:
                raise ValueError(f"the database refused a query: {error}") from error
            except psycopg.Error as error:
                why = meaning(error)
                if why == "lost":
                    self.close()  # the others are lost too, or will be soon
                    if isinstance(error, Silent):
                        patience.started(began)
                    if patience.wait():
                        continue
                elif why == "conflict" and conflicts < CONFLICTS:
                    self._closing.sleep(CONFLICT_S * 2**conflicts)
                    conflicts += 1
                    continue
                raise told(self._place, error) from error

    def _with_link(self, query: Callable[[Link], T]) -> T:
        with self._free:
            link = self._take()
            try:
                return query(link)
            finally:
                self._give_back(link)

    def _take(self) -> Link:
        if self._closing.begun:
            raise StorageUnavailable("the store is closed")
        with self._guard:
            if self._idle:
                return self._idle.pop()
        return self._connect()

    def _give_back(self, link: Link) -> None:
        if not link.usable or self._closing.begun:
            link.close()
            return
        with self._guard:
            self._idle.append(link)


def _in_one_view(link: Link, query: Callable[[PostgresDatabase], T]) -> T:
    db = PostgresDatabase(link)
    db.execute(BEGIN_VIEW)
    try:
        return query(db)
    finally:
        if not link.closed:
            link.execute(b"ROLLBACK")
