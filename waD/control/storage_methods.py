"""Methods about how auth states are stored, and the one that deletes history."""

from __future__ import annotations

from typing import Final

import msgspec

from waD.control import types as t
from waD.control.api import bad_param
from waD.control.method import Call, Method, row


async def _status(call: Call, params: t.SessionParams) -> t.StorageStatus:
    """Answer with how a session's auth state is stored: its phase, versions, errors, seals, checks and encryption."""
    return await call.sessions.storage.status(params.name)


async def _log(call: Call, params: t.StorageLogParams) -> t.StorageLog:
    """Answer with the changes of a session's phase, newest first: when, who wanted it, and what was demanded."""
    return await call.sessions.storage.log(params)


async def _dual_write(call: Call, params: t.StorageParams) -> t.StorageResult:
    """Begin a snapshot beside the key-value rows; from now on both are written, in one transaction.

    Demands a state that verifies, room on the disk, and a database that loses no commit.
    """
    return await call.sessions.storage.dual_write(params)


async def _backfill(call: Call, params: t.BackfillParams) -> t.StorageResult:
    """Copy into the snapshot what only the key-value rows have, in batches; it can be called again to go on.

    When nothing is left both are compared, and the session moves to the phase backfilled if they are equal.
    """
    return await call.sessions.storage.backfill(params)


async def _verify(call: Call, params: t.StorageParams) -> t.StorageResult:
    """Compare both representations, recompute the checksum and verify the keys; the result is recorded."""
    return await call.sessions.storage.verify(params)


async def _promote(call: Call, params: t.PromoteParams) -> t.StorageResult:
    """Read the snapshot only; the key-value rows are still written.

    Demands a day and a restart in the phase backfilled, no item that was found only in the rows, equal
    representations and a state that verifies.
    """
    return await call.sessions.storage.promote(params)


async def _cutover(call: Call, params: t.StorageParams) -> t.StorageResult:
    """Stop writing the key-value rows, which are stale from then on.

    Demands seven days and two restarts in the phase snapshot_primary, equal representations, a state that verifies, a
    backup of the last day, no error of the store in the phase, and no alert within a day. The state is sealed first.
    """
    return await call.sessions.storage.cutover(params)


async def _rollback(call: Call, params: t.RollbackParams) -> t.StorageResult:
    """Go back one phase, or as far as is said. From cut_over the key-value rows are written anew.

    For that the session is disconnected, and connected again afterwards if it was wanted up.
    """
    return await call.sessions.storage.rollback(params)


async def _retire_legacy(call: Call, params: t.RetireParams) -> t.StorageResult:
    """Delete the key-value rows; there is no way back.

    Demands 14 days in the phase cut_over, a state that verifies, a sealed copy, a backup of the last day, and the
    session's name once more.
    """
    return await call.sessions.storage.retire_legacy(params)


async def _encrypt(call: Call, params: t.StorageParams) -> t.StorageResult:
    """Encrypt a state that is stored in the clear, with its sealed copies and waiting messages.

    Without the operator's key the state is lost then. Key-value rows stay in the clear.
    """
    return await call.sessions.storage.encrypt(params)


async def _rewrap(call: Call, params: t.RewrapParams) -> t.StorageResult:
    """Wrap the session's own key, and those of its sealed copies, with another key of the operator's.

    A session that was removed or moved is meant as well: it can be brought back, and needs its key then.
    """
    return await call.sessions.storage.rewrap(params)


async def _keys(call: Call, _: t.NoParams) -> t.KeyList:
    """Answer with the keys of the operator's that are here or needed, and which sessions and sealed copies need them.

    Retired sessions are among them. No key itself is ever told.
    """
    return await call.sessions.storage.keys()


async def _purge(call: Call, params: t.PurgeParams) -> t.PurgeResult:
    """Delete messages of the history for good. Nothing else ever does."""
    try:
        chat = None if params.chat is None else t.parse_recipient(params.chat)
    except ValueError as error:
        raise bad_param("chat", str(error)) from None
    return await call.sessions.purge(msgspec.structs.replace(params, chat=chat))


STORAGE_METHODS: Final[tuple[Method, ...]] = (
    row("storage.status", "query", "observer", t.SessionParams, t.StorageStatus, _status),
    row("storage.log", "query", "observer", t.StorageLogParams, t.StorageLog, _log),
    row("storage.dual_write", "command", "admin", t.StorageParams, t.StorageResult, _dual_write),
    row("storage.backfill", "command", "admin", t.BackfillParams, t.StorageResult, _backfill),
    row("storage.verify", "command", "admin", t.StorageParams, t.StorageResult, _verify),
    row("storage.promote", "command", "admin", t.PromoteParams, t.StorageResult, _promote),
    row("storage.cutover", "command", "admin", t.StorageParams, t.StorageResult, _cutover),
    row("storage.rollback", "command", "admin", t.RollbackParams, t.StorageResult, _rollback),
    row("storage.retire_legacy", "command", "admin", t.RetireParams, t.StorageResult, _retire_legacy),
    row("storage.encrypt", "command", "admin", t.StorageParams, t.StorageResult, _encrypt),
    row("storage.rewrap", "command", "admin", t.RewrapParams, t.StorageResult, _rewrap),
    row("storage.keys", "query", "observer", t.NoParams, t.KeyList, _keys),
    row("message.purge", "command", "admin", t.PurgeParams, t.PurgeResult, _purge),
)
