"""How the auth states of running sessions are stored: phases, comparison, encryption (chapter 08 §6.5, §8).

Each step first gathers every fact, then asks `waD.session.gates`, and only then changes anything, in one transaction
under the session's lock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from msgspec.structs import replace

from waD.control.api import ControlError, no_such_session
from waD.control.types import (
    BackfillParams,
    KeyList,
    PromoteParams,
    RetireParams,
    Rewrap,
    RewrapParams,
    RollbackParams,
    StorageLog,
    StorageLogParams,
    StorageOutcome,
    StorageParams,
    StorageResult,
    StorageStatus,
)
from waD.events import model as events
from waD.session import gates
from waD.session.authority import verdict
from waD.session.gates import Check, Step
from waD.session.keyring import key_list
from waD.session.orders import Busy
from waD.session.refusals import translated, wrong_state
from waD.session.roster import Entry, Roster
from waD.session.storage_facts import VERIFY_LEVEL, FactFinder, Found
from waD.session.storage_results import Told, outcome_of, require, result, to_log
from waD.session.vitals import MS, Clock
from waD.store.engine import Backfill, EncryptAuth, MovePhase, RewrapAuth, Rewrapped
from waD.store.errors import StoreError
from waD.store.model import SessionRow
from waD.store.phases import Phase
from waD.store.store import Store

KEK_LOSS: Final = (
    "without its key this state is lost: keep a copy of the key in another place, or backups that are encrypted to "
    "another one"
)


class StorageKeeper:
    """Implements `waD.control.api.Storage`.

    Args:
        store: the open store.
        roster: the sessions that are attached.
        clock: time and chance.
    """

    def __init__(self, store: Store, roster: Roster, clock: Clock) -> None:
        self._store = store
        self._roster = roster
        self._facts = FactFinder(store, clock)
        self._busy: set[str] = set()

    async def status(self, name: str) -> StorageStatus:
        """See `Storage.status`."""
        row = await self._roster.row(name)
        with translated(row.name):
            return await self._facts.status(row)

    async def log(self, order: StorageLogParams) -> StorageLog:
        """See `Storage.log`."""
        with translated(order.name):
            row = await self._store.session(order.name)
            if row is None:
                raise no_such_session(order.name)
            return await self._facts.log(row, order.limit)

    # Steps.

    async def dual_write(self, order: StorageParams) -> StorageResult:
        """See `Storage.dual_write`."""
        return await self._step("dual_write", order.name, order.dry_run)

    async def promote(self, order: PromoteParams) -> StorageResult:
        """See `Storage.promote`."""
        least = round(order.min_age * MS)
        return await self._step("promote", order.name, order.dry_run, min_age_ms=least)

    async def cutover(self, order: StorageParams) -> StorageResult:
        """See `Storage.cutover`."""
        return await self._step("cutover", order.name, order.dry_run)

    async def retire_legacy(self, order: RetireParams) -> StorageResult:
        """See `Storage.retire_legacy`."""
        row = await self._roster.row(order.name)
        return await self._step("retire_legacy", row.id, order.dry_run, confirmed=order.confirm == row.name)

    async def _step(self, step: Step, name: str, dry_run: bool, **told: Any) -> StorageResult:
        row, entry = await self._find(name)
        with self._alone(row):
            target = gates.TO[step]
            if row.auth_phase == target:
                return result(row, "nothing")
            require(step, row)
            found = await self._facts.gather(row, entry, **told)
            judged = gates.checks(step, found.facts)
            outcome = outcome_of(judged, dry_run)
            if outcome == "done":
                await self._move(entry, target, await to_log(judged, found))
            return result(row, outcome, target if outcome == "done" else None, judged, found.facts.comparison)

    async def backfill(self, order: BackfillParams) -> StorageResult:
        """See `Storage.backfill`."""
        row, entry = await self._find(order.name)
        with self._alone(row):
            if row.auth_phase == "backfilled":
                return result(row, "nothing")
            require("backfill", row)
            copied, finished = (0, False) if order.dry_run else await self._copy(entry, order)
            if finished:
                return await self._conclude_backfill(row, entry, copied)
            compared = await self._store.read(self._store.engine.compare, row.id)
            outcome: StorageOutcome = "possible" if order.dry_run else "unfinished"
            return result(row, outcome, compared=compared, copied=copied)

    async def _copy(self, entry: Entry, order: BackfillParams) -> tuple[int, bool]:
        """Batches, each a transaction of its own; returns how many items went, and whether there are no more."""
        state = entry.supervisor.state
        copied, batches = 0, 0
        while order.batches is None or batches < order.batches:
            async with state.lock:
                job = Backfill(state.session_id, state.row.lease_token, order.batch)
                count: int = await self._write(job)
            copied, batches = copied + count, batches + 1
            if count < order.batch:
                return copied, True
        return copied, False

    async def _conclude_backfill(self, row: SessionRow, entry: Entry, copied: int) -> StorageResult:
        found = await self._facts.gather(row, entry)
        judged = gates.checks("backfill", found.facts)
        outcome = outcome_of(judged, dry_run=False)
        if outcome == "done":
            await self._move(entry, "backfilled", await to_log(judged, found))
        phase: Phase | None = "backfilled" if outcome == "done" else None
        return result(row, outcome, phase, judged, found.facts.comparison, copied=copied)

    async def verify(self, order: StorageParams) -> StorageResult:
        """See `Storage.verify`."""
        row, entry = await self._find(order.name)
        with translated(row.name):
            found = await self._facts.gather(row, entry)
            if not order.dry_run:
                about = {
                    "level": VERIFY_LEVEL,
                    "ok": found.report.ok,
                    "errors": len(found.report.errors),
                }
                await self._store.append_event(row.id, events.AUTH_VERIFIED, about)
        compared = found.facts.comparison
        judged = []
        if compared is not None and compared.compared:
            # While the snapshot is being filled, what it lacks is no difference.
            filling = row.auth_phase == "dual_write"
            judged = [gates.equal(replace(compared, missing={}) if filling else compared)]
        outcome: StorageOutcome = "done" if found.report.ok and all(c.ok for c in judged) else "damaged"
        said = verdict(VERIFY_LEVEL, found.report, counts=found.counts, versions=found.versions)
        return result(row, outcome, judged=judged, compared=compared, verdict=said)

    # The way back.

    async def rollback(self, order: RollbackParams) -> StorageResult:
        """See `Storage.rollback`."""
        row, entry = await self._find(order.name)
        with self._alone(row):
            if order.to == row.auth_phase:
                return result(row, "nothing")
            try:
                way = gates.way_back(row.auth_phase, order.to)
            except ValueError as error:
                raise wrong_state(row.name, row.auth_phase, str(error)) from None
            found = await self._facts.gather(row, entry)
            judged = gates.checks("rollback", found.facts)
            outcome = outcome_of(judged, order.dry_run)
            if outcome != "done":
                return result(row, outcome, judged=judged, compared=found.facts.comparison)
            return await self._go_back(row, entry, way, judged, found)

    async def _go_back(
        self, row: SessionRow, entry: Entry, way: Sequence[Phase], judged: list[Check], found: Found
    ) -> StorageResult:
        told = await to_log(judged, found)
        if row.auth_phase == "cut_over" or _unusable(entry):
            await self._at_rest(row, entry, way[0], told)
        else:
            await self._move(entry, way[0], told)
        compared = await self._store.read(self._store.engine.compare, row.id)
        if row.auth_phase == "cut_over":
            judged = [*judged, gates.equal(compared)]
            if not compared.equal:
                return result(row, "damaged", way[0], judged, compared)
        for phase in way[1:]:
            await self._move(entry, phase, told)
        return result(row, "done", way[-1], judged, compared)

    async def _at_rest(self, row: SessionRow, entry: Entry, to: Phase, told: Told) -> None:
        """Move while there is no connection; afterwards the session does again what is wanted."""
        supervisor = entry.supervisor

        async def work() -> None:
            await self._move(entry, to, told)
            async with supervisor.state.lock:
                await supervisor.state.reload()

        try:
            await supervisor.at_rest(work)
        except Busy as busy:
            raise wrong_state(row.name, supervisor.vitals.status, str(busy)) from None
        finally:
            if row.desired_state == "up" and not row.held:
                supervisor.connect()

    # Encryption.

    async def encrypt(self, order: StorageParams) -> StorageResult:
        """See `Storage.encrypt`."""
        row, entry = await self._find(order.name)
        with self._alone(row):
            if row.kek_id is not None:
                return result(row, "nothing", notes=[f"it is encrypted with the key {row.kek_id!r}"])
            _, current = await self._store.read(self._store.engine.kek_ids)
            detail = (
                f"the key {current!r} is here"
                if current is not None
                else 'there is no key to encrypt with: set store.kek_file, and store.encrypt = "on"'
            )
            judged = [Check("kek", current is not None, detail)]
            notes = [KEK_LOSS, *await self._still_clear(row)]
            outcome = outcome_of(judged, order.dry_run)
            if outcome == "done":
                state = entry.supervisor.state
                async with state.lock:
                    await self._write(EncryptAuth(row.id, state.row.lease_token))
            return result(row, outcome, judged=judged, notes=notes)

    async def _still_clear(self, row: SessionRow) -> list[str]:
        size = await self._store.read(self._store.engine.auth_size, row.id)
        if not size.legacy_rows:
            return []
        text = (
            f"{size.legacy_rows} key-value rows stay in clear text, for the service that reads them, until "
        )
        return [f"{text}wactl storage retire-legacy {row.name}"]

    async def rewrap(self, order: RewrapParams) -> StorageResult:
        """See `Storage.rewrap`."""
        row = await self._also_retired(order.name)
        retired = row.desired_state == "retired"
        with self._alone(row):
            ids, current = await self._store.read(self._store.engine.kek_ids)
            wanted = order.kek or current
            here = wanted in ids
            detail = f"the key {wanted!r} is {'here' if here else 'not beside store.kek_file'}"
            judged = [Check("kek", here, detail if wanted else "no key is named, and none is in use")]
            outcome = outcome_of(judged, order.dry_run)
            if outcome != "done" or wanted is None:
                return result(row, outcome, judged=judged, retired=retired)
            done: Rewrapped = await self._write(RewrapAuth(row.id, wanted))
            notes = [f"{done.seals} sealed copies were wrapped as well"] if done.seals else []
            if done.left:
                notes.append(f"{done.left} sealed copies stay as they are: the key they need is not here")
            if row.kek_id is None:
                notes.append("its state is stored in the clear; wactl storage encrypt changes that")
            return result(
                row,
                "done" if done.own or done.seals else "nothing",
                judged=judged,
                notes=notes,
                retired=retired,
                rewrapped=Rewrap(sessions=int(done.own), seals=done.seals, left=done.left),
            )

    async def _also_retired(self, name: str) -> SessionRow:
        """The row, of a session that nobody else runs; a retired one can be brought back, and needs its key then."""
        with translated(name):
            row = await self._store.session(name)
        if row is not None and row.desired_state == "retired":
            self._roster.refuse_when_stopping()
            return row
        row, _ = await self._find(name)
        return row

    async def keys(self) -> KeyList:
        """See `Storage.keys`."""
        with translated():
            return await key_list(self._store)

    # Doing it.

    async def _find(self, name: str) -> tuple[SessionRow, Entry]:
        self._roster.refuse_when_stopping()
        return await self._roster.find(name)

    @contextmanager
    def _alone(self, row: SessionRow) -> Iterator[None]:
        """One step at a time for each session."""
        if row.id in self._busy:
            raise wrong_state(
                row.name, row.auth_phase, "another storage command is at work; wait until it is done"
            )
        self._busy.add(row.id)
        try:
            with translated(row.name):
                yield
        finally:
            self._busy.discard(row.id)

    async def _move(self, entry: Entry, to: Phase, told: Told) -> None:
        state = entry.supervisor.state
        async with state.lock:
            token = state.row.lease_token
            report = {**told.report, "leaseToken": token, "holder": state.row.lease_holder}
            await self._write(MovePhase(state.session_id, token, to, told.actor, report))

    async def _write(self, job: Any) -> Any:
        try:
            return await self._store.write(job)
        except ValueError as error:
            raise ControlError("refused", f"{error}; nothing was changed") from None


def _unusable(entry: Entry) -> bool:
    """Whether the state could not be read when the session was attached."""
    try:
        _ = entry.supervisor.state.creds
    except StoreError:
        return True
    return False
