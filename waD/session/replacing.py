"""Putting an auth state of the past in place of a session's own: what is refused, and how it is done (chapter 08 §7.5).

Where it comes from, an archive or a seal, is others' matter: `waD.session.restoring`, `waD.session.resealing`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from waD.crashpoints import crashpoint
from waD.events import model as events
from waD.link.credentials import Credentials
from waD.session.vitals import Clock
from waD.store.engine import Locked, Restored
from waD.store.errors import KekUnavailable, StoreDamaged
from waD.store.model import SessionRow
from waD.store.state import SessionState
from waD.store.store import Store
from waD.transfer import plans, reviving
from waD.transfer.plans import Plan, RestoreRefused, Saved, Target
from waD.transfer.reviving import Mode, Revival
from waD.transfer.state import AuthState, Report
from waD.transfer.verify import read_credentials

WAITING: Final = ("queued", "held", "sending")


class Wish(Protocol):
    """How it is wanted; see `waD.control.types.RestoreParams`."""

    @property
    def mode(self) -> Mode:
        """What becomes of conversations."""
        ...

    @property
    def rollback_anyway(self) -> bool:
        """Replace a state that is newer."""
        ...

    @property
    def replace_unreadable(self) -> bool:
        """Replace a state although nothing tells whose it is."""
        ...


@dataclass(frozen=True, slots=True)
class Old:
    """A state of the past that was read and verified.

    Attributes:
        saved: its epoch, version and identity.
        state: the auth state.
        report: of the verification.
        created_ms: when it was saved.
    """

    saved: Saved
    state: AuthState
    report: Report
    created_ms: int


@dataclass(frozen=True, slots=True)
class RestoreDone:
    """What was put in place, and what the store says about it."""

    revival: Revival
    restored: Restored


OldT = TypeVar("OldT", bound=Old)


class Replacing(ABC, Generic[OldT]):
    """One state that is put in place of another.

    Args:
        store: the open store.
        clock: time and chance.
        wish: how it is wanted.
        what: the state is of, for errors.
    """

    def __init__(self, store: Store, clock: Clock, wish: Wish, what: str) -> None:
        self._store = store
        self._clock = clock
        self._wish = wish
        self._what = what
        self._promised = False

    @abstractmethod
    async def is_exact(self, old: OldT, row: SessionRow | None) -> bool:
        """Whether the state goes on as it is, since nothing can have happened after it.

        Raises:
            StoreError: the store cannot be read.
        """

    @abstractmethod
    def _event(self, old: OldT, *, exact: bool) -> dict[str, Any]:
        """What the event says of where it comes from."""

    def _once(self, old: OldT) -> bytes | None:  # noqa: ARG002 - others need it
        """What must never be restored exactly again."""
        return None

    def _texts(self, old: OldT) -> Mapping[str, bytes]:  # noqa: ARG002 - others need it
        """Payloads of messages that failed while the key of this state was gone, by message id."""
        return {}

    async def _add_secrets(self, old: OldT, state: SessionState) -> None:
        """Merge the secrets of messages: of two for one message the newer one stays (chapter 08 §7.5)."""

    async def plan(self, old: OldT, row: SessionRow | None) -> Plan:
        """What would happen; changes nothing. What cannot be read in place becomes a warning of the report.

        Args:
            old: the state.
            row: of the session whose state is replaced, None for one that would be made.

        Raises:
            RestoreRefused: something would be destroyed, or could not be stored.
        """
        await self._refuse_second_home(old, row)
        locked = None if row is None else await self._store.read(self._store.engine.locked, row.id)
        lost = await self._store.read(self._store.engine.kek_lost)
        if lost and (row is None or locked is not None):
            raise RestoreRefused("kek_unavailable", lost)
        if row is not None:
            await self._check(old, row, locked)
        if row is not None and locked is not None:
            old.report.warn("state_locked", "", await self._what_is_locked(row, locked))
        self._promised = await self.is_exact(old, row)
        return plans.plan(old.state, self._wish.mode, exact=self._promised)

    async def apply(self, old: OldT, state: SessionState) -> RestoreDone:
        """Exchange the state; the session is at rest.

        Secrets of messages come first, since a state that goes on exactly is restored only once, and they are of no use
        to anybody but the messages that they belong to. Where the key in place is lost they need the new one.

        Raises:
            RestoreRefused: something would be destroyed; nothing was changed.
            ArchiveError, StoreError: nothing was changed, but for secrets that were added.
        """
        async with state.lock:
            row = await self._store.session(state.session_id)
            assert row is not None
            locked = await self._store.read(self._store.engine.locked, row.id)
            target = await self._check(old, row, locked)
            local = await self._local(row)
            exact = await self.is_exact(old, row)
            if self._promised and not exact:
                raise RestoreRefused(
                    "moved_on",
                    f"session {row.name!r} has moved on, so that the state would not go on exactly any more: "
                    "look again with --dry-run",
                )
            revival = reviving.continued(old.state) if exact else self._revive(old, local)
            data = {
                **self._event(old, exact=exact),
                "restoredEpoch": old.saved.epoch,
                "restoredVersion": old.saved.version,
                "peers": revival.peers,
            }
            if locked is None:
                await self._add_secrets(old, state)
            crashpoint("restore.before_commit")
            restored = await state.restore_auth(
                revival.creds.serialize(),
                revival.items,
                reviving.columns(revival.creds),
                (events.AUTH_RESTORED, data),
                least_epoch=plans.next_epoch(target, old.saved),
                archive=self._once(old) if exact else None,
                locked=locked is not None,
                texts=self._texts(old),
            )
            crashpoint("restore.after_commit")
            if locked is not None:
                await self._add_secrets(old, state)
        return RestoreDone(revival, restored)

    def _revive(self, old: OldT, local: AuthState | None) -> Revival:
        return reviving.revive(
            old.state,
            self._clock.unix_ms(),
            self._clock.random,
            self._wish.mode,
            backup_ms=old.created_ms,
            local=local,
            report=old.report,
        )

    # What is in place.

    async def _check(self, old: OldT, row: SessionRow, locked: Locked | None) -> Target:
        target = await self._target(row)
        plans.check_target(old.saved, target, rollback_anyway=self._wish.rollback_anyway, what=self._what)
        if target.identity_fp is None:
            self._check_unreadable(old.state.creds, row, locked)
        return target

    def _check_unreadable(self, creds: Credentials, row: SessionRow, locked: Locked | None) -> None:
        """What is in the clear must not speak against it: the addresses of the row, and whether there are keys."""
        other = row.me_pn is not None and row.me_pn != str(creds.me_pn)
        if other or (None not in (row.me_lid, creds.me_lid) and row.me_lid != str(creds.me_lid)):
            raise RestoreRefused(
                "other_identity",
                f"session {row.name!r} belongs to another linked device, whose state cannot be read: restore into "
                "another name",
            )
        unknown = locked is not None and locked.has_creds and row.me_pn is None
        if locked is not None and unknown and not self._wish.replace_unreadable:
            raise RestoreRefused(
                "identity_unknown",
                f"session {row.name!r} is encrypted with the key {locked.kek_id!r}, which is not here, and nothing in "
                "the clear tells whose state it is: --replace-unreadable if you mean it",
            )

    async def _what_is_locked(self, row: SessionRow, locked: Locked) -> str:
        engine = self._store.engine
        waiting = await self._store.read(engine.outbox_count, row.id, WAITING)
        seals = (await self._store.read(engine.seal_keks, row.id)).get(locked.kek_id, 0)
        text = (
            f"what is in place (epoch {row.auth_epoch}, version {row.auth_version}, {locked.items} items) is encrypted "
            f"with the key {locked.kek_id!r}, which is not here: it cannot be compared or sealed readable, and is kept "
            "as it is, for that key only"
        )
        text += f"; so are {seals} older sealed copies" if seals else ""
        return text + (
            f"; {waiting} messages on their way out fail, their text is kept so too" if waiting else ""
        )

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
        shown = None if local is None or not paired else fingerprint(local.creds)
        return Target(shown, row.auth_epoch, row.auth_version)

    # The same device as another session.

    async def locked_twins(self, old: OldT) -> list[SessionRow]:
        """Sessions of the same linked device whose state nobody can read; they must never run again."""
        return [row for row in await self._twins(old) if await self._is_locked(row)]

    async def _twins(self, old: OldT) -> list[SessionRow]:
        wanted = old.state.creds.me_pn
        rows = await self._store.sessions(include_retired=True)
        return [row for row in rows if wanted is not None and row.me_pn == str(wanted)]

    async def _is_locked(self, row: SessionRow) -> bool:
        return await self._store.read(self._store.engine.locked, row.id) is not None

    async def _refuse_second_home(self, old: OldT, row: SessionRow | None) -> None:
        """One linked device in two sessions would be two owners of one state."""
        for other in await self._twins(old):
            if (row is None or other.id != row.id) and not await self._is_locked(other):
                raise RestoreRefused(
                    "already_here",
                    f"the account's device is here as session {other.name!r}: restore into that one",
                )


def fingerprint(creds: Credentials) -> str:
    """Names an identity key: first 8 hex digits of the SHA-256 of its public half."""
    return hashlib.sha256(creds.identity.public).hexdigest()[:8]
