"""Putting back credentials that a logout or the disconnect table has cleared, and sealed (chapter 08 §6.7, §7.5).

The sealed state is an old one: what was sent since on its conversations is not in it. So every pairwise session
becomes receive-only until its next key exchange, own sender keys go, and one-time prekeys are never offered again.
"""

from __future__ import annotations

from dataclasses import dataclass

from waD.events import model as events
from waD.link.credentials import Credentials, CredentialsError
from waD.session.vitals import Clock
from waD.store.engine import Restored
from waD.store.model import Sealed, SealInfo
from waD.store.state import SessionState
from waD.store.store import Store
from waD.transfer import reviving
from waD.transfer.reviving import DAY_MS as DAY_MS
from waD.transfer.reviving import Revival as Revival
from waD.transfer.state import AuthState


class NothingToUndo(Exception):  # noqa: N818 - what is the case
    """There is nothing to put back, or it must not be; the message says why and what to do instead."""


@dataclass(frozen=True, slots=True)
class Undone:
    """What was put back, made of what, and what the store says about it."""

    seal: SealInfo
    revival: Revival
    restored: Restored


async def undo(store: Store, state: SessionState, undo_days: float, clock: Clock) -> Undone:
    """Put the credentials back that were sealed last; there must be no connection.

    Args:
        store: where the seals are.
        state: of the session; whoever has views over it makes them anew afterwards.
        undo_days: older seals do not count.
        clock: time and chance.

    Raises:
        NothingToUndo: nothing was changed.
        StoreError: nothing was changed.
    """
    async with state.lock:
        seal, sealed, creds = await look(store, state, undo_days, clock)
        revival = revive(creds, sealed, clock, seal.sealed_at)
        data = {"reason": "undo", "restoredVersion": seal.version, "restoredEpoch": seal.epoch}
        restored = await state.restore_auth(
            revival.creds.serialize(),
            revival.items,
            reviving.columns(revival.creds),
            (events.AUTH_RESTORED, data),
        )
    return Undone(seal, revival, restored)


async def look(
    store: Store, state: SessionState, undo_days: float, clock: Clock
) -> tuple[SealInfo, Sealed, Credentials]:
    """What `undo` would put back; changes nothing, and raises as it does."""
    if _registered(state.creds) is not None:
        raise NothingToUndo("it is paired, so there is nothing to undo")
    return await find(store, state.session_id, undo_days, clock.unix_ms())


async def find(
    store: Store, session_id: str, undo_days: float, now_ms: int
) -> tuple[SealInfo, Sealed, Credentials]:
    """The newest credentials of a linked device that were sealed because they were cleared.

    Raises:
        NothingToUndo: there are none that are young enough.
        StoreError: they cannot be read.
    """
    seals = [seal for seal in await store.seals(session_id) if seal.reason == "pre_reset"]
    for seal in seals:
        if now_ms - seal.sealed_at > undo_days * DAY_MS:
            break
        sealed = await store.sealed(session_id, seal)
        creds = _registered(sealed.creds)
        if creds is not None:
            return seal, sealed, creds
    if seals:
        raise NothingToUndo(
            f"credentials that were cleared are older than reconnect.undo_days ({undo_days:g}), or were never paired"
        )
    raise NothingToUndo("no credentials of this session were cleared, so there are none to put back")


def revive(creds: Credentials, sealed: Sealed, clock: Clock, sealed_at: int | None = None) -> Revival:
    """Make a sealed state fit to be used again: sessions become receive-only (chapter 08 §7.5).

    Args:
        creds: of the seal.
        sealed: its content.
        clock: time and chance.
        sealed_at: when it was made; with it the prekeys get an end.
    """
    state = AuthState(creds, sealed.items)
    return reviving.revive(state, clock.unix_ms(), clock.random, "receive-only", backup_ms=sealed_at)


def _registered(document: bytes | None) -> Credentials | None:
    """Credentials of a linked device; None for anything else."""
    try:
        creds = None if document is None else Credentials.parse(document)
    except CredentialsError:
        return None
    return creds if creds is not None and creds.registered else None
