"""Jobs that share a transaction, done together: what several units do is one statement, not one for each.

Units of different sessions touch different rows, so that their statements may be put in each other's order. Nothing
here deals with a job that fails: then all of it is undone, and done again one by one (`waD.store.sql.jobs`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias

import psycopg

from waD.store.engine import CommitUnit, Job, Outcome
from waD.store.postgres.database import PostgresDatabase
from waD.store.sql.database import Ms, ms
from waD.store.sql.jobs import Jobs
from waD.store.sql.writing import FENCE_FOUND, FENCE_STEP, TALLY, UnitWriter, ask_fence
from waD.store.unit import ItemKey

Wave: TypeAlias = list[CommitUnit]
"""Units of different sessions."""

_FENCE: Final = (
    f"UPDATE wa_sessions SET {FENCE_STEP}, updated_at=v.at, last_message_at=coalesce(v.message_at, last_message_at) "
    "FROM (VALUES (CAST(? AS uuid), CAST(? AS bigint), CAST(? AS bigint), CAST(? AS timestamptz), "
    "CAST(? AS timestamptz))) v (session, token, epoch, at, message_at) "
    f"WHERE id=v.session AND lease_token=v.token AND (auth_epoch=v.epoch OR v.epoch=0) RETURNING {FENCE_FOUND}"
)
"""The fence of units that change nothing else of their session's row than what each received message does."""
_CHECKSUMS: Final = (
    "SELECT v.session, i.type, i.id, i.checksum FROM (VALUES (CAST(? AS uuid), ?, ?)) v (session, type, id) "
    "JOIN wa_auth_items i ON i.session_id=v.session AND i.type=v.type AND i.id=v.id"
)


class OneFailed(Exception):  # noqa: N818 - it names what is the case, and nobody but the engine sees it
    """One of the jobs cannot be done; the cause says why."""


def together(db: PostgresDatabase, jobs: Jobs, group: Sequence[Job]) -> list[Outcome]:
    """Do all jobs of a group; the caller has begun a transaction and commits it afterwards.

    Raises:
        OneFailed: the transaction is of no use.
        psycopg.Error: nor is it then, and that is no fault of a job.
    """
    db.stacks = True
    jobs.begin()
    outcomes: list[Outcome] = []
    try:
        for one in _waves(group):
            if isinstance(one, list):
                outcomes += _write(db, jobs, one)
            else:
                outcomes.append(jobs.do(db, one))
        jobs.flush(db)
    except psycopg.Error:
        raise
    except Exception as error:
        raise OneFailed from error
    return outcomes


def _waves(group: Sequence[Job]) -> Iterator[Wave | Job]:
    """The jobs in their order; units in a row that are of different sessions are a wave."""
    wave: Wave = []
    sessions: set[str] = set()
    for job in group:
        if wave and (not isinstance(job, CommitUnit) or job.session_id in sessions):
            yield wave
            wave, sessions = [], set()
        if isinstance(job, CommitUnit):
            wave.append(job)
            sessions.add(job.session_id)
        else:
            yield job
    if wave:
        yield wave


def _write(db: PostgresDatabase, jobs: Jobs, wave: Wave) -> list[Outcome]:
    """Fences and old checksums are one round trip, and what is written is the next one."""
    strands = [db.strand() for _ in wave]
    writers = [jobs.unit_writer(strand) for strand in strands]
    found = [_fence(*one) for one in zip(strands, wave, writers, strict=True)]
    checksums = [_checksums(*one) for one in zip(strands, wave, strict=True)]
    db.braid(strands)
    for job, writer, fence, old in zip(wave, writers, found, checksums, strict=True):
        writer.apply(job.session_id, job.token, fence(), job.unit, old())
    db.braid(strands)
    tallies = [row for writer in writers if (row := writer.tally_row()) is not None]
    if tallies:
        db.executemany(TALLY, tallies)
    return [writer.committed() for writer in writers]


def _fence(strand: PostgresDatabase, job: CommitUnit, writer: UnitWriter) -> Callable[[], Any]:
    changes = job.unit.session
    if changes.keys() - {"last_message_at"} or (changes and changes["last_message_at"] is None):
        return ask_fence(strand, job.session_id, (job.token, job.epoch), changes, writer.now)
    last = ms(changes.get("last_message_at"))
    return strand.promise(_FENCE, (job.session_id, job.token, job.epoch, Ms(writer.now), last))


def _checksums(strand: PostgresDatabase, job: CommitUnit) -> Callable[[], dict[ItemKey, bytes]]:
    if not job.unit.items:
        return dict
    asked = strand.executemany(_CHECKSUMS, [(job.session_id, *item) for item in job.unit.items])
    return lambda: {(kind, key): bytes(value) for _, kind, key, value in asked.fetchall()}
