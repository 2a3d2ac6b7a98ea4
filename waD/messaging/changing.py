"""Edits and revokes of messages that are there already, by those who may (chapter 04 §9.4)."""

from __future__ import annotations

import logging
from typing import Any, Final

from msgspec import structs

from waD.events import model as events
from waD.messaging import message_secrets
from waD.messaging.content import parse
from waD.messaging.context import Context
from waD.messaging.incoming_content import Description, describe
from waD.messaging.message_keys import Key, read_key
from waD.messaging.recording import Place, Recorder
from waD.messaging.rows import Rows
from waD.messaging.stanza import Incoming
from waD.proto.e2e_pb2 import Message
from waD.store.model import UNDECRYPTABLE, MessageRow
from waD.store.unit import Unit

EDIT_WINDOW_MS: Final = 1_200_000
"""How long after it was sent a message may be edited."""
REVOKED: Final = "revoked"
"""Kind of the row that keeps the place of a message that was revoked before it came."""
REVOKE: Final = "revoke"
"""Kind of the row of a revoke that was not carried out."""

_EDITABLE: Final = frozenset({"text", "image", "video", "gif", "document", "poll", "event", UNDECRYPTABLE})

_log = logging.getLogger(__name__)


class Changing:
    """Changes messages of the history as their authors order it."""

    def __init__(self, context: Context, rows: Rows, recorder: Recorder) -> None:
        self._context = context
        self._rows = rows
        self._recorder = recorder

    async def edit(
        self, unit: Unit, incoming: Incoming, place: Place, protocol: Message.ProtocolMessage
    ) -> None:
        """Replace what a message says; the newest edit of its author wins."""
        key = read_key(protocol.key)
        description = describe(protocol.editedMessage)
        if key is None or description is None or not key.from_me:
            _log.debug("an edit by somebody else than the author was ignored")
            return
        edited_at = protocol.timestampMs if protocol.timestampMs > 0 else incoming.time_ms
        target = structs.replace(place, message_id=key.id)
        row = await self._recorder.known(unit, target)
        if row is None:
            await self._edit_unknown(unit, incoming, target, description, protocol.editedMessage, edited_at)
        elif _may_edit(row, incoming, edited_at):
            self._edit_known(unit, row, description, protocol.editedMessage, edited_at)

    def _edit_known(
        self, unit: Unit, row: MessageRow, description: Description, edited: Message, edited_at: int
    ) -> None:
        changes: dict[str, Any] = {
            "kind": description.kind,
            "body": description.body,
            "content": description.content | {"edited": True},
            "raw": _with_context_of(edited, row.raw),
            "edited_at": edited_at,
        }
        changed = self._rows.change(unit, row, **changes)
        unit.event(*events.message_update(changed, "edited", editedAt=edited_at))

    async def _edit_unknown(
        self,
        unit: Unit,
        incoming: Incoming,
        place: Place,
        description: Description,
        edited: Message,
        edited_at: int,
    ) -> None:
        """The edit came first, or the message before this device was linked: what it says now is what counts."""
        description.content = description.content | {"edited": True}
        raw, _ = message_secrets.split(edited, edited.SerializeToString())
        await self._recorder.record(unit, incoming, place, description, raw, None)
        unit.update_message(str(place.chat), str(place.sender), place.message_id, edited_at=edited_at)

    async def revoke(
        self, unit: Unit, incoming: Incoming, place: Place, protocol: Message.ProtocolMessage
    ) -> Description | None:
        """Delete what a message said, but not that it was there.

        Returns:
            What to record instead: a revoke by a group admin, which cannot be checked here, changes nothing.
        """
        key = read_key(protocol.key)
        if key is None:
            return None
        if not key.from_me:
            return _order_of_admin(incoming, key)
        target = structs.replace(place, message_id=key.id)
        row = await self._recorder.known(unit, target)
        if row is None:
            self._keep_place(unit, incoming, target)
        elif row.revoked_at is None:
            await self._revoke_row(unit, incoming, row)
        return None

    async def revoke_as_admin(
        self, unit: Unit, incoming: Incoming, place: Place, description: Description
    ) -> bool:
        """Carry out a revoke by an admin, when that admin is the own account; says whether it was."""
        key = description.target
        if key is None or key.participant is None or not incoming.own:
            return False
        author = await self._context.addresses.canonical(key.participant, unit)
        row = await self._recorder.known(unit, structs.replace(place, message_id=key.id, sender=author))
        if row is not None and row.revoked_at is None:
            await self._revoke_row(unit, incoming, row)
        return row is not None

    async def _revoke_row(self, unit: Unit, incoming: Incoming, row: MessageRow) -> None:
        by = await self._context.addresses.canonical(incoming.sender, unit)
        changed = self._rows.change(
            unit, row, body=None, content={"revokedBy": str(by)}, raw=None, revoked_at=incoming.time_ms
        )
        unit.event(*events.message_update(changed, "revoked", revokedBy=str(by)))

    def _keep_place(self, unit: Unit, incoming: Incoming, place: Place) -> None:
        """The message may still come; it was revoked before anybody read it, so nothing is announced then."""
        unit.add_message(
            MessageRow(
                chat=str(place.chat),
                sender=str(place.sender),
                message_id=place.message_id,
                from_me=incoming.from_me,
                ts=incoming.time_ms,
                kind=REVOKED,
                wire_chat=str(place.wire_chat),
                wire_sender=str(incoming.sender),
                source="offline" if incoming.offline else "live",
            )
        )
        unit.update_message(str(place.chat), str(place.sender), place.message_id, revoked_at=incoming.time_ms)


def _order_of_admin(incoming: Incoming, key: Key) -> Description | None:
    if incoming.kind != "group" or key.participant is None:
        _log.debug("a revoke by somebody else than the author was ignored")
        return None
    return Description(REVOKE, None, {"applied": False}, key)


def _may_edit(row: MessageRow, incoming: Incoming, edited_at: int) -> bool:
    if row.kind not in _EDITABLE or row.revoked_at is not None:
        return False
    if row.edited_at is not None and row.edited_at >= edited_at:
        return False
    return incoming.time_ms < row.ts + EDIT_WINDOW_MS


def _with_context_of(edited: Message, raw: bytes | None) -> bytes:
    """The new content with what the first one says about itself, but for the secret, which has a place of its own."""
    before = parse(raw or b"") or Message()
    merged = Message()
    merged.CopyFrom(edited)
    if before.HasField("messageContextInfo") and not edited.HasField("messageContextInfo"):
        merged.messageContextInfo.CopyFrom(before.messageContextInfo)
    return message_secrets.split(merged, merged.SerializeToString())[0]
