"""Stand-ins for the doors of a supervisor: a state in memory, scripted connections, and a book of what happened."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

import msgspec
import trio

from tests.messaging.accounts import paired_credentials
from waD.config import Alerts, Health, Messages, Network, Outbox, Reconnect, SessionSettings
from waD.link.causes import CODES, Cause, cause
from waD.link.credentials import Credentials, CredentialStore
from waD.link.errors import Disconnected
from waD.link.login import LoginResult
from waD.link.qr import QrCode
from waD.messaging.account import Account
from waD.session.doors import Link, Login
from waD.session.supervisor import Supervisor
from waD.session.turns import Turns
from waD.session.vitals import Clock
from waD.store.errors import StoreError
from waD.store.model import DisconnectRecord, EventRow, OutboxRow, SessionRow, SessionStatus
from waD.store.state import SessionState
from waD.store.unit import Announce, Committed, ItemKey, ItemValue, Unit
from waD.wire.jid import JID
from waD.wire.node import Node

START_MS = 1_700_000_000_000
PAIRED = paired_credentials()


class MemoryState:
    """A `SessionState` without a database; `fail` makes the next commits raise."""

    def __init__(self, row: SessionRow, creds: bytes | None) -> None:
        self.owned = True
        self.row = row
        self.stored = row
        self.creds = creds
        self.items: dict[ItemKey, ItemValue] = {}
        self.lock = trio.Lock()
        self.events: list[EventRow] = []
        self.seals: list[bytes | None] = []
        self.fail: StoreError | None = None
        self.fail_to_append: StoreError | None = None
        self.statuses: list[str] = []
        self.reset_while: str | None = None

    @property
    def session_id(self) -> str:
        return self.row.id

    def unit(self) -> Unit:
        return Unit()

    async def commit(self, unit: Unit) -> Committed:
        await trio.lowlevel.checkpoint()
        if self.fail is not None:
            raise self.fail
        self.stored = msgspec.structs.replace(self.stored, **unit.session)
        if "current_status" in unit.session:
            self.statuses.append(unit.session["current_status"])
        if unit.creds is not None:
            self.creds = unit.creds
        for item, value in unit.items.items():
            if value is not None:
                self.items[item] = value
        for step in unit.steps:
            assert isinstance(step, Announce)
            self._append(step.type, step.data)
        return Committed(1, [])

    async def append_event(self, event_type: str, data: dict[str, Any]) -> None:
        """As the store does for whoever does not own the session."""
        await trio.lowlevel.checkpoint()
        if self.fail_to_append is not None:
            raise self.fail_to_append
        self._append(event_type, data)

    def _append(self, event_type: str, data: dict[str, Any]) -> None:
        self.events.append(
            EventRow(
                cursor=len(self.events) + 1, time=0, connection_id=self.row.id, session=self.row.name,
                type=event_type, data=data,
            )
        )  # fmt: skip

    async def reset_auth(self, creds: bytes, items: Mapping[ItemKey, bytes] | None = None) -> int:
        await trio.lowlevel.checkpoint()
        if self.fail is not None:
            raise self.fail
        assert self.lock.locked()
        self.seals.append(self.creds)
        self.creds = creds
        self.items = dict(items or {})
        return len(self.seals)

    async def all_items(self, kind: str) -> dict[str, ItemValue]:
        await trio.lowlevel.checkpoint()
        return {key: value for (found, key), value in self.items.items() if found == kind}

    async def outbox(self, states: object = (), limit: int = 0) -> list[OutboxRow]:
        return []


@dataclass
class FakeContext:
    account: Account
    addresses: Any = None


class FakeMessaging:
    def __init__(self, state: SessionState) -> None:
        self.context = FakeContext(Account(state))
        self.outbound: Any = None


@dataclass
class Step:
    """One connection as scripted.

    Attributes:
        end: why it ends; None: it stays until somebody ends it.
        dial_s: seconds until the handshake is complete, or until the dial fails.
        login_s: seconds from there to `open`; None: it ends before.
        open_s: seconds from `open` to the end.
        error: raised instead of Disconnected.
        pairs: a phone scans the code after `login_s`; its account is that of `scanned_by`.
    """

    end: Cause | None = None
    dial_s: float = 0.5
    login_s: float | None = 0.5
    open_s: float = 10.0
    error: Callable[[], Exception] | None = None
    refused: bool = False
    pairs: bool = False
    scanned_by: Credentials | None = None
    silent_backlog: bool = False
    offset_ms: int = 0
    goodbye_s: float = 0.1
    health: tuple[tuple[float, bool], ...] = ()


def why(cause_id: str, code: int | None = None) -> Cause:
    return cause(cause_id, "as scripted") if cause_id in CODES else Cause(cause_id, code, "as scripted")


def refused(cause_id: str, **more: Any) -> Step:
    """A dial that fails."""
    return Step(why(cause_id), refused=True, **more)


def rejected(cause_id: str, code: int | None = None, **more: Any) -> Step:
    """A login that the server refuses."""
    return Step(why(cause_id, code), login_s=None, **more)


def ends(cause_id: str, open_s: float, **more: Any) -> Step:
    """A connection that is open for some time."""
    return Step(why(cause_id), open_s=open_s, **more)


STAYS = Step()


class FakeLink:
    def __init__(self, step: Step) -> None:
        self.step = step
        self.on_health: Callable[[bool], None] | None = None
        self.latency_s: float | None = 0.042
        self.unacked = 2
        self.failed = trio.Event()
        self.cause: Cause | None = None
        self.sent: list[Node] = []
        self.repairs: list[str] = []
        self.repair_fails: Exception | None = None

    def fail(self, reason: Cause) -> None:
        self.cause = reason
        self.failed.set()

    async def send(self, node: Node) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append(node)


class FakeLogin:
    def __init__(self, link: FakeLink) -> None:
        self.link = link
        step = link.step
        self.backlog_timed_out = step.silent_backlog
        self.unanswered = 3
        self.result: LoginResult | None = LoginResult(step.offset_ms, False, False, False, "", "", "lla")

    async def run(
        self, *, opened: Callable[[], Awaitable[None]], ready: Callable[[], Awaitable[None]]
    ) -> None:
        step = self.link.step
        if step.login_s is None:
            await trio.sleep(0.2)
            self._end()
        assert step.login_s is not None
        await trio.sleep(step.login_s)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._change_health)
            await opened()
            await ready()
            left = float("inf") if step.end is None and step.error is None else step.open_s
            with trio.move_on_after(left):
                await self.link.failed.wait()
            self._end()

    async def upload_prekeys(self) -> int:
        await self._repair("upload_prekeys")
        return 812

    async def rotate_signed_prekey(self) -> None:
        await self._repair("rotate_signed_prekey")

    async def refresh_devices(self, user: JID) -> None:
        await self._repair(f"refresh_devices {user}")

    async def resync(self, collections: Sequence[str]) -> int:
        await self._repair(f"resync {' '.join(collections)}")
        return 7

    async def _repair(self, what: str) -> None:
        await trio.lowlevel.checkpoint()
        self.link.repairs.append(what)
        if self.link.repair_fails is not None:
            raise self.link.repair_fails

    async def _change_health(self) -> None:
        for after_s, healthy in self.link.step.health:
            await trio.sleep(after_s)
            assert self.link.on_health is not None
            self.link.on_health(healthy)

    def _end(self) -> NoReturn:
        step = self.link.step
        if self.link.cause is None and step.error is not None:
            raise step.error()
        found = self.link.cause or step.end
        assert found is not None
        raise Disconnected(found.at(age_s=1 + step.open_s, was_open=step.login_s is not None, reached=True))


@dataclass
class FakeDoors:
    """Follows a script of connections; after its end every connection stays."""

    script: Iterable[Step] = ()
    live: int = 0
    most_live: int = 0
    dials: list[float] = field(default_factory=list)
    routed: list[bool] = field(default_factory=list)
    registered: list[bool] = field(default_factory=list)
    codes: list[QrCode] = field(default_factory=list)
    links: list[FakeLink] = field(default_factory=list)
    unlinks: list[JID] = field(default_factory=list)
    newer: list[bool] = field(default_factory=list)
    messagings: int = 0
    refreshed: int = 0

    def __post_init__(self) -> None:
        self._steps: Iterator[Step] = iter(self.script)

    def messaging(self, state: SessionState) -> Any:
        self.messagings += 1
        return FakeMessaging(state)

    def refresh(self, messaging: Any) -> None:
        self.refreshed += 1

    @asynccontextmanager
    async def connect(self, credentials: Credentials, *, use_routing: bool) -> AsyncIterator[Link]:
        self.live += 1
        self.most_live = max(self.live, self.most_live)
        assert self.live == 1, "two connections of one session"
        self.dials.append(trio.current_time())
        self.routed.append(use_routing and credentials.routing_info is not None)
        self.registered.append(credentials.registered)
        step = next(self._steps, STAYS)
        try:
            await trio.sleep(step.dial_s)
            if step.refused:
                assert step.end is not None
                raise Disconnected(step.end.at(age_s=step.dial_s, was_open=False, reached=False))
            link = FakeLink(step)
            self.links.append(link)
            yield link
            await trio.sleep(step.goodbye_s)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.01)  # closing takes time, and only then may the next one begin
            self.live -= 1

    async def pair(
        self,
        link: Link,
        store: CredentialStore,
        on_qr: Callable[[QrCode], Awaitable[None]],
        accept: Callable[[JID], bool],
    ) -> NoReturn:
        step = cast(FakeLink, link).step
        code = QrCode(f"code-{len(self.codes) + 1}", 1, 6, 60.0)
        self.codes.append(code)
        await on_qr(code)
        if step.pairs:
            await trio.sleep(step.login_s or 0)
            account = step.scanned_by or PAIRED
            assert account.me_pn is not None
            if not accept(account.me_pn):
                raise Disconnected(why("pair_refused").at(age_s=2, was_open=False, reached=True))
            await store.change_credentials(lambda _: account)
            raise Disconnected(why("restart").at(age_s=2, was_open=False, reached=True))
        await trio.sleep(160)
        raise Disconnected((step.end or why("qr_exhausted")).at(age_s=160, was_open=False, reached=True))

    def login(self, link: Link, messaging: object) -> Login:
        return FakeLogin(cast(FakeLink, link))

    async def unlink(self, link: Link, me: JID) -> bool:
        self.unlinks.append(me)
        await trio.sleep(0.2)
        return True

    async def newer_version(self) -> bool:
        await trio.sleep(1)
        return self.newer.pop(0) if self.newer else False


def session_row(**changes: Any) -> SessionRow:
    fields = {"id": "0001", "name": "alerts", "desired_state": "up"} | changes
    return SessionRow(**fields)


def settings(**reconnect: Any) -> SessionSettings:
    return SessionSettings(
        name="alerts", network=Network(), reconnect=Reconnect(**reconnect), health=Health(), alerts=Alerts(),
        outbox=Outbox(), messages=Messages(),
    )  # fmt: skip


class Bench:
    """A supervisor with everything around it."""

    def __init__(
        self,
        *script: Step,
        paired: bool = True,
        row: SessionRow | None = None,
        rules: SessionSettings | None = None,
        creds: Credentials | None = None,
        origin: float | None = None,
        turns: Turns | None = None,
    ) -> None:
        self.origin = trio.current_time() if origin is None else origin
        self.doors = FakeDoors(script)
        document = (creds or PAIRED).serialize() if paired or creds else None
        self.memory = MemoryState(row or session_row(), document)
        self.settings = rules or settings()
        clock = Clock(
            unix_ms=lambda: START_MS + round(self.now * 1000),
            jitter=lambda: 0.0,
            random=os.urandom,
        )
        self.supervisor = Supervisor(
            cast(SessionState, self.memory),
            self.doors,
            lambda: self.settings,
            clock,
            turns or Turns(10),
            self.memory.append_event,
        )
        self.vitals = self.supervisor.vitals
        self.path: list[tuple[str, bool]] = [(self.vitals.status, False)]
        self._watch()

    def _watch(self) -> None:
        """Write down every state it is in, and whether it was only forced into it."""
        enter, force = self.vitals._be, self.vitals.force

        def entered(target: SessionStatus) -> None:
            self.path.append((target, False))
            enter(target)

        def forced(target: SessionStatus, hint: str) -> None:
            force(target, hint)
            self.path[-1] = (target, True)

        self.vitals._be = entered  # type: ignore[method-assign]
        self.vitals.force = forced  # type: ignore[method-assign]

    @property
    def now(self) -> float:
        """Seconds since this bench was made."""
        return trio.current_time() - self.origin

    @property
    def dials(self) -> list[float]:
        """When connections were begun."""
        return [at - self.origin for at in self.doors.dials]

    @property
    def status(self) -> str:
        return self.vitals.status

    @property
    def record(self) -> DisconnectRecord | None:
        return self.memory.stored.last_disconnect

    def of_type(self, event_type: str) -> list[dict[str, Any]]:
        return [event.data for event in self.memory.events if event.type == event_type]

    async def reaches(self, *statuses: str) -> None:
        """Wait for a state."""
        with trio.fail_after(100_000):
            await self.vitals.until(lambda: self.vitals.status in statuses)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the supervisor for the life of the block; afterwards it has to end by itself."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.supervisor.run)
            yield
            self.supervisor.halt()
            nursery.cancel_scope.deadline = trio.current_time() + 60
        assert not nursery.cancel_scope.cancelled_caught, "the supervisor did not end in time"
