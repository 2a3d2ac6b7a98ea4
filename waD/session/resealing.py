"""Putting a sealed copy of a session's own auth state back in its place (chapter 08 §6.8, §7.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from waD.control.api import ControlError
from waD.control.types import SealRestoreParams
from waD.session.replacing import Old, Replacing, fingerprint
from waD.session.vitals import Clock
from waD.store.model import SealInfo, SecretRow, SessionRow
from waD.store.state import SessionState
from waD.store.store import Store
from waD.transfer.plans import RestoreRefused
from waD.transfer.state import AuthState, Report
from waD.transfer.verify import read_credentials, verify

PAGE: Final = 500
"""Secrets of messages that are added at once."""


@dataclass(frozen=True, slots=True)
class SealedFrom:
    """Epoch, version and identity of a sealed state. Implements `waD.transfer.plans.Saved`."""

    epoch: int
    version: int
    identity_fp: str


@dataclass(frozen=True, slots=True)
class OldSeal(Old):
    """A sealed state that was read and verified; `texts` and `secrets` as in `waD.store.model.Sealed`."""

    texts: dict[str, bytes]
    secrets: list[SecretRow]


class Resealing(Replacing[OldSeal]):
    """One restore of a seal.

    Args:
        store: the open store.
        clock: time and chance.
        order: which one, and how.

    Attributes:
        order: as given.
    """

    def __init__(self, store: Store, clock: Clock, order: SealRestoreParams) -> None:
        super().__init__(store, clock, order, "sealed copy")
        self.order = order

    async def find(self, row: SessionRow) -> SealInfo:
        """The seal that is meant.

        Raises:
            ControlError: `refused`: there is none.
        """
        wanted = (self.order.epoch, self.order.version)
        for seal in await self._store.seals(row.id):
            if (seal.epoch, seal.version) == wanted:
                return seal
        raise ControlError(
            "refused",
            f"session {row.name!r} has no sealed copy {wanted[0]}.{wanted[1]}: wactl restore-auth {row.name} --seals "
            "shows those it has",
            {"name": row.name},
        )

    def take(self, row: SessionRow, seal: SealInfo) -> OldSeal:
        """Read and verify it; blocking.

        Raises:
            RestoreRefused: it is no state of a linked device.
            StoreError: it cannot be read.
        """
        sealed = self._store.engine.sealed(row.id, seal.epoch, seal.version)
        report = Report()
        creds = None if sealed.creds is None else read_credentials(sealed.creds, report)
        if creds is None or not creds.registered:
            why = str(report.errors[0]) if report.errors else "it holds no linked device"
            raise RestoreRefused("not_paired", f"the sealed copy {seal.epoch}.{seal.version}: {why}")
        state = AuthState(creds, sealed.items)
        report.notes += verify(state, self._clock.unix_ms()).notes
        saved = SealedFrom(sealed.epoch, sealed.version, fingerprint(creds))
        return OldSeal(saved, state, report, seal.sealed_at, sealed.texts, sealed.secrets)

    async def is_exact(self, old: OldSeal, row: SessionRow | None) -> bool:
        """Whether nothing was committed since."""
        return row is not None and is_current(old.saved.epoch, old.saved.version, row)

    def _event(self, old: OldSeal, *, exact: bool) -> dict[str, Any]:  # noqa: ARG002 - of the base
        return {"reason": "exact" if exact else "seal"}

    def _texts(self, old: OldSeal) -> dict[str, bytes]:
        return old.texts

    async def _add_secrets(self, old: OldSeal, state: SessionState) -> None:
        for start in range(0, len(old.secrets), PAGE):
            await state.merge_secrets(old.secrets[start : start + PAGE])


def is_current(epoch: int, version: int, row: SessionRow) -> bool:
    """Whether that is the version in place."""
    return (epoch, version) == (row.auth_epoch, row.auth_version)
