"""The facts that decide about a phase of storage, gathered from the store (chapter 08 §6.5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import trio

from waD.control.types import CheckView, PhaseChange, StorageLog, StorageStatus
from waD.events import model as events
from waD.session.gates import DAY_MS, Facts
from waD.session.roster import Entry
from waD.session.verifying import verify_session
from waD.session.vitals import Clock
from waD.store.engine import Comparison
from waD.store.errors import StoreDamaged
from waD.store.model import EventRow, SessionRow
from waD.store.store import Store
from waD.transfer.state import Report

VERIFY_LEVEL: Final = 3
LOG_ROWS: Final = 50
"""Phase changes that are looked through for the beginning of the present phase."""
MAX_EVENTS: Final = 10_000
UNREADABLE: Final = frozenset({"store_damaged", "kek_unavailable"})
_ALARMING: Final = frozenset({"warning", "critical"})


@dataclass(frozen=True, slots=True)
class Found:
    """The facts, and what the verification behind them said."""

    facts: Facts
    report: Report
    counts: dict[str, int]
    versions: dict[str, int]


@dataclass(frozen=True, slots=True)
class Since:
    """The beginning of the present phase: when, under which token, by which process."""

    at_ms: int
    token: int
    holder: str | None


class FactFinder:
    """Gathers facts; changes nothing.

    Args:
        store: the open store.
        clock: time and chance.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._limiter = trio.CapacityLimiter(1)

    async def gather(self, row: SessionRow, entry: Entry | None, **told: Any) -> Found:
        """Everything that `waD.session.gates` looks at; verifies and compares the state.

        Args:
            row: the session's row.
            entry: the session.
            **told: facts that only the operator knows.

        Raises:
            StoreError: the store cannot be read.
        """
        now_ms, engine = self._clock.unix_ms(), self._store.engine
        supervisor = None if entry is None else entry.supervisor
        report, counts, versions = await verify_session(
            self._store, row, supervisor, VERIFY_LEVEL, now_ms, self._limiter
        )
        since = await self._since(row)
        errors = await self._events(row, events.STORAGE_WRITE_FAILED, since.at_ms)
        size = await self._store.read(engine.auth_size, row.id)
        seals = await self._store.seals(row.id)
        facts = Facts(
            phase=row.auth_phase,
            now_ms=now_ms,
            since_ms=since.at_ms,
            restarts=restarts(row, since, shared=engine.shared),
            fallback_hits=await self._fallbacks(row, since.at_ms),
            storage_errors=len(errors),
            alarms=await self._alarms(row, now_ms - DAY_MS),
            comparison=await self._compare(row),
            lag=row.auth_version - row.legacy_version,
            readable=not UNREADABLE & {note.code for note in report.errors},
            faults=tuple(str(note) for note in report.errors),
            sealed_ms=seals[0].sealed_at if seals else None,
            backup_ms=await self._last(row, events.AUTH_BACKUP),
            free_bytes=await self._store.read(engine.free_bytes),
            state_bytes=size.bytes,
            weaknesses=tuple(await self._store.read(engine.weaknesses)),
            **told,
        )
        return Found(facts, report, counts, versions)

    async def status(self, row: SessionRow) -> StorageStatus:
        """How a session is stored; a quick look.

        Raises:
            StoreError: the store cannot be read.
        """
        engine = self._store.engine
        since = await self._since(row)
        size = await self._store.read(engine.auth_size, row.id)
        seals = await self._store.seals(row.id)
        verified = await self._store.last_event(row.id, events.AUTH_VERIFIED)
        return StorageStatus(
            name=row.name,
            connection_id=row.id,
            phase=row.auth_phase,
            phase_since=since.at_ms,
            epoch=row.auth_epoch,
            version=row.auth_version,
            legacy_version=row.legacy_version,
            lag=row.auth_version - row.legacy_version,
            items=size.items,
            legacy_rows=size.legacy_rows,
            bytes=size.bytes,
            fallback_hits=await self._fallbacks(row, since.at_ms),
            restarts=restarts(row, since, shared=engine.shared),
            sealed_at=seals[0].sealed_at if seals else None,
            verified_at=None if verified is None else verified.time,
            verified_level=None if verified is None else verified.data.get("level"),
            verified_ok=None if verified is None else verified.data.get("ok"),
            backup_at=await self._last(row, events.AUTH_BACKUP),
            encrypted=row.kek_id is not None,
            kek=row.kek_id,
            kek_here=await self._store.read(engine.locked, row.id) is None,
            seal_keks=await self._store.read(engine.seal_keks, row.id),
        )

    async def log(self, row: SessionRow, limit: int) -> StorageLog:
        """The newest changes of a session's phase, newest first.

        Raises:
            StoreError: the store cannot be read.
        """
        found = await self._store.read(self._store.engine.phase_log, row.id, limit)
        changes = [
            PhaseChange(
                was=entry["from"],
                phase=entry["to"],
                actor=entry["actor"],
                at=entry["at"],
                checks=[*_checks(entry["report"])],
            )
            for entry in found
        ]
        return StorageLog(name=row.name, connection_id=row.id, changes=changes)

    async def _since(self, row: SessionRow) -> Since:
        """From the phase log; a session that was made in its phase is in it since then."""
        log = await self._store.read(self._store.engine.phase_log, row.id, LOG_ROWS)
        newest = next((entry for entry in log if entry["to"] == row.auth_phase), None)
        if newest is None:
            return Since(row.created_at, 1, None)
        report = newest["report"]
        return Since(newest["at"], int(report.get("leaseToken", row.lease_token)), report.get("holder"))

    async def _compare(self, row: SessionRow) -> Comparison | None:
        try:
            return await self._store.read(self._store.engine.compare, row.id)
        except StoreDamaged:
            return None

    async def _events(self, row: SessionRow, event_type: str, since_ms: int) -> list[EventRow]:
        return await self._store.read(
            self._store.engine.newest_events, row.id, [event_type], since_ms, MAX_EVENTS
        )

    async def _fallbacks(self, row: SessionRow, since_ms: int) -> int:
        hits = await self._events(row, events.STORAGE_FALLBACK, since_ms)
        return sum(int(event.data.get("count", 1)) for event in hits)

    async def _alarms(self, row: SessionRow, since_ms: int) -> int:
        found = await self._events(row, events.ALERT_RAISED, since_ms)
        return sum(event.data.get("severity") in _ALARMING for event in found)

    async def _last(self, row: SessionRow, event_type: str) -> int | None:
        event = await self._store.last_event(row.id, event_type)
        return None if event is None else event.time


def _checks(report: Any) -> Iterator[CheckView]:
    """What was demanded, from a report of the phase log; one that an import wrote has none."""
    for one in report.get("checks", []):
        yield CheckView(check=str(one["check"]), ok=bool(one["ok"]), detail=str(one["detail"]))


def restarts(row: SessionRow, since: Since, *, shared: bool) -> int:
    """How often a session was taken up since its phase began, at least.

    Each time its token grows by one. Where leases are given back it also grows at a clean stop, which cannot be told
    apart: there two steps count as one restart, and another process than then as one at least.
    """
    grown = max(0, row.lease_token - since.token)
    if not shared:
        return grown
    another = since.holder is not None and row.lease_holder not in (None, since.holder)
    return max(grown // 2, int(another and grown > 0))
