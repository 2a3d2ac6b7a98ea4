"""What the control server needs from the rest of the daemon, and how its refusals are raised.

The session manager implements `Sessions`, the composition root implements `Daemon`. Every method may raise
`ControlError`; any other exception is a fault of the daemon, logged and answered as `internal_error`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeAlias

from waD.control.types import (
    ERRORS,
    CheckReport,
    ConfigList,
    DaemonInfo,
    ErrorBody,
    EventList,
    EventView,
    LogoutResult,
    MessageList,
    Milestone,
    PolicyTable,
    QrView,
    ReadResult,
    ReloadResult,
    RemoveResult,
    SendRequest,
    SendResult,
    SessionView,
    Symbol,
    UndoResult,
    WaitResult,
)

SessionViews: TypeAlias = list[SessionView]
MessageIds: TypeAlias = list[str]


class ControlError(Exception):
    """A refusal with a place in the error table.

    Attributes:
        symbol: row of the table; `code` is its number.
        message: one sentence that names the thing and says what to do next.
        data: further facts, JSON-able; the symbol is added on the wire.
    """

    def __init__(self, symbol: Symbol, message: str, data: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.symbol: Symbol = symbol
        self.message = message
        self.data = data or {}

    @property
    def code(self) -> int:
        """The JSON-RPC number of the symbol."""
        return ERRORS[self.symbol].code

    def body(self) -> ErrorBody:
        """Return the error as it goes over the wire."""
        return ErrorBody(code=self.code, message=self.message, data={**self.data, "symbol": self.symbol})


def no_such_session(name: str) -> ControlError:
    """Build the error for a name or connection id that no session has."""
    return ControlError(
        "no_such_session", f"there is no session {name!r}; wactl list shows those there are", {"name": name}
    )


def bad_param(name: str, problem: str) -> ControlError:
    """Build the error for one malformed parameter."""
    return ControlError("bad_params", f"parameter {name!r}: {problem}", {"param": name})


class EventStream(Protocol):
    """An open subscription: durable entries first, then new ones as they are committed.

    Iteration ends only when the subscription was opened with `follow=False` and the log is read. It reads from
    the log at the consumer's pace and never holds up whoever commits. A consumer that falls behind what the
    log keeps gets `ControlError("cursor_expired")`.

    Attributes:
        oldest: first cursor in the log, 0 when it is empty.
        last: newest cursor at the time of opening.
    """

    @property
    def oldest(self) -> int:
        """First cursor in the log."""
        ...

    @property
    def last(self) -> int:
        """Newest cursor when the stream was opened."""
        ...

    def __aiter__(self) -> AsyncIterator[EventView]: ...


class Sessions(Protocol):
    """All sessions of this daemon. `name` is a session's name or connection id everywhere but in `connect`.

    The server cancels `wait` and everything that only reads when the client hangs up. `connect`, `disconnect`,
    `hold`, `release`, `reset`, `undo`, `logout`, `remove`, `send` and `mark_read` run to their end without the
    client, but a daemon that stops cancels them after the drain time: cancelled at any point, each has either
    committed or changed nothing.
    """

    async def connect(self, name: str) -> SessionView:
        """Create the session if needed, want it up, and return at once with the state it is in.

        In `backoff` and `failed` it tries now. Raises `bad_params` (the name), `wrong_state` (held),
        `lease_held`, `storage_unavailable`.
        """
        ...

    async def disconnect(self, name: str) -> SessionView:
        """Want it down; return when its connection is closed. Credentials stay."""
        ...

    async def logout(self, name: str) -> LogoutResult:
        """Seal the credentials, tell WhatsApp to unlink this device, clear them. History stays."""
        ...

    async def remove(self, name: str) -> RemoveResult:
        """Disconnect and retire the session. History and events stay; the connection id is kept for the name."""
        ...

    async def hold(self, name: str) -> SessionView:
        """Keep it down whatever is wanted, until `release`; return when its connection is closed."""
        ...

    async def release(self, name: str) -> SessionView:
        """Let a held session do again what is wanted. One that is not held stays as it is."""
        ...

    async def reset(self, name: str) -> SessionView:
        """Forget the counters, the last disconnect reason, and whose the session was. Credentials stay."""
        ...

    async def undo(self, name: str) -> UndoResult:
        """Put the credentials back that the last reset, repair or logout sealed; return with the session down.

        A connection that shows codes is closed. Raises `wrong_state`: there is nothing to put back, it is too old, or
        the session is paired.
        """
        ...

    async def policy(self, name: str | None) -> PolicyTable:
        """Return the disconnect table with the settings of a session of that name, or with the general ones."""
        ...

    async def list(self) -> SessionViews:
        """Return every session that is not retired, by name."""
        ...

    async def status(self, name: str) -> SessionView:
        """Return the session as it is now, also one that is stopped."""
        ...

    async def qr(self, name: str) -> QrView | None:
        """Return the code to scan now, or None when the session is not showing one."""
        ...

    async def send(self, request: SendRequest) -> SendResult:
        """Put a text message into the outbox durably; it leaves when the session is open.

        `request.to` and `request.mentions` are digits or addresses. Raises `invalid_text`, `bad_params`,
        `not_on_whatsapp` (only if that is known already), `wrong_state` (not paired), `storage_unavailable`.
        """
        ...

    async def wait(self, name: str, message_id: str, state: Milestone) -> WaitResult:
        """Block until the message has reached `state` or gone beyond it. The server owns the time limit.

        Raises `no_such_session` (also for an unknown message id), and `refused` when it failed, expired or was
        cancelled: data holds `messageId`, `state` and WhatsApp's `code` if there is one.
        """
        ...

    async def messages(self, name: str, *, chat: str | None, before: int | None, limit: int) -> MessageList:
        """Return a page of the history, newest first; `chat` is digits or an address."""
        ...

    async def mark_read(self, name: str, chat: str, ids: MessageIds) -> ReadResult:
        """Send read receipts for received messages of one chat; unknown ids are `bad_params`."""
        ...

    async def events(
        self, *, since: int, types: tuple[str, ...], session: str | None, limit: int
    ) -> EventList:
        """Return a page of the event log. Empty `types` means all. Raises `cursor_expired`."""
        ...

    def subscribe(
        self, *, since: int | None, types: tuple[str, ...], session: str | None, follow: bool
    ) -> AbstractAsyncContextManager[EventStream]:
        """Open a subscription; entering it raises `cursor_expired` (data `oldest`) or `no_such_session`."""
        ...


class Daemon(Protocol):
    """The process itself."""

    async def info(self) -> DaemonInfo:
        """Return what runs here, since when, with which store."""
        ...

    async def config(self) -> ConfigList:
        """Return every option with its value and origin; no passwords."""
        ...

    async def check(self) -> CheckReport:
        """Look at store, files, sessions and subscribers; change nothing."""
        ...

    async def reload(self) -> ReloadResult:
        """Read the configuration again. Raises `refused` with every fault in it; nothing changes then.

        It runs to its end without its client, as the commands of `Sessions` do.
        """
        ...

    def stop(self) -> None:
        """Ask for an orderly stop; return at once."""
        ...
