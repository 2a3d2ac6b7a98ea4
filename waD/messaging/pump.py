"""The pump: from the outbox to the wire while a session is open (architecture §5, chapter 03 §8.3, chapter 04 §5.4).

Rows are taken in the order of their submission. What can leave is encrypted in one unit, committed, and only then
transmitted. A conversation that first needs something of the server gets it in a task of its own, and the others go on.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, NoReturn, Self

import trio

from waD.crashpoints import crashpoint
from waD.e2ee.errors import SignalError
from waD.link.errors import Disconnected, LinkError, RequestError
from waD.link.stanzas import Requester
from waD.messaging import message_secrets
from waD.messaging.context import Context
from waD.messaging.encrypting import Encryptor, Missing, NoDevices
from waD.messaging.outcome import REFUSED, fail
from waD.messaging.pace import Pace
from waD.messaging.preparing import RATE_LIMIT, Hopeless, Preparer, passes
from waD.messaging.recipients import NoWireAddress, known, wire_address
from waD.messaging.submitting import BY_NUMBER, KIND_TEXT, build
from waD.proto.e2e_pb2 import Message
from waD.store.errors import StoreError
from waD.store.model import OutboxRow
from waD.store.unit import Unit
from waD.wire.codec import decode, encode
from waD.wire.jid import JID
from waD.wire.node import Node

BATCH: Final = 16
"""Messages that share one commit at the most."""
WINDOW: Final = 128
"""Rows looked at first; more when none of these can leave."""
MAX_UNACKED: Final = 256
"""Messages on their way to the server before more leave."""
MAX_PREPARING: Final = 64
"""Conversations that are being prepared at a time."""
BACKOFF_BASE_S: Final = 2.0
BACKOFF_LONGEST_S: Final = 900.0
QUIET_S: Final = 30.0
"""Pause after the server's 429 when it names none (chapter 06 §12)."""

_log = logging.getLogger(__name__)


class _Chat:
    """What the pump knows about a conversation on this connection; times on trio's clock."""

    __slots__ = ("admitted", "failures", "not_before", "preparing")

    def __init__(self) -> None:
        self.preparing = False
        self.admitted = False
        self.failures = 0
        self.not_before = 0.0


class _Turn:
    """One pass over the outbox: what leaves, which conversations wait, and until when."""

    __slots__ = ("blocked", "due", "prepare", "sent", "unit")

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.sent: dict[str, Node] = {}
        self.prepare: list[OutboxRow] = []
        self.blocked: set[str] = set()
        self.due: list[float] = []


