"""Rows of the database as values, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from waD.store.model import DisconnectRecord, EventRow, MessageRow, OutboxRow, SessionRow
from waD.store.sql.database import Json, Ms

encode_json: Final = msgspec.json.Encoder().encode
decode_json: Final = msgspec.json.Decoder().decode

SESSION_COLUMNS: Final = (
    "id", "name", "me_pn", "me_lid", "push_name", "business_name", "platform", "desired_state", "held",
    "current_status", "last_disconnect_tag", "last_disconnect_reason", "last_disconnect_detail",
    "last_disconnected_at", "last_connected_at", "last_message_at", "reconnect_count", "reconnect_attempt",
    "messages_received", "messages_sent", "decrypt_failures", "retry_requests",
    "auth_epoch", "auth_version", "auth_phase", "legacy_version", "lease_token", "lease_holder", "lease_expires_at",
    "dek_kek_id", "created_at", "updated_at",
)  # fmt: skip
MESSAGE_COLUMNS: Final = (
    "chat", "sender", "message_id", "from_me", "ts", "kind", "body", "content", "raw", "wire_chat", "wire_sender",
    "status", "source", "edited_at", "revoked_at", "seq", "session_id",
)  # fmt: skip
OUTBOX_COLUMNS: Final = (
    "client_ref", "chat", "message_id", "payload", "stanza", "state", "attempts", "not_before", "expires_at",
    "last_error", "created_at", "written_at", "sent_at", "seq", "session_id",
)  # fmt: skip

SESSION_CHANGES: Final = frozenset(SESSION_COLUMNS[2:18]) | {"last_disconnect"}
MESSAGE_CHANGES: Final = frozenset(
    {"kind", "body", "content", "raw", "status", "edited_at", "revoked_at", "ts"}
)
OUTBOX_CHANGES: Final = frozenset(OUTBOX_COLUMNS[3:10]) | {"written_at", "sent_at"}
_JSON_COLUMNS: Final = frozenset({"content"})
_TIME_COLUMNS: Final = frozenset(
    {
        "ts", "edited_at", "revoked_at", "not_before", "expires_at", "written_at", "sent_at", "last_connected_at",
        "last_message_at", "last_disconnected_at",
    }
)  # fmt: skip

Row = tuple[Any, ...]


def json_text(value: object) -> Json:
    """JSON for a column of documents."""
    return Json(encode_json(value), "utf-8")


def session_row(row: Row) -> SessionRow:
    """From `SESSION_COLUMNS`."""
    fields = dict(zip(SESSION_COLUMNS, row, strict=True))
    fields["kek_id"] = fields.pop("dek_kek_id")
    tag, reason = fields.pop("last_disconnect_tag"), fields.pop("last_disconnect_reason")
    detail, at_ms = fields.pop("last_disconnect_detail"), fields.pop("last_disconnected_at")
    fields["held"] = bool(fields["held"])
    last = None
    if tag is not None:
        last = DisconnectRecord(cause=tag, code=reason, at_ms=at_ms or 0, detail=decode_json(detail or "{}"))
    return SessionRow(last_disconnect=last, **fields)


def message_row(row: Row) -> MessageRow:
    """From `MESSAGE_COLUMNS`."""
    fields = dict(zip(MESSAGE_COLUMNS, row, strict=True))
    fields["from_me"] = bool(fields["from_me"])
    if fields["content"] is not None:
        fields["content"] = decode_json(fields["content"])
    return MessageRow(**fields)


def outbox_row(row: Row, open_payload: Callable[[str, str | bytes], str | bytes]) -> OutboxRow:
    """From `OUTBOX_COLUMNS`; `open_payload` decrypts the payload of a message id."""
    fields = dict(zip(OUTBOX_COLUMNS, row, strict=True))
    fields["payload"] = decode_json(open_payload(fields["message_id"], fields["payload"]))
    return OutboxRow(**fields)


def event_row(row: Row) -> EventRow:
    """From id, at, session_id, session, kind, payload."""
    cursor, at, session_id, session, kind, payload = row
    return EventRow(
        cursor=cursor,
        time=at,
        connection_id=session_id,
        session=session,
        type=kind,
        data=decode_json(payload),
    )


def session_changes(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of wa_sessions for a unit's changes.

    Raises:
        ValueError: a name that is no column a unit may change.
    """
    _check("session", changes, SESSION_CHANGES)
    columns = dict(changes)
    if "last_disconnect" in columns:
        record: DisconnectRecord | None = columns.pop("last_disconnect")
        columns |= {
            "last_disconnect_tag": record and record.cause,
            "last_disconnect_reason": record and record.code,
            "last_disconnect_detail": record and json_text(record.detail),
            "last_disconnected_at": record and record.at_ms,
        }
    return {name: _parameter(name, value) for name, value in columns.items()}


def assignments(what: str, changes: Mapping[str, Any], allowed: frozenset[str]) -> tuple[str, list[Any]]:
    """The SET part of an UPDATE, and its values."""
    _check(what, changes, allowed)
    values = [_parameter(name, value) for name, value in changes.items()]
    return ", ".join(f"{name}=?" for name in changes), values


def _parameter(name: str, value: Any) -> Any:
    if value is not None and name in _JSON_COLUMNS:
        return json_text(value)
    return Ms(value) if value is not None and name in _TIME_COLUMNS else value


def _check(what: str, changes: Mapping[str, Any], allowed: frozenset[str]) -> None:
    if unknown := set(changes) - allowed:
        raise ValueError(f"no such column of a {what}: {', '.join(sorted(unknown))}")
