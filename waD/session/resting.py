"""Exchanging a session's credentials while it is at rest, and what is wanted of it if that fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import trio

from waD.session.roster import Entry
from waD.store.errors import StoreError
from waD.store.model import SessionRow
from waD.store.store import Store

T = TypeVar("T")


async def at_rest(store: Store, row: SessionRow, entry: Entry, work: Callable[[], Awaitable[T]]) -> T:
    """Take a session down for good and do the work; if it fails, the session does again what was wanted.

    Args:
        store: where its row is.
        row: as it was before.
        entry: the session.
        work: changes everything or nothing.

    Raises:
        Busy: such work is going on already.
        whatever `work` raises.
    """
    await store.update_session(row.id, desired_state="down")
    try:
        return await exchange(entry, work)
    except Exception:
        with trio.CancelScope(shield=True):
            await store.update_session(row.id, desired_state=row.desired_state)
        if row.desired_state == "up":
            entry.supervisor.connect()
        raise


async def exchange(entry: Entry, work: Callable[[], Awaitable[T]]) -> T:
    """Do the work while the session is at rest; afterwards it is stopped, also if it never was connected.

    Raises:
        Busy: such work is going on already.
        whatever `work` raises.
    """

    async def whole() -> T:
        done = await work()
        vitals = entry.supervisor.vitals
        if vitals.status == "new":
            with (
                trio.CancelScope(shield=True),
                suppress(StoreError),
            ):  # the work is done, whatever it is called
                await vitals.enter("stopped", cause="stop")
        return done

    return await entry.supervisor.at_rest(whole)
