"""Putting the auth state of an archive into a session (chapter 08 §7.5)."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import trio

from waD.control.types import RestoreParams
from waD.session.replacing import Old, Replacing
from waD.session.vitals import Clock
from waD.store.model import MessageRow, OutboxRow, SessionRow
from waD.store.state import SessionState
from waD.store.store import Store
from waD.transfer import plans, reviving
from waD.transfer.archive import SECRETS, ArchiveError
from waD.transfer.archive_reading import Archive, ArchivedSession, open_archive
from waD.transfer.plans import Comparison, RestoreRefused, Target
from waD.transfer.state import AuthState, Report
from waD.transfer.verify import read_credentials, verify

T = TypeVar("T")

PAGE: Final = 500
HISTORY: Final = "messages"


@dataclass(frozen=True, slots=True)
class Taken(Old):
    """A session of an archive that was read and verified.

    Attributes:
        session: as archived.
        final: made for a planned move.
        sha256: of the decrypted archive, in hex: what is restored exactly only once.
        reopen: the archive, for the rows that are added.
        secrets: how many secrets of messages are with it.
    """

    session: ArchivedSession
    final: bool
    sha256: str
    reopen: Callable[[], AbstractAsyncContextManager[Archive]]
    secrets: int


class Restoring(Replacing[Taken]):
    """One restore of an archive.

    Args:
        store: the open store.
        clock: time and chance.
        order: what is asked for.
    """

    def __init__(self, store: Store, clock: Clock, order: RestoreParams) -> None:
        super().__init__(store, clock, order, "archive")
        self._order = order

    def take(self, file: BinaryIO, directory: Path) -> Taken:
        """Read and verify the session that is meant; blocking.

        Raises:
            ArchiveError: the archive is not to be used.
            RestoreRefused: it is not clear which session is meant.
        """
        with _opened(file, directory) as archive:
            chosen = _chosen(archive, self._order.source)
            session = archive.session(chosen)
            rows = archive.check_rows(chosen)
            report = Report()
            creds = read_credentials(session.creds, report)
            if creds is None:
                raise ArchiveError("creds_unreadable", report.errors[0].detail, session.listed.name)
            state = AuthState(creds, {name: item.document for name, item in session.items.items()})
            report.notes += verify(state, self._clock.unix_ms()).notes
            manifest = archive.manifest
            return Taken(
                session.listed,
                state,
                report,
                manifest.created_ms,
                session,
                manifest.final,
                archive.sha256,
                partial(_reading, file, directory),
                rows.get(SECRETS, 0),
            )

    async def is_exact(self, old: Taken, row: SessionRow | None = None) -> bool:  # noqa: ARG002 - of the base
        """Whether it is a planned move that arrives for the first time.

        Where it left, it has been given up: there it comes back as an old one only (chapter 08 §7.4).

        Raises:
            StoreError: the store cannot be read.
        """
        if not old.final or await self._store.session(old.session.listed.id) is not None:
            return False
        return old.sha256 not in await self._store.read(self._store.engine.restored_archives)

    def _event(self, old: Taken, *, exact: bool) -> dict[str, Any]:
        archive = self._order.sha256 or old.sha256
        return {"reason": "exact" if exact else "archive", "archive": archive}

    def _once(self, old: Taken) -> bytes:
        return bytes.fromhex(old.sha256)

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

    # What is added; rows that are there already stay as they are.

    async def _add_secrets(self, old: Taken, state: SessionState) -> None:
        if not old.secrets:
            return
        async with old.reopen() as archive:
            async for found in _pages(archive.secrets(old.session.listed.id)):
                await state.merge_secrets(found)

    async def add_rows(self, taken: Taken, state: SessionState) -> tuple[int, int]:
        """Add messages on their way out, held, and if that is wanted the history; returns how many of each.

        Raises:
            StoreError, ArchiveError: what was added by then stays.
        """
        listed = taken.session.listed.id
        held = messages = 0
        async with taken.reopen() as archive:
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
