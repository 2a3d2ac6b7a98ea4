"""Stand-ins for what is behind the control server: sessions with an event log, and a daemon."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, TypeVar, cast

import trio

from waD.control import types as t
from waD.control.api import ControlError, no_such_session
from waD.control.examples import EXAMPLES

T = TypeVar("T")
Ids = list[str]


def view(name: str = "alerts", state: t.State = "open") -> t.SessionView:
    return t.SessionView(
        name=name, connection_id="5f0c0f5e-0000-4000-8000-000000000001", state=state, desired="up"
    )


class FakeLog:
    """An event log in memory that counts how often it is read."""

    def __init__(self) -> None:
        self.entries: list[t.EventView] = []
        self.oldest = 1
        self.read = 0
        self.open = 0
        self.left = trio.Event()
        self.fault_at: int | None = None
        self._grown = trio.Event()

    def append(self, kind: str = "message:new", session: str = "alerts", **data: Any) -> int:
        cursor = len(self.entries) + 1
        self.entries.append(t.EventView(cursor=cursor, time=cursor, type=kind, session=session, data=data))
        self._grown.set()
        self._grown = trio.Event()
        return cursor

    async def follow(
        self, since: int, types: tuple[str, ...], session: str | None, *, follow: bool
    ) -> AsyncGenerator[t.EventView, None]:
        at = since
        while True:
            await trio.lowlevel.checkpoint()
            if at < self.oldest - 1:
                raise ControlError("cursor_expired", "gone", {"oldest": self.oldest})
            if at + 1 == self.fault_at:
                raise RuntimeError("secret text of +15550000002")
            if at < len(self.entries):
                entry = self.entries[at]
                at += 1
                self.read += 1
                if (not types or entry.type in types) and session in (None, entry.session):
                    yield entry
            elif follow:
                await self._grown.wait()
            else:
                return


class FakeStream:
    def __init__(self, log: FakeLog, entries: AsyncIterator[t.EventView]) -> None:
        self.oldest = log.oldest if log.entries else 0
        self.last = len(log.entries)
        self._entries = entries

    def __aiter__(self) -> AsyncIterator[t.EventView]:
        return self._entries


class FakeSessions:
    """Knows one session, `alerts`. `raises` makes a method fail, `block` makes it wait."""

    def __init__(self) -> None:
        self.log = FakeLog()
        self.calls: list[tuple[str, Any]] = []
        self.finished: list[str] = []
        self.cancelled: list[str] = []
        self.raises: dict[str, BaseException] = {}
        self.answers: dict[str, Any] = {}
        self.auth = FakeAuth(self)
        self.repair = FakeRepair(self)
        self.storage = FakeStorage(self)
        self._held: dict[str, trio.Event] = {}
        self._entered: dict[str, trio.Event] = {}

    @contextmanager
    def block(self, method: str) -> Iterator[trio.Event]:
        """Let calls of a method wait until the event is set or the block is left."""
        event = self._held[method] = trio.Event()
        try:
            yield event
        finally:
            event.set()
            del self._held[method]

    async def entered(self, method: str, times: int = 1) -> None:
        """Wait until a method has been called so often."""
        while sum(name == method for name, _ in self.calls) < times:
            self._entered[method] = trio.Event()
            await self._entered[method].wait()

    async def _do(self, method: str, argument: Any, answer: Callable[[], T]) -> T:
        self.calls.append((method, argument))
        if method in self._entered:
            self._entered[method].set()
        try:
            if method in self._held:
                await self._held[method].wait()
            await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            self.cancelled.append(method)
            raise
        if method in self.raises:
            raise self.raises[method]
        self.finished.append(method)
        return self.answers.get(method) or answer()

    def _known(self, name: str) -> None:
        if name != "alerts":
            raise no_such_session(name)

    async def connect(self, name: str) -> t.SessionView:
        return await self._do("connect", name, lambda: view(name, "connecting"))

    async def disconnect(self, name: str) -> t.SessionView:
        self._known(name)
        return await self._do("disconnect", name, lambda: view(name, "stopped"))

    async def logout(self, name: str) -> t.LogoutResult:
        self._known(name)
        return await self._do(
            "logout", name, lambda: t.LogoutResult(session=view(name, "needs_pairing"), unlinked=True)
        )

    async def remove(self, name: str) -> t.RemoveResult:
        self._known(name)
        return await self._do("remove", name, lambda: t.RemoveResult(name=name, connection_id="c"))

    async def hold(self, name: str) -> t.SessionView:
        self._known(name)
        return await self._do("hold", name, lambda: view(name, "stopped"))

    async def release(self, name: str) -> t.SessionView:
        self._known(name)
        return await self._do("release", name, lambda: view(name, "connecting"))

    async def reset(self, name: str) -> t.SessionView:
        self._known(name)
        return await self._do("reset", name, lambda: view(name, "stopped"))

    async def undo(self, name: str) -> t.UndoResult:
        self._known(name)
        return await self._do(
            "undo",
            name,
            lambda: t.UndoResult(session=view(name, "stopped"), restored="5", sealed_at=1, backup="7"),
        )

    async def unretire(self, name: str) -> t.UndoResult:
        self._known(name)
        result = cast("t.UndoResult", EXAMPLES["auth.unretire"][1])
        return await self._do("unretire", name, lambda: result)

    async def policy(self, name: str | None) -> t.PolicyTable:
        return await self._do("policy", name, lambda: t.PolicyTable(session=name, rows=[]))

    async def list(self) -> list[t.SessionView]:
        return await self._do("list", None, lambda: [view()])

    async def status(self, name: str) -> t.SessionView:
        self._known(name)
        return await self._do("status", name, lambda: view(name))

    async def qr(self, name: str) -> t.QrView | None:
        self._known(name)
        return await self._do("qr", name, lambda: None)

    async def send(self, request: t.SendRequest) -> t.SendResult:
        self._known(request.session)
        return await self._do(
            "send",
            request,
            lambda: t.SendResult(
                session=request.session, message_id="3EB0A1", chat=request.to, state="queued", seq=7
            ),
        )

    async def wait(self, name: str, message_id: str, state: t.Milestone) -> t.WaitResult:
        self._known(name)
        return await self._do(
            "wait",
            (message_id, state),
            lambda: t.WaitResult(session=name, message_id=message_id, state=state),
        )

    async def messages(self, name: str, *, chat: str | None, before: int | None, limit: int) -> t.MessageList:
        self._known(name)
        return await self._do(
            "messages", (chat, before, limit), lambda: t.MessageList(session=name, messages=[])
        )

    async def outbox(self, name: str, *, states: tuple[t.OutboxState, ...], limit: int) -> t.OutboxList:
        self._known(name)
        return await self._do(
            "outbox", (states, limit), lambda: t.OutboxList(session=name, messages=[], total=0)
        )

    async def release_held(self, name: str, ids: Ids | None) -> t.DecideResult:
        self._known(name)
        return await self._do("release_held", ids, lambda: t.DecideResult(session=name, count=1))

    async def cancel_unsent(self, name: str, ids: Ids | None) -> t.DecideResult:
        self._known(name)
        return await self._do("cancel_unsent", ids, lambda: t.DecideResult(session=name, count=1))

    async def purge(self, order: t.PurgeParams) -> t.PurgeResult:
        self._known(order.session)
        return await self._do(
            "purge", order, lambda: t.PurgeResult(session=order.session, found=3, deleted=3)
        )

    async def mark_read(self, name: str, chat: str, ids: Ids) -> t.ReadResult:
        self._known(name)
        return await self._do("mark_read", (chat, ids), lambda: t.ReadResult(session=name, marked=len(ids)))

    async def events(
        self, *, since: int, types: tuple[str, ...], session: str | None, limit: int
    ) -> t.EventList:
        found = [event async for event in self.log.follow(since, types, session, follow=False)]
        return await self._do(
            "events",
            (since, types, session, limit),
            lambda: t.EventList(events=found[:limit], oldest=self.log.oldest, last=len(self.log.entries)),
        )

    @asynccontextmanager
    async def subscribe(
        self, *, since: int | None, types: tuple[str, ...], session: str | None, follow: bool
    ) -> AsyncIterator[FakeStream]:
        await self._do("subscribe", (since, types, session, follow), lambda: None)
        if session not in (None, "alerts"):
            raise no_such_session(session)
        if since is not None and since < self.log.oldest - 1:
            raise ControlError("cursor_expired", "gone", {"oldest": self.log.oldest})
        start = len(self.log.entries) if since is None else since
        self.log.open += 1
        try:
            async with aclosing(self.log.follow(start, types, session, follow=follow)) as entries:
                yield FakeStream(self.log, entries)
        finally:
            self.log.open -= 1
            self.log.left.set()


class FakeAuth:
    """Auth states of the sessions; calls are noted among theirs."""

    def __init__(self, sessions: FakeSessions) -> None:
        self._sessions = sessions

    async def _do(self, method: str, argument: Any) -> Any:
        result = EXAMPLES[method][1]
        return await self._sessions._do(method, argument, lambda: result)

    async def backup(self, order: t.BackupParams) -> t.BackupResult:
        self._sessions._known(order.name)
        return cast("t.BackupResult", await self._do("auth.backup", order))

    async def fetch(self, file_id: str, offset: int) -> t.Part:
        return cast("t.Part", await self._do("auth.fetch", (file_id, offset)))

    async def discard(self, file_id: str, *, kept: bool) -> None:
        await self._do("auth.discard", (file_id, kept))

    async def upload(self, file_id: str | None, data: bytes) -> t.UploadResult:
        return cast("t.UploadResult", await self._do("auth.upload", (file_id, data)))

    async def restore(self, order: t.RestoreParams) -> t.RestoreResult:
        return cast("t.RestoreResult", await self._do("auth.restore", order))

    async def seals(self, name: str) -> t.SealList:
        self._sessions._known(name)
        return cast("t.SealList", await self._do("auth.seals", name))

    async def restore_seal(self, order: t.SealRestoreParams) -> t.RestoreResult:
        self._sessions._known(order.name)
        return cast("t.RestoreResult", await self._do("auth.restore_seal", order))

    async def compare(self, order: t.CompareParams) -> t.CompareResult:
        self._sessions._known(order.name)
        return cast("t.CompareResult", await self._do("auth.compare", order))

    async def verify(self, name: str, level: int) -> t.VerifyResult:
        self._sessions._known(name)
        return cast("t.VerifyResult", await self._do("auth.verify", (name, level)))


class FakeRepair:
    """Repairs of the sessions' auth states; calls are noted among theirs."""

    def __init__(self, sessions: FakeSessions) -> None:
        self._sessions = sessions

    async def list(self, name: str) -> t.RepairList:
        self._sessions._known(name)
        result = EXAMPLES["repair.list"][1]
        return cast("t.RepairList", await self._sessions._do("repair.list", name, lambda: result))

    async def run(self, order: t.RepairParams) -> t.RepairResult:
        self._sessions._known(order.name)
        result = EXAMPLES["repair.run"][1]
        return cast("t.RepairResult", await self._sessions._do("repair.run", order, lambda: result))


