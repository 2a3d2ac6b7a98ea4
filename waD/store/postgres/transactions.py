"""Transactions that survive a lost connection: nothing is done twice, and nothing is lost (chapter 08 §6.4)."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

import psycopg

from waD.store.errors import StorageUnavailable
from waD.store.postgres.database import PostgresDatabase, pipelined, refusal
from waD.store.postgres.faults import Silent, meaning, told
from waD.store.postgres.frozen import LOCKED, end_frozen
from waD.store.postgres.link import Closing, Link
from waD.store.postgres.listening import CAN_NOTIFY, NOTIFY
from waD.store.postgres.place import Place

T = TypeVar("T")

CONFLICTS: Final = 5
"""How often a transaction is repeated that another one got in the way of."""
CONFLICT_S: Final = 0.05
"""Pause before the first repetition; it doubles."""
FIRST_PAUSE_S: Final = 0.02
LONGEST_PAUSE_S: Final = 1.0
KEPT_DAYS: Final = 7
"""How long the mark of a writer that did not say goodbye stays."""
LOCK_MS: Final = 1_000
"""How long a statement waits for what another transaction holds, before that one is looked at; then it is repeated."""
_PATIENCE: Final = f"SET lock_timeout = {LOCK_MS}"
_INTRODUCE: Final = "INSERT INTO wa_writers (id) VALUES ($1) ON CONFLICT (id) DO NOTHING"
_FORGET_OLD: Final = f"DELETE FROM wa_writers WHERE at < now() - interval '{KEPT_DAYS} days' AND id <> $1"
_MARK: Final = "UPDATE wa_writers SET seq = ?, at = now() WHERE id = ?"
_GOODBYE: Final = "DELETE FROM wa_writers WHERE id = $1"
_OUTCOME: Final = "SELECT seq FROM wa_writers WHERE id = $1 FOR UPDATE"
_WHO: Final = "SELECT pid, backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()"
_END: Final = (
    # One that waits for a standby has committed already: to end it would only give up the standby's copy.
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start::text = $2 "
    "AND wait_event IS DISTINCT FROM 'SyncRep'"
)

_log = logging.getLogger(__name__)


class MarkLost(Exception):  # noqa: N818 - it names what is the case, and nobody sees it
    """The row that tells what became of a transaction is not there."""


class Patience:
    """How long a piece of work that fails may be tried again.

    Args:
        limit_s: after its first failure.
        closing: ends it at once.
    """

    def __init__(self, limit_s: float, closing: Closing) -> None:
        self._limit = limit_s
        self._closing = closing
        self._end: float | None = None
        self._pause = FIRST_PAUSE_S

    def wait(self) -> bool:
        """Wait a little, longer each time; says whether to try again."""
        now = time.monotonic()
        if self._end is None:
            self._end = now + self._limit
        if self._closing.begun or now >= self._end:
            return False
        self._closing.sleep(min(self._pause, self._end - now))
        self._pause = min(2 * self._pause, LONGEST_PAUSE_S)
        return True

    def started(self, at: float) -> None:
        """The first failure began then: somebody waited for it in vain since."""
        if self._end is None:
            self._end = at + self._limit


class Transactions:
    """The connection that writes.

    Every transaction raises a number in a row of its own (`wa_writers`). When the connection is lost during COMMIT,
    that row is read under a lock on a new one: the lock is there only once the lost transaction has ended, and the
    number then says how. This needs nothing of the server that compatible ones lack.

    Args:
        place: names the server in errors.
        connect: makes a connection that is checked.
        closing: ends all waiting.
        wait_s: how long a database that does not answer is waited for.
    """

    def __init__(self, place: Place, connect: Callable[[], Link], closing: Closing, wait_s: float) -> None:
        self._place = place
        self._connect = connect
        self._closing = closing
        self._wait_s = wait_s
        self._id = uuid.uuid4()
        self._seq = 0
        self._link: Link | None = None
        self._backend: tuple[int, str] | None = None
        self._notifies = False

    @property
    def backend_pid(self) -> int | None:
        """Process id of the server's end of the connection, the present one or the last."""
        return None if self._backend is None else self._backend[0]

    def run(self, work: Callable[[PostgresDatabase], T], undo: Callable[[], None]) -> T:
        """Run something in a transaction of its own; it is run again when it is certain that it was not committed.

        Args:
            work: what to do.
            undo: called after a run that was not committed, before the next.

        Raises:
            StorageUnavailable: the database did not answer for `wait_s`.
            StoreError: it refuses.
            RefusedError: it does not take what was to be written, and said so only when asked to commit it.
        """
        patience, conflicts = Patience(self._wait_s, self._closing), 0
        while True:
            began = time.monotonic()
            try:
                return self._once(work, patience)
            except MarkLost:  # somebody has cleaned up: the row must be there before a transaction begins
                undo()
                self._drop()
            except psycopg.Error as error:
                undo()
                why = meaning(error)
                if why == "lost":
                    if isinstance(error, Silent):
                        patience.started(began)
                    self._lose(error)
                    if patience.wait():
                        continue
                elif why == "conflict" and conflicts < CONFLICTS:
                    self._closing.sleep(CONFLICT_S * 2**conflicts)
                    conflicts += 1
                    continue
                elif why == "refused":
                    raise refusal(error) from error
                raise told(self._place, error) from error

    def close(self) -> None:
        """Say goodbye, if anybody listens."""
        if self._link is not None:
            with suppress(psycopg.Error):
                if self._link.usable:
                    self._link.execute(_GOODBYE, (self._id,))
            self._drop()

    def _once(self, work: Callable[[PostgresDatabase], T], patience: Patience) -> T:
        link = self._connected()
        seq = self._seq = self._seq + 1
        done: tuple[T, float] | None = None  # what work gave, and when the server was asked to commit it
        try:
            with pipelined(link) as pipeline:
                db = PostgresDatabase(link, pipeline)
                db.execute("BEGIN")
                marked = db.execute(_MARK, (seq, self._id))
                result = work(db)
                if marked.rowcount == 0:  # and before COMMIT goes, the row is locked
                    raise MarkLost
                if db.appends and self._notifies:
                    db.execute(NOTIFY)
                done = result, time.monotonic()
                # Half of the time for the answer, so that the other half is left to find out what became of it.
                link.silence_s = self._wait_s / 2
                status = db.finish("COMMIT")
        except psycopg.Error as error:
            if done is None or (meaning(error) != "lost" and not link.closed):
                _roll_back(link)  # it was not asked to, or says that it did not
                if error.sqlstate == "54000":
                    self._notifies = False  # somebody lets notifications pile up: do without
                raise
            result, began = done
            if isinstance(error, Silent):
                patience.started(began)
            if not self._was_committed(seq, patience, error):
                raise
            return result
        except BaseException:
            _roll_back(link)
            raise
        finally:
            link.silence_s = self._wait_s
        if status() != "COMMIT":
            raise StorageUnavailable(
                f"{self._place} rolled back a transaction that we did not know to have failed"
            )
        return result

    def _was_committed(self, seq: int, patience: Patience, lost: psycopg.Error) -> bool:
        """Whether a transaction whose COMMIT got no answer is there.

        Raises:
            StorageUnavailable: it could not be found out in time.
        """
        self._lose(lost)
        while True:
            try:
                found = self._connected().execute(_OUTCOME, (self._id,)).fetchone()
            except psycopg.Error as error:
                if meaning(error) == "lost":
                    self._lose(error)
                if patience.wait():
                    continue
                raise StorageUnavailable(
                    f"{self._place} did not say whether it took the last commit ({told(self._place, error)})"
                ) from error
            done = found is not None and found[0] >= seq
            _log.warning(
                "the connection to %s was lost during a commit, which was %s", self._place,
                "made" if done else "not made and is repeated",
            )  # fmt: skip
            return done

    def _connected(self) -> Link:
        """A connection that is in no transaction; on a new one whatever is left of the old one is ended."""
        if self._link is not None and self._link.usable:
            return self._link
        self._drop()
        link = self._connect()
        try:
            if self._backend is not None:
                link.execute(_END, self._backend)
            link.execute(_PATIENCE)
            link.execute(_INTRODUCE, (self._id,))
            if self._backend is None:
                link.execute(_FORGET_OLD, (self._id,))
            found = link.execute(_WHO).fetchone()
            (self._notifies,) = link.execute(CAN_NOTIFY.encode()).fetchone() or (False,)
        except BaseException:
            link.close()
            raise
        self._backend = None if found is None else (found[0], found[1])
        self._link = link
        return link

    def _lose(self, error: psycopg.Error) -> None:
        """A lock that is held is no fault of the connection, but perhaps of who holds it; everything else is."""
        if error.sqlstate != LOCKED or self._link is None or not self._link.usable:
            self._drop()
            return
        try:
            end_frozen(self._link)
        except psycopg.OperationalError:
            self._drop()

    def _drop(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None


def _roll_back(link: Link) -> None:
    try:
        if not link.closed:
            link.execute(b"ROLLBACK")
    except psycopg.Error:
        link.close()
