"""One logged-in connection from `<success>` to its end (chapter 02 §5.2, the order of a login)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

import trio
from msgspec import Struct

from waD.link import infos, startup
from waD.link.connection import Connection
from waD.link.errors import MalformedReply, RequestError, RequestTimeout
from waD.link.login import LoginResult, login
from waD.link.prekeys import PreKeys
from waD.messaging.appstate.files import fetching
from waD.messaging.appstate.syncing import Way
from waD.messaging.facade import Messaging
from waD.messaging.media.downloads import Fetching
from waD.messaging.reaction import CheckDigest, FetchDevices, Work
from waD.session.lane import Lane
from waD.session.work import Worker
from waD.wire.jid import JID

APP_STATE: Final = "syncd_app_state"
"""The dirty domain that is fetched, and cleaned, by the syncing of the app state."""
MAX_DIRTY: Final = 16
"""Dirty domains remembered from one login."""

_log = logging.getLogger(__name__)


class OnlineSettings(Struct, frozen=True, kw_only=True):
    """How a login is followed up.

    Attributes:
        mark_online: announce this device as in use (`markOnlineOnConnect`).
        retry_delay_s: between two retry receipts.
    """

    mark_online: bool = True
    retry_delay_s: float = 0.25


class Online:
    """Runs a connection of a paired session.

    Args:
        connection: established, with a login payload.
        messaging: the session's messaging.
        settings: what to do after the login.
        files: gets files of the media hosts.

    Attributes:
        result: what the login told, once it is through.
    """

    def __init__(
        self, connection: Connection, messaging: Messaging, settings: OnlineSettings, files: Fetching
    ) -> None:
        self._connection = connection
        self._messaging = messaging
        self._settings = settings
        self._context = messaging.context
        self._prekeys = PreKeys(connection, self._context.account, self._context.random)
        self._dirty: list[infos.Dirty] = []
        self._lane = Lane(connection, messaging, on_work=self._take, on_info=self._told)
        self._worker = Worker(
            connection, messaging, self._prekeys, self._lane.offline_done, settings.retry_delay_s
        )
        self._app_state_way = Way(connection, fetching(files))
        self.result: LoginResult | None = None

    @property
    def backlog_timed_out(self) -> bool:
        """Whether the server never ended its backlog on this connection."""
        return self._lane.offline.timed_out

    @property
    def unanswered(self) -> int:
        """Received stanzas of this connection that are not answered yet."""
        return self._lane.unanswered

    async def run(
        self, *, opened: Callable[[], Awaitable[None]], ready: Callable[[], Awaitable[None]]
    ) -> None:
        """Log in, then handle, send and work until the connection ends or the task is cancelled.

        Args:
            opened: called when the session is open.
            ready: called when the start-up work is done.

        Raises:
            Disconnected: the connection is over.
            StoreError: something could not be made durable; nothing of it left.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._lane.run)
            nursery.start_soon(self._lane.watch)
            nursery.start_soon(self._worker.run)
            self.result = await login(
                self._connection,
                self._context.account,
                random=self._context.random,
                now_ms=self._context.now_ms.local_ms,
                prekeys=self._prekeys,
            )
            self._context.now_ms.offset_ms = self.result.clock_offset_ms
            await self._learn_own_mapping()
            await opened()
            await self._lane.opened()
            nursery.start_soon(self._messaging.outbound.run, self._connection, self._lane.offline_done)
            nursery.start_soon(
                self._messaging.app_state.run, self._app_state_way, self._lane.offline_done, self._announce
            )
            await self._start_up()
            await ready()

    # Repairs, from other tasks.

    async def upload_prekeys(self) -> int:
        """See `waD.session.doors.Login`."""
        return await self._prekeys.replenish()

    async def rotate_signed_prekey(self) -> None:
        """See `waD.session.doors.Login`."""
        await self._prekeys.rotate(self._context.now_ms.local_ms())

    async def refresh_devices(self, user: JID) -> None:
        """See `waD.session.doors.Login`; raises RequestError also when only this account is refused."""
        refused = await self._messaging.devices.refresh((user,), self._connection)
        for refusal in refused.values():
            raise refusal

    async def resync(self, collections: Sequence[str]) -> int:
        """See `waD.session.doors.Login`."""
        return await self._messaging.app_state.resync(collections, self._app_state_way)

    # Steps.

    async def _learn_own_mapping(self) -> None:
        account, state = self._context.account, self._context.state
        if account.own_pn is None or account.own_lid is None:
            return
        async with state.lock:
            unit = state.unit()
            await self._context.addresses.learn(unit, account.own_pn, account.own_lid, "directed")
            await state.commit(unit)

    async def _start_up(self) -> None:
        """Steps 5 to 8 of the order; what fails is logged, and the next login tries again."""
        await startup.announce_session(self._connection, self._context.now_ms())
        self._worker.put(CheckDigest())
        await self._lane.watch_backlog()
        await self._messaging.tidy()
        self._worker.put(FetchDevices((self._context.account.own,)))
        for dirty in self._dirty:
            await self._tried("clean", partial(startup.clean_dirty, self._connection, dirty))
        await self._tried("server properties", self._fetch_props)
        await self._tried(
            "signed prekey rotation", lambda: self._prekeys.rotate_if_due(self._context.now_ms.local_ms())
        )
        await self._announce()

    async def _announce(self) -> None:
        await startup.announce_presence(
            self._connection, self._context.account.creds.push_name, available=self._settings.mark_online
        )

    async def _fetch_props(self) -> None:
        """Keep the identification of the properties, so that an unchanged set costs one short answer."""
        if self.result is None or not self.result.props_due:
            return
        creds = self._context.account.creds
        props = await startup.fetch_props(self._connection, creds.props_hash, creds.props_refresh_id)
        abprops = self.result.abprops
        await self._context.account.change_credentials(
            lambda now: now.change(
                props_hash=props.hash, props_refresh_id=props.refresh_id, props_abprops=abprops
            )
        )

    async def _tried(self, step: str, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except (RequestError, RequestTimeout, MalformedReply) as failure:
            _log.warning("%s: %s; the session goes on", step, failure)

    def _take(self, work: Work) -> None:
        self._worker.put(work)

    def _told(self, info: infos.Info) -> None:
        match info:
            case infos.Dirty(kind) if kind == APP_STATE:
                self._messaging.app_state.dirty(info)
            case infos.Dirty() if len(self._dirty) < MAX_DIRTY:
                self._dirty.append(info)
            case infos.ClientExpiration(at_s) if at_s is not None:
                _log.warning("the server says that this client version stops working on %s", _day(at_s))
            case infos.Unknown(tag):
                _log.debug("the server told something about %s", tag)
            case _:
                pass


def _day(unix_s: int) -> str:
    try:
        return datetime.fromtimestamp(unix_s, UTC).date().isoformat()
    except (OverflowError, ValueError, OSError):
        return "a day out of range"
