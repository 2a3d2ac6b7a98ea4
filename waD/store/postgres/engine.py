"""The engine on PostgreSQL: one connection that writes, some that read, and other daemons beside us."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import psycopg

from waD.store.canonical import as_it_is
from waD.store.codec import Codec, Upgrade
from waD.store.engine import Job, Outcome
from waD.store.errors import StoreError
from waD.store.phases import Phase
from waD.store.postgres import schema
from waD.store.postgres.database import PostgresDatabase
from waD.store.postgres.faults import RefusedError, hopeless, meaning, told
from waD.store.postgres.integrity import complaints
from waD.store.postgres.link import Closing, Link, open_link
from waD.store.postgres.listening import Listener
from waD.store.postgres.place import Place
from waD.store.postgres.readers import BEGIN_VIEW, Readers
from waD.store.postgres.settings import PostgresSettings
from waD.store.postgres.transactions import Patience, Transactions
from waD.store.postgres.waves import OneFailed, together
from waD.store.sql.database import Database
from waD.store.sql.jobs import Jobs
from waD.store.sql.reading import Reads, View
from waD.store.vault import Vault

T = TypeVar("T")

CHECK_S: Final = 3600.0
"""How long one statement of an integrity check may take."""

_log = logging.getLogger(__name__)


def wall_clock_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


class PostgresEngine(Reads):
    """A database on a server. The constructor connects, checks and migrates it.

    Args:
        settings: how it is reached.
        now_ms: the time that rows get; leases go by the server's clock.
        codec: of legacy rows; None where none are kept.
        vault: the operator's keys; None for a database in the clear.
        upgrade: turns items that an earlier version stored into today's documents.
        new_phase: of sessions that are made here.

    Raises:
        StoreForbidden, StoreDamaged, StoreTooNew, StorageUnavailable: it cannot be used; nothing was changed.
    """

    shared = True

    def __init__(
        self,
        settings: PostgresSettings,
        now_ms: Callable[[], int] = wall_clock_ms,
        *,
        codec: Codec | None = None,
        vault: Vault | None = None,
        upgrade: Upgrade = as_it_is,
        new_phase: Phase = "cut_over",
    ) -> None:
        logging.getLogger("psycopg").setLevel(logging.ERROR)  # it warns of what we see as errors anyway
        self._settings = settings
        self._closing = Closing()
        self.place = Place(settings)
        self.name = str(self.place)
        self.concurrent_reads = settings.connections
        self._jobs = Jobs((RefusedError,), (psycopg.Error,), now_ms, codec, vault, upgrade, new_phase)
        super().__init__(codec, vault, self._jobs.sealing, str(self.place))
        self._open()
        self._transactions = Transactions(self.place, self._connect_checked, self._closing, settings.wait_s)
        self._readers = Readers(
            self.place, self._connect, self._closing, settings.wait_s, settings.connections
        )
        self._listener = Listener(
            self.place, self._connect, self._closing, lambda: self._transactions.backend_pid
        )

    def _open(self) -> None:
        patience = Patience(self._settings.wait_s, self._closing)
        while True:
            try:
                link = self._connect()
                try:
                    for weak in schema.check_durability(link, self.place, self._settings.unsafe_durability):
                        _log.warning("%s may lose what it has confirmed: %s", self.place, weak)
                    schema.migrate(link, self.place)
                finally:
                    link.close()
            except psycopg.Error as error:
                if meaning(error) == "lost" and not hopeless(error) and patience.wait():
                    continue
                raise told(self.place, error) from error
            return

    def _connect(self) -> Link:
        return open_link(self.place, self._closing, self._settings.wait_s)

    def _connect_checked(self) -> Link:
        """A connection that writes: the server may be another one by now, or have been set up anew."""
        link = self._connect()
        try:
            schema.check_durability(link, self.place, self._settings.unsafe_durability)
        except BaseException:
            link.close()
            raise
        return link

    def hurry(self) -> None:
        """Wait for nothing from now on; what runs may end. Called from any thread before the writer is stopped."""
        self._closing.begin()

    def close(self) -> None:
        """Close all connections."""
        self._closing.begin()
        self._listener.close()
        self._transactions.close()
        self._readers.close()

    def listen(self, heard: Callable[[], None]) -> None:
        """On a connection of its own."""
        self._listener.start(heard)

    @property
    def listening(self) -> bool:
        """While that connection is there."""
        return self._listener.alive

    def write(self, jobs: Sequence[Job]) -> list[Outcome]:
        """One transaction, done again until it is there or the database is given up.

        At first all jobs are done together, without savepoints. When one of them fails, all is rolled back, and each
        is done by itself.
        """
        run = self._transactions.run
        try:
            try:
                return run(lambda db: together(db, self._jobs, jobs), self._jobs.forget)
            except (OneFailed, RefusedError):
                self._jobs.forget()
            return run(lambda db: self._jobs.run(db, jobs, apart=True), self._jobs.forget)
        except StoreError as error:
            self._jobs.forget()
            return [error] * len(jobs)
        except BaseException:
            self._jobs.forget()
            raise

    def look(self, query: Callable[[Database], T]) -> T:
        """Run a query in one view of the database."""
        return self._readers.look(query)

    def _read(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        return self._readers.read(lambda db: db.execute(query, values).fetchall())

    @contextmanager
    def view(self) -> Iterator[View]:
        """The database as it is at this moment, for as long as the block lasts; everybody else goes on."""
        try:
            link = open_link(self.place, self._closing, CHECK_S)
            try:
                link.execute(f"SET idle_in_transaction_session_timeout = 0; {BEGIN_VIEW}".encode())
                yield View(PostgresDatabase(link), self._codec, self._vault, self._seals, self._name)
            finally:
                link.close()
        except psycopg.Error as error:
            raise told(self.place, error) from error

    def free_bytes(self) -> int | None:
        """A server does not say."""
        return None

    def weaknesses(self) -> list[str]:
        """Those that were accepted with --unsafe-durability."""
        try:
            link = self._connect()
        except psycopg.Error as error:
            raise told(self.place, error) from error
        try:
            return schema.weaknesses(link, self.place)
        except psycopg.Error as error:
            raise told(self.place, error) from error
        finally:
            link.close()

    def integrity(self, quick: bool) -> list[str]:
        """On a connection of its own, which takes its time."""
        try:
            link = open_link(self.place, self._closing, CHECK_S)
        except psycopg.Error as error:
            raise told(self.place, error) from error
        try:
            return complaints(link, quick)
        except psycopg.Error as error:
            raise told(self.place, error) from error
        finally:
            link.close()
