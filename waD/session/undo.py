"""Putting back credentials that a reset, repair or logout has sealed (chapter 08 §6.7, §7.5; chapter 03 §8.7).

The sealed state is an old one: what was sent since on its conversations is not in it. So every pairwise session
becomes receive-only until its next key exchange, own sender keys go, and one-time prekeys are never offered again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from waD.e2ee.address import AddressError, SignalAddress
from waD.e2ee.errors import SignalError
from waD.e2ee.limits import MAX_PREKEY_ID
from waD.e2ee.record import SessionRecord
from waD.e2ee.session import mark_stale
from waD.events import model as events
from waD.link.credentials import MAX_SIGNED_PREKEYS, Credentials, CredentialsError, SignedPreKey
from waD.link.prekeys import OneTimePreKey, PreKeyRecordError
from waD.messaging import kinds
from waD.session.vitals import Clock
from waD.store.engine import Restored
from waD.store.model import Sealed, SealInfo
from waD.store.state import SessionState
from waD.store.store import Store

DAY_MS: Final = 86_400_000
PREKEY_ID_GAP: Final = 10_000
SIGNED_PREKEY_ID_GAP: Final = 16
"""Ids that may have been used since are left out (chapter 08 §7.5)."""
_EXPIRED: Final = frozenset({kinds.DEVICES})
"""Kinds that are fetched anew."""


class NothingToUndo(Exception):  # noqa: N818 - what is the case
    """There is nothing to put back, or it must not be; the message says why and what to do instead."""


@dataclass(slots=True)
class Revival:
    """A sealed state made fit to be used again.

    Attributes:
        creds: credentials.
        items: everything else by kind and key.
        receive_only: pairwise sessions.
        sender_keys: own ones that were dropped.
        stale_prekeys: one-time prekeys that are never uploaded again.
        damaged: items that could not be read and were dropped.
    """

    creds: Credentials
    items: dict[tuple[str, str], bytes]
    receive_only: int = 0
    sender_keys: int = 0
    stale_prekeys: int = 0
    damaged: int = 0


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
        revival = revive(creds, sealed, clock)
        data = {"reason": "undo", "restoredVersion": seal.version, "restoredEpoch": seal.epoch}
        restored = await state.restore_auth(
            revival.creds.serialize(), revival.items, _columns(revival.creds), (events.AUTH_RESTORED, data)
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


def revive(creds: Credentials, sealed: Sealed, clock: Clock) -> Revival:
    """Make a sealed state fit to be used again."""
    revival = Revival(_renumbered(creds, clock), {})
    for (kind, key), value in sealed.items.items():
        try:
            kept = _revived(kind, key, value, revival)
        except (SignalError, PreKeyRecordError, ValueError):
            revival.damaged += 1
        else:
            if kept is not None:
                revival.items[kind, key] = kept
    return revival


def _revived(kind: str, key: str, value: bytes, revival: Revival) -> bytes | None:
    if kind in _EXPIRED:
        return None
    if kind == kinds.SESSION:
        revival.receive_only += 1
        return mark_stale(SessionRecord.parse(value)).serialize()
    if kind == kinds.PREKEY:
        revival.stale_prekeys += 1
        prekey = OneTimePreKey.parse(int(key), value)
        return OneTimePreKey(prekey.id, prekey.key, "stale").serialize()
    if kind == kinds.SENDER_KEY and _is_own(key, revival.creds):
        revival.sender_keys += 1
        return None
    return value


def _is_own(key: str, creds: Credentials) -> bool:
    """Whether a sender key is this device's; the author's address is behind the group's."""
    try:
        author = SignalAddress.parse(key.rpartition("|")[2])
    except AddressError:
        return False
    own = {(jid.user, jid.device) for jid in (creds.me_pn, creds.me_lid) if jid is not None}
    return (author.user, author.device) in own


def _renumbered(creds: Credentials, clock: Clock) -> Credentials:
    """Ids that may be in use go unused, and the next login uploads a full lot and rotates the signed prekey."""
    now_ms = clock.unix_ms()
    due = msgspec.structs.replace(creds.signed_prekey, created_ms=0)
    # A candidate may have reached the server, so that messages made with it may come.
    staged = () if creds.rotation_candidate is None else (creds.rotation_candidate,)
    signed = (due, *staged, *creds.signed_prekeys[1:])[:MAX_SIGNED_PREKEYS]
    number = _later(max(key.id for key in signed), SIGNED_PREKEY_ID_GAP)
    return creds.change(
        signed_prekeys=signed,
        last_rotation_ms=0,
        rotation_candidate=SignedPreKey.make(number, creds.identity, clock.random, now_ms),
        next_prekey_id=_later(creds.next_prekey_id, PREKEY_ID_GAP),
        server_has_prekeys=False,
        routing_info=None,
    )


def _later(number: int, gap: int) -> int:
    return (number + gap - 1) % MAX_PREKEY_ID + 1


def _registered(document: bytes | None) -> Credentials | None:
    """Credentials of a linked device; None for anything else."""
    try:
        creds = None if document is None else Credentials.parse(document)
    except CredentialsError:
        return None
    return creds if creds is not None and creds.registered else None


def _columns(creds: Credentials) -> dict[str, str | None]:
    """What the session's row repeats of the credentials."""
    return {
        "me_pn": None if creds.me_pn is None else str(creds.me_pn),
        "me_lid": None if creds.me_lid is None else str(creds.me_lid),
        "push_name": creds.push_name or None,
        "business_name": creds.business_name or None,
        "platform": creds.platform or None,
    }
