"""The lane: one session's stanzas in their order, each handled whole before its answer leaves (architecture, rule 1).

What has arrived by the time the last commit returned is handled together and shares the next commit: a backlog costs
one write per batch, a lone message waits for nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Final

import trio

from waD.crashpoints import crashpoint
from waD.link import infos
from waD.link.causes import cause
from waD.link.connection import Connection
from waD.link.credentials import Credentials
from waD.link.offline import OfflinePhase
from waD.messaging.delivery import aggregate
from waD.messaging.facade import Messaging
from waD.messaging.reaction import Reaction, Work
from waD.store.errors import StoreError
from waD.store.unit import Unit
from waD.wire.node import Node

BATCH: Final = 256
"""Stanzas that share one commit at the most (chapter 03 §8.4 I6 allows 400)."""
TURN: Final = 16
"""Stanzas handled before other tasks get their turn."""

DEAF_S: Final = 60.0
"""Received stanzas that are still unanswered after this time make the connection deaf (chapter 02 §8.2)."""

_log = logging.getLogger(__name__)


class Lane:
    """Handles what one connection receives.

    Args:
        connection: whose stanzas.
        messaging: who handles them.
        on_work: takes follow-up work after the commit.
        on_info: takes what the server says on the side, after the commit.

    Attributes:
        offline: the backlog of this connection.
        offline_done: set when the backlog is through.
        refused: stanzas that a fault of this program left unanswered; the server delivers them again.
    """

    def __init__(
        self,
        connection: Connection,
        messaging: Messaging,
        *,
        on_work: Callable[[Work], None],
        on_info: Callable[[infos.Info], None],
    ) -> None:
        self._connection = connection
        self._messaging = messaging
        self._state = messaging.context.state
        self._on_work = on_work
        self._on_info = on_info
        self.offline = OfflinePhase()
        self.offline_done = trio.Event()
        self.refused = 0
        self._handling = 0
        self._since: float | None = None

    @property
    def unanswered(self) -> int:
        """Received stanzas that are not answered yet: those in hand, those that wait, those nobody could handle."""
        waiting = self._connection.stanzas.statistics().current_buffer_used
        return self._handling + waiting + self.refused

    async def run(self) -> None:
        """Handle stanzas until the connection ends.

        Raises:
            StoreError: a batch could not be made durable; none of it was answered.
            Disconnected: the connection ended while answering.
        """
        stanzas = self._connection.stanzas
        async for first in stanzas:
            batch = [first]
            while len(batch) < BATCH:
                try:
                    batch.append(stanzas.receive_nowait())
                except (trio.WouldBlock, trio.EndOfChannel):
                    break
            self._handling, self._since = len(batch), trio.current_time()
            await self._handle(batch)
            self._handling, self._since = 0, None
            del first, batch  # not to be kept until the next one comes: it may be as large as frames are

    async def watch(self) -> None:
        """End the connection when a batch stays unanswered for too long: it is alive, but nothing comes of it."""
        since: float | None = None
        while since is None or trio.current_time() < since + DEAF_S:
            await trio.sleep_until((trio.current_time() if since is None else since) + DEAF_S)
            since = self._since
        text = f"{self.unanswered} received stanzas stayed unanswered for {DEAF_S:g} s"
        self._connection.fail(cause("deaf", text))

    async def opened(self) -> None:
        """The session is open: the backlog may be asked for."""
        await self._send(self.offline.opened(trio.current_time()))

    async def watch_backlog(self) -> None:
        """Return when the backlog is through, or when nothing more of it has come for too long."""
        while not self.offline.done:
            deadline = self.offline.deadline
            with trio.move_on_at(float("inf") if deadline is None else deadline):
                await self.offline_done.wait()
            if self.offline.tick(trio.current_time()):
                _log.warning("the server did not end its backlog; going on without it")
                self.offline_done.set()

    async def _handle(self, batch: list[Node]) -> None:
        reaction, told = Reaction(), list[infos.Info]()
        async with self._state.lock:
            unit = self._state.unit()
            await self._messaging.read_ahead(batch, unit)
            for number, stanza in enumerate(batch, start=1):
                reaction.answers += self.offline.received(stanza, trio.current_time())
                await self._handle_one(stanza, unit, reaction, told)
                if not number % TURN:
                    await trio.lowlevel.checkpoint()
            crashpoint("receive.before_commit")
            await self._state.commit(unit)
        crashpoint("receive.after_commit")
        await self._send(aggregate(reaction.answers))
        crashpoint("receive.after_answers")
        for work in reaction.work:
            self._on_work(work)
        for info in told:
            self._on_info(info)
        if self.offline.done:
            self.offline_done.set()

    async def _handle_one(self, stanza: Node, unit: Unit, reaction: Reaction, told: list[infos.Info]) -> None:
        """One stanza as a savepoint of the unit; a fault of ours with it leaves the others alone."""
        try:
            with unit.step():
                if stanza.tag == "ib":
                    told += self._note(stanza, unit)
                else:
                    reaction.merge(await self._messaging.handle(stanza, unit))
        except StoreError:
            raise
        except Exception:
            # Without an answer the server keeps the stanza, so that a version that can handle it gets it.
            self.refused += 1
            _log.exception("a %s stanza could not be handled and stays unanswered", stanza.tag[:32])

    def _note(self, stanza: Node, unit: Unit) -> list[infos.Info]:
        told = infos.parse(stanza)
        for info in told:
            if isinstance(info, infos.EdgeRouting):
                change = partial(Credentials.change, routing_info=info.routing_info)
                self._messaging.context.account.change_in(unit, change)
        return told

    async def _send(self, nodes: list[Node]) -> None:
        if nodes:
            await self._connection.send_all(nodes)
