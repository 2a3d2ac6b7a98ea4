"""What follows from the end of a connection: the policy's decision, its durable record, new credentials."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import trio

from waD.config import SessionSettings
from waD.events import model as events
from waD.link.causes import Cause
from waD.link.credentials import CredentialsError, new_credentials
from waD.messaging import kinds
from waD.messaging.account import Account
from waD.session.counters import Counters
from waD.session.doors import Doors
from waD.session.policy import Decision, Rules, decide, wants_newer_version
from waD.session.record import account_of, make_record
from waD.session.vitals import Clock, Vitals
from waD.store.errors import KekUnavailable, StoreDamaged, StoreError
from waD.store.model import DisconnectRecord
from waD.store.state import SessionState
from waD.store.unit import ItemKey, Unit
from waD.wire.jid import JID

_log = logging.getLogger(__name__)

KEPT: Final = (kinds.LID_OF_PN, kinds.PN_OF_LID, kinds.NUMBER_ALIAS)
"""Who is who is no key and no secret of the old login, and history is filed by it: it outlives a reset."""


class Aftermath:
    """Concludes the connections of one session.

    Args:
        state: the session's state, attached.
        doors: the ways out.
        settings: the session's settings, asked for anew at each use.
        clock: time and chance.
        vitals: whose counters are the policy's memory.

    Attributes:
        account: whose the session was before its credentials were cleared; only that account may be paired again.
    """

    def __init__(
        self,
        state: SessionState,
        doors: Doors,
        settings: Callable[[], SessionSettings],
        clock: Clock,
        vitals: Vitals,
    ) -> None:
        self.account = account_of(state.row.last_disconnect)
        self._state = state
        self._doors = doors
        self._settings = settings
        self._clock = clock
        self._vitals = vitals
        self._reconnects = state.row.reconnect_count

    async def forget(self) -> None:
        """Forget how connections ended, and let any account be paired.

        Raises:
            StoreError: nothing was changed.
        """
        unit = self._state.unit()
        unit.set_session(last_disconnect=None, reconnect_attempt=0, reconnect_count=0)
        await self._vitals.commit(unit)
        self._vitals.counters, self._vitals.record = Counters(), None
        self._reconnects, self.account = 0, None

    def accepts(self, device: JID) -> bool:
        """Only the account that the history belongs to may be paired again, unless it was logged out or reset."""
        return self.account is None or str(device.account) == self.account

    async def decide(self, ended: Cause, *, paired: bool, was_pairing: bool) -> Decision:
        """What to do now; the counters are as the policy leaves them.

        Args:
            ended: why the connection ended.
            paired: the session has the credentials of a linked device.
            was_pairing: it had none when the connection began.
        """
        settings = self._settings()
        rules = Rules(settings.reconnect, settings.alerts)
        newer = False
        if wants_newer_version(ended, self._vitals.counters, rules, trio.current_time()):
            newer = await self._doors.newer_version()
        decision = decide(
            ended,
            self._vitals.counters,
            rules,
            trio.current_time(),
            jitter=self._clock.jitter(),
            paired=paired,
            just_paired=was_pairing and paired,
            newer_version=newer,
        )
        self._vitals.counters = decision.counters
        return decision

    def put_record(
        self, unit: Unit, ended: Cause, decision: Decision, account: Account
    ) -> DisconnectRecord | None:
        """The record, the counters, and the event; an order to stop does not hide why it was down before."""
        now_ms = self._clock.unix_ms()
        if decision.delay_ms is not None:
            self._reconnects += 1
        unit.set_session(
            reconnect_count=self._reconnects,
            reconnect_attempt=decision.counters.attempts + decision.counters.slow,
        )
        if ended.id == "stop":
            return None
        next_ms = None if decision.delay_ms is None else now_ms + decision.delay_ms
        hint = decision.hint.format(name=self._vitals.name)
        if decision.clears_auth:
            self.account = None if ended.id == "logout" else own_address(account)
        record = make_record(ended, decision, hint=hint, at_ms=now_ms, next_ms=next_ms, account=self.account)
        unit.set_session(last_disconnect=record)
        if decision.row.id != "restart":
            unit.event(*events.connection_error(ended.id, ended.message, code=record.code, hint=hint or None))
        return record

    async def clear_auth(self, ended: Cause) -> int:
        """Seal the credentials and begin with new ones; history and events stay (chapter 08 §6.7).

        Returns:
            The sealed version. Views over the old credentials have to be made anew.

        Raises:
            StoreError: they are still in place.
        """
        fresh = new_credentials(self._clock.random, self._clock.unix_ms())
        async with self._state.lock:
            sealed = await self._state.reset_auth(fresh.serialize(), await self._people())
        unit = self._state.unit()
        unit.event(events.AUTH_RESET, {"reason": ended.id, "sealedVersion": sealed})
        await self._vitals.commit(unit)
        return sealed

    async def _people(self) -> dict[ItemKey, bytes]:
        """Who is who; what cannot be read must not keep the operator from beginning anew."""
        kept: dict[ItemKey, bytes] = {}
        for kind in KEPT:
            try:
                known = await self._state.all_items(kind)
            except (StoreDamaged, KekUnavailable) as damage:
                _log.warning("session %s: items of kind %s are lost: %s", self._vitals.name, kind, damage)
                continue
            kept.update({(kind, key): value for key, value in known.items()})
        return kept


def own_address(account: Account) -> str | None:
    """The address made of the own phone number, if it can be read."""
    try:
        own = account.own_pn
    except (CredentialsError, StoreError):
        return None
    return None if own is None else str(own)
