"""What stanzas lead to besides their answers: requests to the server, paced receipts, repeated messages.

The lane must not wait for the server, so it hands such work over. Everything here may be lost with the connection:
whoever asked will ask again, or the next login finds it out.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeAlias, TypeVar

import trio

from waD.link.errors import MalformedReply, RequestError, RequestTimeout
from waD.link.prekeys import PreKeys
from waD.link.stanzas import Requester
from waD.messaging.facade import Messaging
from waD.messaging.reaction import (
    AnswerRetry,
    AskPhone,
    CheckDigest,
    FetchDevices,
    Paced,
    RefreshSession,
    SyncAppState,
    TopUpPreKeys,
    Work,
)
from waD.wire.jid import JID

MAX_WAITING: Final = 1024
"""Pieces of work of one kind that may wait; more are dropped, and asked for again by whoever needs them."""
MAX_DELAYED: Final = 256
"""Questions to the phone that wait for their time."""
SETTLE_S: Final = 2.0
"""Pause after the backlog before its collected questions are asked (chapter 02 §5.5)."""

_log = logging.getLogger(__name__)

_Later: TypeAlias = FetchDevices | RefreshSession
_Now: TypeAlias = TopUpPreKeys | CheckDigest | AnswerRetry


class Worker:
    """Does the work of one connection, in tasks beside its lane.

    Args:
        connection: where to ask.
        messaging: the session's messaging.
        prekeys: the session's prekey upkeep on this connection.
        offline_done: set when the backlog is through.
        retry_delay_s: between two paced answers.
    """

    def __init__(
        self,
        connection: Requester,
        messaging: Messaging,
        prekeys: PreKeys,
        offline_done: trio.Event,
        retry_delay_s: float,
    ) -> None:
        self._connection = connection
        self._messaging = messaging
        self._prekeys = prekeys
        self._offline_done = offline_done
        self._retry_delay_s = retry_delay_s
        self._put_paced, self._paced = trio.open_memory_channel[Paced](MAX_WAITING)
        self._put_now, self._now = trio.open_memory_channel[_Now](MAX_WAITING)
        self._put_later, self._later = trio.open_memory_channel[_Later](MAX_WAITING)
        self._put_delayed, self._delayed = trio.open_memory_channel[AskPhone](MAX_DELAYED)

    def put(self, work: Work) -> None:
        """Take a piece of work; never blocks."""
        try:
            match work:
                case Paced():
                    self._put_paced.send_nowait(work)
                case AskPhone():
                    self._put_delayed.send_nowait(work)
                case FetchDevices() | RefreshSession():
                    self._put_later.send_nowait(work)
                case TopUpPreKeys() | CheckDigest() | AnswerRetry():
                    self._put_now.send_nowait(work)
                case SyncAppState():
                    self._messaging.app_state.news(work)
        except trio.WouldBlock:
            _log.warning("too much work waits on this connection; one %s was dropped", type(work).__name__)

    async def run(self) -> None:
        """Work until cancelled.

        Raises:
            Disconnected: the connection ended.
            StoreError: something could not be made durable.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_paced)
            nursery.start_soon(self._work_now)
            nursery.start_soon(self._work_later)
            nursery.start_soon(self._ask_phone, nursery)

    async def _send_paced(self) -> None:
        async for lot in self._paced:
            for node in lot.nodes:
                await self._connection.send(node)
            await trio.sleep(self._retry_delay_s)

    async def _work_now(self) -> None:
        async for work in self._now:
            match work:
                case TopUpPreKeys():
                    await self._attempt("prekey upload", self._prekeys.top_up)
                case CheckDigest():
                    await self._attempt("prekey digest", self._check_digest)
                case AnswerRetry() as request:
                    await self._attempt("repeating a message", partial(self._answer, request))

    async def _answer(self, request: AnswerRetry) -> None:
        await self._messaging.retries.answer(request, self._connection)

    async def _check_digest(self) -> None:
        await self._prekeys.check_digest()

    async def _work_later(self) -> None:
        """Ask for what the backlog showed to be missing, once and together."""
        await self._offline_done.wait()
        await trio.sleep(SETTLE_S)
        async for first in self._later:
            users, devices = dict[JID, None](), dict[JID, None]()
            for work in (first, *_waiting(self._later)):
                if isinstance(work, FetchDevices):
                    users.update(dict.fromkeys(work.users))
                else:
                    devices[work.device] = None
            await self._attempt("device lists", partial(self._fetch, tuple(users)))
            for device in devices:
                await self._attempt("a new session", partial(self._renew, device))

    async def _fetch(self, users: tuple[JID, ...]) -> None:
        if users:
            await self._messaging.devices.refresh(users, self._connection)

    async def _renew(self, device: JID) -> None:
        await self._messaging.outbound.renew_session(device, self._connection)

    async def _ask_phone(self, nursery: trio.Nursery) -> None:
        slots = trio.Semaphore(MAX_DELAYED)
        async for question in self._delayed:
            await slots.acquire()
            nursery.start_soon(self._ask_one, question, slots)

    async def _ask_one(self, question: AskPhone, slots: trio.Semaphore) -> None:
        try:
            await self._offline_done.wait()
            await trio.sleep(question.delay_s)
            await self._attempt(
                "asking the phone", partial(self._messaging.outbound.ask_phone, question, self._connection)
            )
        finally:
            slots.release()

    async def _attempt(self, what: str, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except (RequestError, RequestTimeout, MalformedReply) as failure:
            _log.warning("%s failed: %s", what, failure)


_T = TypeVar("_T")


def _waiting(channel: trio.MemoryReceiveChannel[_T]) -> list[_T]:
    """What is in a channel already."""
    found: list[_T] = []
    while True:
        try:
            found.append(channel.receive_nowait())
        except (trio.WouldBlock, trio.EndOfChannel):
            return found