class Pump:
    """Sends one session's outbox.

    Args:
        context: whose.
        preparer: fetches what is missing.
        encryptor: encrypts.

    Attributes:
        turn: held from an encryption to its transmission by everybody who encrypts, so that on every Signal session
            messages reach the wire in the order of their counters.
    """

    def __init__(self, context: Context, preparer: Preparer, encryptor: Encryptor) -> None:
        self._context = context
        self._preparer = preparer
        self._encryptor = encryptor
        self.turn = trio.Lock()
        self._pace = Pace.per_second(context.settings.rate_per_s)
        self._new_chats = Pace(1, context.settings.new_chat_interval_s)
        self._chats: dict[str, _Chat] = {}
        self._asking: dict[str, _Chat] = {}
        self._unacked: set[str] = set()
        self._wake = trio.Event()
        self._acked = False
        self._quiet_until = 0.0
        self._broken: Exception | None = None

    def wake(self) -> None:
        """There may be something to send."""
        self._wake.set()

    def settings_changed(self) -> None:
        """Go by the context's other settings; what was sent lately counts for them too."""
        settings = self._context.settings
        self._pace = Pace.per_second(settings.rate_per_s).after(self._pace)
        self._new_chats = Pace(1, settings.new_chat_interval_s).after(self._new_chats)
        self._wake.set()

    def settled(self, message_id: str) -> None:
        """The server answered for a message; its answer is being handled."""
        self._unacked.discard(message_id)
        self._acked = True
        self._wake.set()

    async def run(self, connection: Requester, offline_done: trio.Event) -> NoReturn:
        """Send until cancelled: first what was committed before, the same bytes; then the queue.

        Args:
            connection: logged in.
            offline_done: set when the backlog is through; new sessions wait for it, for a while.

        Raises:
            Disconnected: the connection ended.
            StoreError: something could not be made durable; nothing of it was sent.
        """
        self._chats, self._asking, self._unacked, self._broken = {}, {}, set(), None
        await self._repeat(connection)
        async with trio.open_nursery() as nursery:
            with _LetOut() as out:
                while True:
                    await self._pass(connection, offline_done, nursery)
            nursery.cancel_scope.cancel()
        assert out.end is not None
        raise out.end

    async def _repeat(self, connection: Requester) -> None:
        """Transmit again what the server did not acknowledge (chapter 03 §8.3 S5)."""
        async with self.turn:
            async with self._context.state.lock:
                rows = await self._context.state.outbox(("sending",))
                stanzas = {row.message_id: row.stanza for row in rows if row.stanza is not None}
                self._unacked.update(stanzas)
            for stanza in stanzas.values():
                await connection.send(decode(stanza))
                crashpoint("send.after_write")

    async def _pass(self, connection: Requester, offline_done: trio.Event, nursery: trio.Nursery) -> None:
        self._wake = trio.Event()
        if self._broken is not None:
            raise self._broken
        turn = await self._send_some(connection)
        for row in turn.prepare:
            state = self._chats.setdefault(row.chat, _Chat())
            state.preparing = True
            self._asking[row.message_id] = state
            nursery.start_soon(self._prepare, row, connection, offline_done)
        if turn.unit.empty:
            with trio.move_on_at(min(turn.due, default=float("inf"))):
                await self._wake.wait()

    async def _send_some(self, connection: Requester) -> _Turn:
        async with self.turn:
            async with self._context.state.lock:
                if self._acked:
                    self._acked = False
                    crashpoint("send.after_ack_commit")
                turn = await self._collect()
                if turn.sent:
                    self._unacked.update(turn.sent)
                    crashpoint("send.before_commit")
                await self._context.state.commit(turn.unit)
            if turn.sent:
                crashpoint("send.after_commit")
            for node in turn.sent.values():
                await connection.send(node)
                crashpoint("send.after_write")
        return turn

    async def _collect(self) -> _Turn:
        """Encrypt what may leave now; look further when conversations that wait fill the window."""
        limit = WINDOW
        while True:
            turn = _Turn(self._context.state.unit())
            rows = await self._context.state.outbox(("queued",), limit)
            for row in rows:
                if len(turn.sent) >= BATCH or not self._may_send(turn):
                    return turn
                await self._consider(row, turn)
            if turn.sent or not turn.unit.empty or len(rows) < limit:
                return turn
            limit *= 4

    def _may_send(self, turn: _Turn) -> bool:
        if len(self._unacked) + len(turn.sent) >= MAX_UNACKED:
            return False
        now = trio.current_time()
        allowed = self._pace.allowed_at(now)
        if allowed > now:
            turn.due.append(allowed)
        return allowed <= now

    async def _consider(self, row: OutboxRow, turn: _Turn) -> None:
        """Take one row along, end it, or leave it for later."""
        now_ms = self._context.now_ms()
        if row.expires_at is not None and row.expires_at <= now_ms and row.message_id not in self._asking:
            await fail(self._context, turn.unit, row, "expired", state="expired")
        elif row.chat in turn.blocked:
            return
        elif row.not_before > now_ms:
            turn.due.append(trio.current_time() + (row.not_before - now_ms) / 1000)
            # A message for later lets others of its conversation pass; one that failed for now keeps its place.
            if row.last_error is not None:
                turn.blocked.add(row.chat)
        elif not self._waits(row, turn):
            await self._try(row, turn)

    def _waits(self, row: OutboxRow, turn: _Turn) -> bool:
        asking = self._asking.get(row.message_id)
        if asking is not None:
            # The number may have turned out to be somebody known by another address.
            self._chats[row.chat] = asking
        state = self._chats.get(row.chat)
        if state is None or not (state.preparing or state.not_before > trio.current_time()):
            return False
        turn.blocked.add(row.chat)
        if not state.preparing:
            turn.due.append(state.not_before)
        return True

    async def _try(self, row: OutboxRow, turn: _Turn) -> None:
        try:
            with turn.unit.step():
                node = await self._stanza(row, turn.unit)
        except Missing as missing:
            turn.blocked.add(row.chat)
            self._admit(row, missing, turn)
        except (NoDevices, NoWireAddress) as hopeless:
            reason = "no_devices" if isinstance(hopeless, NoDevices) else "no_own_lid"
            await fail(self._context, turn.unit, row, reason)
        except SignalError as error:
            _log.error("a message cannot be encrypted: %s", error)
            await fail(self._context, turn.unit, row, f"signal_{error.code}")
        except StoreError:
            raise
        except Exception:  # a fault of ours with one row must not hold up all those behind it
            _log.exception("a message of the outbox cannot be built; it failed")
            await fail(self._context, turn.unit, row, "internal_error")
        else:
            self._pace.act(trio.current_time())
            self._chats.pop(row.chat, None)
            turn.sent[row.message_id] = node

    async def _stanza(self, row: OutboxRow, unit: Unit) -> Node:
        """The exact stanza of a row, encrypted or as it was before, with everything that goes with it."""
        if row.stanza is not None:
            node = decode(row.stanza)
            unit.update_outbox(
                row.message_id, state="sending", attempts=row.attempts + 1, written_at=self._context.now_ms()
            )
            return node
        person = JID.parse(row.chat)
        if not await known(self._context, person, unit):
            raise Missing(stranger=True)
        by_number = bool(row.payload.get(BY_NUMBER))
        wire = await wire_address(self._context, person, unit, by_number=by_number)
        targets = await self._encryptor.targets(wire, unit)
        message = await build(self._context, row.payload, wire, unit)
        node = await self._encryptor.message(unit, row.message_id, message, targets)
        unit.update_outbox(
            row.message_id,
            state="sending",
            stanza=encode(node),
            attempts=row.attempts + 1,
            written_at=self._context.now_ms(),
        )
        unit.keep_plaintext(row.chat, row.message_id, message.SerializeToString())
        self._keep_secret(unit, row, wire, message)
        return node

    def _keep_secret(self, unit: Unit, row: OutboxRow, wire: JID, message: Message) -> None:
        """With the own address as the recipient gets to see it, which may be another one each time."""
        account, now_ms = self._context.account, self._context.now_ms()
        author = account.own_lid if wire.is_lid else account.own_pn
        if author is not None:
            key = (row.chat, str(account.own), row.message_id)
            secret = message.messageContextInfo.messageSecret
            message_secrets.keep(unit, key, secret, author=author, kind=KIND_TEXT, ts=now_ms, now_ms=now_ms)

    def _admit(self, row: OutboxRow, missing: Missing, turn: _Turn) -> None:
        """Let a conversation ask the server, when it is its turn."""
        now = trio.current_time()
        state = self._chats.setdefault(row.chat, _Chat())
        allowed = self._quiet_until
        if missing.stranger and not state.admitted:
            allowed = max(allowed, self._new_chats.allowed_at(now))
        if allowed > now:
            turn.due.append(allowed)
            return
        if len(self._asking) + len(turn.prepare) >= MAX_PREPARING:
            return
        if missing.stranger and not state.admitted:
            state.admitted = True
            self._new_chats.act(now)
        turn.prepare.append(row)

    async def _prepare(self, row: OutboxRow, connection: Requester, offline_done: trio.Event) -> None:
        """Make a conversation ready; whatever comes of it, the pump looks again."""
        state = self._asking[row.message_id]
        by_number = bool(row.payload.get(BY_NUMBER))
        try:
            await self._preparer.prepare(JID.parse(row.chat), connection, offline_done, by_number=by_number)
            self._chats.pop(row.chat, None)
        except Hopeless as hopeless:
            await self._guard(self._fail_chat, row, hopeless.reason, hopeless.code)
        except (Disconnected, StoreError) as end:
            self._broken = end
        except LinkError as refusal:
            await self._guard(self._put_off, row, state, refusal)
        except Exception:  # likewise: the others' conversations go on
            _log.exception("a conversation could not be prepared; its message failed")
            await self._guard(self._fail_chat, row, "internal_error", None)
        finally:
            state.preparing = False
            self._asking.pop(row.message_id, None)
            self._wake.set()

    async def _guard(self, work: Callable[..., Awaitable[None]], *args: object) -> None:
        try:
            await work(*args)
        except StoreError as failure:
            self._broken = failure

    async def _fail_chat(self, row: OutboxRow, reason: str, code: int | None) -> None:
        """End everything that waits for a conversation that cannot be had."""
        context = self._context
        async with context.state.lock:
            unit = context.state.unit()
            chats = {row.chat, str(await context.addresses.canonical(JID.parse(row.chat)))}
            for waiting in await context.state.outbox(("queued",)):
                if waiting.chat in chats and waiting.not_before <= context.now_ms():
                    await fail(context, unit, waiting, reason, code)
            await context.state.commit(unit)

    async def _put_off(self, row: OutboxRow, state: _Chat, refusal: LinkError) -> None:
        """Try a conversation again later, unless the server's refusal is final."""
        code = refusal.code if isinstance(refusal, RequestError) else None
        if not passes(refusal):
            await self._fail_chat(row, REFUSED, code)
            return
        delay = min(BACKOFF_BASE_S * 2.0**state.failures, BACKOFF_LONGEST_S)
        state.failures += 1
        if isinstance(refusal, RequestError):
            if code == RATE_LIMIT:
                delay = max(delay, QUIET_S)
            delay = max(delay, refusal.backoff or 0.0)
            if code == RATE_LIMIT:
                self._quiet_until = trio.current_time() + delay
        state.not_before = trio.current_time() + delay
        _log.warning("a message waits %.0f s: %s", delay, refusal)
        async with self._context.state.lock:
            unit = self._context.state.unit()
            waiting = await self._context.state.outbox_by_message_id(row.message_id)
            if waiting is not None and waiting.state == "queued":
                self._chats[waiting.chat] = state
                until = self._context.now_ms() + int(delay * 1000)
                reason = "timeout" if code is None else str(code)
                unit.update_outbox(row.message_id, last_error=reason, not_before=until)
            await self._context.state.commit(unit)


class _LetOut:
    """Keeps what ends a connection out of the exception groups of a nursery."""

    def __init__(self) -> None:
        self.end: Disconnected | StoreError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, Disconnected | StoreError):
            self.end = error
            return True
        return False
