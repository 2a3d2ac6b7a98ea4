"""Leases where several daemons use one database: kept alive, lost safely, taken over (chapter 08 §6.4).

A session runs in the one process that has its lease. Who cannot renew it in time sends nothing any more, whether it
knows of its successor or not: `SessionState.owned` looks at this machine's own clock, which goes on while the process
is stopped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final

import trio

from waD.link.causes import cause
from waD.session.holders import is_gone
from waD.session.supervisor import Supervisor
from waD.store.engine import ReleaseLease, Renewed, RenewLeases
from waD.store.errors import StoreError
from waD.store.model import SessionRow
from waD.store.store import Store

RENEWALS: Final = 3
"""So often a lease is renewed in its life."""
LOOKS: Final = 10
"""So often sessions are looked for that nobody runs any more."""

_log = logging.getLogger(__name__)


async def run_leases(store: Store, attached: Callable[[], Iterable[Supervisor]]) -> None:
    """Renew the leases of the attached sessions until cancelled; returns at once where there is nobody else."""
    while store.engine.shared:
        await renew(store, list(attached()))
        await trio.sleep(store.settings.lease_ms / 1000 / RENEWALS)


def look_s(store: Store) -> float:
    """Seconds between two looks for sessions that nobody runs any more."""
    return store.settings.lease_ms / 1000 / LOOKS


async def renew(store: Store, supervisors: list[Supervisor]) -> None:
    """Renew once. A session whose lease is somebody else's is given up."""
    wanted = {one.state.session_id: one for one in supervisors if not one.lost}
    if not wanted:
        return
    lease_ms = store.settings.lease_ms
    until = trio.current_time() + lease_ms / 1000
    leases = [(name, one.state.row.lease_token) for name, one in wanted.items()]
    try:
        renewed: Renewed = await store.write(RenewLeases(leases, lease_ms))
    except StoreError as error:
        _log.error("the leases of %d sessions could not be renewed: %s", len(leases), error)
        return
    for name, one in wanted.items():
        if name in renewed.sessions:
            one.state.renewed(until)
        else:
            give_up(one)


def give_up(supervisor: Supervisor) -> None:
    """Somebody else runs the session: end its connection, without a word on it."""
    _log.error("session %s: its lease is somebody else's", supervisor.vitals.name)
    link = supervisor.link
    if link is not None:
        link.fail(cause("lease_lost", "another process runs the session"))


async def release(store: Store, supervisors: Iterable[Supervisor]) -> None:
    """Let others have the sessions at once, at an orderly end."""
    if not store.engine.shared:
        return
    for one in supervisors:
        if one.lost:
            continue
        try:
            await store.write(ReleaseLease(one.state.session_id, one.state.row.lease_token))
        except StoreError as error:
            _log.warning("session %s: its lease runs out by itself: %s", one.vitals.name, error)


async def without_a_daemon(store: Store) -> list[SessionRow]:
    """Sessions whose lease has ended, and those of a process of this machine that is no more; raises StoreError."""
    free = await store.read(store.engine.unleased)
    rows = await store.sessions()
    return [row for row in rows if row.id in free or is_gone(row.lease_holder or "")]
