"""The events: their names and what their data holds. Keys of the data are camelCase, times Unix milliseconds.

The envelope (cursor, time, connectionId, session) is the store's; see `waD.store.model.EventRow`. Each builder returns
(type, data), as `Unit.event` and `Store.append_event` take them.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from waD.store.model import MESSAGES_PURGED as MESSAGES_PURGED
from waD.store.model import STATUS_NAMES, MessageRow
from waD.store.model import STORAGE_FALLBACK as STORAGE_FALLBACK

Event: TypeAlias = tuple[str, dict[str, Any]]

CONNECTION_STATUS: Final = "connection:status"
CONNECTION_QR: Final = "connection:qr"
CONNECTION_ERROR: Final = "connection:error"
MESSAGE_NEW: Final = "message:new"
MESSAGE_STATUS: Final = "message:status"
MESSAGE_UPDATE: Final = "message:update"
IDENTITY_CHANGED: Final = "identity:changed"
AUTH_RESET: Final = "auth:reset"
AUTH_RESTORED: Final = "auth:restored"
AUTH_BACKUP: Final = "auth:backup"
AUTH_VERIFIED: Final = "auth:verified"
AUTH_REPAIRED: Final = "auth:repaired"
STORAGE_WRITE_FAILED: Final = "storage:write_failed"
ALERT_RAISED: Final = "alert:raised"

TYPES: Final = frozenset(
    {
        CONNECTION_STATUS,
        CONNECTION_QR,
        CONNECTION_ERROR,
        MESSAGE_NEW,
        MESSAGE_STATUS,
        MESSAGE_UPDATE,
        IDENTITY_CHANGED,
        AUTH_RESET,
        AUTH_RESTORED,
        AUTH_BACKUP,
        AUTH_VERIFIED,
        AUTH_REPAIRED,
        STORAGE_WRITE_FAILED,
        STORAGE_FALLBACK,
        MESSAGES_PURGED,
        ALERT_RAISED,
    }
)


def _message(row: MessageRow) -> dict[str, Any]:
    data: dict[str, Any] = {
        "chat": row.chat,
        "sender": row.sender,
        "messageId": row.message_id,
        "fromMe": row.from_me,
        "time": row.ts,
        "kind": row.kind,
        "source": row.source,
    }
    if row.body is not None:
        data["body"] = row.body
    if row.content:
        data["content"] = row.content
    return data


def message_new(row: MessageRow, **more: Any) -> Event:
    """A message came in, or one of ours was sent by another device.

    Args:
        row: as stored.
        **more: further facts that are known: `pushName`, `senderPn`, `senderLid`; None is left out.
    """
    return MESSAGE_NEW, _message(row) | _known(more)


def message_update(row: MessageRow, reason: str, **more: Any) -> Event:
    """A message that was announced before is different now; `reason` is `resolved`, `edited` or `revoked`."""
    return MESSAGE_UPDATE, _message(row) | {"reason": reason} | _known(more)


def message_status(chat: str, message_id: str, status: int | str, **more: Any) -> Event:
    """An own message got further, or failed.

    Args:
        chat: canonical address.
        message_id: which message.
        status: a number of `STATUS_NUMBERS`, or a state of the outbox such as `failed`.
        **more: `code`, `error`, `participant`; None is left out.
    """
    name = STATUS_NAMES[status] if isinstance(status, int) else status
    return MESSAGE_STATUS, {"chat": chat, "messageId": message_id, "status": name} | _known(more)


def identity_changed(user: str, *, implicit: bool) -> Event:
    """A person's phone has a new identity key: reinstalled, or somebody else's.

    Args:
        user: canonical address.
        implicit: noticed in a message or a bundle rather than told by the server.
    """
    return IDENTITY_CHANGED, {"user": user, "implicit": implicit}


def connection_status(state: str, **more: Any) -> Event:
    """A session is in another state, or its flags changed; `more` such as `ready`, `healthy`, `cause`, `hint`."""
    return CONNECTION_STATUS, {"status": state} | _known(more)


def connection_qr(number: int, of: int, expires_at: int) -> Event:
    """There is a code to scan; the code itself is a secret and is asked for with `session.qr`."""
    return CONNECTION_QR, {"number": number, "of": of, "expiresAt": expires_at}


def connection_error(cause: str, message: str, **more: Any) -> Event:
    """A connection ended or could not be made; `more` such as `code`, `hint`."""
    return CONNECTION_ERROR, {"cause": cause, "message": message} | _known(more)


def alert(severity: str, subject: str, message: str, **more: Any) -> Event:
    """Something needs an operator; severity is `info`, `warning` or `critical`."""
    return ALERT_RAISED, {"severity": severity, "subject": subject, "message": message} | _known(more)


def auth_repaired(action: str, target: str | None, count: int, sealed: int) -> Event:
    """An auth state was repaired.

    Args:
        action: what was done.
        target: canonical address of whom it was about, if of anybody.
        count: how many things were dropped, uploaded or listed.
        sealed: version of the seal that was made before.
    """
    return AUTH_REPAIRED, {"action": action, "count": count, "sealedVersion": sealed} | _known(
        {"target": target}
    )


def _known(more: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in more.items() if value is not None}
