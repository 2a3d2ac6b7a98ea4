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
    BackfillParams,
    BackupParams,
    BackupResult,
    CheckReport,
    CompareParams,
    CompareResult,
    ConfigList,
    DaemonInfo,
    DecideResult,
    ErrorBody,
    EventList,
    EventView,
    KeyList,
    LogoutResult,
    MessageList,
    Milestone,
    OutboxList,
    OutboxState,
    Part,
    PolicyTable,
    PromoteParams,
    PurgeParams,
    PurgeResult,
    QrView,
    ReadResult,
    ReloadResult,
    RemoveResult,
    RepairList,
    RepairParams,
    RepairResult,
    RestoreParams,
    RestoreResult,
    RetireParams,
    RewrapParams,
    RollbackParams,
    SealList,
    SealRestoreParams,
    SendRequest,
    SendResult,
    SessionView,
    StorageLog,
    StorageLogParams,
    StorageParams,
    StorageResult,
    StorageStatus,
    Symbol,
    UndoResult,
    UploadResult,
    VerifyResult,
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


class Auth(Protocol):
    """Auth states of the sessions.

    `backup`, `discard`, `upload`, `restore` and `restore_seal` run to their end without the client.
    """

    async def backup(self, order: BackupParams) -> BackupResult:
        """Make an archive, verify it, and keep it for a while.

        Raises `no_such_session`, `wrong_state` (not paired), `damaged`, `bad_params` (a recipient), `refused`.
        """
        ...

    async def fetch(self, file_id: str, offset: int) -> Part:
        """Return a part of an archive; `bad_params` when there is none of that id."""
        ...

    async def discard(self, file_id: str, *, kept: bool) -> None:
        """Forget an archive or upload; an unknown one is fine unless it was `kept`."""
        ...

    async def upload(self, file_id: str | None, data: bytes) -> UploadResult:
        """Append to an upload, or begin one."""
        ...

    async def restore(self, order: RestoreParams) -> RestoreResult:
        """Restore from an upload.

        Raises `bad_params`, `refused` (a newer state, another identity), `damaged` (the archive), `wrong_state`.
        """
        ...

    async def seals(self, name: str) -> SealList:
        """Return the sealed copies of a session's auth state, also of a retired one."""
        ...

    async def restore_seal(self, order: SealRestoreParams) -> RestoreResult:
        """Put a sealed copy back; one that is not the last version is an old state.

        Raises as `restore` does, and `wrong_state` for a session that was moved.
        """
        ...

    async def compare(self, order: CompareParams) -> CompareResult:
        """Compare an upload with what is in place; raises as `restore` does, but refuses nothing to be older."""
        ...

    async def verify(self, name: str, level: int) -> VerifyResult:
        """Verify what is stored; level 4 raises `wrong_state` when the session is not connected."""
        ...


class Repair(Protocol):
    """Repairs of auth states; `run` goes to its end without the client, and so does what it asks of WhatsApp."""

    async def list(self, name: str) -> RepairList:
        """Verify, and tell which repairs are advised; raises as `Auth.verify` does."""
        ...

    async def run(self, order: RepairParams) -> RepairResult:
        """Seal the state and repair something.

        Raises `bad_params` (the target), `wrong_state` (not paired; not connected, for an action that asks WhatsApp),
        `refused` (by WhatsApp, or the action does not exist yet), `timeout`, `damaged` (beyond repair).
        """
        ...


class Storage(Protocol):
    """How auth states are stored. Each step runs to its end without the client, and is committed whole or not at all.

    All raise `no_such_session`, `wrong_state` (the step does not begin in the session's phase, or another one is at
    work), `damaged` (the state cannot be read) and `storage_unavailable`. What a step demands and finds missing is no
    error but the result: `refused` or `damaged`, and nothing was changed.
    """

    async def status(self, name: str) -> StorageStatus:
        """Look at the phase and everything around it."""
        ...

    async def log(self, order: StorageLogParams) -> StorageLog:
        """Return the newest changes of the phase, and who wanted them; of a retired session as well."""
        ...

    async def dual_write(self, order: StorageParams) -> StorageResult:
        """From legacy_only: seal, and begin to write a snapshot as well."""
        ...

    async def backfill(self, order: BackfillParams) -> StorageResult:
        """From dual_write: copy what the snapshot lacks; with the last batch compare, and go to backfilled."""
        ...

    async def verify(self, order: StorageParams) -> StorageResult:
        """Compare, recompute the checksum, verify the keys; record the result unless it is a dry run."""
        ...

    async def promote(self, order: PromoteParams) -> StorageResult:
        """From backfilled to snapshot_primary."""
        ...

    async def cutover(self, order: StorageParams) -> StorageResult:
        """From snapshot_primary: seal, and go to cut_over."""
        ...

    async def rollback(self, order: RollbackParams) -> StorageResult:
        """Go back; from cut_over the legacy rows are written anew while the session is at rest."""
        ...

    async def retire_legacy(self, order: RetireParams) -> StorageResult:
        """From cut_over: seal, delete the legacy rows, and go to legacy_retired."""
        ...

    async def encrypt(self, order: StorageParams) -> StorageResult:
        """Encrypt a state that is stored in the clear."""
        ...

    async def rewrap(self, order: RewrapParams) -> StorageResult:
        """Wrap the keys of a session, also of a retired one, and of its seals with another of the operator's."""
        ...

    async def keys(self) -> KeyList:
        """Return which of the operator's keys are here, and what needs them."""
        ...


class Sessions(Protocol):
    """All sessions of this daemon. `name` is a session's name or connection id everywhere but in `connect`.

    The server cancels `wait` and everything that only reads when the client hangs up. `connect`, `disconnect`,
    `hold`, `release`, `reset`, `undo`, `logout`, `remove`, `send`, `mark_read`, `release_held` and `cancel_unsent`
    run to their end without the client, but a daemon that stops cancels them after the drain time: cancelled at any
    point, each has either committed or changed nothing.
    """

    @property
    def auth(self) -> Auth:
        """What can be done with their auth states."""
        ...

    @property
    def repair(self) -> Repair:
        """How they are repaired."""
        ...

    @property
    def storage(self) -> Storage:
        """How their auth states are stored."""
        ...

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
        """Put the credentials back that were cleared last; return with the session down.

        A connection that shows codes is closed. Raises `wrong_state`: there is nothing to put back, it is too old, or
        the session is paired.
        """
        ...

    async def unretire(self, name: str) -> UndoResult:
        """Bring a session back that a backup for a move retired; return with it down. Raises as `undo` does."""
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

    async def purge(self, order: PurgeParams) -> PurgeResult:
        """Delete messages of the history, or count them; `bad_params` when it is not said which."""
        ...

    async def mark_read(self, name: str, chat: str, ids: MessageIds) -> ReadResult:
        """Send read receipts for received messages of one chat; unknown ids are `bad_params`."""
        ...

    async def outbox(self, name: str, *, states: tuple[OutboxState, ...], limit: int) -> OutboxList:
        """Return the oldest messages of the outbox in these states, and how many there are."""
        ...

    async def release_held(self, name: str, ids: MessageIds | None) -> DecideResult:
        """Queue held messages anew, all for None.

        Raises `no_such_session` (also for an unknown message id) and `wrong_state` (one of them is not held), with
        nothing changed.
        """
        ...

    async def cancel_unsent(self, name: str, ids: MessageIds | None) -> DecideResult:
        """End held messages, all for None; by id also queued ones. Raises as `release_held` does."""
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
