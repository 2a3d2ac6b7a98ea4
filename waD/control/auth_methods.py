"""Methods about auth states: backup, restore, verification. Large files go over the socket in parts."""

from __future__ import annotations

from typing import Final

from waD.control import types as t
from waD.control.api import bad_param
from waD.control.method import Call, Method, row


async def _backup(call: Call, params: t.BackupParams) -> t.BackupResult:
    """Make a backup of a session's auth state, and verify it by reading it again; the session goes on meanwhile.

    The archive is encrypted to the given public keys, or with a passphrase, and waits in the daemon until it is
    fetched. With final it is made for a move: the session is retired, and only this archive can go on with its
    conversations.
    """
    if bool(params.recipients) == (params.passphrase is not None):
        raise bad_param("recipients", "either name public keys, or give a passphrase")
    return await call.sessions.auth.backup(params)


async def _fetch(call: Call, params: t.FetchParams) -> t.Part:
    """Answer with a part of a backup."""
    return await call.sessions.auth.fetch(params.id, params.offset)


async def _discard(call: Call, params: t.DiscardParams) -> t.Done:
    """Forget a backup or an upload. With kept, the backup is recorded as the newest one of its session."""
    await call.sessions.auth.discard(params.id, kept=params.kept)
    return t.Done()


async def _upload(call: Call, params: t.UploadParams) -> t.UploadResult:
    """Take a part of a decrypted archive that is to be restored."""
    return await call.sessions.auth.upload(params.id, params.data)


async def _restore(call: Call, params: t.RestoreParams) -> t.RestoreResult:
    """Put the auth state of an uploaded archive into a session, which is left down.

    What is in place is sealed first. An archive that was made for a planned move goes on exactly, once. Any other one
    is an old state: its conversations make a new key exchange before they send, keys that may have been used are not
    used again, and messages on their way out are held. A newer state, and one of another identity, are not replaced.
    A state whose key is not here is replaced if it is of the same device, and kept as it is stored.
    """
    return await call.sessions.auth.restore(params)


async def _seals(call: Call, params: t.SessionParams) -> t.SealList:
    """Answer with the sealed copies of a session's auth state, the newest first; of a retired session as well."""
    return await call.sessions.auth.seals(params.name)


async def _restore_seal(call: Call, params: t.SealRestoreParams) -> t.RestoreResult:
    """Put a sealed copy of a session's auth state back; the session is left down.

    What is in place is sealed first. Unless the copy is of the last version it is an old state, and is treated as an
    archive is.
    """
    return await call.sessions.auth.restore_seal(params)


async def _unretire(call: Call, params: t.SessionParams) -> t.UndoResult:
    """Bring back a session that was retired by a backup for a move; it is left down.

    Its last state is an old one now, whether or not the archive was used: its conversations make a new key exchange
    before they send, as with session.undo.
    """
    return await call.sessions.unretire(params.name)


async def _compare(call: Call, params: t.CompareParams) -> t.CompareResult:
    """Compare an uploaded archive with what is in place, and tell what a restore would do; changes nothing."""
    return await call.sessions.auth.compare(params)


async def _verify(call: Call, params: t.VerifyParams) -> t.VerifyResult:
    """Verify a session's stored auth state; with level 4 also against what WhatsApp knows, when it is connected."""
    return await call.sessions.auth.verify(params.name, params.level)


AUTH_METHODS: Final[tuple[Method, ...]] = (
    row("auth.backup", "command", "admin", t.BackupParams, t.BackupResult, _backup),
    row("auth.fetch", "query", "admin", t.FetchParams, t.Part, _fetch),
    row("auth.discard", "command", "admin", t.DiscardParams, t.Done, _discard),
    row("auth.upload", "command", "admin", t.UploadParams, t.UploadResult, _upload),
    row("auth.restore", "command", "admin", t.RestoreParams, t.RestoreResult, _restore),
    row("auth.seals", "query", "observer", t.SessionParams, t.SealList, _seals),
    row("auth.restore_seal", "command", "admin", t.SealRestoreParams, t.RestoreResult, _restore_seal),
    row("auth.unretire", "command", "admin", t.SessionParams, t.UndoResult, _unretire),
    row("auth.compare", "query", "admin", t.CompareParams, t.CompareResult, _compare),
    row("auth.verify", "query", "observer", t.VerifyParams, t.VerifyResult, _verify),
)
