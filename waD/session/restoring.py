"""Putting the auth state of an archive into a session (chapter 08 §7.5)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

import trio

from waD.control.api import bad_param
from waD.control.types import RestoreParams
from waD.crashpoints import crashpoint
from waD.events import model as events
from waD.session.vitals import Clock
from waD.store.engine import Restored
from waD.store.errors import KekUnavailable, StoreDamaged
from waD.store.model import MessageRow, OutboxRow, SessionRow
from waD.store.names import NAME_RULE, SESSION_NAME
from waD.store.state import SessionState
from waD.store.store import Store
from waD.transfer import plans, reviving
from waD.transfer.archive import ArchiveError
from waD.transfer.archive_reading import Archive, ArchivedSession, open_archive
from waD.transfer.plans import Comparison, Plan, RestoreRefused, Target
from waD.transfer.reviving import Revival
from waD.transfer.state import AuthState, Report
from waD.transfer.verify import read_credentials, verify

T = TypeVar("T")

PAGE: Final = 500
HISTORY: Final = "messages"


@dataclass(frozen=True, slots=True)
class Taken:
    """A session of an archive that was read and verified.

    Attributes:
        session: as archived.
        state: its auth state.
        report: of the verification.
        created_ms: when the archive was made.
        final: made for a planned move.
        sha256: of the decrypted archive, in hex: what is restored exactly only once.
    """

    session: ArchivedSession
    state: AuthState
    report: Report
    created_ms: int
    final: bool
    sha256: str


@dataclass(frozen=True, slots=True)
class RestoreDone:
    """What was put in place, and what the store says about it."""

    revival: Revival
    restored: Restored


class Restoring:
    """One restore.

    Args:
        store: the open store.
        clock: time and chance.
        order: what is asked for.
    """

    def __init__(self, store: Store, clock: Clock, order: RestoreParams) -> None:
        self._store = store
        self._clock = clock
        self._order = order

    def take(self, file: BinaryIO, directory: Path) -> Taken:
        """Read and verify the session that is meant; blocking.

        Raises:
            ArchiveError: the archive is not to be used.
            RestoreRefused: it is not clear which session is meant.
        """
        with _opened(file, directory) as archive:
            listed = _chosen(archive, self._order.source)
            session = archive.session(listed)
            archive.check_rows(listed)
            report = Report()
            creds = read_credentials(session.creds, report)
            if creds is None:
                raise ArchiveError("creds_unreadable", report.errors[0].detail, session.listed.name)
            state = AuthState(creds, {name: item.document for name, item in session.items.items()})
            report.notes += verify(state, self._clock.unix_ms()).notes
            manifest = archive.manifest
            return Taken(session, state, report, manifest.created_ms, manifest.final, archive.sha256)

    async def plan(self, taken: Taken, name: str) -> Plan:
        """What would happen; changes nothing.

        Raises:
            RestoreRefused: something would be destroyed.
        """
        row = await self._store.session(name)
        await self._refuse_second_home(taken, row)
        if row is not None:
            await self._check(taken, row)
        elif not SESSION_NAME.fullmatch(name):
            raise bad_param("name", NAME_RULE)
        exact = await self.is_exact(taken)
        return plans.plan(taken.state, self._order.mode, exact=exact)

    async def apply(self, taken: Taken, file: BinaryIO, directory: Path, state: SessionState) -> RestoreDone:
        """Exchange the state; the session is at rest.

        Secrets of messages come first, since a state that goes on exactly is restored only once; they are of no use to
        anybody but the messages that they belong to.

        Raises:
            RestoreRefused: something would be destroyed; nothing was changed.
            ArchiveError, StoreError: nothing was changed, but for secrets that were added.
        """
        async with state.lock:
            row = await self._store.session(state.session_id)
            assert row is not None
            target = await self._check(taken, row)
            local = await self._local(row)
            exact = await self.is_exact(taken)
            revival = reviving.continued(taken.state) if exact else self._revive(taken, local)
            data = {
                "reason": "exact" if exact else "archive",
                "archive": self._order.sha256 or taken.sha256,
                "restoredEpoch": taken.session.listed.epoch,
                "restoredVersion": taken.session.listed.version,
                "peers": revival.peers,
            }
            await self._add_secrets(taken, file, directory, state)
            crashpoint("restore.before_commit")
            restored = await state.restore_auth(
                revival.creds.serialize(),
                revival.items,
                reviving.columns(revival.creds),
                (events.AUTH_RESTORED, data),
                least_epoch=plans.next_epoch(target, taken.session.listed),
                archive=bytes.fromhex(taken.sha256) if exact else None,
            )
        crashpoint("restore.after_commit")
        return RestoreDone(revival, restored)

    async def _add_secrets(self, taken: Taken, file: BinaryIO, directory: Path, state: SessionState) -> None:
        """Of two for one message the newer one stays (chapter 08 §7.5)."""
        async with _reading(file, directory) as archive:
            async for found in _pages(archive.secrets(taken.session.listed.id)):
                await state.merge_secrets(found)

    def _revive(self, taken: Taken, local: AuthState | None) -> Revival:
        return reviving.revive(
            taken.state,
            self._clock.unix_ms(),
            self._clock.random,
            self._order.mode,
            backup_ms=taken.created_ms,
            local=local,
            report=taken.report,
        )

    async def is_exact(self, taken: Taken) -> bool:
        """Whether the state goes on as it is: a planned move that arrives for the first time.

        Where it left, it has been given up: there it comes back as an old one only (chapter 08 §7.4).

        Raises:
            StoreError: the store cannot be read.
        """
        if not taken.final or await self._store.session(taken.session.listed.id) is not None:
            return False
        return taken.sha256 not in await self._store.read(self._store.engine.restored_archives)

    async def compare(self, taken: Taken, row: SessionRow) -> tuple[Comparison, Target]:
        """How the archive stands to what is in place (chapter 08 §7.7).

        Raises:
            StoreError: the state in place cannot be read.
        """
        found = await self._store.read(self._store.engine.auth_state, row.id)
        target = await self._target(row)
        listed = taken.session.listed
        same_epoch = target.identity_fp == listed.identity_fp and target.epoch == listed.epoch
        archived = {key: (item.version, item.document) for key, item in taken.session.items.items()}
        return plans.compare(archived, found.items, same_epoch=same_epoch), target

    async def _check(self, taken: Taken, row: SessionRow) -> Target:
        if await self._is_locked(row):
            raise RestoreRefused(
                "kek_unavailable",
                f"session {row.name!r} is encrypted with a key that is not here, so that it cannot be sealed: put the "
                "key back, or restore into another name, which retires this one",
            )
        target = await self._target(row)
        plans.check_target(taken.session.listed, target, rollback_anyway=self._order.rollback_anyway)
        own = taken.state.creds.me_pn
        if target.identity_fp is None and row.me_pn is not None and row.me_pn != str(own):
            raise RestoreRefused(
                "other_identity",
                f"session {row.name!r} belongs to another linked device, whose state cannot be read: restore into "
                "another name",
            )
        return target

    async def _local(self, row: SessionRow) -> AuthState | None:
        """The state in place; None where there is none that could be read."""
        try:
            found = await self._store.read(self._store.engine.auth_state, row.id)
        except (StoreDamaged, KekUnavailable):
            return None
        creds = None if found.creds is None else read_credentials(found.creds, Report())
        if creds is None:
            return None
        return AuthState(creds, {name: value for name, (_, value) in found.items.items()})

    async def _target(self, row: SessionRow) -> Target:
        local = await self._local(row)
        paired = local is not None and local.creds.registered
        fingerprint = None
        if paired and local is not None:
            fingerprint = hashlib.sha256(local.creds.identity.public).hexdigest()[:8]
        return Target(fingerprint, row.auth_epoch, row.auth_version)

    async def _is_locked(self, row: SessionRow) -> bool:
        """Whether nobody can read its state, since the operator's key is gone."""
        try:
            await self._store.read(self._store.engine.creds, row.id)
        except KekUnavailable:
            return True
        except StoreDamaged:
            return False
        return False

    async def locked_twins(self, taken: Taken) -> list[SessionRow]:
        """Sessions of the same linked device whose state nobody can read; they must never run again."""
        return [row for row in await self._twins(taken) if await self._is_locked(row)]

    async def _twins(self, taken: Taken) -> list[SessionRow]:
        wanted = taken.state.creds.me_pn
        rows = await self._store.sessions(include_retired=True)
        return [row for row in rows if wanted is not None and row.me_pn == str(wanted)]

    async def _refuse_second_home(self, taken: Taken, row: SessionRow | None) -> None:
        """One linked device in two sessions would be two owners of one state."""
        for other in await self._twins(taken):
            if (row is None or other.id != row.id) and not await self._is_locked(other):
                raise RestoreRefused(
                    "already_here",
                    f"the account's device is here as session {other.name!r}: restore into that one",
                )

    # What is added afterwards; rows that are there already stay as they are.

    async def add_rows(
        self, taken: Taken, file: BinaryIO, directory: Path, state: SessionState
    ) -> tuple[int, int]:
        """Add messages on their way out, held, and if that is wanted the history; returns how many of each.

        Raises:
            StoreError, ArchiveError: what was added by then stays.
        """
        listed = taken.session.listed.id
        held = messages = 0
        async with _reading(file, directory) as archive:
            async for rows in _pages(archive.outbox(listed, OutboxRow)):
                held += await self._add_outbox(rows, state)
            if self._order.history:
                async for found in _pages(archive.history(listed, HISTORY, MessageRow)):
                    messages += len(found)
                    async with state.lock:
                        unit = state.unit()
                        for message in found:
                            unit.add_message(message)
                        await state.commit(unit)
        return held, messages

    async def _add_outbox(self, rows: list[OutboxRow], state: SessionState) -> int:
        added = 0
        async with state.lock:
            unit = state.unit()
            for row in rows:
                if await state.outbox_by_ref(row.client_ref) or await state.outbox_by_message_id(
                    row.message_id
                ):
                    continue
                unit.enqueue(reviving.held(row))
                added += 1
            await state.commit(unit)
        return added


def _chosen(archive: Archive, source: str | None) -> str:
    """The id of the session that is meant."""
    listed = archive.manifest.sessions
    found = [one.id for one in listed if source in (None, one.id, one.name)]
    if len(found) != 1:
        names = ", ".join(one.name for one in listed)
        raise RestoreRefused("which_session", f"name one session of the archive: {names}")
    return found[0]


@contextmanager
def _opened(file: BinaryIO, directory: Path) -> Iterator[Archive]:
    """The archive in a file that others may read too, from its beginning."""
    with open(os.dup(file.fileno()), "rb") as own:
        own.seek(0)
        with open_archive(own, directory, None, Report()) as archive:
            yield archive


@asynccontextmanager
async def _reading(file: BinaryIO, directory: Path) -> AsyncIterator[Archive]:
    opened = _opened(file, directory)
    archive = await trio.to_thread.run_sync(opened.__enter__)
    try:
        yield archive
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(opened.__exit__, None, None, None)


async def _pages(rows: Iterator[T]) -> AsyncIterator[list[T]]:
    while page := await trio.to_thread.run_sync(lambda: list(islice(rows, PAGE))):
        yield page
