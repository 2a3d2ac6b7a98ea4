"""Archives of the auth states of sessions that run, made in worker threads; and the end of a session that moves.

The work itself is `waD.transfer.backup`'s (chapter 08 §7.4).
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import trio

from waD.control.api import ControlError
from waD.control.types import BackupParams
from waD.crashpoints import crashpoint
from waD.link.credentials import new_credentials
from waD.session.leases import release
from waD.session.moving import break_off
from waD.session.resting import at_rest, exchange
from waD.session.roster import Entry, Roster
from waD.session.spool import Spool
from waD.session.undo import NothingToUndo, Undone, find, undo
from waD.session.vitals import Clock
from waD.store.model import SessionRow
from waD.store.store import Store
from waD.transfer.backup import Made, Order, make_backup


class Backups:
    """Makes archives into a spool.

    Args:
        store: the open store.
        roster: the sessions that are attached.
        clock: time and chance.
        spool: for files on their way.
        program: name and version, for the manifest.
        limiter: of the worker threads.
    """

    def __init__(
        self,
        store: Store,
        roster: Roster,
        clock: Clock,
        spool: Spool,
        program: str,
        limiter: trio.CapacityLimiter,
    ) -> None:
        self._store = store
        self._roster = roster
        self._clock = clock
        self._spool = spool
        self._program = program
        self._limiter = limiter

    async def make(self, row: SessionRow, params: BackupParams) -> Made:
        """Write an archive and verify it; its file has a name until the spool takes it.

        Raises:
            BackupRefused, ArchiveError, StoreError, OSError: there is none.
        """
        order = Order(
            sessions=(row.id,),
            recipients=tuple(params.recipients),
            passphrase=params.passphrase,
            outbox=params.outbox,
            history=params.history,
            compress=params.compress,
            final=params.final,
        )

        def work() -> Made:
            directory = self._spool.prepare()
            now_ms = self._clock.unix_ms()
            return make_backup(self._store.engine.view, order, directory, self._program, now_ms)

        return await trio.to_thread.run_sync(work, limiter=self._limiter)

    async def move(self, row: SessionRow, entry: Entry, params: BackupParams) -> Made:
        """Archive the last state and retire the session before anybody gets the archive: never do two go on.

        Raises:
            ControlError: `damaged`: it would not work elsewhere, so it stays here.
            Busy, and as `make`: nothing was changed.
        """
        made = await at_rest(self._store, row, entry, partial(self._give_up, row, entry, params))
        await self.retire(row)
        return made

    async def _give_up(self, row: SessionRow, entry: Entry, params: BackupParams) -> Made:
        """Nothing is written between the archive's state and the new epoch: the lock is held."""
        state = entry.supervisor.state
        async with state.lock:
            made = await self.make(row, params)
            try:
                if not made.sound:
                    raise ControlError(
                        "damaged",
                        f"session {row.name!r} would not work where it is moved to, so it stays here: "
                        f"{made.sessions[0].report.errors[0]}",
                        {"errors": [str(note) for note in made.sessions[0].report.errors]},
                    )
                fresh = new_credentials(self._clock.random, self._clock.unix_ms()).serialize()
                crashpoint("move.before_reset")
                with trio.CancelScope(shield=True):
                    await state.reset_auth(fresh)
                crashpoint("move.after_reset")
            except BaseException:
                with suppress(OSError):
                    made.path.unlink(missing_ok=True)
                raise
        return made

    async def unretire(self, row: SessionRow, undo_days: float) -> Undone:
        """Bring a session back that was moved: its sealed state, as an old one; it stays down (chapter 08 §7.4).

        One that a move keeps that has not ended is sealed first, and that move has ended then.

        Args:
            row: of a retired session.
            undo_days: older seals do not count.

        Raises:
            NothingToUndo, Busy, StoreError: it stays retired.
        """
        if row.me_pn is not None:
            if not undo_days:
                raise NothingToUndo("reconnect.undo_days is 0, so that nothing that was cleared comes back")
            now_ms = self._clock.unix_ms()
            await break_off(self._store, row, new_credentials(self._clock.random, now_ms).serialize())
        await find(self._store, row.id, undo_days, self._clock.unix_ms())
        await self._store.create_session(row.name)
        try:
            _, entry = await self._roster.find(row.id)
            state = entry.supervisor.state
            work = partial(undo, self._store, state, undo_days, self._clock)
            return await exchange(entry, work)
        except Exception:
            await self.retire(row)
            raise

    async def retire(self, row: SessionRow) -> None:
        """Let a session never run again, unless it is made anew; raises StoreError."""
        async with self._roster.attaching:
            await self._store.update_session(row.id, desired_state="retired")
            entry = self._roster.entries.pop(row.id, None)
            if entry is not None:
                entry.supervisor.halt()
                await entry.done.wait()
                await release(self._store, [entry.supervisor])