class FakeStorage:
    """How the sessions' auth states are stored; calls are noted among theirs."""

    def __init__(self, sessions: FakeSessions) -> None:
        self._sessions = sessions

    async def status(self, name: str) -> t.StorageStatus:
        self._sessions._known(name)
        result = EXAMPLES["storage.status"][1]
        return cast("t.StorageStatus", await self._sessions._do("storage.status", name, lambda: result))

    async def _step(self, step: str, order: Any) -> t.StorageResult:
        self._sessions._known(order.name)
        result = EXAMPLES[f"storage.{step}"][1]
        return cast("t.StorageResult", await self._sessions._do(f"storage.{step}", order, lambda: result))

    async def log(self, order: t.StorageLogParams) -> t.StorageLog:
        self._sessions._known(order.name)
        result = EXAMPLES["storage.log"][1]
        return cast("t.StorageLog", await self._sessions._do("storage.log", order, lambda: result))

    async def keys(self) -> t.KeyList:
        result = EXAMPLES["storage.keys"][1]
        return cast("t.KeyList", await self._sessions._do("storage.keys", None, lambda: result))

    async def dual_write(self, order: t.StorageParams) -> t.StorageResult:
        return await self._step("dual_write", order)

    async def backfill(self, order: t.BackfillParams) -> t.StorageResult:
        return await self._step("backfill", order)

    async def verify(self, order: t.StorageParams) -> t.StorageResult:
        return await self._step("verify", order)

    async def promote(self, order: t.PromoteParams) -> t.StorageResult:
        return await self._step("promote", order)

    async def cutover(self, order: t.StorageParams) -> t.StorageResult:
        return await self._step("cutover", order)

    async def rollback(self, order: t.RollbackParams) -> t.StorageResult:
        return await self._step("rollback", order)

    async def retire_legacy(self, order: t.RetireParams) -> t.StorageResult:
        return await self._step("retire_legacy", order)

    async def encrypt(self, order: t.StorageParams) -> t.StorageResult:
        return await self._step("encrypt", order)

    async def rewrap(self, order: t.RewrapParams) -> t.StorageResult:
        return await self._step("rewrap", order)


class FakeDaemon:
    """Tells what it was asked to do."""

    def __init__(self) -> None:
        self.stopped = trio.Event()
        self.fault: BaseException | None = None

    async def info(self) -> t.DaemonInfo:
        if self.fault:
            raise self.fault
        return t.DaemonInfo(pid=1, version="0", protocol=t.PROTOCOL_VERSION, started_at=5, sessions=1)

    async def config(self) -> t.ConfigList:
        return t.ConfigList(options=[t.OptionView(key="log.level", value='"info"', origin="default")])

    async def check(self) -> t.CheckReport:
        return t.CheckReport(level="ok", findings=[])

    async def reload(self) -> t.ReloadResult:
        return t.ReloadResult(applied=["log.level"], restart_needed=["control.socket"])

    def stop(self) -> None:
        self.stopped.set()
